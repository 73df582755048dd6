"""The description of the network that training writes next to its checkpoints, `model.json`.

Nothing here requires TensorFlow.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from slim.common.errors import UserError
from slim.common.files import write_whole

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


def write_model_description(folder: Path, description: ModelDescription) -> None:
    """Writes `model.json`, whole or not at all."""
    content = {"format": _FORMAT, **asdict(description)}
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
        if type(description.image_size) is not int or not all(isinstance(t, str) for t in texts):
            raise TypeError("values of another kind")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not valid for this version ({error}): delete it, and pass --model_name, "
            "--image_size and --dataset_name"
        ) from None
    return description
