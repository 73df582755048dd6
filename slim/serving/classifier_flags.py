"""The flags of the commands that use a classifier."""

from typing import Any

from absl import flags

from slim.common.command_line import FlagSet, define_averages_flag, define_renamed_flag


def define_classifier_flags(define: FlagSet) -> None:
    """Adds the flags of a checkpoint and of properties that override its `model.json`."""
    define.string("checkpoint_path", None, "A checkpoint, or a folder for its newest checkpoint.")
    define.string("model_name", None, "The network. Default: from model.json, otherwise inferred.")
    define.integer(
        "image_size",
        None,
        "Height and width of the images in pixels. Default: from model.json, otherwise the size "
        "that the network was designed for.",
        1,
    )
    define.string("preprocessing_name", None, "inception or vgg. Default: from model.json.")
    define.string(
        "dataset_name",
        None,
        "The dataset whose classes.txt names the classes. Default: names from model.json, "
        "otherwise numbers.",
    )
    define.string("dataset_dir", "./data/", "The folder that holds the datasets.")
    text = "Turn images as their EXIF says. Default: from model.json, otherwise not."
    define.boolean("apply_orientation", None, text)
    define_renamed_flag(define)
    define_averages_flag(define)
    define.integer("num_crops", 1, "Views per image to average over: 1, 5, 10 or 12.")


def describing_flags(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the properties that `describe_classifier` takes."""
    names = ("model_name", "image_size", "preprocessing_name", "dataset_name", "dataset_dir")
    names += ("apply_orientation", "renamed_classes")
    return {name: getattr(values, name) for name in names}


def classifier_flags(values: flags.FlagValues) -> dict[str, Any]:
    names = ("checkpoint_path", "moving_average_decay", "num_crops")
    return {name: getattr(values, name) for name in names} | describing_flags(values)
