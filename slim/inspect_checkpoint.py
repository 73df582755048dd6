"""Shows which network a checkpoint holds: `python -m slim.inspect_checkpoint CHECKPOINT`."""

from functools import partial

from absl import flags

from slim.common.command_line import FlagSet, python_command, run_command
from slim.common.errors import UserError


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command."""
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
    from slim.checkpoints import contents as found
    from slim.checkpoints.reading import check_readable, find_checkpoint, read_shapes, read_step
    from slim.nets.nets_factory import NETWORKS, get_network

    if values.model_name:
        get_network(values.model_name)
    checkpoint = find_checkpoint(values.checkpoint_path, "CHECKPOINT")
    check_readable(checkpoint)
    contents = found.sort_variables(read_shapes(checkpoint))
    show("checkpoint", checkpoint)
    show("step", read_step(checkpoint))
    if values.model_name:
        matches = {values.model_name: found.match_network(values.model_name, contents)}
    else:
        matches = found.match_networks(contents)
    held = found.identify(matches)
    show("network", found.network_text(held, matches))
    if held:
        show("classes", found.classifier_size(held, contents) or "none: features only")
        auxiliary = any(map(found.is_auxiliary, found.scope_variables(held, contents)))
        show("auxiliary classifier", "yes" if auxiliary else "no")
    show("averages", found.averages_text(contents))
    kinds = sorted({name.rpartition("/")[2] for name in contents.slots})
    show("optimizer slots", ", ".join(kinds) or "none")
    for name in [values.model_name] if values.model_name else NETWORKS:
        show(name, found.match_text(name, matches.get(name)))


def show(label: str, text: object) -> None:
    """Prints a line of the report."""
    print(f"{label:<24}{text}", flush=True)


command = partial(
    run_command, define_flags, main, description=__doc__, positional="checkpoint_path"
)

if __name__ == "__main__":
    command()
