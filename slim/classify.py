"""Classifies images: `python -m slim.classify IMAGE... --checkpoint_path=...`.

IMAGE is an image file of any kind that conversion accepts, or a folder of such files. Prints the
likeliest classes per image; with --json a JSON array with one object per image:
{"image": path, "predictions": [{"class_name": ..., "label": ..., "probability": ...}, ...]}.
"""

from functools import partial

from absl import flags

from slim.common.command_line import FlagSet, require_checkpoint, run_command
from slim.common.errors import UserError
from slim.serving.flags import classifier_flags, define_classifier_flags


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command."""
    define = FlagSet(values)
    define.words("images", [], "Image files and folders; the flag name is optional.")
    define_classifier_flags(define)
    define.boolean("json", False, "Print JSON: an array with one object per image.")
    define.integer("top_k", 5, "Number of classes to print per image.", 1)
    define.integer("batch_size", 32, "Images per batch.", 1, 100_000)


def main(values: flags.FlagValues) -> None:
    """Prints the likeliest classes of images."""
    from slim.serving.classification import classify_images, find_images, print_json, print_text
    from slim.serving.classifier import load_classifier

    images = find_images(values.images)
    require_checkpoint(values)
    with load_classifier(**classifier_flags(values), batch_size=values.batch_size) as classifier:
        results = classify_images(classifier, images, values.top_k)
        failed = print_json(results, len(images)) if values.json else print_text(results)
    if failed:
        raise UserError(f"{failed} of {len(images)} images could not be classified, see above")


command = partial(run_command, define_flags, main, description=__doc__, positional="images")

if __name__ == "__main__":
    command()
