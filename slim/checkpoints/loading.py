"""Checkpoints as frozen networks, with moving averages or plain variables."""

import sys

from slim.checkpoints.reading import (
    averaged_variables,
    by_name,
    check_fits,
    has_averages,
    read_values,
)
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.nets.frozen import FrozenNetwork, InferenceGraph, freeze


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
