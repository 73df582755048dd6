"""Exports as one file for another library, from ready images: Keras and TensorFlow Lite.

The class names are in a text file next to it.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from slim.checkpoints.description import ModelDescription
from slim.checkpoints.freezing import FrozenNetwork, variable_shapes
from slim.checkpoints.keras_layers import build_model, fill_model, keras_name
from slim.checkpoints.reading import AVERAGE, check_names, read_tensors
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.files import write_whole
from slim.datasets.lists import compose_class_names
from slim.nets.nets_factory import get_network
from slim.serving.saved_model import SIGNATURE

_KERAS_EXAMPLE = """\
import keras
import numpy as np
from PIL import Image
model = keras.models.load_model({path!r})
image = Image.open("image.jpg").convert("RGB").resize(({size}, {size}))
probabilities = model.predict(np.asarray(image)[None] / 127.5 - 1)
print(open({classes!r}).read().splitlines()[probabilities[0].argmax()])
"""
_TFLITE_EXAMPLE = """\
import numpy as np
import tensorflow as tf
from PIL import Image
run = tf.lite.Interpreter({path!r}).get_signature_runner("{signature}")
image = Image.open("image.jpg").convert("RGB").resize(({size}, {size}))
outputs = run(images=np.float32(image)[None] / 127.5 - 1)
print(open({classes!r}).read().splitlines()[outputs["probabilities"][0].argmax()])
"""


def check_file(path: Path, suffix: str, overwrite: bool) -> None:
    """Checks that a path ends in a suffix, and that no file is replaced without `overwrite`."""
    if path.suffix != suffix:
        raise UserError(f"--output_dir={path}: expected the name of a file that ends in {suffix}")
    if path.exists() and not overwrite:
        raise UserError(
            f"{path} exists already: pass --overwrite to replace it, or another --output_dir"
        )


def save_keras(checkpoint: str, description: ModelDescription, path: Path, averages: bool) -> None:
    """Writes a checkpoint, or its moving averages, as a model of Keras Applications."""
    name, num_classes = keras_name(description.model_name), len(description.class_names)
    # Keras takes whole arrays, so nothing is frozen.
    variables = variable_shapes(description.model_name, num_classes)
    stored = [f"{variable}{AVERAGE if averages else ''}" for variable in variables]
    check_names(checkpoint, stored, f"is it of {description.model_name}?")
    values = read_tensors(checkpoint, stored)
    model = build_model(name, num_classes, image_size=description.image_size)
    fill_model(name, model, dict(zip(variables, values.values(), strict=True)))
    _write(path, description.class_names, model.save)
    print(f"{path}: keras.applications.{name} of {_megabytes(path)} from {checkpoint}")
    _print_use(path, description, _KERAS_EXAMPLE)


def save_tflite(
    network: FrozenNetwork,
    description: ModelDescription,
    path: Path,
    *,
    checkpoint: str,
    float16: bool = False,
) -> None:
    """Writes a network of `classifier.load_network` for TensorFlow Lite.

    Its signature `serving_default` maps `images`, float32 `[batch, image_size, image_size, 3]`, to
    `probabilities` and `features`. Weights that are stored in 16 bits are computed with in 32 bits.
    """
    # The converter reads SavedModels.
    size = description.image_size
    spec = tf.TensorSpec([None, size, size, 3], tf.float32, name="images")
    module = tf.Module()
    module.serve = tf.function(lambda images: network(images), input_signature=[spec])
    with TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={SIGNATURE: module.serve})
        converter = tf.compat.v2.lite.TFLiteConverter.from_saved_model(folder)
        if float16:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        content = converter.convert()
    _write(path, description.class_names, lambda temporary: temporary.write_bytes(content))
    print(f"{path}: TensorFlow Lite, {_megabytes(path)}, from {checkpoint}")
    depth = get_network(description.model_name).feature_depth
    _print_use(path, description, _TFLITE_EXAMPLE, f"  features           float32 [batch, {depth}]")


def _write(path: Path, class_names: tuple[str, ...], write: Callable[[Path], object]) -> None:
    """Writes a file whole or not at all, and then the class names next to it."""
    temporary = path.with_name(f"{path.stem}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
        write_whole(path.with_suffix(".classes.txt"), compose_class_names(class_names))
    except OSError as error:
        raise UserError(f"--output_dir={path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:,.1f} MB"


def _print_use(path: Path, description: ModelDescription, example: str, *rows: str) -> None:
    """Prints the input and the outputs of an export, and an example of its use."""
    size, classes = description.image_size, path.with_suffix(".classes.txt")
    lines = [
        f"  images             float32 [batch, {size}, {size}, 3] in [-1, 1]",
        f"  probabilities      float32 [batch, {len(description.class_names)}]",
        *rows,
        f"  class names        {classes}",
    ]
    example = example.format(path=str(path), size=size, classes=str(classes), signature=SIGNATURE)
    print("\n".join([*lines, f"example:\n\n{example}"]), flush=True)
