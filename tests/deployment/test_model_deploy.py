"""Tests of clones: gradients, shared variables and devices."""

import numpy as np
import pytest

from slim.common.compat import slim, tf
from slim.common.errors import UserError
from slim.deployment.model_deploy import DeploymentConfig, create_clones, optimize_clones

IMAGES = np.random.RandomState(0).uniform(-1, 1, (8, 9, 9, 3)).astype(np.float32)
LABELS = np.random.RandomState(1).randint(0, 4, 8)


def gradients_of(num_clones: int) -> tuple[float, dict[str, np.ndarray]]:
    """Returns the loss and gradients of 8 images over clones, with batch norm in inference mode."""
    batches = [
        (tf.constant(images), tf.one_hot(labels, 4))
        for images, labels in zip(
            np.split(IMAGES, num_clones), np.split(LABELS, num_clones), strict=True
        )
    ]
    batch = iter(batches)

    def model_fn() -> None:
        images, one_hot = next(batch)
        with (
            slim.arg_scope(
                [slim.conv2d, slim.fully_connected], weights_regularizer=slim.l2_regularizer(0.1)
            ),
            slim.arg_scope(
                [slim.conv2d],
                normalizer_fn=slim.batch_norm,
                normalizer_params={"is_training": False, "scale": True},
            ),
        ):
            net = slim.conv2d(images, 8, 3, scope="conv1")
            net = slim.conv2d(net, 8, 3, stride=2, scope="conv2")
            logits = slim.fully_connected(tf.reduce_mean(net, [1, 2]), 4, None, scope="logits")
            aux_logits = slim.fully_connected(net[:, 0, 0], 4, None, scope="aux_logits")
        tf.losses.softmax_cross_entropy(one_hot, aux_logits, weights=0.4)
        tf.losses.softmax_cross_entropy(one_hot, logits)

    config = DeploymentConfig(num_clones, clone_on_cpu=True)
    clones = create_clones(config, model_fn)
    loss, pairs = optimize_clones(clones, tf.train.GradientDescentOptimizer(1.0))
    with tf.Session() as session:
        for index, variable in enumerate(slim.get_model_variables()):
            random = np.random.RandomState(index)
            value = random.standard_normal(variable.shape.as_list()) * 0.1
            if variable.op.name.endswith("variance"):
                value = 1 + np.abs(value)
            variable.load(value, session)
        values, loss = session.run([{v.op.name: g for g, v in pairs}, loss])
    return loss, values


def test_clones_with_parts_of_a_batch_have_the_gradient_of_the_whole():
    found = {}
    for num_clones in (1, 2, 4):
        with tf.Graph().as_default():
            found[num_clones] = gradients_of(num_clones)
    whole_loss, whole = found[1]
    for num_clones in (2, 4):
        loss, parts = found[num_clones]
        assert loss == pytest.approx(whole_loss, rel=1e-5)
        assert parts.keys() == whole.keys()
        for name, gradient in whole.items():
            np.testing.assert_allclose(parts[name], gradient, atol=1e-4 * np.abs(gradient).max())


def test_clones_share_variables_and_regularization_counts_once():
    def model_fn() -> None:
        net = slim.fully_connected(
            tf.ones([2, 3]), 1, weights_regularizer=slim.l2_regularizer(1.0), scope="fc"
        )
        tf.losses.absolute_difference(tf.zeros([2, 1]), net)

    with tf.Graph().as_default(), tf.Session() as session:
        clones = create_clones(DeploymentConfig(3, clone_on_cpu=True), model_fn)
        loss, _ = optimize_clones(clones, tf.train.GradientDescentOptimizer(1.0))
        assert [v.op.name for v in tf.trainable_variables()] == ["fc/weights", "fc/biases"]
        session.run(tf.global_variables_initializer())
        weights, biases = tf.trainable_variables()
        weights.load(np.full((3, 1), 2.0), session)
        biases.load([0.0], session)
        # |2 + 2 + 2| in each clone, and half of 2² + 2² + 2² once.
        assert session.run(loss) == pytest.approx(6 + 6)


def test_devices():
    assert DeploymentConfig().clone_device(0) == ""
    assert DeploymentConfig().clone_scope(0) == ""
    two = DeploymentConfig(2)
    assert [two.clone_device(0), two.clone_device(1)] == ["/device:GPU:0", "/device:GPU:1"]
    assert two.variables_device() == "/device:CPU:0"
    assert DeploymentConfig(2, clone_on_cpu=True).clone_device(1) == "/device:CPU:0"


def test_more_clones_than_gpus():
    DeploymentConfig(2).check_devices(num_gpus=2)
    DeploymentConfig(2, clone_on_cpu=True).check_devices(num_gpus=0)
    with pytest.raises(UserError, match="--num_clones=2 needs as many GPUs, found 1"):
        DeploymentConfig(2).check_devices(num_gpus=1)


def losses_of(num_clones: int) -> list[float]:
    """Returns the losses of 40 steps on 16 images over clones, each with its own batch norm."""
    random = np.random.RandomState(0)
    labels = np.arange(16) % 4
    images = random.normal(size=(16, 6, 6, 3)) + np.eye(4, 3)[labels][:, None, None]
    parts = iter(np.split(np.arange(16), num_clones))

    def model_fn() -> None:
        part = next(parts)
        with slim.arg_scope([slim.conv2d], normalizer_fn=slim.batch_norm):
            net = slim.conv2d(tf.constant(images[part], tf.float32), 8, 3, scope="conv")
        logits = slim.fully_connected(tf.reduce_mean(net, [1, 2]), 4, None, scope="logits")
        tf.losses.softmax_cross_entropy(tf.one_hot(labels[part], 4), logits)

    tf.set_random_seed(0)
    clones = create_clones(DeploymentConfig(num_clones, clone_on_cpu=True), model_fn)
    optimizer = tf.train.MomentumOptimizer(0.2, 0.9)
    loss, gradients = optimize_clones(clones, optimizer)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS, clones[0].scope or None)
    assert len(updates) == 2  # mean and variance of the first clone
    step = tf.group(optimizer.apply_gradients(gradients), *updates)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        return [session.run([loss, step])[0] for _ in range(40)]


def test_clones_learn_equally_well_with_their_own_batch_norm():
    found = {}
    for num_clones in (1, 2, 4):
        with tf.Graph().as_default():
            found[num_clones] = losses_of(num_clones)
    for losses in found.values():
        assert losses[-1] < 0.2 * losses[0], found
    # Statistics of 4 and of 16 images differ, but the losses hardly do.
    middle = [np.mean(losses[:20]) for losses in found.values()]
    assert max(middle) < 1.25 * min(middle), found


def test_each_clone_has_its_own_batch():
    with tf.Graph().as_default(), tf.Session() as session:
        iterator = tf.data.make_one_shot_iterator(tf.data.Dataset.range(12).batch(3))
        clones = create_clones(DeploymentConfig(4, clone_on_cpu=True), iterator.get_next)
        batches = session.run([clone.outputs for clone in clones])
    assert sorted(np.concatenate(batches)) == list(range(12))
