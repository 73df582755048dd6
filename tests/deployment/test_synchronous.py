"""Tests of synchronous steps."""

import pytest

from slim.common.compat import slim, tf
from slim.deployment.replicas import SynchronousReplicas


def test_a_step_is_the_mean_of_its_gradients():
    """One replica computes two gradients per step, 1 and 3, then 7 and 9."""
    with tf.Graph().as_default():
        global_step = tf.train.create_global_step()
        variable = slim.model_variable("w", [], initializer=tf.constant_initializer(10.0))
        numbers = tf.data.Dataset.from_tensor_slices([1.0, 3.0, 5.0, 7.0, 9.0])
        iterator = tf.data.make_initializable_iterator(numbers)
        tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
        gradient = iterator.get_next()
        average = tf.train.ExponentialMovingAverage(0.5)
        replicas = SynchronousReplicas(1, 2, is_chief=True)
        step = replicas.apply_gradients(
            tf.train.GradientDescentOptimizer(0.5),
            [(gradient, variable)],
            global_step,
            average=average,
        )
        found = []

        class Last(tf.train.SessionRunHook):
            def end(self, session):
                found.extend(session.run([global_step, variable, average.average(variable)]))

        with tf.train.SingularMonitoredSession(hooks=replicas.around([Last()])) as session:
            while session.raw_session().run(global_step) < 2:
                session.run(step)
    # The gradient 5 arrives during the first step. It becomes part of that step, is dropped, or
    # becomes part of the second step. The keys are the final values, the values are those between
    # the steps.
    between = {10 - 1.5 - 4.0: 8.5, 10 - 1.0 - 4.0: 9.0, 10 - 1.0 - 3.0: 9.0}
    made, value, averaged = found
    assert made == 2
    assert value in between
    first = 0.5 * 10 + 0.5 * between[value]
    assert averaged == pytest.approx(0.5 * first + 0.5 * value)
