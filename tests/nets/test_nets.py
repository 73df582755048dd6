"""Every network against the figures measured on the published implementation."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from slim.compat import slim, tf
from slim.errors import UserError
from slim.nets.nets_factory import NETWORKS, get_network, get_network_fn
from tests.conftest import SHARED, recipe_weights

NUM_CLASSES = 200
# Of each network: figures small enough to stand here, so that a clone alone can be tested.
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_training_graph(name):
    """Variables, what is trained and regularized, updates, end points, the value of the L2 loss."""
    with tf.Graph().as_default(), tf.Session() as session:
        network_fn = get_network_fn(name, NUM_CLASSES, weight_decay=4e-5, is_training=True)
        _, end_points = network_fn(tf.zeros([4, 299, 299, 3]))
        variables = slim.get_model_variables()
        trainable = tf.trainable_variables()
        found = {
            "num_variables": len(variables),
            "variables_crc32": crc32([[v.op.name, v.shape.as_list()] for v in variables]),
            "trainable_crc32": crc32(sorted(v.op.name for v in trainable)),
            "params": sum(v.shape.num_elements() for v in trainable),
            "n_regularization_losses": len(tf.losses.get_regularization_losses()),
            "n_update_ops": len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)),
            "end_points_crc32": crc32(
                {point: end_points[point].shape.as_list() for point in sorted(end_points)}
            ),
        }
        load_recipe_weights(session)
        regularization_loss = session.run(tf.losses.get_regularization_loss())
    published = PUBLISHED[name]
    assert found == {key: published[key] for key in found}
    assert regularization_loss == pytest.approx(published["regularization_loss"], rel=1e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_evaluation(name):
    """Logits, and where the reference is there every one of them and every end point's moments."""
    images = np.random.RandomState(0).uniform(-1, 1, (2, 299, 299, 3)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        logits, end_points = get_network_fn(name, NUM_CLASSES)(tf.constant(images))
        load_recipe_weights(session)
        moments = {k: tf.nn.moments(v, list(range(len(v.shape)))) for k, v in end_points.items()}
        found, moments = session.run([logits, moments])
    published = PUBLISHED[name]
    np.testing.assert_allclose(
        found[:, : len(published["logits"][0])],
        published["logits"],
        atol=1e-4 * published["logits_std"],
    )
    if (SHARED / "reference").exists():
        expected = np.load(SHARED / "reference/logits.npz")[name]
        np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())
        nets = json.loads((SHARED / "reference/nets.json").read_text())
        for point, (mean, std) in nets[name]["end_points_eval_mean_std"].items():
            found_mean, found_variance = moments[point]
            assert found_mean == pytest.approx(mean, abs=1e-4 * std), point
            assert np.sqrt(found_variance) == pytest.approx(std, rel=1e-4), point


@pytest.mark.parametrize("name", NETWORKS)
def test_smallest_size(name):
    smallest = get_network(name).smallest_image_size
    with tf.Graph().as_default():
        logits, _ = get_network_fn(name, 5)(tf.zeros([1, smallest, smallest, 3]))
        assert logits.shape == [1, 5]
    with tf.Graph().as_default():
        # One less really is too small: a feature map has no position left.
        too_small = tf.zeros([1, smallest - 1, smallest - 1, 3])
        with pytest.raises(ValueError), slim.arg_scope(get_network(name).arg_scope()):
            get_network(name).build(too_small, 5)
        with pytest.raises(UserError, match=f"too small for {name}, which needs at least"):
            get_network_fn(name, 5)(tf.zeros([1, smallest, smallest - 1, 3]))


def test_unknown_network_names_the_near_ones():
    with pytest.raises(UserError, match=r"unknown network 'inceptionv3'; did you mean"):
        get_network("inceptionv3")


def load_recipe_weights(session: tf.Session) -> None:
    for variable in slim.get_model_variables():
        variable.load(recipe_weights(variable.op.name, variable.shape.as_list()), session)


def crc32(value: object) -> int:
    return zlib.crc32(json.dumps(value).encode())
