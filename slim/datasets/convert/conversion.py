"""Conversion in parallel processes, which resumes an interrupted run."""

import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from slim.common.errors import UserError, count, show_problems, warn
from slim.common.files import exclusive, write_whole
from slim.common.progress import progress
from slim.common.workers import WorkerError, run_jobs
from slim.datasets.convert.staging import (
    Note,
    Plan,
    make_shard,
    note_path,
    publish,
    read_note,
    remove_staging,
    remove_temporary,
)
from slim.datasets.lists import count_classes, find_gaps, find_overlap
from slim.datasets.registry import (
    DESCRIPTION,
    KNOWN,
    STAGING,
    DatasetDescription,
    Sizes,
    SplitDescription,
    read_dataset_description,
    removal,
)
from slim.datasets.tfrecord import LISTS, Shard, find_shards

PROBLEMS = "conversion_problems.txt"


def convert(plan: Plan, num_workers: int | None, distribute: Callable = run_jobs) -> None:
    """Converts a dataset or resumes an interrupted conversion.

    Args:
        plan: The conversion.
        num_workers: Number of processes, each of which makes one shard at a time. None: as many
            as possible.
        distribute: Runs the jobs; has the interface of `run_jobs`.

    Raises:
        UserError: The folder has shards of another conversion, another conversion is running, or
            a list or an image is invalid and `plan.on_error` is `fail`.
        OSError: A file cannot be read or written.
    """
    started = time.monotonic()
    warn_about_lists(plan)
    if is_converted(plan) and not any(plan.folder.glob(f"{STAGING}*")):
        print(f"nothing to do: {summary(plan.folder)}")
        return
    with exclusive(plan.folder):
        publish(plan)  # if a run was interrupted while it did that
        if is_converted(plan):
            remove_staging(plan.folder)
            print(f"nothing left to do: {summary(plan.folder)}")
            return
        refuse_other_shards(plan)
        remove_staging(plan.folder, keep=plan.staging)
        num_images = make_shards(plan, num_workers, distribute)
        notes = {shard: read_note(plan, shard) for shard in plan.shards}
        report_problems(plan, notes)
        write_whole(plan.staging / DESCRIPTION, dataset_description(plan, notes).to_json())
        publish(plan)
    seconds = max(round(time.monotonic() - started, 2), 0.01)
    speed = (
        f"read {count(num_images, 'image')} in {seconds} s ({num_images / seconds:.0f} images/s)"
    )
    print(f"{summary(plan.folder)}; {speed}")


def warn_about_lists(plan: Plan) -> None:
    """Prints a warning if the lists overlap or differ in size from the dataset of the paper."""
    found = Sizes(*map(len, plan.entries.values()), count_classes(plan.entries))
    expected = KNOWN.get(plan.folder.name, found)
    if found != expected:
        warn(f"{plan.folder} lists {found}; the paper's {plan.folder.name} has {expected}")
    if both := find_overlap(plan.entries):
        images = count(len(both), "image")
        warn(f"both lists of {plan.folder} have {images} in common, the first is {both[0]}")


def summary(folder: Path) -> str:
    """Returns the sizes of a converted dataset."""
    description = read_dataset_description(folder)
    splits = description.splits.values()
    skipped = sum(split.skipped for split in splits)
    left_out = f", {count(skipped, 'line')} skipped" if skipped else ""
    return (
        f"{folder}: {count(sum(split.samples for split in splits), 'image')}, "
        f"{count(description.classes, 'class', 'classes')}, {len(description.shards)} shards"
        f"{left_out}"
    )


def is_converted(plan: Plan) -> bool:
    """Returns whether the folder already holds the result of the plan."""
    found = read_dataset_description(plan.folder)
    return (
        found is not None
        and not differences(plan, found)
        and (found.verified or not plan.verify)
        and (plan.on_error == "skip" or not any(split.skipped for split in found.splits.values()))
        and all(len(split.skipped_lines) == split.skipped for split in found.splits.values())
        and set(find_shards(plan.folder)) == set(found.shards)
        and not found.find_damage(plan.folder, found.shards)
    )


def differences(plan: Plan, found: DatasetDescription) -> list[str]:
    """Returns how an earlier conversion differs from the plan."""
    different = []
    if plan.seed != found.seed:
        different.append(f"--seed={found.seed}, not {plan.seed}")
    for split_name, split in found.splits.items():
        if plan.lists[split_name].sha256 != split.list_sha256:
            different.append(f"another {LISTS[split_name]}")
    if (num_shards := len(found.splits["train"].shard_bytes)) != plan.num_shards:
        different.append(f"--num_shards={num_shards}, not {plan.num_shards}")
    return different


