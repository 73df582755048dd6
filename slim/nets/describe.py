"""Prints a table of the networks: `python -m slim.nets.describe`."""

from functools import partial

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.compat import tf
from slim.nets.nets_factory import NETWORKS, get_network_fn

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
    define.integer("image_size", 299, "Height and width to count multiply-adds at, in pixels.", 75)
    define.integer("num_classes", 1000, "Classes to count parameters and multiply-adds with.", 1)


def main(values: flags.FlagValues) -> None:
    """Prints a table of the networks, in Markdown."""
    print(row(_COLUMNS))
    print(row(["---"] + ["---:"] * 4 + ["---", "---:"]))
    for name in NETWORKS:
        print(row(describe(name, values.image_size, values.num_classes)), flush=True)


def row(cells: list[str] | tuple[str, ...]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def describe(name: str, image_size: int, num_classes: int) -> list[str]:
    """A network's row: as it is used, without its auxiliary classifier."""
    network = NETWORKS[name]
    with tf.Graph().as_default() as graph:
        images = tf.zeros([1, image_size, image_size, 3])
        get_network_fn(name, num_classes)(images, create_aux_logits=False)
        parameters = sum(variable.shape.num_elements() for variable in tf.trainable_variables())
        operations = multiply_adds(graph)
    return [
        f"`{name}`",
        f"{parameters / 1e6:.1f} M",
        str(network.default_image_size),
        str(network.smallest_image_size),
        f"{network.feature_depth:,}",
        f"`{network.feature_endpoint}`",
        f"{operations / 1e9:.1f} G",
    ]


def multiply_adds(graph: tf.Graph) -> int:
    """Multiply-adds of a graph's convolutions and fully connected layers, of known shapes."""
    total = 0
    for operation in graph.get_operations():
        if operation.type in ("Conv2D", "MatMul"):
            weights = operation.inputs[1].shape
            # Each number that leaves sums over what its output channel weighs.
            total += operation.outputs[0].shape.num_elements() * (
                weights.num_elements() // weights.as_list()[-1]
            )
    return total


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
