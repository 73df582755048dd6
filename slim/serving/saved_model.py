"""Exports as SavedModels, with preprocessing: from encoded images to class probabilities."""

import json
import shutil
from collections.abc import Iterator, Mapping
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

SIGNATURE, TOP_K = "serving_default", "top_k"
SAVED_MODEL = "saved_model.pb"  # the file that makes a folder a SavedModel
EXAMPLE = """\
import tensorflow as tf
model = tf.saved_model.load({folder!r})
image = tf.io.read_file("image.jpg")
best = model.signatures["{signature}"](image_bytes=image[None])
for probability, name in zip(best["probabilities"][0].numpy(), best["class_names"][0].numpy()):
    print(f"{{probability:.1%}}", name.decode())
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


def save(
    outputs: Outputs, description: ModelDescription, folder: Path, top_k: int
) -> dict[str, int]:
    """Writes a SavedModel with the signatures `serving_default` and `top_k` to a new folder.

    TensorFlow Serving expects the batch as the first dimension of every output, so class names are
    repeated for each image. Returns the bytes of its JSON answer for an image, by signature.
    """
    class_names = tf.constant(description.class_names)
    store = partial(store_image, apply_orientation=description.apply_orientation)
    spec = [tf.TensorSpec([None], tf.string, name="image_bytes")]

    @tf.function(input_signature=spec)  # both signatures call it, so that its weights exist once
    def classify(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.device("/device:CPU:0"):
            stored = tf.map_fn(store, image_bytes)
        return outputs(stored)

    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        names = tf.broadcast_to(class_names, [tf.size(image_bytes), tf.size(class_names)])
        return {**classify(image_bytes), "class_names": names}

    def best(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities, labels = tf.math.top_k(classify(image_bytes)["probabilities"], top_k)
        return {"probabilities": probabilities, "class_names": tf.gather(class_names, labels)}

    module, image = tf.Module(), tf.io.encode_jpeg(tf.zeros([64, 64, 3], tf.uint8))
    module.serve, module.best = (tf.function(f, input_signature=spec) for f in (serve, best))
    signatures = {SIGNATURE: module.serve, TOP_K: module.best}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return {name: _json_size(function(image[None])) for name, function in signatures.items()}


def _json_size(answer: Mapping[str, tf.Tensor]) -> int:
    values = {name: tensor[0].numpy().tolist() for name, tensor in answer.items()}
    return len(json.dumps({"predictions": [values]}, default=bytes.decode))


def compose_summary(
    folder: Path,
    checkpoint: str,
    description: ModelDescription,
    *,
    num_crops: int,
    top_k: int,
    json_sizes: Mapping[str, int],
) -> str:
    """Returns a summary of a SavedModel, and an example of its use."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    classes = len(description.class_names)
    first = ", ".join(description.class_names[:3])
    side = description.image_size
    depth = get_network(description.model_name).feature_depth
    default, best = (f"; {size:,} bytes of JSON per image" for size in json_sizes.values())
    rows = (
        ("checkpoint", checkpoint),
        ("network", description.model_name),
        ("images", f"{side} x {side} pixels, {num_crops} crop{'s' * (num_crops > 1)} per image"),
        ("preprocessing", description.preprocessing_name),
        ("classes", f"{classes}: {first}{', ...' if classes > 3 else ''}"),
        ("image_bytes", "string [batch]: encoded JPEG, PNG, GIF or BMP images"),
        (SIGNATURE, f"probabilities and class_names [batch, {classes}],"),
        ("", f"features [batch, {depth}]{default}"),
        (TOP_K, f"the {top_k} best probabilities and class_names [batch, {top_k}]{best}"),
    )
    example = EXAMPLE.format(folder=str(folder), signature=TOP_K)
    return "\n".join(
        [
            f"{folder}: a SavedModel of {size / 1e6:,.1f} MB",
            *(f"  {label:<18}{text}" for label, text in rows),
            f"example:\n\n{example}",
        ]
    )
