"""Finds, checks and reads checkpoints."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from slim.common.compat import tf
from slim.common.errors import UserError

AVERAGE = "/ExponentialMovingAverage"  # ends the name of a variable's moving average
_SHOWN = 3


def find_checkpoint(path: str, flag: str = "--checkpoint_path") -> str:
    """Returns the prefix of a checkpoint, or of the newest checkpoint of a folder.

    Args:
        path: A prefix (`model.ckpt-100`), a file of a checkpoint, or a folder.
        flag: The name of the path in an error.

    Raises:
        UserError: There is no checkpoint.
    """
    if Path(path).is_dir():
        latest = tf.train.latest_checkpoint(path)
        if latest is None:
            raise UserError(
                f"{flag}: the folder {path} holds no checkpoint; ./train.sh writes them, and "
                "checkpoints/README.md lists released ones"
            )
        return latest
    for prefix in (path.rpartition(".data-")[0], path.removesuffix(".index")):
        if prefix and tf.train.checkpoint_exists(prefix):
            return prefix
    raise UserError(
        f"{flag}: no checkpoint at {path} (expected {path}.index and its data, or a folder of "
        "checkpoints); ./train.sh writes checkpoints, and checkpoints/README.md lists released ones"
    )


def read_shapes(checkpoint: str) -> dict[str, list[int]]:
    """Returns the shape of every variable of a checkpoint by name.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    with _reading(checkpoint):
        return tf.train.load_checkpoint(checkpoint).get_variable_to_shape_map()


def read_step(checkpoint: str) -> int:
    """Returns the step of a checkpoint, 0 if it has none.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    if "global_step" not in read_shapes(checkpoint):
        return 0
    with _reading(checkpoint):
        return int(tf.train.load_variable(checkpoint, "global_step"))


def read_values(checkpoint: str, variables: Mapping[str, tf.Variable]) -> dict[str, np.ndarray]:
    """Returns values of a checkpoint by the names of variables in the graph.

    Args:
        checkpoint: The prefix.
        variables: Variables by their names in the checkpoint.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    with _reading(checkpoint):
        reader = tf.train.load_checkpoint(checkpoint)
        return {variable.op.name: reader.get_tensor(name) for name, variable in variables.items()}


def check_readable(checkpoint: str) -> None:
    """Reads every variable of a checkpoint, each of which has a checksum.

    Raises:
        UserError: A file is missing, truncated or damaged.
    """
    with _reading(checkpoint):
        reader = tf.train.load_checkpoint(checkpoint)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)


def check_fits(
    checkpoint: str, variables: Mapping[str, tf.Variable], missing_hint: str, shape_hint: str
) -> None:
    """Checks that a checkpoint has the variables to restore, in their shapes.

    Args:
        checkpoint: The prefix.
        variables: Variables to restore by their names in the checkpoint.
        missing_hint: The advice about missing variables.
        shape_hint: The advice about variables of other shapes.

    Raises:
        UserError: Some do not match; names the first few.
    """
    shapes = read_shapes(checkpoint)
    missing = [name for name in variables if name not in shapes]
    if missing:
        raise UserError(
            f"checkpoint {checkpoint} lacks {len(missing)} of {len(variables)} variables: "
            f"{first_few(missing)}; {missing_hint}"
        )
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


def has_averages(checkpoint: str) -> bool:
    """Returns whether a checkpoint has moving averages.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    return any(name.endswith(AVERAGE) for name in read_shapes(checkpoint))


def averaged_variables(model_variables: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
    """Returns variables by the names of their moving averages in a checkpoint."""
    return {f"{variable.op.name}{AVERAGE}": variable for variable in model_variables}


def by_name(variables: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
    """Returns variables by their names."""
    return {variable.op.name: variable for variable in variables}


@contextmanager
def _reading(checkpoint: str) -> Iterator[None]:
    try:
        yield
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise UserError(
            f"checkpoint {checkpoint} cannot be read ({_first_line(error)}); fetch or train it "
            "again, or use an older one"
        ) from error


def first_few(items: Sequence[str]) -> str:
    """Returns the first few names, and the number of the others."""
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
