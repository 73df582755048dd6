"""Fixtures of other packages that tests of common code use."""

from tests.datasets.conftest import make_dataset

__all__ = ["make_dataset"]
