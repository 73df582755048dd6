"""The properties of a classifier: network, image size, preprocessing, class names.

They come from flags, else from the `model.json` that training wrote beside the checkpoint. Without
`model.json` the network is inferred from the variable names.
"""

import sys
from pathlib import Path

from slim.checkpoints.contents import (
    Contents,
    classifier_size,
    matching_scopes,
    scope_variables,
    sort_variables,
)
from slim.checkpoints.description import (
    BACKGROUND,
    MODEL,
    ModelDescription,
    read_model_description,
)
from slim.checkpoints.reading import read_shapes
from slim.checkpoints.trained_input import choose_input
from slim.common.command_line import python_command
from slim.common.errors import UserError
from slim.datasets.lists import CLASSES
from slim.datasets.registry import dataset_folder, read_class_names
from slim.nets.nets_factory import get_network


def describe_classifier(
    checkpoint: str,
    *,
    model_name: str | None = None,
    image_size: int | None = None,
    preprocessing_name: str | None = None,
    dataset_name: str | None = None,
    dataset_dir: str = "./data/",
) -> ModelDescription:
    """Returns the properties of a classifier: as given, else from `model.json`, else inferred.

    Args:
        checkpoint: The prefix of the checkpoint.
        model_name: The network.
        image_size: Height and width of the images in pixels.
        preprocessing_name: The preprocessing.
        dataset_name: The dataset that names the classes.
        dataset_dir: The folder that holds the datasets.

    Returns:
        The description, with one name per class of the network.

    Raises:
        UserError: A property is missing, unknown, or does not match the checkpoint.
    """
    written = read_model_description(Path(checkpoint).parent)
    contents = sort_variables(read_shapes(checkpoint))
    name = model_name or (written.model_name if written else None)
    name = _choose_network(checkpoint, contents, name)
    num_classes = classifier_size(name, contents)
    if num_classes is None:
        raise UserError(
            f"checkpoint {checkpoint} has no classifier of {name}, only features (see "
            f"{python_command()} -m slim.inspect_checkpoint {checkpoint})"
        )
    names = written.class_names if written else tuple(map(str, range(num_classes)))
    if not (written or dataset_name):
        print(
            f"note: {checkpoint} has no class names: give its dataset with --dataset_name, or "
            f"fetch the model with {python_command()} -m slim.checkpoints, which adds names",
            file=sys.stderr,
        )
    source = Path(checkpoint).with_name(MODEL)
    if dataset_name:
        names, source = _read_names(dataset_name, dataset_dir)
    names = _class_names(checkpoint, num_classes, names, source)
    chosen = choose_input(
        Path(checkpoint).parent,
        name,
        image_size,
        preprocessing_name,
        default_size=get_network(name).default_image_size,
    )
    dataset_name = dataset_name or (written.dataset_name if written else "")
    return ModelDescription(*chosen, dataset_name, names)


def _choose_network(checkpoint: str, contents: Contents, name: str | None) -> str:
    """Returns the name of the network if it is given, else infers it."""
    candidates = matching_scopes(contents)
    found = f"checkpoint {checkpoint} has variables of "
    found += " and ".join(candidates) or "no known network"
    if not name and len(candidates) != 1:
        raise UserError(f"--model_name is missing: {found}")
    if name and not scope_variables(name, contents):
        raise UserError(f"--model_name={name}: {found}; leave the flag out")
    return name or candidates[0]


def _class_names(
    checkpoint: str, num_classes: int, names: tuple[str, ...], source: Path
) -> tuple[str, ...]:
    if len(names) == num_classes - 1:
        names = (BACKGROUND, *names)
    if len(names) != num_classes:
        raise UserError(
            f"{source} names {len(names)} classes, but checkpoint {checkpoint} has {num_classes}: "
            "give the dataset that it was trained on with --dataset_name"
        )
    return names


def _read_names(dataset_name: str, dataset_dir: str) -> tuple[tuple[str, ...], Path]:
    path = dataset_folder(dataset_name, dataset_dir) / CLASSES
    names = read_class_names(path, None)
    if names is None:
        found = "is invalid" if path.exists() else "is missing"
        raise UserError(
            f"--dataset_name={dataset_name}: {path} {found}; expected one line 'label name' per "
            "class, labels from 0 in order"
        )
    return names, path
