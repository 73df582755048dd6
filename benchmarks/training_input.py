"""Training input: shards to batches of distorted crops."""

import time
from collections.abc import Callable
from functools import partial

from benchmarks.measure import LIMIT, PEER, THIS, Comparison, Settings, Task, alternate
from benchmarks.photographs import NAME, NUM_CLASSES
from slim.common.command_line import available_cores
from slim.common.compat import tf
from slim.datasets.input import (
    Dataset,
    InputSettings,
    Preprocess,
    get_dataset,
    parse_example,
    training_batches,
)
from slim.preprocessing.preprocessing_factory import get_preprocessing


def measure(settings: Settings) -> list[Comparison]:
    """Measures batches on one core and on all cores."""
    dataset = get_dataset(NAME, "train", str(settings.folder))
    size = f"{settings.image_size} x {settings.image_size}"
    cores = available_cores()
    # One thread for images; the thread of batches counts as well.
    one_core = alternate(candidates(dataset, 1, settings), settings, time.process_time)
    all_cores = alternate(candidates(dataset, cores, settings), settings)
    return [
        Comparison(f"images of {size}, one core (processor time)", "images/s", one_core),
        Comparison(f"images of {size}, {cores} cores", "images/s", all_cores),
    ]


def candidates(dataset: Dataset, threads: int, settings: Settings) -> list[Task]:
    """Compares the input on a number of threads with plainer inputs and with decoding alone."""
    inputs = InputSettings(
        image_size=settings.image_size,
        batch_size=settings.batch_size,
        num_classes=NUM_CLASSES,
        num_threads=threads,
    )

    def batches(preprocess: Preprocess) -> tf.data.Dataset:
        return training_batches(dataset, preprocess, inputs)

    def decoded(decode: Callable[[tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(list(dataset.files)).repeat()
        pixels = records.map(lambda record: tf.size(decode(parse(record))), threads)
        return pixels.batch(settings.batch_size)

    def parse(record: tf.Tensor) -> tf.Tensor:
        return parse_example(record, NUM_CLASSES)[0]

    num_batches = -(-dataset.num_samples // settings.batch_size)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads

    def task(name: str, role: str, data: tf.data.Dataset) -> Task:
        data = data.with_options(options)
        iterator = iter(())

        def begin() -> None:
            nonlocal iterator
            iterator = iter(data)
            next(iterator)  # compiles functions

        def run() -> int:
            nonlocal iterator
            for _ in range(num_batches):
                next(iterator)
            iterator = iter(())  # stops making batches
            return num_batches * settings.batch_size

        return Task(name, role, run, begin)

    as_published = partial(decode_then_crop, as_floats=True)
    return [
        task("training_batches", THIS, batches(get_preprocessing("inception", is_training=True))),
        task("decoded whole, then cropped", PEER, batches(decode_then_crop)),
        task("as published, floats of all pixels", PEER, batches(as_published)),
        task("decoding whole images alone", PEER, decoded(tf.io.decode_jpeg)),
        task("decoding the crops alone", LIMIT, decoded(decode_crop)),
    ]


def decode_then_crop(
    encoded: tf.Tensor, height: int, width: int, seed: tf.Tensor, as_floats: bool = False
) -> tf.Tensor:
    """Preprocesses with a plain sequence of TensorFlow operations.

    Args:
        encoded: JPEG, a string scalar.
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        seed: Not used: these operations have their own state.
        as_floats: Whether to convert the whole image before the crop, as published.

    Returns:
        float32 `[height, width, 3]` in [-1, 1].
    """
    image = tf.io.decode_jpeg(encoded, channels=3)
    if as_floats:
        image = tf.image.convert_image_dtype(image, tf.float32)
    image = tf.slice(image, *random_crop(tf.shape(image)))
    image = tf.image.convert_image_dtype(image, tf.float32)
    image = tf.image.resize_images(image, [height, width])
    image = tf.image.random_flip_left_right(image)
    image = tf.image.random_brightness(image, 32 / 255)
    image = tf.image.random_saturation(image, 0.5, 1.5)
    return tf.ensure_shape(tf.clip_by_value(image, 0, 1) * 2 - 1, [height, width, 3])


def decode_crop(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a random crop and nothing else: uint8 `[any, any, 3]`."""
    begin, size = random_crop(tf.io.extract_jpeg_shape(encoded))
    return tf.io.decode_and_crop_jpeg(encoded, tf.concat([begin[:2], size[:2]], 0), channels=3)


def random_crop(shape: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns begin and size of a crop of Inception's training, each int32 `[3]`."""
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        shape,
        [[[0.0, 0.0, 1.0, 1.0]]],
        min_object_covered=0.1,
        aspect_ratio_range=(0.75, 1.33),
        area_range=(0.05, 1.0),
        max_attempts=100,
    )
    return begin, size
