"""The replicas of a training run: not synchronized, synchronous, or with all-reduce."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from slim.common.compat import slim, tf
from slim.deployment.cluster import Cluster

POLL_SECS = 0.01

Gradients = Sequence[tuple[tf.Tensor, tf.Variable]]


def choose_replicas(
    cluster: Cluster, sync_replicas: bool, replicas_to_aggregate: int
) -> "Replicas":
    """Returns the replicas of a cluster; the two flags hold for parameter servers."""
    if cluster.all_reduce:
        return AllReduce(cluster.worker_replicas, cluster.task)
    if sync_replicas and max(cluster.worker_replicas, replicas_to_aggregate) > 1:
        return SynchronousReplicas(cluster.worker_replicas, replicas_to_aggregate, cluster.is_chief)
    return Replicas()


class Replicas(tf.train.SessionRunHook):
    """Replicas that are not synchronized: each applies its own gradients.

    Subclasses synchronize them. The object is also a hook of the session.
    """

    gradients_per_step = 1  # per update; a replica computes one per batch

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
        """Updates variables and the step, then batch norm, then moving averages, if any."""
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
        """Returns the values of a step, and whether to stop after it, if any signal asks for it."""
        return session.run(step, feed), bool(stop_requests)


class SynchronousReplicas(Replicas):
    """Replicas that average their gradients with TensorFlow's `SyncReplicasOptimizer`."""

    # A replica adds its gradients to accumulators on the parameter servers and waits for a token.
    # The chief hands out the tokens once enough gradients are there and applied; gradients computed
    # from older variables are dropped. The chief does so in a thread of its own: the hook of the
    # optimizer would leave it waiting for gradients when training is over, and closing the session
    # would take two minutes. With fewer gradients per step than replicas, the slowest are not
    # waited for; with more, replicas compute several.

    def __init__(self, num_replicas: int, gradients_per_step: int, is_chief: bool) -> None:
        self.gradients_per_step = gradients_per_step
        self._num_replicas = num_replicas
        self._is_chief = is_chief

    def apply_gradients(self, optimizer, gradients, global_step, *, update_ops=(), average=None):
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
        for operation in self._begin:
            session.run(operation)
        if self._is_chief:
            self._step, arguments = session.run(self._global_step), (session, coord)
            self._thread = threading.Thread(target=self._apply, args=arguments, daemon=True)
            self._thread.start()

    def _apply(self, session: tf.Session, coord: tf.train.Coordinator) -> None:
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


class AllReduce(Replicas):
    """Replicas with their own variables that average their gradients by ring all-reduce."""

    # All take part in every step, begin with the variables of the chief, and stop together.

    def __init__(self, num_replicas: int, replica_id: int) -> None:
        self.gradients_per_step = num_replicas
        self._replica_id = replica_id
        self._instances = 0

    def combine(self, loss: tf.Tensor, gradients: Gradients) -> tuple[tf.Tensor, Gradients]:
        """Returns the means of the losses and of the gradients over all replicas."""
        # One operation for all: whether any replica stops, the loss, and the gradients.
        self._stop = tf.placeholder_with_default(False, [])
        own = [tf.cast(self._stop, tf.float32), loss, *(gradient for gradient, _ in gradients)]
        stopping, loss, *means = self._sums(own, "Div")
        self._stopping = stopping > 0
        return loss, [(mean, v) for mean, (_, v) in zip(means, gradients, strict=True)]

    def begin(self) -> None:
        """Builds the operations that copy the chief's variables to every replica."""
        # A sum to which all replicas but the chief add zeros is a copy.
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
        session.run(self._copies)

    def run_step(self, session, step, feed, stop_requests):
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
                group_key=1,
                instance_key=self._instances,
                merge_op="Add",
                final_op=final_op,
                subdiv_offsets=[0],
            )
            parts = tf.split(flat, [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
