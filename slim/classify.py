"""Says what is in images: `python -m slim.classify IMAGE... --checkpoint_path=...`.

IMAGE is an image file of any kind that conversion takes, or a folder of such. Printed are the
likeliest classes of each; with --json one JSON array with an object an image:
{"image": path, "predictions": [{"class_name": ..., "label": ..., "probability": ...}, ...]}.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from tqdm import tqdm

from slim.classifier import (
    Classify,
    define_classifier_flags,
    describe_classifier,
    find_checkpoint,
    load_classifier,
)
from slim.compat import tf
from slim.datasets.folders import ENDINGS
from slim.datasets.images import ImageError, load_image
from slim.datasets.workers import available_cores
from slim.deployment.model_deploy import session_config
from slim.errors import UserError, run_command
from slim.flags import FlagSet


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


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.words("images", [], "Image files, and folders of them; their names alone will do.")
    define_classifier_flags(define)
    define.boolean("json", False, "Print JSON: an array with an object an image.")
    define.integer("top_k", 5, "Classes to print for an image.", 1)
    define.integer("batch_size", 32, "Images in a batch.", 1)


def main(values: flags.FlagValues) -> None:
    """Prints the likeliest classes of images."""
    images = find_images(values.images)
    checkpoint = find_checkpoint(values.checkpoint_path)
    description = describe_classifier(
        checkpoint,
        values.model_name,
        values.image_size,
        values.preprocessing_name,
        values.dataset_name,
        values.dataset_dir,
    )
    classify = load_classifier(checkpoint, description, values.num_crops)
    results = classify_images(
        classify, images, description.class_names, values.top_k, values.batch_size
    )
    failed = show_json(results, len(images)) if values.json else show_text(results)
    if failed:
        raise UserError(f"{failed} of {len(images)} images could not be classified, see above")


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


def show_text(results: Iterable[Result]) -> int:
    """Prints results as they come, and returns how many there could not be."""
    failed = 0
    # File names are bytes: those that are not UTF-8 go through as they are.
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


def show_json(results: Iterable[Result], total: int) -> int:
    """Prints all results as one JSON array, and returns how many there could not be."""
    shown, failed = [], 0
    for image, predictions, problem in tqdm(results, total=total, unit="images", disable=None):
        if problem:
            failed += 1
            tqdm.write(f"{image}: {problem}", file=sys.stderr)
            continue
        row = {"image": str(image), "predictions": [p._asdict() for p in predictions]}
        shown.append(json.dumps(row))
    print("[\n" + ",\n".join(shown) + "\n]")
    return failed


command = partial(run_command, define_flags, main, description=__doc__, positional="images")

if __name__ == "__main__":
    command()