def refuse_other_shards(plan: Plan) -> None:
    """Checks that the folder has no shards of another conversion.

    Raises:
        UserError: There are such shards; says how they differ.
    """
    shards = find_shards(plan.folder)
    if not shards:
        return
    found = read_dataset_description(plan.folder)
    if found is None:
        origin = f"without {DESCRIPTION}, of another script or an unfinished conversion"
    elif different := differences(plan, found):
        origin = f"made with {' and '.join(different)}"
    elif stale := [shard for shard in shards if shard not in plan.shards]:
        origin = f"of another conversion, such as {stale[0].file_name}"
    else:
        return
    raise UserError(
        f"{plan.folder} has shards {origin}: {removal(plan.folder)}, or use them as they are"
    )


def make_shards(plan: Plan, num_workers: int | None, distribute: Callable) -> int:
    """Makes the missing shards in worker processes, with a progress bar.

    Returns:
        The number of images in them.

    Raises:
        UserError: A worker was killed.
        OSError: A shard cannot be written.
    """
    plan.staging.mkdir(exist_ok=True)
    remove_temporary(plan)
    missing = [shard for shard in plan.shards if read_note(plan, shard) is None]
    num_missing = sum(len(plan.shard_entries(shard)) for shard in missing)
    total = sum(len(entries) for entries in plan.order.values())
    num_workers = min(num_workers or len(missing), len(missing))
    try:
        with progress("converting", total, " images", initial=total - num_missing) as shown:
            jobs = map(plan.job, missing)
            distribute(make_shard, jobs, num_workers=num_workers, report=shown.update)
    except WorkerError as error:
        raise UserError(
            f"a worker process was killed ({error}; -9 often means too little memory): run the "
            "same command to resume, --num_workers=1 needs the least memory"
        ) from error
    except KeyboardInterrupt:
        finished = sum(read_note(plan, shard) is not None for shard in plan.shards)
        print(
            f"stopped: {finished} of {len(plan.shards)} shards are finished and kept, "
            "run the same command to resume",
            file=sys.stderr,
        )
        raise
    finally:
        remove_temporary(plan)
    return num_missing


def report_problems(plan: Plan, notes: dict[Shard, Note]) -> None:
    """Prints the first problems with lists and images, and writes all of them to a file.

    Raises:
        UserError: There are problems and `plan.on_error` is `fail`.
    """
    problems = [problem for list_ in plan.lists.values() for problem in list_.problems]
    problems += [problem for note in notes.values() for problem in note.problems]
    problems.sort(key=lambda problem: (list(LISTS.values()).index(problem.list_name), problem.line))
    skipped = len(problems)
    problems += find_gaps(plan.entries)
    report = plan.folder / PROBLEMS
    if not problems:
        report.unlink(missing_ok=True)
        return
    if plan.on_error == "fail":  # the next run reads these images again
        for shard, note in notes.items():
            if note.problems:
                note_path(plan.staging, shard).unlink()
    write_whole(report, "".join(f"{problem}\n" for problem in problems))
    show_problems(problems)
    if plan.on_error == "fail":
        raise UserError(
            f"{count(len(problems), 'problem')} in {plan.folder}, listed in {report}: fix lists "
            "and images, or skip such lines with --on_error=skip; nothing was converted"
        )
    warn(f"{count(skipped, 'line')} skipped, see {report}")


def dataset_description(plan: Plan, notes: dict[Shard, Note]) -> DatasetDescription:
    """Returns the description of the finished shards.

    Raises:
        UserError: A split has no image.
    """
    splits = {}
    for split_name, list_ in plan.lists.items():
        shards = [shard for shard in plan.shards if shard.split_name == split_name]
        samples = sum(notes[shard].samples for shard in shards)
        if not samples:
            raise UserError(f"no image of {plan.folder / LISTS[split_name]} can be used")
        problems = [*list_.problems, *chain(*(notes[shard].problems for shard in shards))]
        splits[split_name] = SplitDescription(
            samples=samples,
            skipped=len(problems),
            shard_bytes=[notes[shard].size for shard in shards],
            list_sha256=list_.sha256,
            skipped_lines=sorted(problem.line for problem in problems),
        )
    return DatasetDescription(
        classes=count_classes(plan.entries),
        seed=plan.seed,
        verified=all(note.verified for note in notes.values()),
        on_error=plan.on_error,
        splits=splits,
    )
