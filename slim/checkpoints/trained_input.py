"""The network, image size and preprocessing: those of the flags, or else of training."""

import sys
from pathlib import Path
from typing import NamedTuple

from slim.checkpoints.description import (
    MODEL,
    PUBLISHED_MODEL,
    PUBLISHED_SIZE,
    read_model_description,
)
from slim.nets.nets_factory import check_image_size, get_network
from slim.preprocessing.preprocessing_factory import preprocessing_kind


class TrainedInput(NamedTuple):
    """A network and the images that it expects."""

    model_name: str
    image_size: int  # height and width in pixels
    preprocessing_name: str


def choose_input(
    folder: Path,
    model_name: str | None,
    image_size: int | None,
    preprocessing_name: str | None,
    *,
    default_size: int = PUBLISHED_SIZE,
    size_flag: str = "image_size",
) -> TrainedInput:
    """Chooses a network, the size of its images, and their preprocessing.

    Flags take precedence over `model.json`, which training writes beside its checkpoints. Notes on
    stderr name the flags that differ from it.

    Args:
        folder: The folder of the checkpoint.
        model_name: The network. Default: the trained one, else the published one.
        image_size: Height and width of the images in pixels; 0 for the default of the network.
            Default: the size of training, else `default_size`.
        preprocessing_name: The preprocessing. Default: that of training, else of the network.
        default_size: The size without `image_size` and without `model.json`.
        size_flag: The name of the flag of the size.

    Raises:
        UserError: `model.json` is invalid, the network or the preprocessing is unknown, or the
            size is too small.
    """
    trained = read_model_description(folder)
    model_name = model_name or (trained.model_name if trained else PUBLISHED_MODEL)
    if image_size is None:
        size = trained.image_size if trained else default_size
    else:
        size = image_size or get_network(model_name).default_image_size
    name = preprocessing_name or (trained.preprocessing_name if trained else model_name)
    check_image_size(model_name, size, size)
    kind = preprocessing_kind(name)
    differences = []
    if trained and size != trained.image_size:
        differences.append(f"--{size_flag}={size}: trained at {trained.image_size}")
    if trained and kind != (before := preprocessing_kind(trained.preprocessing_name)):
        differences.append(f"--preprocessing_name={name}: trained with {before}")
    for difference in differences:
        print(f"note: {difference}, see {folder / MODEL}", file=sys.stderr)
    return TrainedInput(model_name, size, name)


def trained_size(checkpoint: str) -> int:
    """Returns the image size that a checkpoint was trained at, else the published size.

    Args:
        checkpoint: The prefix of the checkpoint.
    """
    trained = read_model_description(Path(checkpoint).parent)
    return trained.image_size if trained else PUBLISHED_SIZE
