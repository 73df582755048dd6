"""Tests of a training step: its input, losses, trained variables and averages."""

from types import SimpleNamespace

import numpy as np
import pytest

from slim.common.compat import slim, tf
from slim.common.errors import UserError
from slim.datasets.input import InputSettings, get_dataset, training_batches
from slim.nets.nets_factory import get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing
from slim.train_image_classifier import build_clone, build_train_op
from slim.training.batches import CloneOutputs, ImageBatches
from slim.training.start import variables_to_train
from tests.support import SMALL_NETWORK, SMALL_SIZE, training_flags


def test_trainable_scopes_are_substrings_of_variable_names():
    with tf.Graph().as_default():
        for name in ("net/AuxLogits/weights", "net/Logits/weights", "net/conv/weights"):
            slim.model_variable(name, [1])
        chosen = variables_to_train("Logits")
        assert [v.op.name for v in chosen] == ["net/AuxLogits/weights", "net/Logits/weights"]
        assert len(variables_to_train("")) == 3
        with pytest.raises(UserError) as error:
            variables_to_train("Logit5,nothing")
        assert "--trainable_scopes=Logit5,nothing matches no variable" in str(error.value)
        assert "net/AuxLogits, net/Logits, net/conv" in str(error.value)


def test_training_the_last_layer_computes_no_gradient_below_it(small_network):
    with tf.Graph().as_default() as graph:
        network_fn = get_network_fn(SMALL_NETWORK, 3, 0.0001, is_training=True)
        logits, _ = network_fn(tf.zeros([2, SMALL_SIZE, SMALL_SIZE, 3]))
        tf.losses.softmax_cross_entropy(tf.one_hot([0, 1], 3), logits)
        optimizer = tf.train.MomentumOptimizer(0.1, 0.9)
        update = optimizer.minimize(
            tf.losses.get_total_loss(), var_list=variables_to_train("logits")
        )
        graph_def = tf.graph_util.extract_sub_graph(graph.as_graph_def(), [update.name])
    backward = [node.name for node in graph_def.node if "Backprop" in node.op]
    assert len(backward) > 0
    assert all("logits" in name for name in backward)
    assert not [node for node in graph_def.node if node.op == "FusedBatchNormGradV3"]


def test_label_smoothing_auxiliary_loss_and_class_weights():
    values, weights = np.array([[2.0, 0, 0], [1.0, 3.0, 0]], np.float32), [0.5, 2.0, 0.0]
    with tf.Graph().as_default(), tf.Session() as session:
        logits = tf.constant(values)
        labels, waited = tf.constant([0, 1], tf.int64), tf.constant(0, tf.float64)
        points = {"AuxLogits": 2 * logits}
        batches = SimpleNamespace(build=lambda _: CloneOutputs(labels, logits, points, waited))
        build_clone(None, batches, 3, label_smoothing=0.3)
        build_clone(None, batches, 3, label_smoothing=0.3, class_weights=weights)
        found = session.run(tf.losses.get_losses())  # of the auxiliary classifier first

    def mean_loss(values: np.ndarray, weights: list[float]) -> float:
        log_p = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
        smoothed = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
        return (weights * -(smoothed * log_p).sum(axis=1)).mean()

    expected = [
        factor * mean_loss(scale * values, each)
        for each in ([1.0, 1.0], weights[:2])
        for factor, scale in ((0.4, 2), (1, 1))
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_input_of_a_worker_begins_at_the_step(small_network, colours):
    """A worker that is not the chief has the images of the seed plus the step, too."""
    dataset = get_dataset("colours", "train", str(colours))
    values = training_flags(
        f"--model_name={small_network}",
        f"--train_image_size={SMALL_SIZE}",
        "--batch_size=5",
        "--seed=6",  # worker 1 adds its number
    )
    run = SimpleNamespace(cluster=SimpleNamespace(task=1, worker_replicas=2))

    def take(begin, images: tf.Tensor) -> np.ndarray:
        with tf.Session() as session:
            begin(session)
            return session.run(images)

    with tf.Graph().as_default():
        batches = ImageBatches(values, dataset, 3, run)
        outputs = batches.build(lambda images: (images, {}))
        first, later = (
            take(lambda session, step=step: batches.begin(session, step, outputs), outputs.logits)
            for step in (0, 5)
        )
    with tf.Graph().as_default():
        settings = InputSettings(
            image_size=SMALL_SIZE, batch_size=5, num_classes=3, seed=12, num_workers=2, worker=1
        )
        preprocess = get_preprocessing("inception", is_training=True)
        iterator = tf.data.make_initializable_iterator(
            training_batches(dataset, preprocess, settings)
        )
        expected, _ = iterator.get_next()
        np.testing.assert_allclose(
            later, take(lambda session: session.run(iterator.initializer), expected), atol=1e-5
        )
    assert np.abs(first - later).max() > 0.1


def test_averages_follow_the_updated_variables():
    """The decay has the published warm-up."""
    with tf.Graph().as_default(), tf.Session() as session:
        global_step = tf.train.create_global_step()
        variable = slim.model_variable("w", [], initializer=tf.constant_initializer(4.0))
        loss = 1.0 * variable
        step, averages = build_train_op(
            loss,
            [(tf.constant(1.0), variable)],
            tf.train.GradientDescentOptimizer(0.5),
            global_step=global_step,
            moving_average_decay=0.9,
        )
        session.run(tf.global_variables_initializer())
        ((_, average),) = averages
        session.run(average.assign(variable))
        expected = w = 4.0
        for number in range(1, 4):
            done = session.run(step)
            assert (done["step"], done["loss"]) == (number, w)
            w -= 0.5
            decay = min(0.9, (1 + number) / (10 + number))
            expected = decay * expected + (1 - decay) * w
        assert session.run(average) == pytest.approx(expected, rel=1e-5)
        assert session.run(variable) == 2.5


def test_a_loss_scale_keeps_small_gradients_and_skips_steps_that_overflow():
    """In 16 bits, 1e-8 is 0 and 1,000 times the initial scale of 2**15 is infinite."""
    for slope, halvings in ((1e-8, 0), (1000.0, 9)):
        with tf.Graph().as_default(), tf.Session() as session:
            variable = tf.get_variable("w", initializer=1.0)
            scale = tf.mixed_precision.DynamicLossScale()
            optimizer = tf.mixed_precision.MixedPrecisionLossScaleOptimizer(
                tf.train.GradientDescentOptimizer(1.0), scale
            )
            step = tf.train.create_global_step()
            # The gradient passes through the cast in 16 bits.
            loss = tf.cast(tf.cast(variable, tf.float16), tf.float32) * slope
            pairs = optimizer.compute_gradients(loss)
            update, _ = build_train_op(loss, pairs, optimizer, global_step=step, loss_scale=scale)
            session.run(tf.global_variables_initializer())
            for _ in range(halvings):
                session.run(update)
            assert session.run([variable, step]) == [1.0, 0]
            session.run(update)
            value, steps = session.run([variable, step])
            assert steps == 1
            assert 1.0 - value == pytest.approx(slope, rel=0.01, abs=1e-7)
            assert session.run(pairs[0][0]) == pytest.approx(slope, rel=0.02)
