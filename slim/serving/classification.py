"""Classifies image files."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from slim.common.command_line import python_command
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.progress import progress
from slim.common.workers import available_cores
from slim.datasets.images import ENDINGS, ImageError, load_image
from slim.deployment.model_deploy import session_config
from slim.serving.classifier import Classify


class Prediction(NamedTuple):
    """A class and its probability."""

    class_name: str
    label: int
    probability: float


class Result(NamedTuple):
    """The predictions for an image in descending order, or the problem with the image."""

    image: Path
    predictions: list[Prediction]
    problem: str | None = None


def find_images(names: Sequence[str]) -> list[Path]:
    """Returns the image files given on the command line; a folder stands for its images, sorted.

    Raises:
        UserError: There is no image.
    """
    if not names:
        raise UserError(
            f"IMAGE is missing: {python_command()} -m slim.classify IMAGE... "
            "--checkpoint_path=..., with image files or folders of image files"
        )
    images = []
    for name in names:
        if not name:
            raise UserError("an IMAGE is empty: expected an image file or a folder")
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
        raise UserError(f"no image at {images[0]}: expected an image file or a folder")
    return images


def classify_images(
    classify: Classify,
    images: Sequence[Path],
    class_names: Sequence[str],
    *,
    top_k: int,
    batch_size: int,
) -> Iterator[Result]:
    """Classifies image files, in a new graph.

    Args:
        classify: The result of `load_classifier`.
        images: Files of any kind that conversion accepts.
        class_names: Names of all classes.
        top_k: Number of predictions per image.
        batch_size: Images per batch.

    Yields:
        One result per image, in order.

    Raises:
        UserError: A batch is too large for the memory.
    """
    with tf.Graph().as_default(), tf.Session(config=session_config()) as session:
        encoded = tf.placeholder(tf.string, [None])
        probabilities = classify(encoded)["probabilities"]
        with ThreadPoolExecutor(available_cores()) as pool:
            for start in range(0, len(images), batch_size):
                loaded = list(pool.map(load, images[start : start + batch_size]))
                readable = [content for content in loaded if isinstance(content, bytes)]
                try:
                    rows = iter(session.run(probabilities, {encoded: readable}))
                except tf.errors.ResourceExhaustedError as error:
                    raise UserError(
                        f"--batch_size={batch_size}: out of memory; give a smaller one"
                    ) from error
                for image, content in zip(images[start:], loaded, strict=False):
                    if isinstance(content, ImageError):
                        yield Result(image, [], str(content))
                    elif not np.isfinite(row := next(rows)).all():
                        yield Result(image, [], "the network's probabilities are not finite")
                    else:
                        yield Result(image, likeliest(row, class_names, top_k))


def load(image: Path) -> bytes | ImageError:
    """Loads an image file as an RGB JPEG, or returns the problem with it."""
    try:
        return load_image(image, verify=True)[0]
    except ImageError as error:
        return error


def likeliest(
    probabilities: np.ndarray, class_names: Sequence[str], top_k: int
) -> list[Prediction]:
    """Returns the likeliest classes, ties in the order of the labels.

    Args:
        probabilities: float32 `[classes]`.
        class_names: Names of all classes.
        top_k: Maximum number of predictions.
    """
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return [Prediction(class_names[i], int(i), float(probabilities[i])) for i in order]


def print_text(results: Iterable[Result]) -> int:
    """Prints results as they come, and returns the number of problems."""
    failed = 0
    # File names are bytes and need not be UTF-8.
    sys.stdout.reconfigure(errors="surrogateescape")
    for image, predictions, problem in results:
        if problem:
            failed += 1
            print(f"{image}: {problem}", file=sys.stderr, flush=True)
            continue
        print(image)
        for prediction in predictions:
            print(f"  {prediction.probability:6.1%}  {prediction.class_name}", flush=True)
    return failed


def print_json(results: Iterable[Result], total: int) -> int:
    """Prints all results as a JSON array, and returns the number of problems."""
    shown, failed = [], 0
    for image, predictions, problem in progress("classifying", total, " images", items=results):
        if problem:
            failed += 1
            tqdm.write(f"{image}: {problem}", file=sys.stderr)
            continue
        row = {"image": str(image), "predictions": [p._asdict() for p in predictions]}
        shown.append(json.dumps(row))
    print("[\n" + ",\n".join(shown) + "\n]")
    return failed
