"""The variables of a checkpoint, and the networks they belong to."""

from collections.abc import Mapping
from dataclasses import dataclass

from slim.checkpoints.reading import AVERAGE
from slim.common.compat import slim, tf
from slim.nets.nets_factory import NETWORKS, get_network_fn


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds.

    Attributes:
        shapes: The shape of every variable of a network by name, were it its average only.
        averaged: Names of those that have an average.
        plain: Names of those that have a value of their own.
        slots: Names of the optimizer's slots.
    """

    shapes: Mapping[str, list[int]]
    averaged: frozenset[str]
    plain: frozenset[str]
    slots: frozenset[str]


@dataclass(frozen=True)
class NetworkMatch:
    """A network's variables beside a checkpoint's, the auxiliary classifier left aside.

    Attributes:
        count: Number of the network's variables.
        missing: Names of those that the checkpoint lacks.
        extra: Names of those in the network's scope that the checkpoint alone has.
        other_shape: A text for each whose shape differs.
    """

    count: int
    missing: list[str]
    extra: list[str]
    other_shape: list[str]

    @property
    def fits(self) -> bool:
        """Whether the network can be evaluated from the checkpoint."""
        return self.fits_by_name and not self.other_shape

    @property
    def fits_by_name(self) -> bool:
        """Whether names are the same, and only shapes may differ."""
        return not (self.missing or self.extra)


def sort_variables(shapes: Mapping[str, list[int]]) -> Contents:
    """Tells a network's variables from their averages and from an optimizer's slots.

    Averages and slots are named after the variable, with one more part.
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
    """Names of a checkpoint's variables in the scope of a network."""
    return [key for key in contents.shapes if key.startswith(f"{NETWORKS[name].scope}/")]


def networks_akin(contents: Contents) -> list[str]:
    """The networks whose scope a checkpoint's variables are in; no two share one."""
    return [name for name in NETWORKS if scope_variables(name, contents)]


def is_auxiliary(variable: str) -> bool:
    """Whether a variable is the auxiliary classifier's, which only training uses."""
    return "/AuxLogits/" in variable


def classifier_size(name: str, contents: Contents) -> int | None:
    """The classes that a checkpoint of a network tells apart; None where it has no classifier."""
    scope = f"{NETWORKS[name].scope}/logits/"
    for key in scope_variables(name, contents):
        if key.lower().startswith(scope.lower()) and key.endswith("/biases"):
            return contents.shapes[key][0]
    return None


def compare(name: str, contents: Contents) -> NetworkMatch:
    """Builds a network with the checkpoint's number of classes and compares the variables."""
    with tf.Graph().as_default():
        size = NETWORKS[name].default_image_size
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


def recognise(compared: Mapping[str, NetworkMatch]) -> str | None:
    """The network that a checkpoint holds: the one that fits, by its names at least."""
    fitting = [name for name, comparison in compared.items() if comparison.fits]
    by_name = [name for name, comparison in compared.items() if comparison.fits_by_name]
    return next(iter(fitting + by_name), None)
