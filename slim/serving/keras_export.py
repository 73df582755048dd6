"""Checkpoints as models of Keras Applications."""

from pathlib import Path

from slim.checkpoints.description import ModelDescription
from slim.checkpoints.keras_models import build_model, fill_model, keras_name
from slim.checkpoints.loading import read_network
from slim.serving.export_file import classes_file, writing_file

SUFFIX = ".keras"
EXAMPLE = """\
import keras
import numpy as np
from PIL import Image
model = keras.models.load_model({path!r})
image = Image.open("image.jpg").convert("RGB").resize(({size}, {size}))
probabilities = model.predict(np.asarray(image)[None] / 127.5 - 1)
print(open({classes!r}).read().splitlines()[probabilities[0].argmax()])
"""


def save(checkpoint: str, description: ModelDescription, path: Path, averages: bool) -> None:
    """Writes a checkpoint as a model of Keras Applications, and its class names beside it.

    Args:
        checkpoint: The prefix.
        description: The network, and the size of its images.
        path: The file, `.keras`.
        averages: Whether to take the moving averages.

    Raises:
        UserError: Keras does not have the network, the checkpoint does not match it, or the file
            cannot be written.
    """
    name, num_classes = keras_name(description.model_name), len(description.class_names)
    model = build_model(name, num_classes, image_size=description.image_size)
    fill_model(name, model, read_network(checkpoint, description.model_name, num_classes, averages))
    with writing_file(path, description.class_names) as temporary:
        model.save(temporary)


def compose_summary(path: Path, checkpoint: str, description: ModelDescription) -> str:
    """Returns a summary of a Keras model, and an example of its use."""
    size, classes = description.image_size, len(description.class_names)
    example = EXAMPLE.format(path=str(path), size=size, classes=str(classes_file(path)))
    return (
        f"{path}: keras.applications.{keras_name(description.model_name)} of "
        f"{path.stat().st_size / 1e6:,.1f} MB from {checkpoint}\n"
        f"  images             float32 [batch, {size}, {size}, 3] in [-1, 1]\n"
        f"  probabilities      float32 [batch, {classes}]\n"
        f"  class names        {classes_file(path)}\n"
        f"example:\n\n{example}"
    )
