"""Shows which network a checkpoint holds: `python -m slim.inspect_checkpoint CHECKPOINT`."""

from functools import partial
from typing import TYPE_CHECKING

from absl import flags

from slim.common.command_line import FlagSet, python_command, run_command
from slim.common.errors import UserError

if TYPE_CHECKING:
    from slim.checkpoints.choosing import Contents, NetworkMatch


def define_flags(values: flags.FlagValues) -> None:
    define = FlagSet(values)
    define.string("checkpoint_path", None, "The checkpoint; the flag name is optional.")
    define.string("model_name", None, "The network to compare with. Default: all networks.")


def main(values: flags.FlagValues) -> None:
    """Prints the contents of a checkpoint, and how each network matches it."""
    if not values.checkpoint_path:
        raise UserError(
            f"CHECKPOINT is missing: {python_command()} -m slim.inspect_checkpoint CHECKPOINT, for "
            "example checkpoints/cub_200/model.ckpt-20000, or a folder of checkpoints"
        )
    from slim.checkpoints.choosing import (
        classifier_size,
        identify,
        is_auxiliary,
        scope_variables,
        sort_variables,
    )
    from slim.checkpoints.finding import find_checkpoint
    from slim.checkpoints.reading import check_readable, read_shapes, read_step
    from slim.nets.nets_factory import NETWORKS, get_network

    if values.model_name:
        get_network(values.model_name)
    checkpoint = find_checkpoint(values.checkpoint_path, "CHECKPOINT")
    check_readable(checkpoint)
    contents = sort_variables(read_shapes(checkpoint))
    show("checkpoint", checkpoint)
    show("step", read_step(checkpoint))
    held, network, matches = identify(contents, values.model_name)
    show("network", network)
    if held:
        show("classes", classifier_size(held, contents) or "none: features only")
        auxiliary = any(map(is_auxiliary, scope_variables(held, contents)))
        show("auxiliary classifier", "yes" if auxiliary else "no")
    show("averages", averages_text(contents))
    kinds = sorted({name.rpartition("/")[2] for name in contents.slots})
    show("optimizer slots", ", ".join(kinds) or "none")
    for name in [values.model_name] if values.model_name else NETWORKS:
        without = f"missing all variables (there is no {get_network(name).scope}/)"
        show(name, match_text(matches[name]) if name in matches else without)


def averages_text(contents: "Contents") -> str:
    if not contents.averaged:
        return "none"
    if contents.averaged >= contents.plain:
        alone = "" if contents.plain else ", which have no plain value"
        return f"of all {len(contents.averaged)} variables{alone}"
    return f"of {len(contents.averaged)} of {len(contents.shapes)} variables"


def match_text(match: "NetworkMatch") -> str:
    from slim.checkpoints.reading import first_few

    if match.fits:
        return f"fits: all {match.count} variables"
    differences = {
        f"missing {len(match.missing)} of {match.count} variables": match.missing,
        f"extra {len(match.extra)}": match.extra,
        f"of another shape {len(match.other_shape)}": match.other_shape,
    }
    return "; ".join(f"{what}: {first_few(names)}" for what, names in differences.items() if names)


def show(label: str, text: object) -> None:
    print(f"{label:<24}{text}", flush=True)


command = partial(
    run_command, define_flags, main, description=__doc__, positional="checkpoint_path"
)

if __name__ == "__main__":
    command()
