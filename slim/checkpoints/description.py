"""The network of a checkpoint and the images that it expects.

Flags take precedence over `model.json`, which training writes next to its checkpoints, and
`model.json` over the published defaults. Nothing here requires TensorFlow.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from slim.common.errors import UserError
from slim.common.files import write_whole
from slim.common.network_table import check_image_size, get_network, preprocessing_kind

MODEL = "model.json"
PUBLISHED_MODEL, PUBLISHED_SIZE = "inception_v3", 299  # the defaults without this file
BACKGROUND = "background"  # class 0 of networks that have one class more than their dataset
_FORMAT = 1


@dataclass(frozen=True)
class ModelDescription:
    """The properties of a network in a checkpoint."""

    model_name: str
    image_size: int  # height and width of the training images in pixels
    preprocessing_name: str
    dataset_name: str  # that it was trained on; empty if unknown
    class_names: tuple[str, ...]  # of all classes in the order of their labels
    apply_orientation: bool = False  # whether images are turned as EXIF says, written only if so


def write_model_description(folder: Path, description: ModelDescription) -> None:
    """Writes `model.json`, whole or not at all."""
    content = {"format": _FORMAT, **asdict(description)}
    if not description.apply_orientation:
        del content["apply_orientation"]
    write_whole(folder / MODEL, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_model_description(folder: Path) -> ModelDescription | None:
    """Reads `model.json`; returns None without one, and refuses an invalid one."""
    path = folder / MODEL
    try:
        content = json.loads(path.read_bytes())
        if content.pop("format") != _FORMAT:
            raise ValueError("another format")
        content["class_names"] = tuple(content["class_names"])
        description = ModelDescription(**content)
        texts = (
            description.model_name,
            description.preprocessing_name,
            description.dataset_name,
            *description.class_names,
        )
        kinds = type(description.image_size), type(description.apply_orientation)
        if kinds != (int, bool) or not all(isinstance(text, str) for text in texts):
            raise TypeError("values of another kind")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not valid for this version ({error}): delete it, and pass --model_name, "
            "--image_size and --dataset_name"
        ) from None
    return description


class TrainedInput(NamedTuple):
    """A network and the images that it expects."""

    model_name: str
    image_size: int  # height and width in pixels
    preprocessing_name: str


def choose_input(
    checkpoint: str,
    model_name: str | None,
    image_size: int | None,
    preprocessing_name: str | None,
    *,
    default_size: int = PUBLISHED_SIZE,
    size_flag: str = "image_size",
) -> TrainedInput:
    """Chooses a network, the size of its images, and their preprocessing, each by itself.

    A property that is not passed is that of training. Without `model.json`, they are the published
    network, `default_size`, and the preprocessing of the network. An `image_size` of 0 is the
    default of the network. Notes on stderr name the flags that differ from `model.json`.
    """
    trained = read_model_description(Path(checkpoint).parent)
    model_name = model_name or (trained.model_name if trained else PUBLISHED_MODEL)
    if image_size is None:
        size = trained.image_size if trained else default_size
    else:
        size = image_size or get_network(model_name).default_image_size
    name = preprocessing_name or (trained.preprocessing_name if trained else model_name)
    check_image_size(model_name, size, size)
    # "inception" and "inception_v3" are the same preprocessing, and no difference to speak of.
    kind = preprocessing_kind(name)
    differences = []
    if trained and size != trained.image_size:
        differences.append(f"--{size_flag}={size}: trained at {trained.image_size}")
    if trained and kind != (before := preprocessing_kind(trained.preprocessing_name)):
        differences.append(f"--preprocessing_name={name}: trained with {before}")
    for difference in differences:
        print(f"note: {difference}, see {Path(checkpoint).with_name(MODEL)}", file=sys.stderr)
    return TrainedInput(model_name, size, name)


def trained_size(checkpoint: str) -> int:
    """Returns the image size that a checkpoint was trained at, otherwise the published size."""
    trained = read_model_description(Path(checkpoint).parent)
    return trained.image_size if trained else PUBLISHED_SIZE
