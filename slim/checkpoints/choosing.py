"""The network of a checkpoint, and the images and classes that it expects.

Flags take precedence over `model.json`, which training writes next to its checkpoints, and
`model.json` over the published defaults. A classifier without it is inferred from its variables.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from slim.checkpoints.contents import (
    classifier_size,
    matching_scopes,
    scope_variables,
    sort_variables,
)
from slim.checkpoints.description import (
    BACKGROUND,
    MODEL,
    PUBLISHED_MODEL,
    PUBLISHED_SIZE,
    ModelDescription,
    read_model_description,
)
from slim.checkpoints.reading import read_shapes
from slim.common.command_line import python_command
from slim.common.errors import UserError
from slim.datasets.lists import CLASSES
from slim.datasets.registry import dataset_folder, read_class_names
from slim.nets.nets_factory import check_image_size, get_network
from slim.preprocessing.preprocessing_factory import preprocessing_kind


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
    """Chooses a network, the size of its images, and their preprocessing.

    Notes on stderr name the flags that differ from `model.json`.

    Args:
        checkpoint: The prefix of the checkpoint.
        model_name: The network. Default: the trained one, otherwise the published one.
        image_size: Height and width of the images in pixels; 0 for the default of the network.
            Default: the size of training, otherwise `default_size`.
        preprocessing_name: The preprocessing. Default: that of training, otherwise of the network.
        default_size: The size without `image_size` and without `model.json`.
        size_flag: The name of the flag of the size.

    Raises:
        UserError: `model.json` is invalid, the network or the preprocessing is unknown, or the
            size is too small.
    """
    # Each property by itself: a run at another size keeps the network and the preprocessing.
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


def describe_classifier(
    checkpoint: str,
    *,
    model_name: str | None = None,
    image_size: int | None = None,
    preprocessing_name: str | None = None,
    dataset_name: str | None = None,
    dataset_dir: str = "./data/",
) -> ModelDescription:
    """Returns the properties of a classifier: as passed, of `model.json`, or inferred.

    The dataset names the classes; the description has one name per class of the network. A
    property that is missing, unknown, or does not match the checkpoint is refused.
    """
    written = read_model_description(Path(checkpoint).parent)
    contents = sort_variables(read_shapes(checkpoint))

    # 1. The network: the checkpoint has variables in the scope of one, or of several.
    name = model_name or (written.model_name if written else None)
    candidates = matching_scopes(contents)
    held = f"checkpoint {checkpoint} has variables of "
    held += " and ".join(candidates) or "no known network"
    if not name and len(candidates) != 1:
        raise UserError(f"--model_name is missing: {held}")
    if name and not scope_variables(name, contents):
        raise UserError(f"--model_name={name}: {held}; omit the flag")
    name = name or candidates[0]

    # 2. The classes: one name for each output of the classifier.
    num_classes = classifier_size(name, contents)
    if num_classes is None:
        raise UserError(
            f"checkpoint {checkpoint} has no classifier of {name}, only features (see "
            f"{python_command()} -m slim.inspect_checkpoint {checkpoint})"
        )
    if dataset_name:
        source = dataset_folder(dataset_name, dataset_dir) / CLASSES
        names = read_class_names(source, None)
        if names is None:
            problem = "is invalid" if source.exists() else "is missing"
            raise UserError(
                f"--dataset_name={dataset_name}: {source} {problem}; expected one line 'label "
                "name' per class, labels from 0 in order"
            )
    elif written:
        source, names = Path(checkpoint).with_name(MODEL), written.class_names
    else:
        source, names = None, tuple(map(str, range(num_classes)))
        print(
            f"note: {checkpoint} has no class names: pass its dataset with --dataset_name, or "
            f"fetch the model with {python_command()} -m slim.checkpoints, which adds names",
            file=sys.stderr,
        )
    if len(names) == num_classes - 1:
        names = (BACKGROUND, *names)
    if len(names) != num_classes:
        raise UserError(
            f"{source} names {len(names)} classes, but checkpoint {checkpoint} has {num_classes}: "
            "pass the dataset that it was trained on with --dataset_name"
        )

    # 3. The images.
    chosen = choose_input(
        checkpoint,
        name,
        image_size,
        preprocessing_name,
        default_size=get_network(name).default_image_size,
    )
    dataset_name = dataset_name or (written.dataset_name if written else "")
    return ModelDescription(*chosen, dataset_name, names)
