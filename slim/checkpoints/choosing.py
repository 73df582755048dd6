"""The network and the classes of a classifier.

They come from flags, otherwise from `model.json`, otherwise from the variables of the checkpoint.
"""

import sys
from pathlib import Path

from slim.checkpoints.contents import (
    classifier_size,
    matching_scopes,
    scope_variables,
    sort_variables,
)
from slim.checkpoints.description import (
    BACKGROUND,
    MODEL,
    ModelDescription,
    choose_input,
    read_model_description,
)
from slim.checkpoints.reading import read_shapes
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
