"""Says which network a checkpoint holds: `python -m slim.inspect_checkpoint CHECKPOINT`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from absl import flags

from slim import checkpoints
from slim.compat import slim, tf
from slim.errors import UserError, run_command
from slim.flags import FlagSet
from slim.nets.nets_factory import NETWORKS, get_network, get_network_fn


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
class Comparison:
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


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.string("checkpoint_path", None, "The checkpoint; its name alone will do.")
    define.string("model_name", None, "Compare with this network only. Default: with all.")


def main(values: flags.FlagValues) -> None:
    """Prints what a checkpoint holds, and how each network fits it."""
    if not values.checkpoint_path:
        raise UserError(
            "CHECKPOINT is missing: python -m slim.inspect_checkpoint CHECKPOINT, where CHECKPOINT "
            "is such as checkpoints/cub_200/model.ckpt-20000, or a folder of checkpoints"
        )
    if values.model_name:
        get_network(values.model_name)
    checkpoint = checkpoints.find_checkpoint(values.checkpoint_path, "CHECKPOINT")
    checkpoints.check_readable(checkpoint)
    contents = sort_variables(checkpoints.read_shapes(checkpoint))
    show("checkpoint", checkpoint)
    show("step", checkpoints.read_step(checkpoint))
    # Building a network takes seconds: without a name only those that share the checkpoint's scope.
    to_compare = [values.model_name] if values.model_name else networks_akin(contents)
    compared = {name: compare(name, contents) for name in to_compare}
    held = recognise(compared)
    show("network", say_network(held, compared))
    if held:
        show("classes", count_classes(held, contents) or "none: features only")
        has_aux_logits = any(is_auxiliary(name) for name in scope_variables(held, contents))
        show("auxiliary classifier", "yes" if has_aux_logits else "no")
    show("averages", say_averages(contents))
    kinds = sorted({name.rpartition("/")[2] for name in contents.slots})
    show("optimizer slots", ", ".join(kinds) or "none")
    for name in [values.model_name] if values.model_name else NETWORKS:
        show(name, say_comparison(name, compared.get(name)))


def show(label: str, text: object) -> None:
    """Prints a line of the report."""
    print(f"{label:<24}{text}", flush=True)


def sort_variables(shapes: Mapping[str, list[int]]) -> Contents:
    """Tells a network's variables from their averages and from an optimizer's slots.

    Averages and slots are named after the variable, with one more part.
    """
    averaged = frozenset(
        name.removesuffix(checkpoints.AVERAGE)
        for name in shapes
        if name.endswith(checkpoints.AVERAGE)
    )
    values = {name for name in shapes if "/" in name and not name.endswith(checkpoints.AVERAGE)}
    slots = frozenset(name for name in values if name.rpartition("/")[0] in values | averaged)
    plain = frozenset(values - slots)
    return Contents(
        {
            name: shapes.get(name, shapes.get(name + checkpoints.AVERAGE))
            for name in sorted(plain | averaged)
        },
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


def count_classes(name: str, contents: Contents) -> int | None:
    """The classes that a checkpoint of a network tells apart; None where it has no classifier."""
    scope = f"{NETWORKS[name].scope}/logits/"
    for key in scope_variables(name, contents):
        if key.lower().startswith(scope.lower()) and key.endswith("/biases"):
            return contents.shapes[key][0]
    return None


def compare(name: str, contents: Contents) -> Comparison:
    """Builds a network with the checkpoint's number of classes and compares the variables."""
    with tf.Graph().as_default():
        size = NETWORKS[name].default_image_size
        network_fn = get_network_fn(name, count_classes(name, contents))
        network_fn(tf.zeros([1, size, size, 3]), create_aux_logits=False)
        wanted = {v.op.name: v.shape.as_list() for v in slim.get_model_variables()}
    found = {
        key: contents.shapes[key]
        for key in scope_variables(name, contents)
        if not is_auxiliary(key)
    }
    return Comparison(
        len(wanted),
        [key for key in wanted if key not in found],
        [key for key in found if key not in wanted],
        [
            f"{key} is {found[key]} there and {shape} here"
            for key, shape in wanted.items()
            if key in found and found[key] != shape
        ],
    )


def recognise(compared: Mapping[str, Comparison]) -> str | None:
    """The network that a checkpoint holds: the one that fits, by its names at least."""
    fitting = [name for name, comparison in compared.items() if comparison.fits]
    by_name = [name for name, comparison in compared.items() if comparison.fits_by_name]
    return next(iter(fitting + by_name), None)


def say_network(held: str | None, compared: Mapping[str, Comparison]) -> str:
    """The network that a checkpoint holds, or the nearest one."""
    if held and compared[held].fits:
        return held
    if held:
        return f"{held} by its names, with other shapes: of another width (depth_multiplier)?"
    near = {
        name: len(comparison.missing + comparison.extra)
        for name, comparison in compared.items()
        if len(comparison.missing) < comparison.count
    }
    return f"none that fits; the nearest is {min(near, key=near.get)}" if near else "none that fits"


def say_averages(contents: Contents) -> str:
    """Which variables have moving averages."""
    if not contents.averaged:
        return "none"
    if contents.averaged >= contents.plain:
        alone = "" if contents.plain else ", which have no plain value"
        return f"of all {len(contents.averaged)} variables{alone}"
    return f"of {len(contents.averaged)} of {len(contents.shapes)} variables"


def say_comparison(name: str, comparison: Comparison | None) -> str:
    """How a network fits a checkpoint; None where they have no scope in common."""
    if comparison is None:
        return f"missing all variables (there is no {NETWORKS[name].scope}/)"
    if comparison.fits:
        return f"fits: all {comparison.count} variables"
    differences = {
        f"missing {len(comparison.missing)} of {comparison.count} variables": comparison.missing,
        f"extra {len(comparison.extra)}": comparison.extra,
        f"of another shape {len(comparison.other_shape)}": comparison.other_shape,
    }
    return "; ".join(
        f"{what}: {checkpoints.first_few(names)}" for what, names in differences.items() if names
    )


command = partial(
    run_command, define_flags, main, description=__doc__, positional="checkpoint_path"
)

if __name__ == "__main__":
    command()
