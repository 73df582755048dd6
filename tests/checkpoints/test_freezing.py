"""Frozen networks against networks with variables, and the values that they are frozen with."""

import pickle
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from slim.checkpoints.freezing import (
    FrozenNetwork,
    InferenceGraph,
    build_network,
    freeze,
    freeze_checkpoint,
    pool_features,
)
from slim.checkpoints.reading import choose_averages
from slim.common.compat import slim, tf
from slim.common.errors import UserError
from slim.nets.layers import LINEAR, conv_arg_scope
from slim.nets.nets_factory import get_network, networks_map
from slim.nets.resnet_v2 import resnet_v2
from tests.conftest import recipe_weights
from tests.nets.conftest import few_repeats, plain_session
from tests.support import write_checkpoint

SMALL = 12


def build(outputs: Callable[[tf.Tensor], object], size: int) -> InferenceGraph:
    """A network of any layers, from images to outputs."""
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, size, size, 3])
        return InferenceGraph(images, outputs(images), slim.get_model_variables())


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


# Each has every kind of block that its network repeats. The batch norms that stay are those ahead
# of the five units of the ResNet-V2, and after the last. Tests of feature extraction and of Keras'
# layers compare Inception-V3.
@pytest.mark.parametrize(
    ("name", "stay"),
    [("inception_v4", 0), ("inception_resnet_v2_se", 0), ("resnet_v2_50", 6)],
)
def test_logits_and_features_of_every_family(name, stay, monkeypatch):
    monkeypatch.setitem(
        networks_map, "resnet_v2_50", partial(resnet_v2, units=(2, 1, 1, 1), scope="resnet_v2_50")
    )
    known = get_network(name)

    def outputs(logits: tf.Tensor, end_points: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.concat([logits, pool_features(end_points, known.feature_endpoint)], axis=1)

    with few_repeats():
        network = build_network(name, 4, known.smallest_image_size, outputs=outputs)
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

    return build(outputs, SMALL)


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

    network = build(outputs, SMALL)
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
    network = freeze_checkpoint(build(times_factor, 2), both, averages=averages, hint="no hint")
    with tf.Graph().as_default(), tf.Session() as session:
        found = session.run(network(tf.ones([1, 2, 2, 3])))
    np.testing.assert_array_equal(found, np.full([1, 2, 2, 3], expected))
    chosen, other = ("moving averages", "plain variables")[:: 1 if expected == 3 else -1]
    line = capsys.readouterr().err
    assert line.startswith(f"{both}: {chosen} ({other} with --moving_average_decay=")


def test_averages_that_a_checkpoint_lacks(tmp_path):
    plain = write_checkpoint(tmp_path / "model.ckpt-1", {"factor": np.float32(2)})
    assert not choose_averages(plain, None)
    with pytest.raises(UserError, match="has no moving averages; omit the flag"):
        choose_averages(plain, 0.9)
