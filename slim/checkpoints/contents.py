"""The variables of a checkpoint, and the networks they belong to."""

from collections.abc import Mapping
from dataclasses import dataclass

from slim.checkpoints.reading import AVERAGE, first_few
from slim.common.compat import slim, tf
from slim.nets.nets_factory import NETWORKS, get_network, get_network_fn


@dataclass(frozen=True)
class Contents:
    """The variables in a checkpoint.

    Attributes:
        shapes: Shapes of the model variables by name, including those of which only an average
            exists.
        averaged: Names of the variables with an average.
        plain: Names of the variables with a plain value.
        slots: Names of the optimizer's slots.
    """

    shapes: Mapping[str, list[int]]
    averaged: frozenset[str]
    plain: frozenset[str]
    slots: frozenset[str]


@dataclass(frozen=True)
class NetworkMatch:
    """Differences between a network and a checkpoint, without the auxiliary classifier.

    Attributes:
        count: Number of variables of the network.
        missing: Names of variables that the checkpoint lacks.
        extra: Names of variables in the scope of the network that only the checkpoint has.
        other_shape: One text per variable whose shape differs.
    """

    count: int
    missing: list[str]
    extra: list[str]
    other_shape: list[str]

    @property
    def fits(self) -> bool:
        """Whether the network can be restored from the checkpoint."""
        return self.fits_by_name and not self.other_shape

    @property
    def fits_by_name(self) -> bool:
        """Whether all names match, so that only shapes may differ."""
        return not (self.missing or self.extra)


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
    with tf.Graph().as_default():
        size = get_network(name).default_image_size
        network_fn = get_network_fn(name, classifier_size(name, contents))
        network_fn(tf.zeros([1, size, size, 3]), create_aux_logits=False)
        wanted = {v.op.name: v.shape.as_list() for v in slim.get_model_variables()}
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
            f"{key} is {found[key]} there and {shape} here"
            for key, shape in wanted.items()
            if key in found and found[key] != shape
        ],
    )


def identify(matches: Mapping[str, NetworkMatch]) -> str | None:
    """Returns the network that a checkpoint holds: one that fits, or at least by its names."""
    fitting = [name for name, match in matches.items() if match.fits]
    by_name = [name for name, match in matches.items() if match.fits_by_name]
    return next(iter(fitting + by_name), None)


def match_networks(contents: Contents) -> dict[str, NetworkMatch]:
    """Compares all networks that share their scope with a checkpoint."""
    return {name: match_network(name, contents) for name in matching_scopes(contents)}


def network_text(held: str | None, matches: Mapping[str, NetworkMatch]) -> str:
    """Returns the network that a checkpoint holds, or the nearest one, as text."""
    if held and matches[held].fits:
        return held
    if held:
        return f"{held} by its names, with other shapes: another depth multiplier?"
    near = {
        name: len(match.missing + match.extra)
        for name, match in matches.items()
        if len(match.missing) < match.count
    }
    return f"none that fits; the nearest is {min(near, key=near.get)}" if near else "none that fits"


def averages_text(contents: Contents) -> str:
    """Returns which variables have moving averages, as text."""
    if not contents.averaged:
        return "none"
    if contents.averaged >= contents.plain:
        alone = "" if contents.plain else ", which have no plain value"
        return f"of all {len(contents.averaged)} variables{alone}"
    return f"of {len(contents.averaged)} of {len(contents.shapes)} variables"


def match_text(name: str, match: NetworkMatch | None) -> str:
    """Returns how a network matches a checkpoint, as text; None means no common scope."""
    if match is None:
        return f"missing all variables (there is no {get_network(name).scope}/)"
    if match.fits:
        return f"fits: all {match.count} variables"
    differences = {
        f"missing {len(match.missing)} of {match.count} variables": match.missing,
        f"extra {len(match.extra)}": match.extra,
        f"of another shape {len(match.other_shape)}": match.other_shape,
    }
    return "; ".join(f"{what}: {first_few(names)}" for what, names in differences.items() if names)
