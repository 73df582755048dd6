"""Exports as SavedModels, with preprocessing: from encoded images to class probabilities."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from slim.checkpoints.description import ModelDescription
from slim.checkpoints.reading import read_step
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.files import LOCK, exclusive
from slim.nets.nets_factory import get_network
from slim.preprocessing.decoding import store_image
from slim.serving.classifier import Outputs

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


def default_folder(checkpoint: str) -> Path:
    """Returns a folder named after the step, as TensorFlow Serving expects.

    A checkpoint that is not called `model.ckpt` gets a folder of its own, because others may be
    next to it.
    """
    path = Path(checkpoint)
    folder = path.parent / "export"
    if not path.name.startswith("model.ckpt"):
        folder /= path.name.removesuffix(".ckpt")
    return folder / str(read_step(checkpoint))


def check_folder(folder: Path, overwrite: bool) -> None:
    """Checks that nothing but a SavedModel would be replaced, and that only with `overwrite`."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / SAVED_MODEL).is_file():
        raise UserError(f"--output_dir={folder}: exists but is not a SavedModel; pass a new folder")
    if not overwrite:
        raise UserError(
            f"{folder} exists already: pass --overwrite to replace it, or another --output_dir"
        )


@contextmanager
def replacing_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Yields a temporary path next to a folder, and renames it to the folder on success.

    One process at a time exports to the folder; see `check_folder`.
    """
    temporary, replaced = (
        folder.with_name(f"{folder.name}.{name}.tmp") for name in ("new", "replaced")
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(folder.parent, name=f".{folder.name}{LOCK}"):
            check_folder(folder, overwrite)
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
            f"--output_dir={folder}: cannot be written ({error}); pass another folder"
        ) from error


def save(outputs: Outputs, description: ModelDescription, folder: Path) -> None:
    """Writes a SavedModel with the signature `serving_default` to a new folder.

    TensorFlow Serving expects the batch as the first dimension of every output, so class names are
    repeated for each image.
    """

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        names = tf.constant(description.class_names)
        names = tf.broadcast_to(names, [tf.size(image_bytes), tf.size(names)])
        store = partial(store_image, apply_orientation=description.apply_orientation)
        with tf.device("/device:CPU:0"):
            stored = tf.map_fn(store, image_bytes)
        return {**outputs(stored), "class_names": names}

    module = tf.Module()
    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: serve})


def compose_summary(
    folder: Path, checkpoint: str, description: ModelDescription, num_crops: int
) -> str:
    """Returns a summary of a SavedModel, and an example of its use."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    classes = len(description.class_names)
    first = ", ".join(description.class_names[:3])
    side = description.image_size
    depth = get_network(description.model_name).feature_depth
    rows = (
        ("checkpoint", checkpoint),
        ("network", description.model_name),
        ("images", f"{side} x {side} pixels, {num_crops} crop{'s' * (num_crops > 1)} per image"),
        ("preprocessing", description.preprocessing_name),
        ("classes", f"{classes}: {first}{', ...' if classes > 3 else ''}"),
        ("signature", SIGNATURE),
        ("  image_bytes", "string [batch], encoded images: JPEG, PNG, GIF or BMP"),
        ("  probabilities", f"float32 [batch, {classes}]"),
        ("  class_names", f"string [batch, {classes}]"),
        ("  features", f"float32 [batch, {depth}]"),
    )
    example = EXAMPLE.format(folder=str(folder), signature=SIGNATURE, top=min(5, classes))
    return "\n".join(
        [
            f"{folder}: a SavedModel of {size / 1e6:,.1f} MB",
            *(f"  {label:<18}{text}" for label, text in rows),
            f"example:\n\n{example}",
        ]
    )
