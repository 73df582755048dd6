"""Networks for TensorFlow Lite, from ready images to probabilities and features."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from slim.checkpoints.description import ModelDescription
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.images import ImageError, load_image
from slim.datasets.lists import read_list
from slim.datasets.registry import dataset_folder
from slim.nets.frozen import FrozenNetwork
from slim.nets.nets_factory import get_network
from slim.preprocessing.preprocessing_factory import get_preprocessing
from slim.serving.classifier import PROBABILITIES
from slim.serving.export import SIGNATURE
from slim.serving.export_file import classes_file

SUFFIX = ".tflite"
_COMPARED = 200  # images
EXAMPLE = """\
import numpy as np
import tensorflow as tf
from PIL import Image
run = tf.lite.Interpreter({path!r}).get_signature_runner("{signature}")
image = Image.open("image.jpg").convert("RGB").resize(({size}, {size}))
outputs = run(images=np.float32(image)[None] / 127.5 - 1)
print(open({classes!r}).read().splitlines()[outputs["probabilities"][0].argmax()])
"""


def convert(network: FrozenNetwork, image_size: int, float16: bool = False) -> bytes:
    """Converts a network to TensorFlow Lite.

    Args:
        network: The result of `load_network`.
        image_size: Height and width of the images in pixels.
        float16: Whether to store the weights in 16 bits; they are computed with in 32 bits.

    Returns:
        The content of a `.tflite` file, with the signature `serving_default` from `images`, float32
        `[batch, image_size, image_size, 3]`, to `probabilities` and `features`.
    """
    spec = tf.TensorSpec([None, image_size, image_size, 3], tf.float32, name="images")
    module = tf.Module()
    module.serve = tf.function(lambda images: network(images), input_signature=[spec])
    with TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={SIGNATURE: module.serve})
        converter = tf.compat.v2.lite.TFLiteConverter.from_saved_model(folder)
        if float16:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        return converter.convert()


def load_runner(content: bytes) -> Callable[..., dict[str, np.ndarray]]:
    """Returns the signature of a converted network as a function of `images`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated")
        interpreter = tf.compat.v2.lite.Interpreter(model_content=content)
    return interpreter.get_signature_runner(SIGNATURE)


def compare_accuracy(
    content: bytes, other: bytes, description: ModelDescription, dataset_dir: str
) -> str:
    """Compares two converted networks on validation images of their dataset.

    Args:
        content: A converted network.
        other: The same network with other weights.
        description: Its image size, preprocessing and dataset.
        dataset_dir: The folder that holds the datasets.

    Returns:
        The accuracies on up to 200 images, evenly spaced in `val.txt`, as text.

    Raises:
        UserError: The dataset is not there, or an image cannot be read.
    """
    if not description.dataset_name:
        raise UserError("give the dataset to compare accuracies on with --dataset_name")
    folder = dataset_folder(description.dataset_name, dataset_dir)
    entries = read_list(folder / "val.txt").entries
    entries = entries[:: -(-len(entries) // _COMPARED)]
    images = prepare_images([folder / entry.path for entry in entries], description)
    labels = np.array([entry.label for entry in entries])
    correct = []
    for run in map(load_runner, (content, other)):
        rows = [run(images=image[None])[PROBABILITIES][0] for image in images]
        correct.append(np.argmax(rows, axis=1) == labels)
    first, second = (found.mean() for found in correct)
    return (
        f"accuracy with float16 weights {second:.2%}, with float32 {first:.2%}: difference "
        f"{100 * (second - first):+.2f} points on {len(labels)} validation images of "
        f"{description.dataset_name}"
    )


def prepare_images(paths: Sequence[Path], description: ModelDescription) -> list[np.ndarray]:
    """Returns images prepared for evaluation, float32 `[image_size, image_size, 3]`.

    Raises:
        UserError: An image cannot be read.
    """
    size = description.image_size
    prepared = []
    with tf.Graph().as_default(), tf.Session() as session:
        encoded = tf.placeholder(tf.string, [])
        image = get_preprocessing(description.preprocessing_name)(encoded, size, size)
        for path in paths:
            try:
                content = load_image(path, verify=False)[0]
            except ImageError as error:
                raise UserError(f"{path}: {error}") from error
            prepared.append(session.run(image, {encoded: content}))
    return prepared


def compose_summary(path: Path, checkpoint: str, description: ModelDescription) -> str:
    """Returns a summary of a converted network, and an example of its use."""
    size, classes = description.image_size, len(description.class_names)
    depth = get_network(description.model_name).feature_depth
    example = EXAMPLE.format(
        path=str(path), signature=SIGNATURE, size=size, classes=str(classes_file(path))
    )
    return (
        f"{path}: TensorFlow Lite, {path.stat().st_size / 1e6:,.1f} MB, from {checkpoint}\n"
        f"  images             float32 [batch, {size}, {size}, 3] in [-1, 1]\n"
        f"  probabilities      float32 [batch, {classes}]\n"
        f"  features           float32 [batch, {depth}]\n"
        f"  class names        {classes_file(path)}\n"
        f"example:\n\n{example}"
    )
