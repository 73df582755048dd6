"""The choice between moving averages and plain variables."""

import numpy as np
import pytest

from slim.checkpoints.loading import choose_averages, freeze_checkpoint
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.nets.frozen import build_network
from tests.support import write_checkpoint

SIZE = 2  # pixels


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> str:
    """A checkpoint whose plain factor is 2, and whose average is 3."""
    values = {"factor": np.float32(2), "factor/ExponentialMovingAverage": np.float32(3)}
    return write_checkpoint(tmp_path_factory.mktemp("both") / "model.ckpt-1", values)


@pytest.mark.parametrize(
    ("decay", "default", "expected"),
    [(None, True, 3), (None, False, 2), (0, True, 2), (0, False, 2), (0.9, False, 3)],
)
def test_values_and_the_line_about_them(both, decay, default, expected, capsys):
    def times_factor(images: tf.Tensor) -> tf.Tensor:
        variable = tf.get_variable(
            "factor", [], collections=[tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.MODEL_VARIABLES]
        )
        return images * variable

    averages = choose_averages(both, decay, default=default)
    network = freeze_checkpoint(
        build_network(times_factor, SIZE), both, averages=averages, hint="no hint"
    )
    with tf.Graph().as_default(), tf.Session() as session:
        found = session.run(network(tf.ones([1, SIZE, SIZE, 3])))
    np.testing.assert_array_equal(found, np.full([1, SIZE, SIZE, 3], expected))
    chosen, other = ("moving averages", "plain variables")[:: 1 if expected == 3 else -1]
    line = capsys.readouterr().err
    assert line.startswith(f"{both}: {chosen} ({other} with --moving_average_decay=")


def test_averages_that_a_checkpoint_lacks(tmp_path):
    plain = write_checkpoint(tmp_path / "model.ckpt-1", {"factor": np.float32(2)})
    assert not choose_averages(plain, None)
    with pytest.raises(UserError, match="has no moving averages; leave the flag out"):
        choose_averages(plain, 0.9)
