"""Tests of a training step against closed forms."""

import pytest

from slim.common.compat import slim, tf
from slim.training.graph import build_train_op


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
