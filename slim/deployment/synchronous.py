"""Synchronous training with parameter servers."""

import threading
import time
from collections.abc import Sequence

from slim.common.compat import slim, tf
from slim.deployment.replicas import Gradients, Replicas

POLL_SECS = 0.01


class SynchronousReplicas(Replicas):
    """Replicas that average their gradients with TensorFlow's `SyncReplicasOptimizer`.

    A replica adds its gradients to accumulators on the parameter servers and waits for a token.
    The chief hands out the tokens once enough gradients are there and applied; gradients computed
    from older variables are dropped. The chief does so in a thread of its own: the hook of the
    optimizer would leave it waiting for gradients when training is over, and closing the session
    would take two minutes.

    Args:
        num_replicas: Number of replicas.
        gradients_per_step: Number of gradients per update. If it is less than the number of
            replicas, the slowest are not waited for; if it is more, replicas compute several.
        is_chief: Whether this replica applies the gradients.
    """

    def __init__(self, num_replicas: int, gradients_per_step: int, is_chief: bool) -> None:
        self.gradients_per_step = gradients_per_step
        self._num_replicas = num_replicas
        self._is_chief = is_chief

    def apply_gradients(
        self,
        optimizer: tf.train.Optimizer,
        gradients: Gradients,
        global_step: tf.Variable,
        *,
        update_ops: Sequence[tf.Operation] = (),
        average: tf.train.ExponentialMovingAverage | None = None,
    ) -> tf.Operation:
        """Contributes gradients to a step, whose update and moving averages are the chief's."""
        synchronous = tf.train.SyncReplicasOptimizer(
            optimizer,
            self.gradients_per_step,
            self._num_replicas,
            variable_averages=average,
            variables_to_average=slim.get_model_variables(),
        )
        update = synchronous.apply_gradients(gradients, global_step)
        synchronous.ready_for_local_init_op.mark_used()  # for a hook that is not used here
        self._global_step = global_step
        self._begin = [synchronous.local_step_init_op]
        if self._is_chief:
            self._begin = [synchronous.chief_init_op, synchronous.get_init_tokens_op()]
            with tf.control_dependencies(synchronous.get_chief_queue_runner().enqueue_ops):
                self._update = tf.identity(global_step.read_value())
        self._release = synchronous.get_init_tokens_op(self._num_replicas)
        return tf.group(update, *update_ops)

    def after_create_session(self, session: tf.Session, coord: tf.train.Coordinator) -> None:
        """Begins at the step of the variables."""
        for operation in self._begin:
            session.run(operation)
        if self._is_chief:
            self._step = session.run(self._global_step)
            self._thread = threading.Thread(
                target=self._apply_updates, args=(session, coord), daemon=True
            )
            self._thread.start()

    def _apply_updates(self, session: tf.Session, coord: tf.train.Coordinator) -> None:
        """Applies the gradients of step after step until the session is closed."""
        try:
            while not coord.should_stop():
                self._step = session.run(self._update)
        except Exception as error:
            if not coord.should_stop():
                coord.request_stop(error)

    def end(self, session: tf.Session) -> None:
        """Waits until the last step is complete, including its moving averages."""
        if self._is_chief:
            step = session.run(self._global_step)
            while self._step < step and self._thread.is_alive():
                time.sleep(POLL_SECS)

    def around(self, hooks: Sequence[tf.train.SessionRunHook]) -> list[tf.train.SessionRunHook]:
        """Returns the hooks with this one first; at the very end, waiting replicas are released."""
        return [self, *hooks, tf.train.FinalOpsHook(self._release)]
