"""Says what is in images: `python -m slim.classify IMAGE... --checkpoint_path=...`.

IMAGE is an image file of any kind that conversion takes, or a folder of such. Printed are the
likeliest classes of each; with --json one JSON array with an object an image:
{"image": path, "predictions": [{"class_name": ..., "label": ..., "probability": ...}, ...]}.
"""

import json
import sys
from collections.abc import Iterable
from functools import partial

from absl import flags
from tqdm import tqdm

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.serving.classification import Result, classify_images, find_images
from slim.serving.classifier import (
    define_classifier_flags,
    describe_classifier,
    load_classifier,
    require_checkpoint,
)


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
    checkpoint = require_checkpoint(values.checkpoint_path)
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
