"""Synchronous training without parameter servers: every replica has its own variables."""

from collections.abc import Mapping, Sequence
from typing import Any

from slim.common.compat import tf
from slim.deployment.replicas import Gradients, Replicas

GROUP_KEY = 1


class AllReduce(Replicas):
    """Replicas that average their gradients with TensorFlow's ring all-reduce.

    All replicas take part in every step and begin with the variables of the chief.

    Args:
        num_replicas: Number of replicas.
        replica_id: Index of this replica; 0 is the chief.
    """

    def __init__(self, num_replicas: int, replica_id: int) -> None:
        self.gradients_per_step = num_replicas
        self._replica_id = replica_id
        self._instances = 0

    def combine(self, loss: tf.Tensor, gradients: Gradients) -> tuple[tf.Tensor, Gradients]:
        """Returns the means of the losses and of the gradients over all replicas."""
        self._stop = tf.placeholder_with_default(False, [])
        own = [tf.cast(self._stop, tf.float32), loss, *(gradient for gradient, _ in gradients)]
        stopping, loss, *means = self._sums(own, "Div")
        self._stopping = stopping > 0
        return loss, [(mean, v) for mean, (_, v) in zip(means, gradients, strict=True)]

    def begin(self) -> None:
        """Builds the operations that copy the chief's variables to every replica."""
        self._copies = []
        by_type: dict[tf.DType, list[tf.Variable]] = {}
        for variable in tf.global_variables():
            by_type.setdefault(variable.dtype.base_dtype, []).append(variable)
        for variables in by_type.values():
            values = [variable.read_value() for variable in variables]
            if self._replica_id:
                values = [tf.zeros_like(value) for value in values]
            sums = self._sums(values, "Id")
            self._copies += [v.assign(value) for v, value in zip(variables, sums, strict=True)]

    def after_create_session(self, session: tf.Session, _: tf.train.Coordinator) -> None:
        """Copies the chief's variables to every replica."""
        session.run(self._copies)

    def run_step(
        self,
        session: tf.train.SingularMonitoredSession,
        step: Any,
        feed: Mapping[tf.Tensor, Any],
        stop_requests: Sequence[int],
    ) -> tuple[Any, bool]:
        """Runs a step; all replicas stop after the same one if any of them is asked to."""
        feed = {**feed, self._stop: bool(stop_requests)}
        done, stopping = session.run([step, self._stopping], feed)
        return done, bool(stopping)

    def _sums(self, tensors: Sequence[tf.Tensor], final_op: str) -> list[tf.Tensor]:
        """Returns sums over the replicas, or means with `Div`, from one collective operation."""
        self._instances += 1
        with tf.device(f"/job:worker/replica:0/task:{self._replica_id}/device:CPU:0"):
            flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
            flat = tf.raw_ops.CollectiveReduce(
                input=flat,
                group_size=self.gradients_per_step,
                group_key=GROUP_KEY,
                instance_key=self._instances,
                merge_op="Add",
                final_op=final_op,
                subdiv_offsets=[0],
            )
            parts = tf.split(flat, [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
