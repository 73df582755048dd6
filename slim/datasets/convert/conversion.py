"""Image lists to sharded TFRecords, in parallel, resumed where an earlier run was stopped."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from slim.common.errors import UserError, show_problems, warn
from slim.common.files import exclusive, write_whole
from slim.common.workers import WorkerError, run_jobs
from slim.datasets.convert.staging import (
    Note,
    Plan,
    make_shard,
    note_path,
    publish,
    read_note,
    remove_half_written,
    remove_staging,
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
BAR_SECONDS = 1  # shorter runs get no progress bar where there is no terminal


def convert(plan: Plan, num_workers: int | None, distribute: Callable = run_jobs) -> None:
    """Converts a dataset, or what an earlier run left of it.

    Args:
        plan: What to convert.
        num_workers: Processes, each of which makes a shard at a time. None: as many as can be.
        distribute: Does the work in so many of them, called as `run_jobs` is.

    Raises:
        UserError: Shards of another conversion lie in the folder, another conversion is running
            there, or something is wrong with images or lists and `plan.on_error` is `fail`.
        OSError: Something cannot be read or written.
    """
    started = time.monotonic()
    warn_of_oddities(plan)
    if is_converted(plan) and not any(plan.folder.glob(f"{STAGING}*")):
        print(f"nothing to do: {summarize(plan.folder)}")
        return
    with exclusive(plan.folder):
        publish(plan)  # where a run was stopped in the midst of that
        if is_converted(plan):
            remove_staging(plan.folder)
            print(f"nothing left to do: {summarize(plan.folder)}")
            return
        refuse_other_shards(plan)
        remove_staging(plan.folder, keep=plan.staging)
        num_images = make_shards(plan, num_workers, distribute)
        notes = {shard: read_note(plan, shard) for shard in plan.shards}
        judge_problems(plan, notes)
        write_whole(plan.staging / DESCRIPTION, describe(plan, notes).to_json())
        publish(plan)
    seconds = time.monotonic() - started
    speed = f"in {seconds:.1f} s ({num_images / seconds:.0f} images/s)"
    print(f"{summarize(plan.folder)}, {speed}")


def warn_of_oddities(plan: Plan) -> None:
    """Says on stderr what is unusual about the lists, yet no reason to stop."""
    found = Sizes(*(len(list_.entries) for list_ in plan.lists.values()), count_classes(plan.lists))
    expected = KNOWN.get(plan.folder.name, found)
    if found != expected:
        warn(f"{plan.folder} lists {found}; the paper's {plan.folder.name} has {expected}")
    if both := find_overlap(plan.lists):
        warn(f"{len(both)} images are in both lists of {plan.folder}, the first is {both[0]}")


def summarize(folder: Path) -> str:
    """A converted dataset in a few words."""
    description = read_dataset_description(folder)
    splits = description.splits.values()
    skipped = sum(split.skipped for split in splits)
    return (
        f"{folder}: {sum(split.samples for split in splits)} images, "
        f"{description.classes} classes, {len(description.shards)} shards"
        f"{f', {skipped} lines left out' if skipped else ''}"
    )


def is_converted(plan: Plan) -> bool:
    """Whether the folder holds, whole, what the plan would make."""
    found = read_dataset_description(plan.folder)
    return (
        found is not None
        and not differences(plan, found)
        and (found.verified or not plan.verify)
        and (plan.on_error == "skip" or not any(split.skipped for split in found.splits.values()))
        and set(find_shards(plan.folder)) == set(found.shards)
        and not found.find_damage(plan.folder, found.shards)
    )


def differences(plan: Plan, found: DatasetDescription) -> list[str]:
    """What the shards of an earlier conversion were made of that the plan has otherwise."""
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
    """Keeps shards of another conversion from being mixed with the plan's, or overwritten.

    Raises:
        UserError: There are some; says how they differ.
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
    raise UserError(f"{plan.folder} has shards {origin}: {removal(plan.folder)} or keep to them")


