"""What TensorBoard shows of a training run."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from slim.common.compat import tf
from slim.common.summaries import describe
from slim.training import run_log
from slim.training.batches import CloneOutputs
from slim.training.run_log import DESCRIPTIONS, VARIABLE, build_summary, summarize_flags


@pytest.mark.parametrize("histograms", [False, True])
def test_accuracy_and_a_description_of_every_tag(histograms):
    logits = np.float32([[1, 3, 2], [4, 0, 0], [0, 1, 5], [9, 1, 1]])
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("net/weights", initializer=np.float32([0, 1]))
        tf.add_to_collection(tf.GraphKeys.MODEL_VARIABLES, variable)
        tf.losses.add_loss(tf.constant(2.0, name="loss"))
        images = tf.constant(np.zeros((4, 2, 2, 3), np.float32))
        labels = tf.constant([1, 0, 0, 0], tf.int32)
        points = {"images": images, "pool": images[:, 0, 0]}
        outputs = CloneOutputs(labels, tf.constant(logits), points, tf.constant(0.0))
        clone = SimpleNamespace(outputs=outputs, scope="")
        scalars = {"total_loss": tf.constant(2.0)}
        serialized = build_summary(clone, scalars, histograms, tf.constant(True))
        nothing = build_summary(clone, scalars, histograms, tf.constant(False))
        session.run(tf.global_variables_initializer())
        found = describe(session.run(serialized), DESCRIPTIONS, VARIABLE)
        assert session.run(nothing) == b""
    values = {value.tag: value for value in found.value}
    assert values["train/Accuracy"].simple_value == 0.75
    expected = log_loss([1, 0, 0, 0], softmax(logits.astype(float), axis=1), labels=range(3))
    assert values["train/Loss"].simple_value == pytest.approx(expected)
    assert values["losses/loss"].simple_value == values["total_loss"].simple_value == 2
    assert all(value.metadata.summary_description for value in found.value)
    # TensorBoard's data server ignores the description of data of an unknown class.
    assert all(value.metadata.data_class for value in found.value)
    if histograms:
        assert values["sparsity/pool"].simple_value == 1
        assert values["net/weights_1"].metadata.summary_description == VARIABLE


def test_flags_are_a_table_and_hyperparameters():
    flags = {"learning_rate": 0.1, "augment": True, "seed": None, "train_dir": "/a|b"}
    text, hyperparameters = summarize_flags(flags).value
    (table,) = tf.make_ndarray(text.tensor).flat
    assert "| learning_rate | `0.1` |" in table.decode()
    assert "| seed |  |" in table.decode()
    assert text.metadata.plugin_data.plugin_name == "text"
    assert hyperparameters.metadata.plugin_data.plugin_name == "hparams"


def test_slow_input_is_named_once(tmp_path, capsys, monkeypatch):
    """After five lines in a row in which steps waited more than half of the time."""
    clock = iter(range(10**6))
    monkeypatch.setattr(run_log.time, "monotonic", lambda: next(clock))
    values = SimpleNamespace(log_every_n_steps=1, save_summaries_secs=0, train_dir=tmp_path)
    run = SimpleNamespace(last_step=None, ends_at=lambda step: True)
    log = run_log.RunLog(values, run, images_per_step=1)
    log.begin(0)
    shares = [0.9] * 4 + [0.4] + [0.6] * 4 + [0.7] + [0.9] * 20  # a second per step
    for step, share in enumerate(shares, start=1):
        log.add({"step": step, "waited": share, "summary": b"", "loss": 1.0})
    lines = capsys.readouterr().out.splitlines()
    notes = [index for index, line in enumerate(lines) if line.startswith("note: ")]
    assert notes == [10] and len(lines) == len(shares) + 1
    assert "--max_side" in lines[10] and "--num_preprocessing_threads" in lines[10]
