"""The variables of a checkpoint, and the networks they belong to."""

from collections.abc import Mapping
from typing import NamedTuple

from slim.checkpoints.freezing import variable_shapes
from slim.checkpoints.reading import AVERAGE
from slim.nets.nets_factory import NETWORKS, get_network


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
    """Separates model variables, moving averages and optimizer slots.

    Averages and slots are named after their variable, with one more component.
    """
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
    """Identifies the network of a checkpoint.

    Args:
        contents: The variables of the checkpoint.
        model_name: The network to compare with. Default: all that share their scope with it.

    Returns:
        The network that fits, or at least by its names; the network, or the nearest one, as text;
        and the differences from the compared networks.
    """
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
