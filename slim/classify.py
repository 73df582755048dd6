"""Classifies images: `python -m slim.classify IMAGE... --checkpoint_path=...`.

IMAGE is an image file of any kind that conversion accepts, a folder of such files, or the folder
of a dataset. Prints the likeliest classes per image; with --json a JSON array of one object each:
{"image": path, "predictions": [{"class_name": ..., "label": ..., "probability": ...}, ...]}.
With --csv, writes a table instead: path, class_1, probability_1, class_2, probability_2, ...
"""

import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from slim.common.command_line import FlagSet, python_command, require_checkpoint, run_command
from slim.common.errors import UserError, count, count_some, warn
from slim.common.files import this_process, valid_text, write_csv
from slim.serving.classifier_flags import classifier_flags, define_classifier_flags

if TYPE_CHECKING:
    from slim.serving.classifier import Classifier


def define_flags(values: flags.FlagValues) -> None:
    define = FlagSet(values)
    define.words("images", [], "Image files and folders; the flag name is optional.")
    define_classifier_flags(define)
    define.boolean("json", False, "Print JSON: an array with one object per image.")
    define.string("csv", None, "Write a table to this file instead, with one row per image.")
    define.integer("top_k", 5, "Number of classes to print per image.", 1)
    define.integer("batch_size", 32, "Images per batch.", 1, 100_000)


def main(values: flags.FlagValues) -> None:
    """Prints the likeliest classes of images."""
    from slim.serving.classifier import load_classifier

    # Everything that can be wrong with the command line is found before the network is loaded.
    images = find_images(values.images)
    require_checkpoint(values)
    csv = values.csv and Path(values.csv)
    if csv and (csv.is_dir() or not os.access(csv.parent, os.W_OK)):
        raise UserError(f"--csv={csv}: cannot write there; choose a file in another folder")
    with load_classifier(**classifier_flags(values), batch_size=values.batch_size) as classifier:
        failed = classify_images(classifier, images, values.top_k, as_json=values.json, csv=csv)
    if failed:
        raise UserError(f"{failed} of {len(images)} images could not be classified, see above")


def find_images(names: Sequence[str]) -> list[Path]:
    """Returns the image files of the command line.

    A folder stands for its images, sorted; that of a dataset stands for the images of its lists.
    """
    from slim.datasets.image_files import find_image_files
    from slim.datasets.registry import read_converted_list
    from slim.datasets.tfrecord import LISTS

    if not names:
        raise UserError(
            f"IMAGE is missing: {python_command()} -m slim.classify IMAGE... "
            "--checkpoint_path=..., with image files or folders of image files"
        )
    images = []
    for name in names:
        if not name:
            raise UserError("an IMAGE is empty: expected an image file or a folder")
        folder, others = Path(name), []
        if not folder.is_dir():
            found = [folder]
        elif all((folder / list_name).is_file() for list_name in LISTS.values()):
            lists = [read_converted_list(folder, list_name) for list_name in LISTS.values()]
            found = [folder / image.path for list_ in lists for image in list_.entries]
        else:
            found, others = find_image_files(folder)
        if not found:
            raise UserError(f"no image in the folder {name}: expected files as .jpg, .png or .tif")
        if others:
            warn(f"{name}: {count_some('files that are not taken for images', others)}")
        images += found
    if not any(image.exists() for image in images):
        raise UserError(f"no image at {images[0]}: expected an image file or a folder")
    return images


def classify_images(
    classifier: "Classifier",
    images: Sequence[Path],
    top_k: int,
    *,
    as_json: bool,
    csv: Path | None = None,
) -> int:
    """Prints the likeliest classes of image files, and returns the number of problems.

    Text appears image by image, JSON and a `csv` file as a whole. Problems go to stderr.
    """
    import numpy as np
    from tqdm import tqdm

    from slim.common.progress import progress
    from slim.datasets.images import ImageError
    from slim.serving.classifier import PROBABILITIES

    rows = classifier.rows(images, PROBABILITIES)
    if as_json or csv:
        rows = progress("classifying", len(images), " images", items=rows)
    found, failed = [], 0
    for image, row in zip(images, rows, strict=True):
        problem = row if isinstance(row, ImageError) else None
        if problem is None and not np.isfinite(row).all():
            problem = "the network's probabilities are not finite"
        if problem:
            failed += 1
            tqdm.write(f"{image}: {problem}", file=sys.stderr)
            continue
        predictions = classifier.likeliest(row, top_k)
        if as_json or csv:
            valid = [p._replace(class_name=valid_text(p.class_name)) for p in predictions]
            found.append((str(image), valid))
            continue
        print(image)
        for prediction in predictions:
            print(f"  {prediction.probability:6.1%}  {prediction.class_name}", flush=True)
    if as_json:
        objects = (
            {"image": valid_text(image), "predictions": [each._asdict() for each in predictions]}
            for image, predictions in found
        )
        print("[\n" + ",\n".join(map(json.dumps, objects)) + "\n]")
    if csv:
        places = range(1, min(top_k, len(classifier.class_names)) + 1)
        header = ["path", *(f"{name}_{k}" for k in places for name in ("class", "probability"))]
        rows = [[path, *chain(*((p.class_name, p.probability) for p in ps))] for path, ps in found]
        write_csv(csv, [header, *rows], this_process())
        print(f"{csv}: {count(len(found), 'image')}", file=sys.stderr)
    return failed


command = partial(run_command, define_flags, main, description=__doc__, positional="images")

if __name__ == "__main__":
    command()
