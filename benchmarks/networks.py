"""Parts that the subjects with a network share."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np

from benchmarks.measure import LIMIT, PEER, Settings, Task
from benchmarks.photographs import NUM_CLASSES, image_files
from slim.checkpoints.freezing import FrozenNetwork, InferenceGraph
from slim.common.command_line import PRECISIONS
from slim.common.compat import tf
from slim.common.devices import session_config
from slim.datasets.input import InputSettings
from slim.preprocessing.decoding import decode_image
from slim.preprocessing.preprocessing_factory import get_preprocessing

# isort: split
import keras  # after compat, which holds back the start-up notes of TensorFlow

# The same networks in Keras.
KERAS_MODELS = {"inception_v3": keras.applications.InceptionV3}


def input_settings(settings: Settings) -> InputSettings:
    """Returns the settings of batches prepared on all cores."""
    return InputSettings(
        image_size=settings.image_size,
        batch_size=settings.batch_size,
        num_classes=NUM_CLASSES,
    )


def ready_batch(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Returns noise images, float32 `[batch, size, size, 3]`, and labels, int64 `[batch]`."""
    random = np.random.default_rng(0)
    shape = (settings.batch_size, settings.image_size, settings.image_size, 3)
    images = random.uniform(-1, 1, shape).astype(np.float32)
    return images, random.integers(NUM_CLASSES, size=settings.batch_size)


def on_device(array: np.ndarray) -> tf.Variable:
    """Returns an array as a variable, so that it stays on the device and is not folded."""
    return tf.Variable(array, trainable=False, collections=[tf.GraphKeys.LOCAL_VARIABLES])


def write_checkpoint(network: InferenceGraph, path: Path) -> str:
    """Writes the initial values of a network, and returns the prefix of the checkpoint."""
    with network.outputs.graph.as_default(), tf.Session(config=session_config()) as session:
        session.run(tf.variables_initializer(network.variables))
        return tf.train.Saver(network.variables).save(session, str(path))


def bare_task(network: FrozenNetwork, settings: Settings) -> Task:
    """Returns a network without input, on one batch that stays on the device."""
    with tf.Graph().as_default():
        # A single number, so that copying outputs is not measured.
        outputs = tf.reduce_sum(network(on_device(ready_batch(settings)[0]), settings.xla))
        session = tf.Session(config=session_config())
        session.run(tf.local_variables_initializer())

    def run() -> int:
        for _ in range(settings.steps):
            session.run(outputs)
        return settings.steps * settings.batch_size

    return Task("the network on a ready batch", LIMIT, run)


def one_image_task(outputs: Callable[[tf.Tensor], tf.Tensor], settings: Settings) -> Task:
    """Returns a network as in the published scripts: with variables, one file per call.

    Args:
        outputs: The function from images, float32 `[1, image_size, image_size, 3]`, to outputs.
        settings: The images and their size.
    """
    with tf.Graph().as_default():
        encoded = tf.placeholder(tf.string, [])
        preprocess = get_preprocessing(settings.model_name)
        image = preprocess(decode_image(encoded), settings.image_size, settings.image_size)
        output = outputs(image[tf.newaxis])
        session = tf.Session(config=session_config())
        session.run(tf.global_variables_initializer())
    paths = cycle(image_files(settings.folder))

    def run() -> int:
        for _ in range(settings.batch_size):
            session.run(output, {encoded: next(paths).read_bytes()})
        return settings.batch_size

    return Task("one image per call", PEER, run)


def keras_model(settings: Settings, **options) -> keras.Model:
    """Returns the network in Keras with random weights; it has no auxiliary classifier.

    Args:
        settings: The network, the size of the images, and the precision.
        **options: The options of the model's function, such as `classes`.
    """
    if settings.precision != PRECISIONS[0]:
        keras.mixed_precision.set_global_policy(f"mixed_{settings.precision}")
    shape = (settings.image_size, settings.image_size, 3)
    return KERAS_MODELS[settings.model_name](weights=None, input_shape=shape, **options)
