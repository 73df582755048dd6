"""Text and MATLAB files of archives; missing or invalid content is a `UserError`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from scipy.io import loadmat

from slim.common.errors import UserError


class Table(dict):
    """Values by key, in the order of the lines of a file."""

    def __init__(self, path: Path, items: Iterable[Sequence]) -> None:
        super().__init__(items)
        self._path = path

    def __missing__(self, key: str) -> NoReturn:
        raise UserError(f"{self._path} has no line for '{key}', which the other files mention")


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file without surrounding and empty ones."""
    text = path.read_text("utf-8", errors="surrogateescape")
    return [stripped for line in text.split("\n") if (stripped := line.strip())]


def read_table(path: Path) -> Table:
    """Reads lines of a key, a space and a value, which may contain spaces."""
    lines = [line.split(maxsplit=1) for line in read_lines(path)]
    for line in lines:
        if len(line) < 2:
            raise UserError(f"{path}: expected two words on each line, found only '{line[0]}'")
    return Table(path, lines)


def read_labels(path: Path) -> Table:
    """Returns the label of each line of a file of class names."""
    return Table(path, ((name, label) for label, name in enumerate(read_lines(path))))


def read_mat(path: Path, *names: str) -> list[np.ndarray]:
    """Reads variables of a MATLAB file as one-dimensional arrays."""
    try:
        content = loadmat(path, squeeze_me=True)
    except Exception as error:  # damaged files raise many types
        raise UserError(
            f"{path} cannot be read as a MATLAB file ({error}): get the file again"
        ) from None
    if missing := [name for name in names if name not in content]:
        raise UserError(f"{path} has no variable '{missing[0]}': get the right file")
    return [np.atleast_1d(content[name]) for name in names]


def read_structs(path: Path, variable: str, *fields: str) -> list[list]:
    """Reads fields of a struct array of a MATLAB file as lists."""
    (structs,) = read_mat(path, variable)
    if missing := [field for field in fields if field not in (structs.dtype.names or ())]:
        raise UserError(f"{path}: '{variable}' has no field '{missing[0]}': get the right file")
    return [structs[field].tolist() for field in fields]
