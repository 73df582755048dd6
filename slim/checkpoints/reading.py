"""Reads checkpoints, and checks what they have."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from slim.checkpoints.finding import is_complete
from slim.common.compat import tf
from slim.common.errors import UserError

AVERAGE = "/ExponentialMovingAverage"  # ends the name of a variable's moving average
_SHOWN = 3


class MissingCheckpointError(UserError):
    """Files of a checkpoint have gone, perhaps since it was found."""


def read_shapes(checkpoint: str) -> dict[str, list[int]]:
    """Returns the shape of every variable of a checkpoint by name."""
    with _reading(checkpoint):
        return tf.train.load_checkpoint(checkpoint).get_variable_to_shape_map()


def read_step(checkpoint: str) -> int:
    """Returns the step of a checkpoint, 0 if it has none."""
    if "global_step" not in read_shapes(checkpoint):
        return 0
    return int(read_tensors(checkpoint, ["global_step"])["global_step"])


def read_tensors(checkpoint: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns values of a checkpoint by their names in it."""
    with _reading(checkpoint):
        reader = tf.train.load_checkpoint(checkpoint)
        return {name: reader.get_tensor(name) for name in names}


def check_readable(checkpoint: str) -> None:
    """Reads every variable of a checkpoint, each of which has a checksum."""
    read_tensors(checkpoint, list(read_shapes(checkpoint)))


def check_fits(
    checkpoint: str, variables: Mapping[str, tf.Variable], missing_hint: str, shape_hint: str
) -> None:
    """Checks that a checkpoint has the variables to restore by their names in it, in their shapes.

    The hints end the error, which names the first few variables.
    """
    shapes = read_shapes(checkpoint)
    check_names(checkpoint, list(variables), missing_hint)
    differing = [
        f"{name} is {shapes[name]} there and {variable.shape.as_list()} here"
        for name, variable in variables.items()
        if shapes[name] != variable.shape.as_list()
    ]
    if differing:
        raise UserError(
            f"checkpoint {checkpoint} has {len(differing)} variables of other shapes: "
            f"{first_few(differing)}; {shape_hint}"
        )


def check_names(checkpoint: str, names: Sequence[str], hint: str) -> None:
    """Checks that a checkpoint has variables of these names; the hint ends the error."""
    shapes = read_shapes(checkpoint)
    if missing := [name for name in names if name not in shapes]:
        raise UserError(
            f"checkpoint {checkpoint} lacks {len(missing)} of {len(names)} variables: "
            f"{first_few(missing)}; {hint}"
        )


def choose_averages(
    checkpoint: str, moving_average_decay: float | None, *, default: bool = True
) -> bool:
    """Returns whether to load the moving averages of a checkpoint, not its plain variables.

    `moving_average_decay` is 0 for the plain variables, another number for the averages, which are
    refused if there are none, and None for averages if there are any and `default` is set.
    Evaluation takes plain variables by default, as published.
    """
    available = has_averages(checkpoint)
    if moving_average_decay and not available:
        raise UserError(
            f"--moving_average_decay={moving_average_decay}: checkpoint {checkpoint} has no moving "
            "averages; omit the flag to take the plain variables"
        )
    return available and (default if moving_average_decay is None else moving_average_decay > 0)


def has_averages(checkpoint: str) -> bool:
    return any(name.endswith(AVERAGE) for name in read_shapes(checkpoint))


def by_name(variables: Sequence[tf.Variable], *, averages: bool = False) -> dict[str, tf.Variable]:
    """Returns variables by their names, or by those of their moving averages in a checkpoint."""
    return {f"{v.op.name}{AVERAGE if averages else ''}": v for v in variables}


@contextmanager
def _reading(checkpoint: str) -> Iterator[None]:
    try:
        yield
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        if not is_complete(Path(checkpoint)):
            raise MissingCheckpointError(
                f"checkpoint {checkpoint} is missing or incomplete; if a training run has deleted "
                "it, run the command again to take a newer one"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"checkpoint {checkpoint} cannot be read ({reason}); fetch or train it again, or use "
            "an older one"
        ) from error


def first_few(items: Sequence[str]) -> str:
    """Returns the first few names, and the number of the others."""
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
