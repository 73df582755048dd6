"""Writes SavedModels."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slim.checkpoints.reading import read_step
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.serving.classifier import Classify

SIGNATURE = "serving_default"
SAVED_MODEL = "saved_model.pb"  # the file that makes a folder a SavedModel


def default_folder(checkpoint: str) -> Path:
    """Where a checkpoint is exported to: a folder named after its step, as TensorFlow Serving asks.

    A checkpoint that has a name of its own has neighbours of other names, and a folder of its own.
    """
    path = Path(checkpoint)
    folder = path.parent / "export"
    if not path.name.startswith("model.ckpt"):
        folder /= path.name.removesuffix(".ckpt")
    return folder / str(read_step(checkpoint))


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
