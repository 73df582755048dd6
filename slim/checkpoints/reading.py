"""Finds, checks and reads checkpoints."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from slim.checkpoints import released
from slim.checkpoints.files import is_complete
from slim.common.compat import tf
from slim.common.errors import UserError, warn
from slim.common.files import write_whole

STATE = "checkpoint"  # the file that names the latest checkpoint of a folder
POLL_SECS = 1.0
AVERAGE = "/ExponentialMovingAverage"  # ends the name of a variable's moving average
_SHOWN = 3


def find_checkpoint(path: str, flag: str = "--checkpoint_path") -> str:
    """Returns the prefix of a checkpoint, or of the newest checkpoint of a folder.

    Args:
        path: A prefix (`model.ckpt-100`), a file of a checkpoint, a folder, or the name of a model
            that `python -m slim.checkpoints` has fetched, also as its published path.
        flag: The name of the path in an error.

    Raises:
        UserError: There is no checkpoint.
    """
    if Path(path).is_dir():
        latest = latest_checkpoint(path) or released.find_by_name(path)
        if latest is None:
            raise UserError(
                f"{flag}: the folder {path} holds no checkpoint; ./train.sh writes them, and "
                "checkpoints/README.md lists released ones"
            )
        return str(latest)
    for prefix in (path.rpartition(".data-")[0], path.removesuffix(".index")):
        if prefix and tf.train.checkpoint_exists(prefix):
            return prefix
    if placed := released.find_by_name(path):
        return str(placed)
    raise UserError(
        f"{flag}: no checkpoint at {path} (expected {path}.index and its data, or a folder of "
        "checkpoints); ./train.sh writes checkpoints, and checkpoints/README.md lists released ones"
    )


def latest_checkpoint(folder: str | Path) -> str | None:
    """Returns the prefix of the latest checkpoint of a folder, or None.

    The latest is the one that the file `checkpoint` names. If this file is missing or invalid, or
    names a checkpoint that is not complete, it is the complete `model.ckpt-<step>` of the highest
    step, and a warning says so.
    """
    named, state = _named_checkpoint(folder), Path(folder, STATE)
    if named and is_complete(Path(named)):
        return named
    complete = _complete_checkpoints(folder)
    if not (complete or state.exists()):
        return None
    problem = f"names {named}, which is missing or incomplete" if named else "is not valid"
    if not state.exists():
        problem = "is missing"
    newest = complete[-1] if complete else None
    taken = f"taking the newest complete one, {newest}" if newest else "no checkpoint is complete"
    _warn_once(f"{state} {problem}: {taken}")
    return newest


def repair_state(folder: Path) -> None:
    """Writes the file `checkpoint` of a folder again if it does not name the latest checkpoint."""
    latest = latest_checkpoint(folder)
    if latest and latest != _named_checkpoint(folder):
        names = [Path(prefix).name for prefix in _complete_checkpoints(folder)]
        lines = [f'model_checkpoint_path: "{names[-1]}"']
        lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
        write_whole(folder / STATE, "\n".join(lines) + "\n")


def new_checkpoints(folder: str, interval_secs: float) -> Iterator[str]:
    """Yields the latest checkpoint of a folder, then each later one, endlessly.

    Args:
        folder: The folder, which need not exist yet.
        interval_secs: Minimum time between two checkpoints.
    """
    previous = None
    while True:
        begin = time.monotonic()
        latest = latest_checkpoint(folder)
        if latest in (None, previous):
            time.sleep(POLL_SECS)
        else:
            yield latest
            previous = latest
            time.sleep(max(0.0, begin + interval_secs - time.monotonic()))


def _named_checkpoint(folder: str | Path) -> str | None:
    """Returns the prefix that the file `checkpoint` of a folder names."""
    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except ValueError:  # the file is empty, or not text
        return None
    return state.model_checkpoint_path if state else None


def _complete_checkpoints(folder: str | Path) -> list[str]:
    """Returns the prefixes of the complete `model.ckpt-<step>` of a folder in order."""
    steps = {}
    for index in Path(folder).glob("model.ckpt-*.index"):
        prefix = index.with_suffix("")
        step = prefix.name.removeprefix("model.ckpt-")
        if step.isdecimal() and is_complete(prefix):
            steps[int(step)] = f"{str(folder).removesuffix('/')}/{prefix.name}"
    return [steps[step] for step in sorted(steps)]


_warn_once = cache(warn)


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
    values = read_tensors(checkpoint, list(variables))
    return {variable.op.name: values[name] for name, variable in variables.items()}


def read_tensors(checkpoint: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns values of a checkpoint by their names in it.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    with _reading(checkpoint):
        reader = tf.train.load_checkpoint(checkpoint)
        return {name: reader.get_tensor(name) for name in names}


def changed_variables(before: str, after: str, names: Sequence[str]) -> list[str]:
    """Returns the variables of a checkpoint that have other values in a later one, or none.

    Args:
        before: The prefix of the checkpoint.
        after: The prefix of the later one.
        names: The variables to compare, if `before` has them.

    Raises:
        UserError: A checkpoint cannot be read.
    """
    with _reading(f"{before} or {after}"):
        old, new = (tf.train.load_checkpoint(checkpoint) for checkpoint in (before, after))
        return [
            name
            for name in names
            if old.has_tensor(name)
            and not (
                new.has_tensor(name) and np.array_equal(old.get_tensor(name), new.get_tensor(name))
            )
        ]


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
    check_names(checkpoint, list(variables), missing_hint)
    shapes = read_shapes(checkpoint)
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
    """Checks that a checkpoint has variables of these names.

    Raises:
        UserError: Some are missing; names the first few, and ends with the hint.
    """
    shapes = read_shapes(checkpoint)
    if missing := [name for name in names if name not in shapes]:
        raise UserError(
            f"checkpoint {checkpoint} lacks {len(missing)} of {len(names)} variables: "
            f"{first_few(missing)}; {hint}"
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
