"""Adoption of shards that another program has written: checks, counts, and a description."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from slim.common.errors import UserError, count, warn
from slim.common.files import write_whole
from slim.common.progress import progress
from slim.common.workers import WorkerError, run_jobs
from slim.datasets.images import ImageError, convert_image
from slim.datasets.lists import CLASSES, Entry, compose_class_names, find_gaps
from slim.datasets.registry import (
    KNOWN,
    DatasetDescription,
    Sizes,
    SplitDescription,
    check_sets,
    read_class_names,
)
from slim.datasets.tfrecord import LISTS, RecordError, Shard, iterate_records

FEATURES = {  # the name of each feature of a record, and the type of its value
    "image/encoded": "bytes_list",
    "image/format": "bytes_list",
    "image/class/label": "int64_list",
    "image/height": "int64_list",
    "image/width": "int64_list",
}
LABELS = "labels.txt"  # of TF-Slim: lines `0:name`
# The files that TensorFlow decodes: JPEG, PNG, GIF and BMP.
_DECODED = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")
# Such as flowers_train_00000-of-00005.tfrecord of TF-Slim, or train-00000-of-01024.
_SHARD = re.compile(r"(?:.*[_-])?(train|validation)[_-](\d{5,})-of-(\d{5,})(?:\.tfrecords?)?")


def adopt(folder: Path, *, verify: bool, num_workers: int) -> DatasetDescription:
    """Describes the shards in a folder, which remain as they are.

    Shards of other names get links. The names of the classes come from `classes.txt`, otherwise
    from `labels.txt`, whose names are then written to `classes.txt`.

    Args:
        folder: The folder of the dataset.
        verify: Decode every image.
        num_workers: Number of processes, each of which reads one shard at a time.

    Raises:
        UserError: Shards are missing or damaged, records lack a feature or an image that can be
            decoded, or labels are not dense.
    """
    # 1. Find the shards.
    paths = {}
    for path in sorted(folder.iterdir()):
        if (match := _SHARD.fullmatch(path.name)) and path.is_file():
            shard = Shard(match[1], int(match[2]), int(match[3]))
            if not path.samefile(paths.setdefault(shard, path)):
                raise UserError(
                    f"{path} and {paths[shard].name} are the same shard of two sets: move one set "
                    "to another folder"
                )
    shards = sorted(paths)
    for split_name in LISTS:
        check_sets(
            folder, split_name, [shard for shard in shards if shard.split_name == split_name]
        )

    # 2. Read them in worker processes, which leave a note on each.
    with TemporaryDirectory() as notes, progress("reading", None, " records") as shown:
        jobs = [(paths[shard], Path(notes, shard.file_name)) for shard in shards]
        work, num_workers = partial(examine, verify), min(num_workers, len(jobs))
        try:
            run_jobs(work, jobs, num_workers=num_workers, report=shown.update)
        except WorkerError as error:
            raise UserError(
                f"a worker process ended ({error}): pass a smaller --num_workers"
            ) from error
        found = [json.loads(note.read_bytes()) for _, note in jobs]
    if problems := [problem for note in found for problem in note["problems"]]:
        raise UserError(
            f"{count(len(problems), 'record')} of {folder} cannot be used, the first is "
            f"{problems[0]}; nothing was described"
        )

    # 3. Number and name the classes.
    labels = {name: Counter() for name in LISTS}
    for shard, note in zip(shards, found, strict=True):
        labels[shard.split_name].update({int(label): n for label, n in note["labels"].items()})
    names = read_names(folder)
    num_classes = check_labels(folder, labels, names)
    if names and not (folder / CLASSES).exists():
        write_whole(folder / CLASSES, compose_class_names(names))

    # 4. Describe the shards. There is no list, which tells them from those of conversion.
    for shard, path in paths.items():
        if path.name != shard.file_name:
            (folder / shard.file_name).symlink_to(path.name)
    sizes = {
        name: [paths[s].stat().st_size for s in shards if s.split_name == name] for name in LISTS
    }
    splits = {name: SplitDescription(labels[name].total(), 0, sizes[name], "") for name in LISTS}
    held = Sizes(*(split.samples for split in splits.values()), num_classes)
    if (expected := KNOWN.get(folder.name, held)) != held:
        warn(f"{folder} has {held}; the paper's {folder.name} has {expected}")
    return DatasetDescription(num_classes, 0, verify, "fail", splits)


def examine(verify: bool, job: tuple[Path, Path], count_record: Callable[[], None]) -> None:
    """Checks all records of a shard, and writes a note with labels and problems."""
    path, note = job
    labels, problems = Counter(), []
    try:
        for index, read in enumerate(iterate_records(path)):
            values = read_example(read())
            if problem := find_problem(values, verify):
                problems.append(f"record {index} of {path}: {problem}")
            else:
                labels[values["image/class/label"][0]] += 1
            count_record()
    except RecordError as error:
        problems.append(str(error))
    note.write_text(json.dumps({"labels": labels, "problems": problems}))


def read_example(serialized: bytes) -> dict[str, Sequence]:
    """Returns the values of each feature of a serialized `tf.train.Example`."""
    from slim.common.compat import tf

    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except Exception as error:  # the type depends on the version of protobuf
        raise RecordError("a record is no tf.train.Example") from error
    kinds = {name: value.WhichOneof("kind") for name, value in features.items()}
    return {
        name: list(getattr(features[name], kind).value)
        for name, kind in kinds.items()
        if kind and FEATURES.get(name, kind) == kind
    }


def find_problem(values: dict[str, Sequence], verify: bool) -> str | None:
    """Returns the problem with the values of a record, if there is one."""
    for name in FEATURES:
        if len(values.get(name, ())) != 1:
            return f"expected one {name}, found {', '.join(sorted(values)) or 'no feature'}"
    if (label := values["image/class/label"][0]) < 0:
        return f"label {label} is negative, expected 0 or more"
    if not (encoded := values["image/encoded"][0]).startswith(_DECODED):
        return "image/encoded is no JPEG, PNG, GIF or BMP file"
    try:
        if verify:
            convert_image(encoded, verify=True)
    except ImageError as error:
        return f"image/encoded {error}"
    return None


def read_names(folder: Path) -> Sequence[str] | None:
    """Returns the names of the classes of the shards in a folder, if a file has them."""
    if names := read_class_names(folder / CLASSES, None):
        return names
    path = folder / LABELS
    if not path.is_file():
        return None
    lines = [line.partition(":") for line in path.read_text("utf-8-sig").splitlines() if line]
    if [line[0] for line in lines] != [str(label) for label in range(len(lines))]:
        raise UserError(f"{path}: expected a line '0:name' for each class, in the order of labels")
    return [line[2].strip() for line in lines]


def check_labels(folder: Path, labels: dict[str, Counter], names: Sequence[str] | None) -> int:
    """Returns the number of classes after checking that the labels are dense."""
    splits = {name: [Entry("", label) for label in found] for name, found in labels.items()}
    used = {entry.label for entries in splits.values() for entry in entries}
    num_classes = len(names) if names else max(used) + 1
    if max(used) >= num_classes:
        raise UserError(
            f"{folder} has label {max(used)}, but names of {num_classes} classes in {CLASSES} or "
            f"{LABELS}: correct them"
        )
    missing = sorted(set(range(num_classes)) - used)
    if missing == [0]:
        warn(f"{folder}: label 0 has no images; pass --labels_offset=1 to networks without it")
    elif missing and names:
        warn(f"{folder}: {len(missing)} classes have no images, the first is {names[missing[0]]}")
    elif missing:
        raise UserError(f"{folder}: {find_gaps(splits)[0].text}, or name all of them in {CLASSES}")
    return num_classes
