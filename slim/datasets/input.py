"""Batches from TFRecord shards, with `tf.data`."""

import re
from collections.abc import Callable

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
    num_workers: int = 1,
    worker: int = 0,
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
        num_workers: Workers that share the images among them.
        worker: Which of them this is. It has every `num_workers`th shard where their number allows
            that, else every `num_workers`th record of each shard.

    Returns:
        Images, float32 `[batch_size, image_size, image_size, 3]`, and labels, int64 `[batch_size]`.
    """
    files, read = list(dataset.files), tf.data.TFRecordDataset
    if len(files) % num_workers == 0:
        files = files[worker::num_workers]
    else:

        def read(file: tf.Tensor) -> tf.data.Dataset:
            return tf.data.TFRecordDataset(file).shard(num_workers, worker)

    files = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=seed)
    records = files.interleave(
        read,
        cycle_length=num_readers,
        num_parallel_calls=num_readers,
        deterministic=seed is not None,
    )
    records = records.shuffle(min(20 * batch_size, dataset.num_samples), seed=seed).repeat()
    seeds = tf.data.Dataset.random(seed).batch(2)

    def example(serialized: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = parse_example(serialized, num_classes, labels_offset)
        return preprocess(encoded, image_size, image_size, seed=seed), label

    examples = tf.data.Dataset.zip((records, seeds)).map(
        example,
        num_parallel_calls=num_preprocessing_threads,
        deterministic=seed is not None,
    )
    return made_ahead(examples.batch(batch_size, drop_remainder=True))


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
        preprocess: As `preprocessing_factory.get_preprocessing(name)` or `get_views` gives.
        image_size: Height and width of the images in pixels.
        batch_size: Images a batch.
        num_classes: Number of classes that the network has.
        labels_offset: Subtracted from every label.
        num_preprocessing_threads: Images prepared side by side.

    Returns:
        Images, float32 `[batch, image_size, image_size, 3]` (of several views
        `[batch, views, ...]`), and labels, int64 `[batch]`.
    """

    def example(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = parse_example(serialized, num_classes, labels_offset)
        return preprocess(encoded, image_size, image_size), label

    records = tf.data.TFRecordDataset(list(dataset.files))
    examples = records.map(example, num_parallel_calls=num_preprocessing_threads)
    return made_ahead(examples.batch(batch_size))


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
