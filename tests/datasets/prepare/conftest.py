"""Helpers for tests of preparation."""

from pathlib import Path

import pytest

from slim.datasets.prepare import __main__ as command
from tests.datasets.conftest import check


def prepare(*flags: str, code: int = 0) -> tuple[str, str]:
    """Prepares a dataset in this process and returns its output and errors."""
    done = check(command, *flags, code=code)
    if code:
        *warnings, last = done.error.splitlines()
        assert all(line.startswith("warning: ") for line in warnings)
        assert last.startswith("error: ")
    return done.output, done.error


def texts(folder: Path) -> dict[str, bytes]:
    """Returns the content of each text file by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*.txt")}


@pytest.fixture
def data(tmp_path) -> Path:
    return tmp_path / "data"
