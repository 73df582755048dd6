"""Writes a checkpoint as a SavedModel: `python -m slim.export --checkpoint_path=...`.

Preprocessing is inside: encoded images go in, probabilities, the names of the classes and features
come out. It needs TensorFlow to be used, and nothing of this project.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.checkpoints.description import ModelDescription
from slim.checkpoints.reading import has_averages
from slim.common.command_line import FlagSet, run_command
from slim.nets.nets_factory import get_network
from slim.serving.classifier import (
    define_classifier_flags,
    describe_classifier,
    load_classifier,
    require_checkpoint,
)
from slim.serving.export import SIGNATURE, check_folder, default_folder, replacing_folder, save

EXAMPLE = """\
import tensorflow as tf
model = tf.saved_model.load({folder!r})
image = tf.io.read_file("image.jpg")
outputs = model.signatures["{signature}"](image_bytes=image[None])
best = tf.math.top_k(outputs["probabilities"][0], {top})
for probability, label in zip(best.values.numpy(), best.indices.numpy()):
    print(f"{{probability:.1%}}", outputs["class_names"][0, label].numpy().decode())
"""


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define_classifier_flags(define)
    define.string(
        "output_dir",
        None,
        "The folder to write. Default: export/<step> beside the checkpoint, and where a checkpoint "
        "has a name of its own export/<name>/<step>.",
    )
    define.boolean("overwrite", False, "Replace a SavedModel that is there.")


def main(values: flags.FlagValues) -> None:
    """Writes a checkpoint as a SavedModel, preprocessing inside."""
    checkpoint = require_checkpoint(values.checkpoint_path)
    folder = Path(values.output_dir or default_folder(checkpoint))
    check_folder(folder, values.overwrite)
    description = describe_classifier(
        checkpoint,
        values.model_name,
        values.image_size,
        values.preprocessing_name,
        values.dataset_name,
        values.dataset_dir,
    )
    classify = load_classifier(checkpoint, description, values.num_crops)
    with replacing_folder(folder) as temporary:
        save(classify, description.class_names, temporary)
    report(folder, checkpoint, description, values.num_crops)


def report(folder: Path, checkpoint: str, description: ModelDescription, num_crops: int) -> None:
    """Prints what was written, and how it is used."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    classes = len(description.class_names)
    first = ", ".join(description.class_names[:3])
    averages = "moving averages" if has_averages(checkpoint) else "plain variables"
    side = description.image_size
    depth = get_network(description.model_name).feature_depth
    print(f"{folder}: a SavedModel of {size / 1e6:,.1f} MB")
    for label, text in (
        ("checkpoint", f"{checkpoint}, {averages}"),
        ("network", description.model_name),
        ("images", f"{side} x {side} pixels, {num_crops} crop{'s' * (num_crops > 1)} of each"),
        ("preprocessing", description.preprocessing_name),
        ("classes", f"{classes}: {first}{', ...' if classes > 3 else ''}"),
        ("signature", SIGNATURE),
        ("  image_bytes", "string [batch], encoded images: JPEG, PNG, GIF or BMP"),
        ("  probabilities", f"float32 [batch, {classes}]"),
        ("  class_names", f"string [batch, {classes}]"),
        ("  features", f"float32 [batch, {depth}]"),
    ):
        print(f"  {label:<18}{text}")
    example = EXAMPLE.format(folder=str(folder), signature=SIGNATURE, top=min(5, classes))
    print(f"to use it:\n\n{example}", flush=True)


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
