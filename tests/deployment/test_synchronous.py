"""Synchronous steps, against the mean of the gradients that make them."""

import pytest

from slim.common.compat import slim, tf
from slim.deployment.synchronous import SynchronousReplicas


def test_a_step_is_the_mean_of_its_gradients():
    """Of one replica that computes two gradients a step, 1 and 3, then 7 and 9."""
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
    # The gradient 5 comes while the first step is made: it is a part of that step, dropped, or a
    # part of the second one. By the last value, the value between the steps:
    between = {10 - 1.5 - 4.0: 8.5, 10 - 1.0 - 4.0: 9.0, 10 - 1.0 - 3.0: 9.0}
    made, value, averaged = found
    assert made == 2
    assert value in between
    first = 0.5 * 10 + 0.5 * between[value]
    assert averaged == pytest.approx(0.5 * first + 0.5 * value)
