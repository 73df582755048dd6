"""Classifies image files."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.workers import available_cores
from slim.datasets.images import ENDINGS, ImageError, load_image
from slim.deployment.model_deploy import session_config
from slim.serving.classifier import Classify


class Prediction(NamedTuple):
    """A class that an image may be of."""

    class_name: str
    label: int
    probability: float


class Result(NamedTuple):
    """What an image may be of, the likeliest class first, or why that cannot be said."""

    image: Path
    predictions: list[Prediction]
    problem: str | None = None


def find_images(names: Sequence[str]) -> list[Path]:
    """The image files that the command line means: a folder stands for those in it, sorted.

    Raises:
        UserError: There is none.
    """
    if not names:
        raise UserError(
            "IMAGE is missing: python -m slim.classify IMAGE... --checkpoint_path=..., where IMAGE "
            "is an image file or a folder of such"
        )
    images = []
    for name in names:
        if not Path(name).is_dir():
            images.append(Path(name))
            continue
        found = [
            path
            for path in sorted(Path(name).rglob("*"))
            if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
        ]
        if not found:
            raise UserError(f"no image in the folder {name}: expected {' '.join(ENDINGS)}")
        images += found
    if not any(image.exists() for image in images):
        raise UserError(f"no image at {images[0]}: expected an image file or a folder of such")
    return images


def classify_images(
    classify: Classify,
    images: Sequence[Path],
    class_names: Sequence[str],
    top_k: int,
    batch_size: int,
) -> Iterator[Result]:
    """Classifies image files, in a graph of its own.

    Args:
        classify: From encoded images to `probabilities`.
        images: The files, of any kind that conversion takes.
        class_names: The names of the classes in their order.
        top_k: Classes to give for an image.
        batch_size: Images in a batch.

    Yields:
        A result an image, in their order.
    """
    with tf.Graph().as_default(), tf.Session(config=session_config()) as session:
        encoded = tf.placeholder(tf.string, [None])
        probabilities = classify(encoded)["probabilities"]
        with ThreadPoolExecutor(available_cores()) as pool:
            for start in range(0, len(images), batch_size):
                loaded = list(pool.map(load, images[start : start + batch_size]))
                readable = [content for content in loaded if isinstance(content, bytes)]
                rows = iter(session.run(probabilities, {encoded: readable}))
                for image, content in zip(images[start:], loaded, strict=False):
                    if isinstance(content, ImageError):
                        yield Result(image, [], str(content))
                    elif not np.isfinite(row := next(rows)).all():
                        yield Result(image, [], "the network's probabilities are not finite")
                    else:
                        yield Result(image, likeliest(row, class_names, top_k))


def load(image: Path) -> bytes | ImageError:
    """An image file as an RGB JPEG, or why it cannot be read."""
    try:
        return load_image(image, verify=True)[0]
    except ImageError as error:
        return error


def likeliest(
    probabilities: np.ndarray, class_names: Sequence[str], top_k: int
) -> list[Prediction]:
    """The likeliest classes of an image, of equal ones the first first.

    Args:
        probabilities: float32 `[classes]`.
        class_names: Their names.
        top_k: How many to give; there may be fewer.
    """
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return [Prediction(class_names[i], int(i), float(probabilities[i])) for i in order]
