"""Batches from TFRecord shards, with `tf.data`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.registry import Dataset

BATCHES_AHEAD = 2
LABEL_OUT_OF_RANGE = "label out of range"

Preprocess = Callable[..., tf.Tensor]


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """JPEG or PNG bytes (GIF and BMP too) to uint8 `[height, width, 3]`."""
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def decode_crop(
    image: tf.Tensor, box: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
) -> tf.Tensor:
    """A part of an image; of a JPEG little more is decoded than that part.

    The pixels are those of `decode_image`, cropped.

    Args:
        image: As `decode_image` takes it, a string scalar, or decoded, uint8 `[height, width, 3]`.
        box: From the image's shape, int32 `[3]`, to where the part begins and what it measures,
            each int32 `[2]`, rows and columns.

    Returns:
        uint8 `[any, any, 3]`.
    """

    def from_pixels(pixels: tf.Tensor) -> tf.Tensor:
        begin, size = box(tf.shape(pixels))
        return tf.slice(pixels, tf.concat([begin, [0]], 0), tf.concat([size, [3]], 0))

    def from_jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(image)
        begin, size = box(shape)
        # Colours are stored at half the width and interpolated from both sides, which is why a
        # column more is decoded at either side than is kept.
        left = tf.minimum(begin[1], 1)
        right = tf.minimum(shape[1] - begin[1] - size[1], 1)
        window = [begin[0], begin[1] - left, size[0], size[1] + left + right]
        return tf.io.decode_and_crop_jpeg(image, window, channels=3)[:, left : left + size[1]]

    if image.dtype != tf.string:
        crop = from_pixels(image)
    else:
        crop = tf.cond(tf.io.is_jpeg(image), from_jpeg, lambda: from_pixels(decode_image(image)))
    return tf.ensure_shape(crop, [None, None, 3])


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


@dataclass(frozen=True, kw_only=True)
class InputSettings:
    """Settings of the batches of a split.

    Attributes:
        image_size: Height and width of the images in pixels.
        batch_size: Images per batch.
        num_classes: Number of classes of the network.
        labels_offset: Subtracted from every label.
        num_threads: Images preprocessed in parallel.
        num_readers: Shards read in parallel, in training.
        seed: Determines order and distortions of training. Default: different in every run.
        num_workers: Workers that share the training images.
        worker: Index of this worker.
    """

    image_size: int
    batch_size: int
    num_classes: int
    labels_offset: int = 0
    num_threads: int = 4
    num_readers: int = 4
    seed: int | None = None
    num_workers: int = 1
    worker: int = 0


def training_batches(
    dataset: Dataset, preprocess: Preprocess, settings: InputSettings
) -> tf.data.Dataset:
    """Returns endless batches of shuffled epochs, each with every image of this worker once.

    The order of the shards is shuffled, then the records read from several shards. The last batch
    of an epoch is completed from the next epoch.

    Args:
        dataset: The training split.
        preprocess: The result of `get_preprocessing(name, is_training=True)`.
        settings: The settings. Of several workers, each reads every `num_workers`-th shard if the
            number of shards allows it, else every `num_workers`-th record of each shard.

    Returns:
        Images, float32 `[batch_size, image_size, image_size, 3]`, and labels, int64 `[batch_size]`.
    """
    ordered = settings.seed is not None
    examples = tf.data.Dataset.zip(
        (_training_records(dataset, settings), tf.data.Dataset.random(settings.seed).batch(2))
    ).map(
        partial(_prepare, preprocess, settings),
        num_parallel_calls=settings.num_threads,
        deterministic=ordered,
    )
    return made_ahead(examples.batch(settings.batch_size, drop_remainder=True))


def _training_records(dataset: Dataset, settings: InputSettings) -> tf.data.Dataset:
    files, read = list(dataset.files), tf.data.TFRecordDataset
    if len(files) % settings.num_workers == 0:
        files = files[settings.worker :: settings.num_workers]
    else:

        def read(file: tf.Tensor) -> tf.data.Dataset:
            return tf.data.TFRecordDataset(file).shard(settings.num_workers, settings.worker)

    seed = settings.seed
    records = (
        tf.data.Dataset.from_tensor_slices(files)
        .shuffle(len(files), seed=seed)
        .interleave(
            read,
            cycle_length=settings.num_readers,
            num_parallel_calls=settings.num_readers,
            deterministic=seed is not None,
        )
    )
    return records.shuffle(min(20 * settings.batch_size, dataset.num_samples), seed=seed).repeat()


def evaluation_batches(
    dataset: Dataset, preprocess: Preprocess, settings: InputSettings
) -> tf.data.Dataset:
    """Returns batches with every image once, in the order of the shards.

    Args:
        dataset: The split to evaluate.
        preprocess: The result of `get_preprocessing(name)` or `get_views(name, ...)`.
        settings: The settings; the last batch may be smaller than `batch_size`.

    Returns:
        Images, float32 `[batch, image_size, image_size, 3]`, or `[batch, views, ...]` with several
        views per image, and labels, int64 `[batch]`.
    """
    records = tf.data.TFRecordDataset(list(dataset.files))
    examples = records.map(
        partial(_prepare, preprocess, settings), num_parallel_calls=settings.num_threads
    )
    return made_ahead(examples.batch(settings.batch_size))


def _prepare(
    preprocess: Preprocess,
    settings: InputSettings,
    serialized: tf.Tensor,
    seed: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    encoded, label = parse_example(serialized, settings.num_classes, settings.labels_offset)
    size = settings.image_size
    options = {} if seed is None else {"seed": seed}
    return preprocess(encoded, size, size, **options), label


def made_ahead(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches, some of which are ready before they are asked for.

    Nothing in them is tuned as they go, for the thread that would do it at times misses that it is
    to end, and whoever ends the iterator, or begins it anew, waits for it for up to a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(BATCHES_AHEAD).with_options(options)


def next_batch(iterator: tf.data.Iterator) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The next batch, and how long the step that uses it waited for it.

    Args:
        iterator: Of images and labels.

    Returns:
        Images, labels, and seconds, a float64 scalar: near 0 where the input stays ahead.
    """
    with tf.device("/device:CPU:0"):
        asked = tf.timestamp()
        with tf.control_dependencies([asked]):
            images, labels = iterator.get_next()
        with tf.control_dependencies([images, labels]):
            return images, labels, tf.timestamp() - asked


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
