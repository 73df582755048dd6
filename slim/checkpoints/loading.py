"""Checkpoints as frozen networks and as arrays, with moving averages or plain variables."""

import sys
from functools import cache

import numpy as np

from slim.checkpoints.reading import (
    AVERAGE,
    averaged_variables,
    by_name,
    check_fits,
    check_names,
    has_averages,
    read_tensors,
    read_values,
)
from slim.common.compat import compared_by_identity, slim, tf
from slim.common.errors import UserError
from slim.nets.frozen import FrozenNetwork, InferenceGraph, freeze
from slim.nets.nets_factory import get_network, get_network_fn


def choose_averages(
    checkpoint: str, moving_average_decay: float | None, *, default: bool = True
) -> bool:
    """Chooses between moving averages and plain variables.

    Args:
        checkpoint: The prefix of the checkpoint.
        moving_average_decay: The value of `--moving_average_decay`: 0 for the plain variables,
            another number for the averages, None for the default.
        default: Whether the default is averages if the checkpoint has them. Evaluation takes plain
            variables, as published.

    Returns:
        Whether to load the averages.

    Raises:
        UserError: The averages are asked for, and the checkpoint has none.
    """
    available = has_averages(checkpoint)
    if moving_average_decay and not available:
        raise UserError(
            f"--moving_average_decay={moving_average_decay}: checkpoint {checkpoint} has no moving "
            "averages; leave the flag out to take the plain variables"
        )
    return available and (default if moving_average_decay is None else moving_average_decay > 0)


def find_variables(
    graph: InferenceGraph, checkpoint: str, averages: bool, hint: str, shape_hint: str | None = None
) -> dict[str, tf.Variable]:
    """Returns and checks variables by their names in a checkpoint; see `freeze_checkpoint`."""
    restored = (averaged_variables if averages else by_name)(graph.variables)
    check_fits(checkpoint, restored, hint, shape_hint or hint)
    return restored


def freeze_checkpoint(
    graph: InferenceGraph,
    checkpoint: str,
    *,
    averages: bool,
    hint: str,
    shape_hint: str | None = None,
) -> FrozenNetwork:
    """Freezes a network with the values of a checkpoint, and prints to stderr which values.

    Args:
        graph: The network.
        checkpoint: The prefix of the checkpoint.
        averages: Whether to load the moving averages; see `choose_averages`.
        hint: Ends the error about missing variables, and that about other shapes by default.
        shape_hint: Ends the error about variables with other shapes.

    Raises:
        UserError: The checkpoint is damaged, lacks variables, or has variables of other shapes.
    """
    restored = find_variables(graph, checkpoint, averages, hint, shape_hint)
    frozen = freeze(graph, read_values(checkpoint, restored))
    chosen, other = "moving averages", "plain variables with --moving_average_decay=0"
    if not averages:
        chosen, other = "plain variables", "moving averages with --moving_average_decay=0.9999"
    choice = f" ({other})" if has_averages(checkpoint) else ""
    print(f"{checkpoint}: {chosen}{choice}", file=sys.stderr, flush=True)
    return frozen


def read_network(
    checkpoint: str, model_name: str, num_classes: int, averages: bool
) -> dict[str, np.ndarray]:
    """Reads the values of a network without its auxiliary classifier.

    Args:
        checkpoint: The prefix of the checkpoint.
        model_name: The network.
        num_classes: Number of classes.
        averages: Whether to read the moving averages; see `choose_averages`.

    Returns:
        Values by the names of the variables, in the order of their creation.

    Raises:
        UserError: The checkpoint is damaged or lacks variables.
    """
    suffix = AVERAGE if averages else ""
    names = {name: f"{name}{suffix}" for name in variable_shapes(model_name, num_classes)}
    check_names(checkpoint, list(names.values()), f"is it of {model_name}?")
    found = read_tensors(checkpoint, list(names.values()))
    return {name: found[stored] for name, stored in names.items()}


@cache
def variable_shapes(model_name: str, num_classes: int | None) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the variables of a network by name, in the order of their creation."""
    size = get_network(model_name).default_image_size
    with tf.Graph().as_default(), compared_by_identity():
        network_fn = get_network_fn(model_name, num_classes)
        network_fn(tf.zeros([1, size, size, 3]), create_aux_logits=False)
        return {v.op.name: tuple(v.shape.as_list()) for v in slim.get_model_variables()}
