"""The shards of a split, and batches of their images and labels, with `tf.data`."""

import hashlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from slim.common.command_line import available_cores
from slim.common.compat import compared_by_identity, tf
from slim.common.errors import UserError, count
from slim.datasets.lists import CLASSES
from slim.datasets.registry import (
    DESCRIPTION,
    KNOWN,
    STAGING,
    Sizes,
    check_sets,
    check_split,
    conversion_command,
    dataset_folder,
    pixel_settings,
    read_class_names,
    read_converted_list,
    read_dataset_description,
    removal,
)
from slim.datasets.tfrecord import LISTS, RecordError, count_records, find_shards, read_records

BATCHES_AHEAD = 2  # per clone, as published
LABEL_OUT_OF_RANGE = "label out of range"

Preprocess = Callable[..., tf.Tensor]

# Raised by a step; `explain_input_error` tells those that a user can fix.
EXPLAINED_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.DataLossError,
    tf.errors.ResourceExhaustedError,
)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A split of a converted dataset."""

    name: str
    split_name: str  # "train" | "validation"
    files: tuple[str, ...]  # paths of the shards, in order
    num_samples: int
    num_classes: int
    class_names: tuple[str, ...] | None = None  # from classes.txt, by label
    apply_orientation: bool = False  # whether conversion has turned images as EXIF says


@dataclass(frozen=True, kw_only=True)
class InputSettings:
    """Settings of the batches of a split."""

    image_size: int  # height and width in pixels
    batch_size: int
    num_classes: int  # of the network
    labels_offset: int = 0  # subtracted from every label
    num_threads: int | None = None  # images preprocessed in parallel; one per core by default
    num_readers: int = 4  # shards read in parallel, in training
    seed: int | tf.Tensor | None = None  # of order and distortions; different in every run
    num_clones: int = 1  # each of which takes a batch per step
    num_workers: int = 1  # which share the training images
    worker: int = 0


def get_dataset(name: str, split_name: str, dataset_dir: str | Path) -> Dataset:
    """Finds the shards of a split and checks that they are complete and up to date.

    Errors say how to convert the dataset.
    """
    # 1. Find the shards.
    if split_name not in LISTS:
        raise UserError(f"no split '{split_name}': expected {' or '.join(LISTS)}")
    folder = dataset_folder(name, dataset_dir)
    settings = pixel_settings([folder])
    command = conversion_command(name, dataset_dir, **settings)
    if any(folder.glob(f"{STAGING}*/{DESCRIPTION}")):
        raise UserError(f"the conversion of {folder} was interrupted: finish it with `{command}`")
    shards = [shard for shard in find_shards(folder) if shard.split_name == split_name]
    if not shards:
        check_split(folder, split_name)
        others = ", or describe others with --adopt" * any(folder.glob("*-of-?????*"))
        raise UserError(f"no {split_name} shards in {folder}: make them with `{command}`{others}")

    # 2. They have to agree with the description and with the lists. The published script writes no
    #    description. For its shards, the sizes are those of the paper.
    description = read_dataset_description(folder)
    remedy = removal(folder, description)
    if description:
        described = [shard for shard in description.shards if shard.split_name == split_name]
        if stale := [shard for shard in shards if shard not in described]:
            raise UserError(
                f"{folder / stale[0].file_name} is not part of the conversion that {DESCRIPTION} "
                f"describes ({len(described)} {split_name} shards): move the {len(stale)} others "
                "to another folder"
            )
        if damage := description.find_damage(folder, described):
            again = remedy if description.adopted else f"convert again with `{command}`"
            raise UserError(f"{damage}: {again}")
        for listed, list_name in LISTS.items():
            path, split = folder / list_name, description.splits.get(listed)
            expected = split.list_sha256 if split else "none"
            changed = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != expected
            if expected and changed:
                raise UserError(
                    f"{path} has changed since the shards were made: {remedy}, and convert with "
                    f"`{command}`"
                )
        num_samples = description.splits[split_name].samples
        num_classes = description.classes
    else:
        check_sets(folder, split_name, shards)
        sizes = KNOWN.get(name)
        _check_records([folder / shard.file_name for shard in shards], split_name, sizes, remedy)
        num_samples, num_classes = getattr(sizes, split_name), sizes.classes
        print(
            f"note: {folder} has no {DESCRIPTION}; using the paper's sizes for {name}: {sizes}",
            file=sys.stderr,
        )
    return Dataset(
        name=name,
        split_name=split_name,
        files=tuple(str(folder / shard.file_name) for shard in shards),
        num_samples=num_samples,
        num_classes=num_classes,
        class_names=read_class_names(folder / CLASSES, num_classes),
        apply_orientation=bool(settings["apply_orientation"]),
    )


def _check_records(
    paths: Sequence[Path], split_name: str, sizes: Sizes | None, remedy: str
) -> None:
    """Checks that shards without a description hold the images of a dataset of the paper."""
    try:
        first = count_records(paths[0])
        # The first shard tells, which has its share; all records are counted if it differs.
        if sizes:
            expected = getattr(sizes, split_name)
            if expected // len(paths) <= first <= -(-expected // len(paths)) or (
                sum(map(count_records, paths)) == expected
            ):
                return
            remedy = f"expected {expected} in all as in the paper; {remedy}"
        features = tf.train.Example.FromString(read_records(paths[:1], [0]).get(0, b"")).features
    except (RecordError, DecodeError) as error:
        raise UserError(f"{error}: get the shards again") from None
    raise UserError(
        f"{paths[0].parent} has {count(len(paths), f'{split_name} shard')} but no {DESCRIPTION}; "
        f"the first has {count(first, 'record')} with {', '.join(sorted(features.feature))}: "
        f"{remedy}"
    )


def number_of_classes(dataset_classes: int, labels_offset: int) -> int:
    """Returns the number of classes of a network: a negative offset adds some, as published."""
    if labels_offset >= dataset_classes:
        raise UserError(
            f"--labels_offset={labels_offset}: expected {dataset_classes - 1} at most, "
            f"the dataset has {dataset_classes} classes"
        )
    return dataset_classes - labels_offset


def images_per_class(
    folder: Path, split_name: str, num_classes: int, labels_offset: int
) -> np.ndarray | None:
    """Returns the images per class of a network, int64 `[C]`, in the list of a split, if any."""
    if not (folder / LISTS[split_name]).is_file():
        return None
    entries = read_converted_list(folder, LISTS[split_name], strict=False).entries
    labels = np.array([entry.label - labels_offset for entry in entries], np.int64)
    return np.bincount(labels[(labels >= 0) & (labels < num_classes)], minlength=num_classes)


def training_batches(
    dataset: Dataset, preprocess: Preprocess, settings: InputSettings
) -> tf.data.Dataset:
    """Returns endless batches of shuffled epochs, each with every image of this worker once.

    The order of the shards is shuffled, then the records that are read from several shards. The
    last batch of an epoch is completed from the next epoch.

    Returns:
        Images, float32 `[batch_size, image_size, image_size, 3]`, and labels, int64 `[batch_size]`.
    """
    # Of several workers, each reads every `num_workers`-th shard if the number of shards allows it,
    # otherwise every `num_workers`-th record of each shard.
    seed, files, read = settings.seed, list(dataset.files), tf.data.TFRecordDataset
    if len(files) % settings.num_workers == 0:
        files = files[settings.worker :: settings.num_workers]
    else:

        def read(file: tf.Tensor) -> tf.data.Dataset:
            return tf.data.TFRecordDataset(file).shard(settings.num_workers, settings.worker)

    # TensorFlow compares seeds with 0 in Python, which a tensor allows only by identity.
    with compared_by_identity():
        # Shards in random order, records of several shards in turn, then a buffer of 20 batches.
        records = (
            tf.data.Dataset.from_tensor_slices(files)
            .shuffle(len(files), seed=seed)
            .interleave(
                read,
                cycle_length=settings.num_readers,
                num_parallel_calls=settings.num_readers,
                deterministic=seed is not None,
            )
            .shuffle(min(20 * settings.batch_size, dataset.num_samples), seed=seed)
            .repeat()
        )
        seeds = tf.data.Dataset.random(seed).batch(2)
    examples = tf.data.Dataset.zip((records, seeds)).map(
        partial(_parse_and_preprocess, preprocess, settings),
        num_parallel_calls=settings.num_threads or available_cores(),
        deterministic=seed is not None,
    )
    batches = examples.batch(settings.batch_size, drop_remainder=True)
    return prefetch(batches, settings.num_clones)


def evaluation_batches(
    dataset: Dataset, preprocess: Preprocess, settings: InputSettings
) -> tf.data.Dataset:
    """Returns batches with every image once, in the order of the shards.

    The last batch may be smaller than `batch_size`.

    Returns:
        Images, float32 `[batch, image_size, image_size, 3]`, or `[batch, views, ...]` with several
        views per image, and labels, int64 `[batch]`.
    """
    records = tf.data.TFRecordDataset(list(dataset.files))
    examples = records.map(
        partial(_parse_and_preprocess, preprocess, settings),
        num_parallel_calls=settings.num_threads or available_cores(),
    )
    return prefetch(examples.batch(settings.batch_size))


def _parse_and_preprocess(
    preprocess: Preprocess,
    settings: InputSettings,
    serialized: tf.Tensor,
    seed: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    encoded, label = parse_example(serialized, settings.num_classes, settings.labels_offset)
    size, options = settings.image_size, {} if seed is None else {"seed": seed}
    return preprocess(encoded, size, size, **options), label


def parse_example(serialized: tf.Tensor, num_classes: int, labels_offset: int = 0) -> tuple:
    """Returns the encoded image and the label, int64, of a record; checks the label's range."""
    features = tf.io.parse_single_example(
        serialized,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    label = features["image/class/label"] - labels_offset
    in_range = tf.Assert(
        (label >= 0) & (label < num_classes),
        [LABEL_OUT_OF_RANGE, features["image/class/label"], labels_offset, num_classes],
    )
    with tf.control_dependencies([in_range]):
        return features["image/encoded"], tf.identity(label)


def prefetch(batches: tf.data.Dataset, num_clones: int = 1) -> tf.data.Dataset:
    """Prepares batches ahead of their use, `BATCHES_AHEAD` per clone.

    Autotuning is disabled: its thread sometimes misses the end of an iterator, and closing or
    restarting the iterator then takes up to a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(BATCHES_AHEAD * num_clones).with_options(options)


def next_batch(iterator: tf.data.Iterator) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns images, labels, and the seconds that the step waited for them, a float64 scalar."""
    with tf.device("/device:CPU:0"):
        asked = tf.timestamp()
        with tf.control_dependencies([asked]):
            images, labels = iterator.get_next()
        with tf.control_dependencies([images, labels]):
            return images, labels, tf.timestamp() - asked


def explain_input_error(error: tf.errors.OpError) -> Exception:
    """Returns a `UserError` for a problem with a shard or memory, or the error itself otherwise."""
    message = str(error)
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return UserError("out of memory: pass a smaller --batch_size or smaller images")
    label = re.search(rf"{LABEL_OUT_OF_RANGE}\] \[(-?\d+)\] \[(-?\d+)\] \[(\d+)\]", message)
    if label:
        found, offset, classes = label.groups()
        return UserError(
            f"label {found} in a shard is out of range with --labels_offset={offset}, the network "
            f"has {classes} classes (0 to {int(classes) - 1}); convert the dataset again or "
            "correct the offset"
        )
    if isinstance(error, tf.errors.DataLossError):
        problem = "a shard is damaged"
    elif re.search(r"Decode(Image|Jpeg|Png)|JPEG|Unknown image file format|parse example", message):
        problem = "an image in a shard cannot be read"
    else:
        return error
    return UserError(
        f"{problem} ({message.splitlines()[0]}); get it again, or delete the dataset's shards and "
        f"{DESCRIPTION} if convert_dataset.py made them, then convert again with --verify"
    )
