"""Checkpoints: finding, checking and restoring them, and the ones that the authors released.

What reads checkpoints is in `slim.checkpoints.reading`, and is had from here. It is imported when
it is first asked for: `python -m slim.checkpoints` lists and fetches without TensorFlow.
"""

from importlib import import_module
from typing import Any

__all__ = [
    "AVERAGE",
    "averaged_variables",
    "by_name",
    "check_fits",
    "check_readable",
    "find_checkpoint",
    "first_few",
    "has_averages",
    "read_shapes",
    "read_step",
    "read_values",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module("slim.checkpoints.reading"), name)
