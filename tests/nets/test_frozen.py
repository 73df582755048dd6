"""Frozen networks against networks with variables: equal outputs, and the folded batch norms."""

import pickle
from collections import Counter

import numpy as np
import pytest

from slim.common.compat import slim, tf
from slim.nets.frozen import FrozenNetwork, InferenceGraph, build_network, freeze
from slim.nets.layers import LINEAR, conv_arg_scope
from slim.nets.nets_factory import get_network, get_network_fn
from tests.conftest import recipe_weights
from tests.nets.conftest import plain_session

SMALL = 12


def draw(size: int) -> np.ndarray:
    return np.random.RandomState(0).uniform(-1, 1, (3, size, size, 3)).astype(np.float32)


def weights_of(network: InferenceGraph) -> dict[str, np.ndarray]:
    names = {variable.op.name: variable.shape.as_list() for variable in network.variables}
    return {name: recipe_weights(name, shape) for name, shape in names.items()}


def run_variables(network: InferenceGraph, values: dict[str, np.ndarray], images: np.ndarray):
    """The outputs of the network as it was built, its variables assigned."""
    with network.images.graph.as_default(), plain_session() as session:
        initializers = [variable.initializer for variable in network.variables]
        feed = {v.initializer.inputs[1]: values[v.op.name] for v in network.variables}
        session.run(initializers, feed)
        return session.run(network.outputs, {network.images: images})


def run_frozen(frozen: FrozenNetwork, images: np.ndarray, xla: bool = False) -> np.ndarray:
    with tf.Graph().as_default(), plain_session() as session:
        return session.run(frozen(tf.constant(images), xla))


def operations(frozen: FrozenNetwork) -> Counter:
    return Counter(node.op for node in frozen.graph_def.node)


# The batch norms that stay are those ahead of ResNet-V2's 16 units, and after the last.
@pytest.mark.parametrize(
    ("name", "stay"),
    [("inception_v3", 0), ("inception_v4", 0), ("inception_resnet_v2_se", 0), ("resnet_v2_50", 17)],
)
def test_logits_and_features_of_every_family(name, stay):
    known = get_network(name)

    def outputs(images: tf.Tensor) -> tf.Tensor:
        logits, end_points = get_network_fn(name, 4)(images, create_aux_logits=False)
        features = tf.reduce_mean(end_points[known.feature_endpoint], [1, 2])
        return tf.concat([logits, features], axis=1)

    network = build_network(outputs, known.smallest_image_size)
    values = weights_of(network)
    frozen = freeze(network, values)
    images = draw(known.smallest_image_size)
    found, expected = run_frozen(frozen, images), run_variables(network, values, images)
    assert found.shape == (3, 4 + known.feature_depth)
    for part in (slice(4), slice(4, None)):
        scale = expected[:, part].std()
        np.testing.assert_allclose(found[:, part], expected[:, part], atol=1e-4 * scale)
    assert operations(frozen)["FusedBatchNormV3"] == stay
    assert not {"VarHandleOp", "ReadVariableOp"} & set(operations(frozen))


def small_network(dtype: tf.DType = tf.float32) -> InferenceGraph:
    """Four batch norms: only those after `folded` and `atrous` can be in the weights."""

    def outputs(images: tf.Tensor) -> tf.Tensor:
        with (
            slim.arg_scope(conv_arg_scope(batch_norm_scale=True)),
            slim.arg_scope([slim.batch_norm], is_training=False),
        ):
            net = slim.conv2d(tf.cast(images, dtype), 5, 3, stride=2, scope="folded")
            net = slim.conv2d(net, 5, 3, padding="VALID", scope="plain", **LINEAR)
            net = slim.batch_norm(slim.max_pool2d(net, 2), scope="after_pool")
            twice = slim.conv2d(net, 4, 1, biases_initializer=None, scope="twice", **LINEAR)
            net = twice + slim.batch_norm(twice, scope="of_twice")
            net = slim.conv2d(net, 3, 1, activation_fn=None, scope="last")
            return tf.cast(net, tf.float32)

    return build_network(outputs, SMALL)


@pytest.mark.parametrize("xla", [False, True], ids=["", "xla"])
def test_what_can_be_folded_is_and_what_cannot_stays(xla):
    network = small_network()
    values = weights_of(network)
    # Far from those that leave an image as it is.
    values = {name: value * np.float32(1.7) + np.float32(0.2) for name, value in values.items()}
    frozen = freeze(network, values)
    expected = run_variables(network, values, draw(SMALL))
    found = run_frozen(frozen, draw(SMALL), xla)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert operations(frozen)["FusedBatchNormV3"] == 2


def test_outputs_come_in_the_structure_that_was_asked_for():
    """A convolution that is an output itself is not folded."""

    def outputs(images: tf.Tensor) -> dict[str, object]:
        conv = slim.conv2d(images, 5, 3, biases_initializer=None, scope="conv", **LINEAR)
        norm = slim.batch_norm(conv, is_training=False, scope="norm")
        return {"norm": norm, "parts": (conv, [tf.nn.relu(norm)])}

    network = build_network(outputs, SMALL)
    values = weights_of(network)
    frozen = pickle.loads(pickle.dumps(freeze(network, values)))
    found = run_frozen(frozen, draw(SMALL))
    expected = run_variables(network, values, draw(SMALL))
    tf.nest.assert_same_structure(found, expected)
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())
    assert operations(frozen)["FusedBatchNormV3"] == 1


def test_one_network_is_frozen_with_values_after_values():
    network = small_network()
    first = weights_of(network)
    second = {name: value * np.float32(0.5) for name, value in first.items()}
    before = len(network.images.graph.get_operations())
    for values in (first, second, first):
        found = run_frozen(freeze(network, values), draw(SMALL))
        expected = run_variables(network, values, draw(SMALL))
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert len(network.images.graph.get_operations()) == before
