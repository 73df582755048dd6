"""Says which network a checkpoint holds: `python -m slim.inspect_checkpoint CHECKPOINT`."""

from collections.abc import Mapping
from functools import partial

from absl import flags

from slim.checkpoints.contents import (
    Contents,
    NetworkMatch,
    classifier_size,
    compare,
    is_auxiliary,
    networks_akin,
    recognise,
    scope_variables,
    sort_variables,
)
from slim.checkpoints.reading import (
    check_readable,
    find_checkpoint,
    first_few,
    read_shapes,
    read_step,
)
from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.nets.nets_factory import NETWORKS, get_network


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
    checkpoint = find_checkpoint(values.checkpoint_path, "CHECKPOINT")
    check_readable(checkpoint)
    contents = sort_variables(read_shapes(checkpoint))
    show("checkpoint", checkpoint)
    show("step", read_step(checkpoint))
    # Building a network takes seconds: without a name only those that share the checkpoint's scope.
    to_compare = [values.model_name] if values.model_name else networks_akin(contents)
    compared = {name: compare(name, contents) for name in to_compare}
    held = recognise(compared)
    show("network", say_network(held, compared))
    if held:
        show("classes", classifier_size(held, contents) or "none: features only")
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


def say_network(held: str | None, compared: Mapping[str, NetworkMatch]) -> str:
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


def say_comparison(name: str, comparison: NetworkMatch | None) -> str:
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
    return "; ".join(f"{what}: {first_few(names)}" for what, names in differences.items() if names)


command = partial(
    run_command, define_flags, main, description=__doc__, positional="checkpoint_path"
)

if __name__ == "__main__":
    command()
