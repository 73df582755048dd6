"""Sizes of networks: parameters and multiply-adds."""

from collections.abc import Iterable

from slim.common.compat import tf
from slim.nets.nets_factory import get_network_fn


def measure(name: str, image_size: int, num_classes: int) -> tuple[int, int]:
    """Returns the numbers of parameters and multiply-adds, without the auxiliary classifier."""
    with tf.Graph().as_default() as graph:
        images = tf.zeros([1, image_size, image_size, 3])
        get_network_fn(name, num_classes)(images, create_aux_logits=False)
        return count_parameters(tf.trainable_variables()), count_multiply_adds(graph)


def count_parameters(variables: Iterable[tf.Variable]) -> int:
    """Returns the number of parameters in variables; the statistics of batch norm do not count."""
    return sum(variable.shape.num_elements() for variable in variables if variable.trainable)


def count_multiply_adds(graph: tf.Graph) -> int:
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
