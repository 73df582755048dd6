"""Writes a checkpoint as a SavedModel: `python -m slim.export --checkpoint_path=...`.

Preprocessing is inside: encoded images go in, probabilities, the names of the classes and features
come out. It needs TensorFlow to be used, and nothing of this project.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from absl import flags

from slim import checkpoints
from slim.checkpoints.description import Description
from slim.classifier import (
    Classify,
    define_classifier_flags,
    describe_classifier,
    find_checkpoint,
    load_classifier,
)
from slim.compat import tf
from slim.errors import UserError, run_command
from slim.flags import FlagSet
from slim.nets.nets_factory import get_network

SIGNATURE = "serving_default"
SAVED_MODEL = "saved_model.pb"  # the file that makes a folder a SavedModel

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
    checkpoint = find_checkpoint(values.checkpoint_path)
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


def default_folder(checkpoint: str) -> Path:
    """Where a checkpoint is exported to: a folder named after its step, as TensorFlow Serving asks.

    A checkpoint that has a name of its own has neighbours of other names, and a folder of its own.
    """
    path = Path(checkpoint)
    folder = path.parent / "export"
    if not path.name.startswith("model.ckpt"):
        folder /= path.name.removesuffix(".ckpt")
    return folder / str(checkpoints.read_step(checkpoint))


def check_folder(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that would be lost.

    Raises:
        UserError: Something is there that is not to be overwritten, or is no SavedModel.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / SAVED_MODEL).is_file():
        raise UserError(
            f"--output_dir={folder}: it is there and is no SavedModel; give a new folder"
        )
    if not overwrite:
        raise UserError(
            f"{folder} is there already: give --overwrite to replace it, or another --output_dir"
        )


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Gives a temporary path, and renames it to the folder meant when all has gone well.

    Args:
        folder: The folder meant; what is there is removed.

    Yields:
        A path beside it at which there is nothing.

    Raises:
        UserError: Nothing can be written there.
    """
    temporary, replaced = (
        folder.with_name(f"{folder.name}.{name}.tmp") for name in ("new", "replaced")
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in (temporary, replaced):
            if leftover.exists():
                shutil.rmtree(leftover)
        yield temporary
        if folder.exists():
            folder.rename(replaced)
        temporary.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"--output_dir={folder}: cannot be written ({error}); give another folder"
        ) from error


def save(classify: Classify, class_names: tuple[str, ...], folder: Path) -> None:
    """Writes a SavedModel with one signature, `serving_default`.

    Every output has the batch first, as TensorFlow Serving asks of outputs that it is to give an
    image at a time; therefore an image has the names of all classes beside their probabilities.

    Args:
        classify: From encoded images to `probabilities` and `features`.
        class_names: The names of the classes in their order.
        folder: Receives it; nothing is there.
    """

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        names = tf.broadcast_to(tf.constant(class_names), [tf.size(image_bytes), len(class_names)])
        return {**classify(image_bytes), "class_names": names}

    module = tf.Module()
    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: serve})


def report(folder: Path, checkpoint: str, description: Description, num_crops: int) -> None:
    """Prints what was written, and how it is used."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    classes = len(description.class_names)
    first = ", ".join(description.class_names[:3])
    averages = "moving averages" if checkpoints.has_averages(checkpoint) else "plain variables"
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
