"""Adoption of shards that another program has written: checks, counts, and a description."""

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from slim.common.errors import UserError, warn
from slim.common.files import make_link, write_whole
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

FEATURES = {f"image/{name}": "bytes_list" for name in ("encoded", "format")}
FEATURES |= {f"image/{name}": "int64_list" for name in ("class/label", "height", "width")}
LABELS = "labels.txt"  # of TF-Slim: lines `0:name`
# Beginnings of the files that TensorFlow decodes: JPEG, PNG, GIF and BMP.
_DECODED = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")
# Such as flowers_train_00000-of-00005.tfrecord of TF-Slim, or train-00000-of-01024.
_SHARD = re.compile(r"(?:.*[_-])?(train|validation)[_-](\d{5,})-of-(\d{5,})(?:\.tfrecords?)?")


def adopt(folder: Path, verify: bool, num_workers: int) -> DatasetDescription:
    """Describes the shards in a folder, which remain as they are; those of other names get links.

    Each worker process reads one shard at a time; `verify` decodes every image. The names of the
    classes come from `classes.txt`, otherwise from `labels.txt`, and then go to `classes.txt`.

    Raises:
        UserError: A shard is missing or damaged, a record lacks a feature or an image that can be
            decoded, or labels are not dense.
    """
    # 1. Find the shards.
    paths = {}
    for path in sorted(folder.iterdir()):
        if match := _SHARD.fullmatch(path.name):
            shard = Shard(match[1], int(match[2]), int(match[3]))
            if not path.samefile(paths.setdefault(shard, path)):
                pair = f"{path} and {paths[shard].name}"
                raise UserError(f"{pair} are the same shard of two sets: move one set away")
    for split_name in LISTS:
        check_sets(folder, split_name, [shard for shard in paths if shard.split_name == split_name])

    # 2. Read them in worker processes, which leave a note on each.
    with TemporaryDirectory() as notes, progress("reading", None, " records") as shown:
        jobs = [(path, Path(notes, path.name)) for path in paths.values()]
        work, num_workers = partial(examine, verify), min(num_workers, len(jobs))
        try:
            run_jobs(work, jobs, num_workers=num_workers, report=shown.update)
        except WorkerError as error:
            raise UserError(f"a worker process ended ({error}): try --num_workers=1") from error
        found = [json.loads(note.read_bytes()) for _, note in jobs]
    if problems := [problem for _, problem in found if problem]:
        raise UserError(f"{problems[0]}; nothing was described")
    labels = {split_name: Counter() for split_name in LISTS}
    for shard, (counted, _) in zip(paths, found, strict=True):
        labels[shard.split_name].update({int(label): number for label, number in counted.items()})
    if empty := [split_name for split_name, counted in labels.items() if not counted]:
        raise UserError(f"the {empty[0]} shards in {folder} have no records")
    num_classes = name_classes(folder, labels)

    # 3. Describe them. There is no list, which tells them from the shards of conversion.
    for shard, path in paths.items():
        if not (link := folder / shard.file_name).exists():
            make_link(link, Path(path.name), "rename the shards instead")
    splits = {
        split_name: SplitDescription(
            samples=counted.total(),
            skipped=0,
            shard_bytes=[paths[s].stat().st_size for s in sorted(paths) if s[0] == split_name],
            list_sha256="",
        )
        for split_name, counted in labels.items()
    }
    sizes = Sizes(*(split.samples for split in splits.values()), num_classes)
    if (expected := KNOWN.get(folder.name, sizes)) != sizes:
        warn(f"{folder} has {sizes}; the paper's {folder.name} has {expected}")
    return DatasetDescription(num_classes, 0, verify, "fail", splits)


def examine(verify: bool, job: tuple[Path, Path], count_record: Callable[[], None]) -> None:
    """Checks the records of a shard, and notes how many have each label, or the first problem."""
    path, note = job
    labels, problem = Counter(), None
    try:
        for read in iterate_records(path):
            labels[check_record(read(), verify)] += 1
            count_record()
    except (RecordError, ImageError) as error:
        problem = f"{path}: record {labels.total()}: {error}"
    note.write_text(json.dumps([labels, problem]))


def check_record(serialized: bytes, verify: bool) -> int:
    """Returns the label of a record after checking that training can use it."""
    from slim.common.compat import tf

    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except Exception as error:  # the type depends on the version of protobuf
        raise RecordError("not a tf.train.Example") from error
    names = ", ".join(sorted(features)) or "no feature"
    values = {name: list(getattr(features[name], kind).value) for name, kind in FEATURES.items()}
    for name, listed in values.items():
        if len(listed) != 1:
            raise RecordError(f"expected one {name} ({FEATURES[name]}), found {names}")
    (label,), (encoded,) = values["image/class/label"], values["image/encoded"]
    if label < 0:
        raise RecordError(f"label {label} is negative, expected 0 or more")
    if not encoded.startswith(_DECODED):
        raise RecordError("image/encoded is no JPEG, PNG, GIF or BMP file")
    if verify:
        convert_image(encoded, verify)
    return label


def name_classes(folder: Path, labels: dict[str, Counter]) -> int:
    """Returns the number of classes; checks that labels are dense, and writes `classes.txt`."""
    names, path = read_class_names(folder / CLASSES, None), folder / LABELS
    if not names and path.is_file():
        lines = [line.partition(":") for line in path.read_text("utf-8-sig").splitlines() if line]
        if [line[0] for line in lines] != [str(label) for label in range(len(lines))]:
            raise UserError(f"{path}: expected a line '0:name' per class, in the order of labels")
        names = [line[2].strip() for line in lines]
    used = set().union(*labels.values())
    num_classes = len(names or range(max(used) + 1))
    if max(used) >= num_classes:
        raise UserError(f"{folder} has label {max(used)}, but names of {num_classes} classes")
    missing = sorted(set(range(num_classes)) - used)
    if missing == [0]:
        warn(f"{folder}: label 0 has no images; pass --labels_offset=1 to networks without it")
    elif missing and names:
        warn(f"{folder}: {len(missing)} classes have no images, the first is {names[missing[0]]}")
    elif missing:
        problem = find_gaps({"": [Entry("", label) for label in used]})[0].text
        raise UserError(f"{folder}: {problem}, or name all of them in {CLASSES}")
    if names and not (folder / CLASSES).exists():
        write_whole(folder / CLASSES, compose_class_names(names))
    return num_classes
