"""From logits to ranked classes."""

import numpy as np
import pytest
from scipy.special import softmax

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.evaluation.ranking import average_views, rank, rank_batch, run_batches
from tests.support import beyond_memory


def test_the_likeliest_five_of_a_batch():
    logits = np.float32(
        [
            [9, 8, 7, 6, 5, 4, 3],
            [3, 4, 5, 6, 7, 8, 9],
            [np.nan] * 7,
            [9, np.inf, 7, 6, 5, 4, 3],
            [0, 0, 0, 0, 0, 0, 0],  # the first of equals come first
        ]
    )
    with tf.Graph().as_default(), tf.Session() as session:
        labels = tf.constant([0, 4, 5, 0, 6], tf.int64)
        found = session.run(rank_batch(tf.constant(logits), labels))
    none = [-1] * 5
    expected = [[0, 1, 2, 3, 4], [6, 5, 4, 3, 2], none, none, [0, 1, 2, 3, 4]]
    assert found["top"].tolist() == expected
    shares = softmax(logits[0].astype(float))[:5]
    expected = [shares, shares, [0] * 5, [0] * 5, [1 / 7] * 5]
    np.testing.assert_allclose(found["probabilities"], expected, 1e-5)
    assert found["labels"].tolist() == [0, 4, 5, 0, 6]
    assert found["ranks"].tolist() == [1, 3, 0, 0, 7]
    shares = softmax(logits[0].astype(float))
    expected = [-np.log(shares[0]), -np.log(shares[2]), np.nan, np.nan, np.log(7)]
    np.testing.assert_allclose(found["losses"], expected, 1e-5)


def test_arrays_are_ranked_without_a_graph():
    """The mean of all probabilities of an ensemble may exceed the 2 GB of a graph."""
    scores = np.random.RandomState(0).random((250, 70)).astype(np.float32)
    labels = np.random.RandomState(1).randint(0, 70, 250)
    found = {name: tensor.numpy() for name, tensor in rank(scores, labels).items()}
    order = np.argsort(-scores, axis=1)
    np.testing.assert_array_equal(found["top"], order[:, :5])
    np.testing.assert_array_equal(found["probabilities"], -np.sort(-scores, axis=1)[:, :5])
    np.testing.assert_array_equal(order[np.arange(250), found["ranks"] - 1], labels)


def test_views_are_averaged_by_their_probabilities():
    logits = np.random.RandomState(0).normal(0, 9, (4 * 5, 3)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        found = session.run(tf.nn.softmax(average_views(tf.constant(logits), 5)))
    expected = softmax(logits.astype(float), axis=1).reshape(4, 5, 3).mean(axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_empty_split_and_lack_of_memory_are_one_line():
    with tf.Graph().as_default(), tf.Session() as session:
        labels = tf.data.make_one_shot_iterator(tf.data.Dataset.range(0).batch(1)).get_next()
        with pytest.raises(UserError, match="are empty"):
            run_batches(session, rank_batch(tf.zeros([1, 3]), labels), "step 1", num_images=1)
        outputs = rank_batch(beyond_memory([1, 3]), tf.constant([0], tf.int64))
        with pytest.raises(UserError, match=r"^out of memory: .* smaller --batch_size"):
            run_batches(session, outputs, "step 1", num_images=1)
