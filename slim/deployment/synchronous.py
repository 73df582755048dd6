"""Synchronous training: a step is made of the gradients of several replicas."""

import threading
import time
from collections.abc import Sequence

from slim.common.compat import tf

POLL_SECS = 0.01


class SynchronousReplicas(tf.train.SessionRunHook):
    """Runs TensorFlow's `SyncReplicasOptimizer`: gradients are averaged, then applied once.

    A replica adds its gradients to accumulators and waits for a token, which it gets once enough
    gradients are there and applied; those computed from older variables are dropped. The chief
    applies them, in a thread of its own: the hook that comes with the optimizer leaves it waiting
    for gradients when training is over, and closing the session then takes two minutes.

    Args:
        num_replicas: Replicas that train.
        replicas_to_aggregate: Gradients of a step. Fewer than there are replicas: the slowest are
            not waited for; more: replicas compute several.
        is_chief: Whether this replica applies the gradients.
    """

    def __init__(self, num_replicas: int, replicas_to_aggregate: int, is_chief: bool) -> None:
        self._num_replicas = num_replicas
        self._replicas_to_aggregate = replicas_to_aggregate
        self._is_chief = is_chief

    def apply_gradients(
        self,
        optimizer: tf.train.Optimizer,
        gradients: Sequence[tuple[tf.Tensor, tf.Variable]],
        global_step: tf.Variable,
        average: tf.train.ExponentialMovingAverage | None,
        averaged: Sequence[tf.Variable],
    ) -> tf.Operation:
        """One replica's share of a step.

        Args:
            optimizer: Applies the averaged gradients.
            gradients: This replica's (gradient, variable) pairs.
            global_step: The step; 1 is added to it once for all replicas.
            average: Updated after it, by the chief. Default: none.
            averaged: What it averages.

        Returns:
            Ends when the step is made.
        """
        synchronous = tf.train.SyncReplicasOptimizer(
            optimizer,
            self._replicas_to_aggregate,
            self._num_replicas,
            variable_averages=average,
            variables_to_average=averaged,
        )
        train_op = synchronous.apply_gradients(gradients, global_step)
        synchronous.ready_for_local_init_op.mark_used()  # for a hook that is not used here
        self._global_step = global_step
        self._begin = [synchronous.local_step_init_op]
        if self._is_chief:
            self._begin = [synchronous.chief_init_op, synchronous.get_init_tokens_op()]
            with tf.control_dependencies(synchronous.get_chief_queue_runner().enqueue_ops):
                self._update = tf.identity(global_step.read_value())
        self._release = synchronous.get_init_tokens_op(self._num_replicas)
        return train_op

    def after_create_session(self, session: tf.Session, coord: tf.train.Coordinator) -> None:
        """Begins at the step that the variables are at."""
        for operation in self._begin:
            session.run(operation)
        if self._is_chief:
            self._step = session.run(self._global_step)
            self._thread = threading.Thread(
                target=self._updates, args=(session, coord), daemon=True
            )
            self._thread.start()

    def _updates(self, session: tf.Session, coord: tf.train.Coordinator) -> None:
        """Applies gradients, step after step, until the session is closed."""
        try:
            while not coord.should_stop():
                self._step = session.run(self._update)
        except Exception as error:
            if not coord.should_stop():
                coord.request_stop(error)

    def end(self, session: tf.Session) -> None:
        """Waits until the last step is whole, its moving averages too."""
        if self._is_chief:
            step = session.run(self._global_step)
            while self._step < step and self._thread.is_alive():
                time.sleep(POLL_SECS)

    def around(self, hooks: Sequence[tf.train.SessionRunHook]) -> list[tf.train.SessionRunHook]:
        """A session's hooks, this one first; at the very end replicas that wait are let go."""
        return [self, *hooks, tf.train.FinalOpsHook(self._release)]
