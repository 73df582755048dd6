"""Tests of arrays on a disk that becomes full, and of the next run."""

import numpy as np
import pytest

from slim.features.files import RowWriter
from tests.datasets.conftest import file_size_limit

DEPTH = 1000


@pytest.mark.parametrize("at_most", [50, 2.5 * 4 * DEPTH])
def test_a_full_disk_is_noticed_and_complete_rows_are_kept(tmp_path, at_most):
    """The system writes the part that fits and returns its size, without an error."""
    path, rows = tmp_path / "rows.part", np.random.default_rng(0).random((5, DEPTH), np.float32)
    with (
        file_size_limit(int(at_most)),
        pytest.raises(OSError, match="File too large"),
        RowWriter(path, len(rows), DEPTH) as writer,
    ):
        writer.append(rows)
    with RowWriter(path, len(rows), DEPTH) as writer:
        assert writer.rows == (at_most > 50) * 2
        writer.append(rows[writer.rows :])
    np.testing.assert_array_equal(np.load(path), rows)
