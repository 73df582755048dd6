"""Tests of networks in training: their losses and the variables to train."""

from dataclasses import replace

import numpy as np
import pytest

from slim.common.compat import slim, tf
from slim.common.errors import UserError
from slim.datasets.input import InputSettings, training_batches
from slim.datasets.registry import get_dataset
from slim.deployment.model_deploy import DeploymentConfig, replica_graph
from slim.nets.nets_factory import get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing
from slim.training.networks import (
    NetworkSettings,
    build_clone,
    build_on_images,
    variables_to_train,
)
from tests.support import SMALL_NETWORK, SMALL_SIZE


def test_trainable_scopes_are_substrings_of_variable_names():
    with tf.Graph().as_default():
        for name in ("net/AuxLogits/weights", "net/Logits/weights", "net/conv/weights"):
            slim.model_variable(name, [1])
        chosen = variables_to_train(["Logits"])
        assert [v.op.name for v in chosen] == ["net/AuxLogits/weights", "net/Logits/weights"]
        assert len(variables_to_train([])) == 3
        with pytest.raises(UserError) as error:
            variables_to_train(["Logit5", "nothing"])
        assert "--trainable_scopes=Logit5,nothing matches no variable" in str(error.value)
        assert "net/AuxLogits, net/Logits, net/conv" in str(error.value)


def test_training_the_last_layer_computes_no_gradient_below_it(small_network):
    with tf.Graph().as_default() as graph:
        network_fn = get_network_fn(SMALL_NETWORK, 3, 0.0001, is_training=True)
        logits, _ = network_fn(tf.zeros([2, SMALL_SIZE, SMALL_SIZE, 3]))
        tf.losses.softmax_cross_entropy(tf.one_hot([0, 1], 3), logits)
        optimizer = tf.train.MomentumOptimizer(0.1, 0.9)
        update = optimizer.minimize(
            tf.losses.get_total_loss(), var_list=variables_to_train(["logits"])
        )
        graph_def = tf.graph_util.extract_sub_graph(graph.as_graph_def(), [update.name])
    backward = [node.name for node in graph_def.node if "Backprop" in node.op]
    assert len(backward) > 0
    assert all("logits" in name for name in backward)
    assert not [node for node in graph_def.node if node.op == "FusedBatchNormGradV3"]


def test_label_smoothing_and_auxiliary_loss():
    with tf.Graph().as_default(), tf.Session() as session:
        logits = tf.constant([[2.0, 0.0, 0.0]])
        batch = (tf.zeros([1, 8, 8, 3]), tf.constant([0], tf.int64))

        class Iterator:
            def get_next(self):
                return batch

        build_clone(
            lambda images: (logits, {"AuxLogits": 2 * logits}), Iterator(), 3, label_smoothing=0.3
        )
        found = session.run(sorted(tf.losses.get_losses(), key=lambda loss: loss.op.name))

    def cross_entropy(values):
        log_p = values - np.log(np.exp(values).sum())
        return -(np.array([0.8, 0.1, 0.1]) * log_p).sum()

    expected = [0.4 * cross_entropy(np.array([4.0, 0, 0])), cross_entropy(np.array([2.0, 0, 0]))]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_input_of_a_worker_begins_at_the_step(small_network, colours):
    """A worker that is not the chief has the images of the seed plus the step, too."""
    settings = NetworkSettings(
        model_name=small_network,
        weight_decay=0.0,
        batch_norm_decay=None,
        label_smoothing=0.0,
        precision="float32",
        trainable_scopes=None,
    )
    data = InputSettings(
        image_size=SMALL_SIZE, batch_size=5, num_classes=3, seed=7, num_workers=2, worker=1
    )
    source = {
        "dataset": get_dataset("colours", "train", str(colours)),
        "preprocess": get_preprocessing("inception", is_training=True),
    }

    def take(begin, images: tf.Tensor) -> np.ndarray:
        with tf.Session() as session:
            begin(session)
            return session.run(images)

    config = DeploymentConfig(clone_on_cpu=True)
    with replica_graph(config, seed=0):
        network = build_on_images(config, settings, data, **source)
        images = network.clones[0].outputs.inputs
        first, later = (
            take(lambda session, step=step: network.begin_input(session, step), images)
            for step in (0, 5)
        )
    with replica_graph(config, seed=0):
        batches = training_batches(**source, settings=replace(data, seed=12))
        iterator = tf.data.make_initializable_iterator(batches)
        expected, _ = iterator.get_next()
        np.testing.assert_allclose(
            later, take(lambda session: session.run(iterator.initializer), expected), atol=1e-5
        )
    assert np.abs(first - later).max() > 0.1
