"""Batches from TFRecord shards, with `tf.data`."""

import re
from collections.abc import Callable

from slim.compat import tf
from slim.datasets.registry import Dataset
from slim.errors import UserError

LABEL_OUT_OF_RANGE = "label out of range"

Preprocess = Callable[..., tf.Tensor]


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """JPEG or PNG bytes (GIF and BMP too) to uint8 `[height, width, 3]`."""
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def parse_example(serialized: tf.Tensor, num_classes: int, labels_offset: int = 0) -> tuple:
    """One record of a shard.

    Args:
        serialized: A `tf.train.Example`, string scalar.
        num_classes: Labels, the offset taken off, must lie in [0, num_classes).
        labels_offset: Subtracted from the label.

    Returns:
        The encoded image, a string scalar, and the label, int64.

    Raises:
        tf.errors.InvalidArgumentError: When run, `LABEL_OUT_OF_RANGE` in its message.
    """
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


def training_batches(
    dataset: Dataset,
    preprocess: Preprocess,
    image_size: int,
    batch_size: int,
    num_classes: int,
    labels_offset: int = 0,
    num_readers: int = 4,
    num_preprocessing_threads: int = 4,
    seed: int | None = None,
) -> tf.data.Dataset:
    """Endless batches of shuffled epochs, each of which has every image once.

    Shuffled are the shards, then the records read from several of them. An epoch's last batch is
    filled up from the next epoch.

    Args:
        dataset: The training split.
        preprocess: As `preprocessing_factory.get_preprocessing(name, is_training=True)` gives.
        image_size: Height and width of the images in pixels.
        batch_size: Images a batch.
        num_classes: Number of classes that the network has.
        labels_offset: Subtracted from every label.
        num_readers: Shards read side by side.
        num_preprocessing_threads: Images prepared side by side.
        seed: Order and distortions depend on it. Default: new ones in every run.

    Returns:
        Images, float32 `[batch_size, image_size, image_size, 3]`, and labels, int64 `[batch_size]`.
    """
    files = tf.data.Dataset.from_tensor_slices(list(dataset.files))
    files = files.shuffle(len(dataset.files), seed=seed)
    records = files.interleave(
        tf.data.TFRecordDataset,
        cycle_length=num_readers,
        num_parallel_calls=num_readers,
        deterministic=seed is not None,
    )
    records = records.shuffle(min(20 * batch_size, dataset.num_samples), seed=seed).repeat()
    seeds = tf.data.Dataset.random(seed).batch(2)

    def example(serialized: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = parse_example(serialized, num_classes, labels_offset)
        return preprocess(decode_image(encoded), image_size, image_size, seed=seed), label

    examples = tf.data.Dataset.zip((records, seeds)).map(
        example,
        num_parallel_calls=num_preprocessing_threads,
        deterministic=seed is not None,
    )
    return examples.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(
    dataset: Dataset,
    preprocess: Preprocess,
    image_size: int,
    batch_size: int,
    num_classes: int,
    labels_offset: int = 0,
    num_preprocessing_threads: int = 4,
) -> tf.data.Dataset:
    """Every image once, in the order of the shards; the last batch may be smaller.

    Args:
        dataset: The split to evaluate.
        preprocess: As `preprocessing_factory.get_preprocessing(name)` gives.
        image_size: Height and width of the images in pixels.
        batch_size: Images a batch.
        num_classes: Number of classes that the network has.
        labels_offset: Subtracted from every label.
        num_preprocessing_threads: Images prepared side by side.

    Returns:
        Images, float32 `[batch, image_size, image_size, 3]`, and labels, int64 `[batch]`.
    """

    def example(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = parse_example(serialized, num_classes, labels_offset)
        return preprocess(decode_image(encoded), image_size, image_size), label

    records = tf.data.TFRecordDataset(list(dataset.files))
    examples = records.map(example, num_parallel_calls=num_preprocessing_threads)
    return examples.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def explain_input_error(error: tf.errors.OpError) -> Exception:
    """What a user can do about an error that reading a shard raised, else the error itself."""
    message = str(error)
    label = re.search(rf"{LABEL_OUT_OF_RANGE}\] \[(-?\d+)\] \[(-?\d+)\] \[(\d+)\]", message)
    if label:
        found, offset, classes = label.groups()
        return UserError(
            f"label {found} in a shard, with --labels_offset={offset}, is beyond the network's "
            f"{classes} classes (0 to {int(classes) - 1}); convert the dataset again, or mend the "
            "offset"
        )
    if isinstance(error, tf.errors.DataLossError):
        return UserError(
            f"a shard is damaged ({message.splitlines()[0]}); remove the dataset's shards and its "
            "dataset.json, and run convert_dataset.py again"
        )
    if re.search(r"Decode(Image|Jpeg|Png)|JPEG|Unknown image file format|parse example", message):
        return UserError(
            f"an image in a shard cannot be read ({message.splitlines()[0]}); remove the dataset's "
            "shards and its dataset.json, and run convert_dataset.py again, with --verify"
        )
    return error
