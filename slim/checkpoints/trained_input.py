"""The images that a network expects: as flags say, else as it was trained."""

import sys
from pathlib import Path

from slim.checkpoints.description import MODEL, read_model_description
from slim.nets.nets_factory import check_image_size
from slim.preprocessing.preprocessing_factory import preprocessing_kind


def choose_input(
    folder: Path,
    model_name: str,
    *,
    image_size: int | None,
    preprocessing_name: str | None,
    default_size: int,
    size_flag: str = "image_size",
) -> tuple[int, str]:
    """Chooses the image size and the preprocessing of a network.

    Flags take precedence over `model.json`, which training writes beside its checkpoints. A flag
    that differs from it is said on stderr.

    Args:
        folder: The folder of the checkpoint.
        model_name: The network, whose own preprocessing is the default without `model.json`.
        image_size: The value of the flag of the size; None if it is not given.
        preprocessing_name: The value of `--preprocessing_name`; None if it is not given.
        default_size: The size without the flag and without `model.json`.
        size_flag: The name of the flag of the size.

    Returns:
        Height and width in pixels, and a name of the preprocessing.

    Raises:
        UserError: `model.json` is invalid, the network or the preprocessing is unknown, or the
            size is too small.
    """
    trained = read_model_description(folder)
    size = image_size or (trained.image_size if trained else default_size)
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
    return size, name
