"""The network of a checkpoint and the images that it expects.

Flags take precedence over `model.json`, which training writes next to its checkpoints, and
`model.json` over the published defaults. Nothing here requires TensorFlow.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import NamedTuple

from slim.common.errors import UserError
from slim.common.files import valid_text, write_whole
from slim.common.network_table import check_image_size, get_network, preprocessing_kind
from slim.datasets.lists import CLASSES

MODEL = "model.json"
PUBLISHED_MODEL, PUBLISHED_SIZE = "inception_v3", 299  # the defaults without this file
BACKGROUND = "background"  # class 0 of networks that have one class more than their dataset
RENAMED = "pass --renamed_classes if they are the same classes under other names"
_FORMAT = 1
_WORDNET_ID = re.compile("n[0-9]{8}")


@dataclass(frozen=True)
class ModelDescription:
    """The properties of a network in a checkpoint."""

    model_name: str
    image_size: int  # height and width of the training images in pixels
    preprocessing_name: str
    dataset_name: str  # that it was trained on; empty if unknown
    class_names: tuple[str, ...]  # of all classes in the order of their labels
    apply_orientation: bool = False  # whether images are turned as EXIF says, written only if so
    labels_offset: int = 0  # subtracted from the labels of its dataset; -1: there is a background


def write_model_description(folder: Path, description: ModelDescription) -> None:
    """Writes `model.json`, whole or not at all."""
    content = {"format": _FORMAT, **asdict(description)}
    if not description.apply_orientation:
        del content["apply_orientation"]
    if not description.labels_offset:
        del content["labels_offset"]
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / MODEL, valid_text(text))  # an escape of JSON for a name that is not UTF-8


def read_model_description(folder: Path) -> ModelDescription | None:
    """Reads `model.json`; returns None without one, and refuses an invalid one."""
    path = folder / MODEL
    try:
        content = json.loads(path.read_bytes())
        if content.pop("format") != _FORMAT:
            raise ValueError("another format")
        names = content["class_names"] = tuple(content["class_names"])
        content.setdefault("labels_offset", -1 if names[:1] == (BACKGROUND,) else 0)
        description = ModelDescription(**content)
        texts = (
            description.model_name,
            description.preprocessing_name,
            description.dataset_name,
            *description.class_names,
        )
        properties = description.image_size, description.apply_orientation
        kinds = [*map(type, (*properties, description.labels_offset))]
        if kinds != [int, bool, int] or not all(isinstance(text, str) for text in texts):
            raise TypeError("values of another kind")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not valid for this version ({error}): delete it, and pass --model_name, "
            "--image_size and --dataset_name"
        ) from None
    return description


def shift_names(names: Sequence[str], labels_offset: int) -> tuple[str, ...]:
    """Returns the names of a network's classes, given those of its dataset.

    A positive offset removes the first classes; a negative one puts backgrounds before them.
    """
    number = max(0, -labels_offset)
    added = [BACKGROUND] if number == 1 else [f"{BACKGROUND}_{i}" for i in range(number)]
    return (*added, *names[max(0, labels_offset) :])


def has_names(names: Sequence[str]) -> bool:
    """Returns whether classes have names, not only consecutive numbers."""
    numbers = [int(name) for name in names if name.isdecimal()]
    others = [name for name in names if not (name.isdecimal() or name.startswith(BACKGROUND))]
    return bool(others) or any(b != a + 1 for a, b in pairwise(numbers))


def find_other_class(
    checkpoint: str,
    dataset_name: str,
    names: Sequence[str] | None,
    *,
    labels_offset: int = 0,
    to_do: str,
) -> str | None:
    """Compares the classes of a dataset with those that `model.json` names, if both are known.

    `names` are those of a network's classes on the dataset with `labels_offset`.

    Returns:
        A message about the first class that differs, which ends in `to_do`. None if none does.
    """
    trained = read_model_description(Path(checkpoint).parent)
    if not (trained and names and has_names(names) and has_names(trained.class_names)):
        return None
    missing = len(trained.class_names) - len(names)
    if missing and missing == labels_offset - trained.labels_offset:
        to_do = f"pass --labels_offset={trained.labels_offset}, with which it was trained"
    for label, pair in enumerate(zip_longest(trained.class_names, names)):
        if label >= -labels_offset and (None in pair or not _is_same_class(*pair)):
            there, here = ("missing" if name is None else f"'{name}'" for name in pair)
            return (
                f"{Path(checkpoint).with_name(MODEL)} and {CLASSES} of {dataset_name} name other "
                f"classes: class {label} is {there} there and {here} here; {to_do}"
            )
    return None


def _is_same_class(name: str, other: str) -> bool:
    # ImageNet's development kit has synonyms ("great white shark, white shark"), Keras the first of
    # them ("great_white_shark"), and without the kit there are only WordNet ids.
    one, two = (" ".join(text.replace("_", " ").casefold().split()) for text in (name, other))
    if bool(_WORDNET_ID.fullmatch(one)) != bool(_WORDNET_ID.fullmatch(two)):
        return True
    return one == two or one in two.split(", ") or two in one.split(", ")


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
