"""The replicas of a training run: the interface of their synchronization, and its absence."""

from collections.abc import Mapping, Sequence
from typing import Any

from slim.common.compat import slim, tf

Gradients = Sequence[tuple[tf.Tensor, tf.Variable]]


class Replicas(tf.train.SessionRunHook):
    """Replicas that are not synchronized: each applies its own gradients.

    Subclasses synchronize them. The object is also a hook of the session.

    Attributes:
        gradients_per_step: Number of gradients per update; a replica computes one per batch.
    """

    gradients_per_step = 1

    def combine(self, loss: tf.Tensor, gradients: Gradients) -> tuple[tf.Tensor, Gradients]:
        """Returns the loss and gradients to apply for those of this replica."""
        return loss, gradients

    def apply_gradients(
        self,
        optimizer: tf.train.Optimizer,
        gradients: Gradients,
        global_step: tf.Variable,
        *,
        update_ops: Sequence[tf.Operation] = (),
        average: tf.train.ExponentialMovingAverage | None = None,
    ) -> tf.Operation:
        """Returns an operation that updates variables, batch norm, and moving averages, in order.

        Args:
            optimizer: Applies the gradients and increments the step.
            gradients: The (gradient, variable) pairs.
            global_step: The step.
            update_ops: The updates of batch norm.
            average: The moving averages of the model variables. Default: none.
        """
        # One operation to wait for, not hundreds for each average.
        update = tf.group(optimizer.apply_gradients(gradients, global_step), *update_ops)
        with tf.control_dependencies([update]):
            return average.apply(slim.get_model_variables()) if average else update

    def around(self, hooks: Sequence[tf.train.SessionRunHook]) -> list[tf.train.SessionRunHook]:
        """Returns the hooks of a session together with those of the replicas."""
        return [self, *hooks]

    def run_step(
        self,
        session: tf.train.SingularMonitoredSession,
        step: Any,
        feed: Mapping[tf.Tensor, Any],
        stop_requests: Sequence[int],
    ) -> tuple[Any, bool]:
        """Runs the tensors of a step.

        Returns:
            Their values, and whether to stop after this step: once `stop_requests`, the signals
            received so far, are not empty.
        """
        return session.run(step, feed), bool(stop_requests)
