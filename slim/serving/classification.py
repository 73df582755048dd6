"""Classifies image files."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from slim.common.command_line import python_command
from slim.common.errors import UserError
from slim.common.progress import progress
from slim.datasets.images import ENDINGS, ImageError
from slim.serving.classifier import PROBABILITIES, Classifier, Prediction


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


def classify_images(classifier: Classifier, images: Sequence[Path], top_k: int) -> Iterator[Result]:
    """Yields one result per image file, in order.

    Raises:
        UserError: A batch is too large for the memory.
    """
    for image, row in zip(images, classifier.rows(images, PROBABILITIES), strict=True):
        if isinstance(row, ImageError):
            yield Result(image, [], str(row))
        elif not np.isfinite(row).all():
            yield Result(image, [], "the network's probabilities are not finite")
        else:
            yield Result(image, classifier.likeliest(row, top_k))


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
