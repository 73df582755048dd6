"""Tests of the evaluator's parts."""

from unittest import mock

import numpy as np
import pytest
from scipy.special import softmax

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.evaluation import evaluator
from slim.evaluation.evaluator import Outputs
from tests.support import beyond_memory


def test_an_ensemble_of_any_size_is_ranked_in_parts(monkeypatch):
    """The mean of all probabilities, which may exceed the 2 GB of a graph, is in no graph."""
    monkeypatch.setattr(evaluator, "ROWS", 100)
    each = softmax(np.random.RandomState(0).normal(0, 1, (2, 250, 70)), axis=2).astype(np.float32)
    labels = np.zeros(250, np.int64)
    found = [(Outputs(labels, None, None, p), step) for step, p in enumerate(each)]
    members = [mock.Mock(evaluate=mock.Mock(return_value=outputs)) for outputs in found]
    graph = tf.Graph()
    monkeypatch.setattr(evaluator.tf, "Graph", lambda: graph)
    outputs, step = evaluator.evaluate_ensemble(members, ["a", "b"], lambda *_: None)
    assert step == 1
    mean = each.mean(axis=0)
    np.testing.assert_array_equal(outputs.top, np.argsort(-mean, axis=1)[:, :5])
    np.testing.assert_allclose(outputs.of_top, -np.sort(-mean, axis=1)[:, :5], 1e-6)
    assert graph.as_graph_def().ByteSize() < mean[:100].nbytes


def test_out_of_memory_is_one_line():
    with tf.Graph().as_default(), tf.Session() as session:
        outputs = evaluator.build_outputs(beyond_memory([1, 3]), tf.constant([0], tf.int64))
        with pytest.raises(UserError, match=r"^out of memory: give a smaller --batch_size"):
            evaluator.run_batches(session, outputs, "step 1", num_images=1)
