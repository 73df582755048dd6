"""Tests of the start of a training run: checkpoints and the last step."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from slim.common.compat import slim, tf
from slim.common.errors import UserError
from slim.training.start import Run, find_last_step, first_values
from tests.support import write_checkpoint


@pytest.fixture
def small_checkpoint(tmp_path) -> str:
    """A checkpoint with `net/weights` [3, 2] and two classifiers [2, 5]."""
    random = np.random.default_rng(0)
    shapes = {"net/weights": [3, 2], "net/Logits/weights": [2, 5], "net/logits/weights": [2, 5]}
    values = {name: random.normal(size=shape).astype("f") for name, shape in shapes.items()}
    return write_checkpoint(tmp_path / "small/model.ckpt-7", {**values, "global_step": 7})


def choose_start(tmp_path: Path, checkpoint: str, exclude="", ignore_missing_vars=False):
    run = Run(cluster=None, train_dir=tmp_path / "run", last_step=None, source=checkpoint)
    values = SimpleNamespace(
        checkpoint_exclude_scopes=exclude, ignore_missing_vars=ignore_missing_vars
    )
    return first_values(run, values, [], None)


@pytest.mark.parametrize("classifier", ["Logits", "logits"], ids=["Inception", "ResNet"])
def test_checkpoint_with_missing_variables_or_other_shapes(tmp_path, small_checkpoint, classifier):
    with tf.Graph().as_default(), tf.Session() as session:
        kept = slim.model_variable("net/weights", [3, 2])
        slim.model_variable(f"net/{classifier}/weights", [2, 4])
        for index in range(5):
            slim.model_variable(f"net/more_{index}", [1])
        with pytest.raises(UserError) as lacking:
            choose_start(tmp_path, small_checkpoint)
        assert "lacks 5 of 7 variables: net/more_0, net/more_1, net/more_2 and 2 more" in str(
            lacking.value
        )
        assert "--ignore_missing_vars" in str(lacking.value)
        with pytest.raises(UserError) as differing:
            choose_start(tmp_path, small_checkpoint, exclude="more")
        assert f"net/{classifier}/weights is [2, 5] there and [2, 4] here" in str(differing.value)
        assert str(differing.value).endswith(f"with --checkpoint_exclude_scopes={classifier}")
        session.run(tf.global_variables_initializer())
        choose_start(tmp_path, small_checkpoint, classifier, ignore_missing_vars=True)(session)
        stored = tf.train.load_variable(small_checkpoint, "net/weights")
        np.testing.assert_array_equal(session.run(kept), stored)


def test_damaged_checkpoint(tmp_path, small_checkpoint):
    Path(small_checkpoint + ".index").write_bytes(b"not a checkpoint")
    with tf.Graph().as_default():
        slim.model_variable("net/weights", [3, 2])
        with pytest.raises(UserError, match="cannot be read"):
            choose_start(tmp_path, small_checkpoint)


def test_a_checkpoint_of_another_run_is_not_resumed(tmp_path, small_checkpoint):
    with tf.Graph().as_default():
        slim.model_variable("net/weights", [3, 2])
        slim.model_variable("net/Momentum", [3, 2])
        with pytest.raises(UserError, match=r"lacks 1 of 2 variables: net/Momentum; .* another"):
            run = Run(cluster=None, train_dir=Path(small_checkpoint).parent, last_step=None)
            first_values(run, SimpleNamespace(checkpoint_path=None), [], None)


def test_the_last_step_completes_the_last_epoch():
    # The published command: 30 epochs of CUB-200-2011 in batches of 64.
    assert find_last_step(None, 30, 5994, 64) == 2810
    for epochs, samples, batch in (
        (1, 64, 64),
        (1, 65, 64),
        (0.1, 30, 3),
        (2.5, 7, 4),
        (1.1, 50, 11),
    ):
        step, images = 0, 0
        while images < round(epochs * samples, 6):
            step, images = step + 1, images + batch
        assert find_last_step(None, epochs, samples, batch) == step
        assert find_last_step(step - 1 or 1, epochs, samples, batch) == (step - 1 or 1)
        assert find_last_step(step + 1, epochs, samples, batch) == step
    assert find_last_step(7, None, 10, 1) == 7
    assert find_last_step(None, None, 10, 1) is None
