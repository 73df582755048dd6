"""Fixtures of the tests of the transfer study."""

from pathlib import Path

import pytest

from tests.transfer.study_world import NEUTRAL, SOURCES, write_features, write_lists, write_source


@pytest.fixture
def world(tmp_path) -> Path:
    """A folder with lists, checkpoints and features, so that no network is loaded."""
    write_lists(tmp_path / "data")
    for number, name in enumerate(SOURCES):
        write_source(tmp_path, name, number, noise=1 + number)
    write_features(tmp_path, NEUTRAL, noise=0.5)
    return tmp_path