def make_shards(plan: Plan, num_workers: int | None, distribute: Callable) -> int:
    """Makes the shards that are lacking, in worker processes, and shows progress.

    Args:
        plan: The conversion.
        num_workers: See `convert`.
        distribute: See `convert`.

    Returns:
        The number of images in them.

    Raises:
        UserError: A worker was killed.
        OSError: A shard cannot be written.
    """
    plan.staging.mkdir(exist_ok=True)
    remove_half_written(plan)
    lacking = [shard for shard in plan.shards if read_note(plan, shard) is None]
    num_lacking = sum(len(plan.entries(shard)) for shard in lacking)
    total = sum(len(entries) for entries in plan.order.values())
    try:
        with Progress(total, initial=total - num_lacking) as progress:
            num_workers = min(num_workers or len(lacking), len(lacking))
            jobs = map(plan.job, lacking)
            distribute(make_shard, jobs, num_workers=num_workers, report=progress.add)
    except WorkerError as error:
        raise UserError(
            f"a worker was stopped ({error}; -9 is often a lack of memory): the same command goes "
            f"on from there, --num_workers=1 needs the least memory"
        ) from error
    except KeyboardInterrupt:
        finished = sum(read_note(plan, shard) is not None for shard in plan.shards)
        print(
            f"stopped: {finished} of {len(plan.shards)} shards are finished and kept, "
            f"the same command goes on from there",
            file=sys.stderr,
        )
        raise
    finally:
        remove_half_written(plan)
    return num_lacking


def judge_problems(plan: Plan, notes: dict[Shard, Note]) -> None:
    """Reports all that is wrong with lists and images: on stderr the first, in a file all.

    Raises:
        UserError: Something is wrong and `plan.on_error` is `fail`, or nothing right is left.
    """
    problems = [problem for list_ in plan.lists.values() for problem in list_.problems]
    problems += [problem for note in notes.values() for problem in note.problems]
    problems.sort(key=lambda problem: (list(LISTS.values()).index(problem.list_name), problem.line))
    skipped = len(problems)
    problems += find_gaps(plan.lists)
    report = plan.folder / PROBLEMS
    if not problems:
        report.unlink(missing_ok=True)
        return
    if plan.on_error == "fail":  # what is wrong now may be right in the next run
        for shard, note in notes.items():
            if note.problems:
                note_path(plan.staging, shard).unlink()
    write_whole(report, "".join(f"{problem}\n" for problem in problems))
    show_problems(problems)
    if plan.on_error == "fail":
        raise UserError(
            f"{len(problems)} problems in {plan.folder}, all of them in {report}: mend them, or "
            f"leave such lines out with --on_error=skip; nothing was converted"
        )
    warn(f"{skipped} lines left out, all problems are in {report}")


def describe(plan: Plan, notes: dict[Shard, Note]) -> DatasetDescription:
    """Counts what is in the finished shards.

    Raises:
        UserError: Nothing is in those of a split.
    """
    splits = {}
    for split_name, list_ in plan.lists.items():
        shards = [shard for shard in plan.shards if shard.split_name == split_name]
        samples = sum(notes[shard].samples for shard in shards)
        if not samples:
            raise UserError(f"no image of {plan.folder / LISTS[split_name]} can be used")
        splits[split_name] = SplitDescription(
            samples=samples,
            skipped=len(list_.problems) + len(list_.entries) - samples,
            shard_bytes=[notes[shard].size for shard in shards],
            list_sha256=list_.sha256,
        )
    return DatasetDescription(
        classes=count_classes(plan.lists),
        seed=plan.seed,
        verified=all(note.verified for note in notes.values()),
        on_error=plan.on_error,
        splits=splits,
    )


class Progress:
    """A progress bar that appears when a run takes a while."""

    def __init__(self, total: int, initial: int) -> None:
        self._total, self._initial, self._done = total, initial, initial
        self._appears = time.monotonic() + (0 if sys.stderr.isatty() else BAR_SECONDS)
        self._bar = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, images: int) -> None:
        """Counts images."""
        self._done += images
        if self._bar is None and time.monotonic() > self._appears:
            from tqdm import tqdm  # takes longer to import than a small dataset to convert

            self._bar = tqdm(
                total=self._total,
                initial=self._initial,
                unit=" images",
                mininterval=0.1 if sys.stderr.isatty() else 10,
            )
        if self._bar is not None:
            self._bar.update(self._done - self._bar.n)
