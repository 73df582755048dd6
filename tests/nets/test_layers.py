"""Layers of 16 bits on variables of 32."""

import numpy as np
import pytest

from slim.common.compat import slim, tf
from slim.nets.inception_resnet_v2 import inception_resnet_v2_arg_scope
from slim.nets.layers import conv, conv_arg_scope, squeeze_and_excite, stored_in_float32
from slim.nets.nets_factory import get_network_fn
from slim.nets.resnet_v2 import resnet_v2_arg_scope
from tests.conftest import load_recipe_weights
from tests.support import SHORT_INCEPTION, SHORT_INCEPTION_SIZE, SMALL_NETWORK, SMALL_SIZE

WEIGHT_DECAY = 0.01


def build(dtype: tf.DType) -> tuple[tf.Tensor, list[tf.Variable], list[tf.Tensor]]:
    """Logits, variables and regularization losses of a network that trains."""
    random = np.random.RandomState(0)
    images = random.uniform(-1, 1, (2, SMALL_SIZE, SMALL_SIZE, 3)).astype(np.float32)
    network_fn = get_network_fn(SMALL_NETWORK, 3, WEIGHT_DECAY, is_training=True, dtype=dtype)
    logits, end_points = network_fn(tf.constant(images))
    assert {point.dtype for point in end_points.values()} == {tf.float32}
    return logits, slim.get_model_variables(), tf.losses.get_regularization_losses()


@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16], ids=["bfloat16", "float16"])
def test_variables_losses_and_gradients_keep_their_precision(dtype):
    with tf.Graph().as_default():
        expected = [(v.op.name, v.shape.as_list(), v.dtype) for v in build(tf.float32)[1]]
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        tf.set_random_seed(1)
        logits, variables, losses = build(dtype)
        assert [(v.op.name, v.shape.as_list(), v.dtype) for v in variables] == expected
        assert logits.dtype == tf.float32
        convolutions = [op for op in graph.get_operations() if op.type == "Conv2D"]
        assert {op.outputs[0].dtype for op in convolutions} == {dtype}
        weights = [v for v in tf.trainable_variables() if v.op.name.endswith("/weights")]
        gradients = tf.gradients(tf.reduce_sum(logits) + tf.add_n(losses), weights)
        assert {gradient.dtype for gradient in gradients} == {tf.float32}
        session.run(tf.global_variables_initializer())
        values, found = session.run([weights, losses])
    # Each is half the sum of squares; in 16 bits it would be off by 1e-3 at least in some.
    decay = [WEIGHT_DECAY * np.sum(np.square(value, dtype=np.float64)) / 2 for value in values]
    np.testing.assert_allclose(found, decay, rtol=1e-5)


@pytest.mark.parametrize(
    "arg_scope", [conv_arg_scope, inception_resnet_v2_arg_scope, resnet_v2_arg_scope]
)
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16], ids=["bfloat16", "float16"])
def test_losses_on_weights_and_biases_keep_their_precision(arg_scope, dtype):
    """Only Inception-ResNet-V2 has losses on biases."""
    with tf.Graph().as_default(), tf.Session() as session:
        with (
            slim.arg_scope(arg_scope(weight_decay=WEIGHT_DECAY)),
            tf.variable_scope("net", custom_getter=stored_in_float32),
        ):
            net = squeeze_and_excite(conv(16, 3)(tf.ones([2, 8, 8, 3], dtype), "conv"))
            slim.fully_connected(tf.reduce_mean(net, [1, 2]), 3, scope="logits")
        session.run(tf.global_variables_initializer())
        with_loss = ["weights"] + ["biases"] * (arg_scope is inception_resnet_v2_arg_scope)
        expected = []
        for index, variable in enumerate(tf.trainable_variables()):
            value = np.random.RandomState(index).standard_normal(variable.shape.as_list())
            variable.load(value, session)
            if variable.op.name.rsplit("/", 1)[1] in with_loss:
                expected.append(WEIGHT_DECAY * np.sum(value**2) / 2)
        losses = session.run(tf.losses.get_regularization_losses())
    assert {loss.dtype for loss in losses} == {np.dtype(np.float32)}
    np.testing.assert_allclose(sorted(losses), sorted(expected), rtol=1e-5)


@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize(
    ("name", "size", "trained", "below"),
    [
        (SHORT_INCEPTION, SHORT_INCEPTION_SIZE, "Mixed_5b", "MaxPool_5a_3x3"),
        (SMALL_NETWORK, SMALL_SIZE, "postnorm", f"{SMALL_NETWORK}/block1"),
    ],
    ids=["Inception", "ResNet"],
)
def test_frozen_batch_norm_is_that_of_inference(name, size, trained, below):
    """Below the trained layers; above the first of them, activations depend on the batch."""
    images = np.random.RandomState(0).uniform(-1, 1, (3, size, size, 3)).astype(np.float32)
    points = []
    for training in (False, True):
        with tf.Graph().as_default(), tf.Session() as session:
            network_fn = get_network_fn(
                name, 3, is_training=training, is_frozen=lambda variable: trained not in variable
            )
            _, end_points = network_fn(tf.constant(images))
            load_recipe_weights(session)
            points.append(session.run(end_points))
            moved = {op.name for op in tf.get_collection(tf.GraphKeys.UPDATE_OPS)}
            assert bool(moved) == training and all(trained in name for name in moved)
    inference, frozen = points
    np.testing.assert_allclose(frozen[below], inference[below], rtol=1e-4, atol=1e-4)
    last = [*inference][-1]
    assert np.abs(frozen[last] - inference[last]).max() > 0.01 * np.abs(inference[last]).max()
