"""Converts image lists to sharded TFRecords: `python convert_dataset.py --dataset_name=cub_200`.

The same command resumes a run that was stopped at any moment.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path

from absl import flags

from slim.common import ray_cluster
from slim.common.command_line import FlagSet, available_cores, run_command
from slim.common.errors import UserError, count, show_problems, warn
from slim.common.files import exclusive, write_whole
from slim.common.progress import progress
from slim.common.workers import WorkerError, run_jobs
from slim.datasets.lists import count_classes, find_gaps, read_list
from slim.datasets.registry import (
    DESCRIPTION,
    KNOWN,
    PIXEL_SETTINGS,
    STAGING,
    DatasetDescription,
    Sizes,
    SplitDescription,
    dataset_folder,
    listed_splits,
    read_dataset_description,
    removal,
)
from slim.datasets.staging import Note, Plan, make_shard, note_path, publish, remove_staging
from slim.datasets.tfrecord import LISTS, RecordError, Shard, count_records, find_shards

PROBLEMS = "conversion_problems.txt"


def define_flags(values: flags.FlagValues) -> None:
    define = FlagSet(values)
    define.string("dataset_name", None, "The dataset, a folder in --dataset_dir.")
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    define.integer("num_shards", 10, "Shards per split.", 1, 99_999)
    define.integer("num_workers", None, "Worker processes. Default: one per CPU core.", 1)
    define.integer("seed", 0, "Determines the order of the training images.")
    define.boolean("verify", True, "Decode every image. Otherwise only read the header of a JPEG.")
    text = "Turn images as the orientation in their EXIF says. Otherwise it is ignored."
    define.boolean("apply_orientation", False, text)
    text = "Shrink images whose longer side is longer, in pixels. Default: keep all sizes."
    define.integer("max_side", None, text, 16, 65_500)
    define.choice("on_error", "fail", ["fail", "skip"], "What to do about invalid images.")
    define.boolean("adopt", False, "Describe the shards of another program in dataset.json.")
    ray_cluster.define_ray_flags(define)


def main(values: flags.FlagValues) -> None:
    """Converts the images listed in train.txt and val.txt to sharded TFRecords."""
    folder = dataset_folder(values.dataset_name, values.dataset_dir)
    try:
        if values.adopt:
            adopt_shards(folder, values.verify, values.num_workers or available_cores())
            return
        plan = Plan(
            folder=folder,
            lists={name: read_list(folder / LISTS[name]) for name in listed_splits(folder)},
            num_shards=values.num_shards,
            seed=values.seed,
            verify=values.verify,
            on_error=values.on_error,
            apply_orientation=values.apply_orientation,
            max_side=values.max_side,
        )
        if values.ray or values.ray_address:
            convert(plan, values.num_workers, partial(ray_cluster.run_jobs, values.ray_address))
        else:
            convert(plan, values.num_workers or available_cores())
    except BrokenPipeError:  # of the output
        raise
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror}: fix this, then run the same command "
            "to resume"
        ) from error


def convert(plan: Plan, num_workers: int | None, distribute: Callable = run_jobs) -> None:
    """Converts a dataset or resumes an interrupted conversion.

    Each of `num_workers` processes, by default as many as possible, makes one shard at a time.
    `distribute` has the interface of `run_jobs`.
    """
    started, folder = time.monotonic(), plan.folder

    # Say what is unusual about the lists. Invalid lines and copies come below.
    sizes = [len(plan.entries.get(split_name, [])) for split_name in LISTS]
    found = Sizes(*sizes, count_classes(plan.entries))
    expected = KNOWN.get(folder.name, found)
    if found != expected:
        warn(f"{folder} lists {found}; the paper's {folder.name} has {expected}")
    if found.classes == 1:
        warn(f"{folder} has one class: any network that is trained on it is always right")
    if "validation" not in plan.lists:
        print(f"note: {folder} has no {LISTS['validation']}, and thus no validation split")
    if repeated := plan.lists["train"].repeated:
        lines = count(repeated, "line of train.txt repeats", "lines of train.txt repeat")
        print(f"note: {lines} an image, which oversamples it")

    # Decide how to start; the order matters:
    # 1. A finished conversion is left alone; not even its folder is touched.
    if is_converted(plan) and not any(folder.glob(f"{STAGING}*")):
        print(f"nothing to do: {summary(folder)}")
        return
    with exclusive(folder):
        # 2. A run that was killed while it published its shards is completed.
        publish(plan)
        if is_converted(plan):
            remove_staging(folder)
            print(f"nothing left to do: {summary(folder)}")
            return
        # 3. Shards of another conversion are not replaced without a word.
        refuse_other_shards(plan)
        # 4. Finished shards of the same conversion are kept, those of others go.
        remove_staging(folder, keep=plan.staging)
        num_images = make_shards(plan, num_workers, distribute)

        # All shards exist. Problems stop the conversion here, once all of them are known.
        notes = {shard: plan.read_note(shard) for shard in plan.shards}
        report_copies(plan, notes)
        report_problems(plan, notes)
        if oriented := sum(note.oriented for note in notes.values()):
            images = f"{count(oriented, 'image')} of {plan.folder} with an orientation in EXIF"
            if plan.apply_orientation:
                print(f"{images}: turned upright")
            else:
                warn(f"{images}, which is ignored: --apply_orientation turns such images upright")
        write_whole(plan.staging / DESCRIPTION, describe(plan, notes).to_json())
        publish(plan)
    seconds = max(round(time.monotonic() - started, 2), 0.01)
    speed = f"{num_images / seconds:.0f} images/s"
    print(f"{summary(folder)}; read {count(num_images, 'image')} in {seconds} s ({speed})")


def adopt_shards(folder: Path, verify: bool, num_workers: int) -> None:
    """Describes the shards of another program in `dataset.json`."""
    from slim.datasets.adoption import adopt

    with exclusive(folder):
        found = read_dataset_description(folder)
        if found and not found.adopted:
            raise UserError(f"--adopt: convert_dataset.py made the shards in {folder}; omit it")
        description = adopt(folder, verify, num_workers)
        write_whole(folder / DESCRIPTION, description.to_json())
    print(f"{summary(folder)}, as they were")


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
    for name in ("seed", *PIXEL_SETTINGS):
        if (wanted := getattr(plan, name)) != (made := getattr(found, name)):
            different.append(f"--{name}={made}, not {wanted}")
    for split_name, list_name in LISTS.items():
        listed, split = plan.lists.get(split_name), found.splits.get(split_name)
        if (listed and listed.sha256) != (split and split.list_sha256):
            different.append(f"{'another' if split else 'no'} {list_name}")
    if (num_shards := len(found.splits["train"].shard_bytes)) != plan.num_shards:
        different.append(f"--num_shards={num_shards}, not {plan.num_shards}")
    return different


def refuse_other_shards(plan: Plan) -> None:
    """Refuses a folder with shards of another conversion; says how they differ."""
    shards = find_shards(plan.folder)
    if not shards:
        return
    found = read_dataset_description(plan.folder)
    remedy = f"{removal(plan.folder, found)}, or use them as they are"
    if found is None:
        origin = f"without {DESCRIPTION}, of another program or an unfinished conversion"
    elif found.adopted:
        origin = "of another program"
    elif different := differences(plan, found):
        origin = f"made with {' and '.join(different)}"
    elif others := [shard for shard in shards if is_other(plan, found, shard)]:
        origin = f"that {DESCRIPTION} does not describe, such as {others[0].file_name}"
        remedy = "move such shards to another folder"
    else:
        return  # they are damaged or unverified, and are made again
    raise UserError(f"{plan.folder} has shards {origin}: {remedy}")


def is_other(plan: Plan, found: DatasetDescription, shard: Shard) -> bool:
    """Returns whether a shard is not one of those described, not even a damaged one."""
    if shard not in plan.shards:
        return True
    try:
        is_damaged = found.find_damage(plan.folder, [shard])
        return bool(is_damaged and count_records(plan.folder / shard.file_name))
    except RecordError:
        return False


def make_shards(plan: Plan, num_workers: int | None, distribute: Callable) -> int:
    """Makes the missing shards in worker processes, and returns the number of their images."""
    plan.staging.mkdir(exist_ok=True)
    plan.remove_temporary()
    # Shards with a note were finished by an earlier run.
    missing = [shard for shard in plan.shards if plan.read_note(shard) is None]
    num_missing = sum(len(plan.shard_entries(shard)) for shard in missing)
    total = sum(map(len, plan.entries.values()))
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
        finished = sum(plan.read_note(shard) is not None for shard in plan.shards)
        print(
            f"stopped: {finished} of {len(plan.shards)} shards are finished and kept, "
            "run the same command to resume",
            file=sys.stderr,
        )
        raise
    finally:
        plan.remove_temporary()
    return num_missing


def report_copies(plan: Plan, notes: dict[Shard, Note]) -> None:
    """Warns of images that both splits have, and of images with two labels."""
    copies = plan.find_copies(notes)
    across = [pair for pair in copies if pair[0].list_name != pair[1].list_name]
    mislabelled = [pair for pair in copies if pair[0].entry.label != pair[1].entry.label]
    for found, what, advice in (
        (across, "in both splits, byte for byte", "evaluation counts what was trained on"),
        (mislabelled, "there with two labels", "one of them is wrong"),
    ):
        if found:
            first, copy = min(found, key=lambda pair: pair[1].entry.line)
            number = len({copy.entry.path for _, copy in found})  # lines may repeat
            warn(
                f"{plan.folder}: {count(number, 'image is', 'images are')} {what}, so that "
                f"{advice}; such as {first} and {copy}"
            )


def report_problems(plan: Plan, notes: dict[Shard, Note]) -> None:
    """Prints the first problems with lists and images, and writes all of them to a file."""
    # 1. Collect the problems in the order of the lists; gaps between labels are one of both lists.
    problems = [problem for list_ in plan.lists.values() for problem in list_.problems]
    problems += [problem for note in notes.values() for problem in note.problems]
    problems.sort(key=lambda problem: (list(LISTS.values()).index(problem.list_name), problem.line))
    skipped = len(problems)
    problems += find_gaps(plan.entries)
    report = plan.folder / PROBLEMS
    if not problems:
        report.unlink(missing_ok=True)
        return
    # 2. Without its note, a shard is made again: the next run reads images that were mended.
    if plan.on_error == "fail":
        for shard, note in notes.items():
            if note.problems:
                note_path(plan.staging, shard).unlink()
    # 3. Report them.
    write_whole(report, "".join(f"{problem}\n" for problem in problems))
    show_problems(problems)
    if plan.on_error == "fail":
        raise UserError(
            f"{count(len(problems), 'problem')} in {plan.folder}, listed in {report}: fix lists "
            "and images, or skip such lines with --on_error=skip; nothing was converted"
        )
    warn(f"{count(skipped, 'line')} skipped, see {report}")


def describe(plan: Plan, notes: dict[Shard, Note]) -> DatasetDescription:
    """Returns the description of the finished shards."""
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
        apply_orientation=plan.apply_orientation,
        max_side=plan.max_side,
    )


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


command = partial(run_command, define_flags, main, description=__doc__)


if __name__ == "__main__":
    command()
