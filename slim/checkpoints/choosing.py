"""The network and the classes of a checkpoint.

They come from flags, otherwise from `model.json`, otherwise from the variables of the checkpoint.
"""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from slim.checkpoints.description import (
    MODEL,
    RENAMED,
    ModelDescription,
    choose_input,
    find_other_class,
    read_model_description,
    shift_names,
)
from slim.checkpoints.freezing import variable_shapes
from slim.checkpoints.reading import AVERAGE, read_shapes
from slim.common.command_line import python_command
from slim.common.errors import UserError
from slim.datasets.lists import CLASSES
from slim.datasets.registry import dataset_folder, read_class_names
from slim.nets.nets_factory import NETWORKS, get_network


def describe_classifier(
    checkpoint: str,
    *,
    model_name: str | None = None,
    image_size: int | None = None,
    preprocessing_name: str | None = None,
    dataset_name: str | None = None,
    dataset_dir: str = "./data/",
    apply_orientation: bool | None = None,
    renamed_classes: bool = False,
) -> ModelDescription:
    """Returns the properties of a classifier: as passed, of `model.json`, or inferred.

    The dataset names the classes; the description has one name per class of the network. A
    property that is missing, unknown, or does not match the checkpoint is refused, also other names
    than those of `model.json` unless `renamed_classes` says that the classes are the same.
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
            f"{python_command()} -m slim.inspect_checkpoint {shlex.quote(checkpoint)})"
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
    offset = written.labels_offset if written else 0
    if dataset_name and len(names) - num_classes == offset:
        names = shift_names(names, offset)
    if len(names) != num_classes:
        hint = "pass the dataset that it was trained on with --dataset_name"
        if len(names) == num_classes - 1:
            fetch = f"fetch it with {python_command()} -m slim.checkpoints"
            hint += f"; if its first class is a background, {fetch}, which records that"
        raise UserError(
            f"{source} names {len(names)} classes, but checkpoint {checkpoint} has {num_classes}: "
            f"{hint}"
        )
    if dataset_name and not renamed_classes:
        to_do = f"omit --dataset_name, or {RENAMED}"
        if problem := find_other_class(checkpoint, dataset_name, names, to_do=to_do):
            raise UserError(problem)

    # 3. The images.
    chosen = choose_input(
        checkpoint,
        name,
        image_size,
        preprocessing_name,
        default_size=get_network(name).default_image_size,
    )
    dataset_name = dataset_name or (written.dataset_name if written else "")
    if apply_orientation is None:
        apply_orientation = written is not None and written.apply_orientation
    return ModelDescription(*chosen, dataset_name, names, apply_orientation, offset)


class Contents(NamedTuple):
    """The variables in a checkpoint."""

    shapes: Mapping[str, list[int]]  # of model variables, also those with an average only
    averaged: frozenset[str]  # names of the variables with an average
    plain: frozenset[str]  # names of the variables with a plain value
    slots: frozenset[str]  # names of the optimizer's slots


class NetworkMatch(NamedTuple):
    """Differences between a network and a checkpoint, without the auxiliary classifier."""

    count: int  # number of variables of the network
    missing: list[str]  # variables that the checkpoint lacks
    extra: list[str]  # variables in the scope of the network that only the checkpoint has
    other_shape: list[str]  # one text per variable whose shape differs

    @property
    def fits_by_name(self) -> bool:
        """Whether all names match, so that only shapes may differ."""
        return not (self.missing or self.extra)

    @property
    def fits(self) -> bool:
        """Whether the network can be restored from the checkpoint."""
        return self.fits_by_name and not self.other_shape


def sort_variables(shapes: Mapping[str, list[int]]) -> Contents:
    """Separates model variables, moving averages and optimizer slots."""
    # Averages and slots are named after their variable, with one more component.
    averaged = frozenset(name.removesuffix(AVERAGE) for name in shapes if name.endswith(AVERAGE))
    values = {name for name in shapes if "/" in name and not name.endswith(AVERAGE)}
    slots = frozenset(name for name in values if name.rpartition("/")[0] in values | averaged)
    plain = frozenset(values - slots)
    return Contents(
        {name: shapes.get(name, shapes.get(name + AVERAGE)) for name in sorted(plain | averaged)},
        averaged,
        plain,
        slots,
    )


def scope_variables(name: str, contents: Contents) -> list[str]:
    """Returns the variables of a checkpoint in the scope of a network."""
    return [key for key in contents.shapes if key.startswith(f"{get_network(name).scope}/")]


def matching_scopes(contents: Contents) -> list[str]:
    """Returns the networks whose scope has variables in a checkpoint; no two share a scope."""
    return [name for name in NETWORKS if scope_variables(name, contents)]


def is_auxiliary(variable: str) -> bool:
    """Returns whether a variable is of the auxiliary classifier, which only training uses."""
    return "/AuxLogits/" in variable


def classifier_size(name: str, contents: Contents) -> int | None:
    """Returns the number of classes of a checkpoint of a network; None without a classifier."""
    scope = f"{get_network(name).scope}/logits/"
    for key in scope_variables(name, contents):
        if key.lower().startswith(scope.lower()) and key.endswith("/biases"):
            return contents.shapes[key][0]
    return None


def match_network(name: str, contents: Contents) -> NetworkMatch:
    """Compares a network, built with the checkpoint's number of classes, with a checkpoint."""
    wanted = variable_shapes(name, classifier_size(name, contents))
    found = {
        key: contents.shapes[key]
        for key in scope_variables(name, contents)
        if not is_auxiliary(key)
    }
    return NetworkMatch(
        len(wanted),
        [key for key in wanted if key not in found],
        [key for key in found if key not in wanted],
        [
            f"{key} is {found[key]} there and {list(shape)} here"
            for key, shape in wanted.items()
            if key in found and found[key] != list(shape)
        ],
    )


def identify(
    contents: Contents, model_name: str | None = None
) -> tuple[str | None, str, dict[str, NetworkMatch]]:
    """Returns the network of a checkpoint, if any, a text about it, and all compared networks.

    Compared are `model_name`, otherwise all networks whose scope has variables in the checkpoint.
    """
    # A network with another depth multiplier has the same names of variables in other shapes.
    names = [model_name] if model_name else matching_scopes(contents)
    matches = {name: match_network(name, contents) for name in names}
    fitting = [name for name, match in matches.items() if match.fits]
    named = [name for name, match in matches.items() if match.fits_by_name]
    if fitting:
        return fitting[0], fitting[0], matches
    if named:
        text = f"{named[0]} by its names, with other shapes: another depth multiplier?"
        return named[0], text, matches
    near = {
        name: len(match.missing + match.extra)
        for name, match in matches.items()
        if len(match.missing) < match.count
    }
    nearest = f"; the nearest is {min(near, key=near.get)}" if near else ""
    return None, f"none that fits{nearest}", matches
