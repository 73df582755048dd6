"""Prints a table of the networks: `python -m slim.nets.describe`."""

from functools import partial
from typing import TYPE_CHECKING

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.tables import Table

if TYPE_CHECKING:
    from slim.common.compat import tf

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
    define = FlagSet(values)
    define.integer("image_size", 299, "Image size for multiply-adds in pixels.", 75)
    define.integer("num_classes", 1000, "Number of classes.", 1)


def main(values: flags.FlagValues) -> None:
    """Prints a table of the networks, in Markdown."""
    from slim.nets.nets_factory import NETWORKS

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


def measure(name: str, image_size: int, num_classes: int) -> tuple[int, int]:
    """Returns the numbers of parameters and multiply-adds, without the auxiliary classifier."""
    from slim.common.compat import tf
    from slim.common.devices import count_parameters
    from slim.nets.nets_factory import get_network_fn

    with tf.Graph().as_default() as graph:
        images = tf.zeros([1, image_size, image_size, 3])
        get_network_fn(name, num_classes)(images, create_aux_logits=False)
        return count_parameters(tf.trainable_variables()), count_multiply_adds(graph)


def count_multiply_adds(graph: "tf.Graph") -> int:
    """Counts the multiply-adds of convolutions and fully connected layers of known shapes."""
    total = 0
    for operation in graph.get_operations():
        if operation.type in ("Conv2D", "MatMul"):
            weights = operation.inputs[1].shape
            # Each output is a sum over the weights of its channel.
            total += operation.outputs[0].shape.num_elements() * (
                weights.num_elements() // weights.as_list()[-1]
            )
    return total


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
