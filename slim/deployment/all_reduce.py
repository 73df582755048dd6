"""Synchronous training without parameter servers: each replica has all variables of its own."""

from collections.abc import Sequence

from slim.common.compat import tf

GROUP_KEY = 1


class AllReduce(tf.train.SessionRunHook):
    """Means over the replicas by TensorFlow's ring all-reduce, which every replica has to join.

    All replicas take the same steps. They begin with the chief's variables.

    Attributes:
        stop: A placeholder, bool scalar, default false: whether this replica wants to stop.
        stopping: Whether any replica does, bool scalar; known to all after the same step.

    Args:
        num_replicas: Replicas that train.
        replica_id: Which of them this is; 0 is the chief.
    """

    def __init__(self, num_replicas: int, replica_id: int) -> None:
        self._num_replicas = num_replicas
        self._replica_id = replica_id
        self._instances = 0

    def means(
        self, loss: tf.Tensor, gradients: Sequence[tuple[tf.Tensor, tf.Variable]]
    ) -> tuple[tf.Tensor, list[tuple[tf.Tensor, tf.Variable]]]:
        """The mean loss and gradients of all replicas.

        Args:
            loss: This replica's loss, float32 scalar.
            gradients: Its (gradient, variable) pairs, float32.

        Returns:
            The same of all replicas.
        """
        self.stop = tf.placeholder_with_default(False, [])
        own = [tf.cast(self.stop, tf.float32), loss, *(gradient for gradient, _ in gradients)]
        stopping, loss, *means = self._sums(own, "Div")
        self.stopping = stopping > 0
        return loss, [(mean, v) for mean, (_, v) in zip(means, gradients, strict=True)]

    def begin(self) -> None:
        """Builds what gives every replica the chief's variables."""
        self._take = []
        by_type: dict[tf.DType, list[tf.Variable]] = {}
        for variable in tf.global_variables():
            by_type.setdefault(variable.dtype.base_dtype, []).append(variable)
        for variables in by_type.values():
            values = [variable.read_value() for variable in variables]
            if self._replica_id:
                values = [tf.zeros_like(value) for value in values]
            sums = self._sums(values, "Id")
            self._take += [v.assign(value) for v, value in zip(variables, sums, strict=True)]

    def after_create_session(self, session: tf.Session, _: tf.train.Coordinator) -> None:
        """Begins with the chief's variables."""
        session.run(self._take)

    def around(self, hooks: Sequence[tf.train.SessionRunHook]) -> list[tf.train.SessionRunHook]:
        """A session's hooks, this one in its place among them."""
        return [self, *hooks]

    def _sums(self, tensors: Sequence[tf.Tensor], final_op: str) -> list[tf.Tensor]:
        """Sums over the replicas; with `Div` divided by their number. One collective for all."""
        self._instances += 1
        with tf.device(f"/job:worker/replica:0/task:{self._replica_id}/device:CPU:0"):
            flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
            flat = tf.raw_ops.CollectiveReduce(
                input=flat,
                group_size=self._num_replicas,
                group_key=GROUP_KEY,
                instance_key=self._instances,
                merge_op="Add",
                final_op=final_op,
                subdiv_offsets=[0],
            )
            parts = tf.split(flat, [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
