"""Prints a table of the networks: `python -m slim.nets.describe`."""

from functools import partial

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.tables import Table

_COLUMNS = (
    "network",
    "parameters",
    "default size",
    "smallest size",
    "features",
    "end point",
    "multiply-adds",
)


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.integer("image_size", 299, "Image size for multiply-adds in pixels.", 75)
    define.integer("num_classes", 1000, "Number of classes.", 1)


def main(values: flags.FlagValues) -> None:
    """Prints a table of the networks, in Markdown."""
    from slim.nets.nets_factory import NETWORKS
    from slim.nets.sizes import measure

    rows = []
    for name, network in NETWORKS.items():
        parameters, multiply_adds = measure(name, values.image_size, values.num_classes)
        rows.append(
            [
                f"`{name}`",
                f"{parameters / 1e6:.1f} M",
                str(network.default_image_size),
                str(network.smallest_image_size),
                f"{network.feature_depth:,}",
                f"`{network.feature_endpoint}`",
                f"{multiply_adds / 1e9:.1f} G",
            ]
        )
    print(Table(_COLUMNS, rows, numeric=[1, 2, 3, 4, 6]))


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
