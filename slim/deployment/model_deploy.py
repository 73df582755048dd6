"""Clones of a network on the devices of a machine, with shared variables and averaged gradients.

Every clone has its own batch. The total loss is the mean of the losses of the clones plus the
regularization losses once. The first clone updates the moving averages of batch norm, as published.
Each of several machines is a replica with its own clones.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from slim.common.compat import slim, tf
from slim.common.errors import UserError


@dataclass(frozen=True)
class DeploymentConfig:
    """The placement of clones and variables."""

    num_clones: int = 1
    clone_on_cpu: bool = False  # otherwise clone i is on GPU i
    replica_id: int = 0  # the task of job `worker`
    num_replicas: int = 1
    num_ps_tasks: int = 0  # the tasks of job `ps`, over which variables are distributed

    def clone_scope(self, index: int) -> str:
        """Returns the name scope of a clone; a single clone has none, as published."""
        return f"clone_{index}" if self.num_clones > 1 else ""

    @property
    def worker_device(self) -> str:
        """The device of this replica, empty if it is the only one."""
        several = self.num_replicas > 1 or self.num_ps_tasks
        return f"/job:worker/task:{self.replica_id}" if several else ""

    def clone_device(self, index: int) -> str:
        """Returns the device of a clone; TensorFlow chooses that of a single clone."""
        if self.clone_on_cpu:
            return self.inputs_device()
        return self.worker_device + (f"/device:GPU:{index}" if self.num_clones > 1 else "")

    @cached_property
    def _parameter_servers(self) -> Callable[[tf.Operation], str]:
        return tf.train.replica_device_setter(
            self.num_ps_tasks, "/job:ps/device:CPU:0", self.inputs_device()
        )

    def variables_device(self) -> str | Callable[[tf.Operation], str]:
        """Returns the device of the variables: parameter servers in turn, the CPU or a clone's."""
        if self.num_ps_tasks:
            return self._parameter_servers
        on_cpu = self.clone_on_cpu or self.num_clones > 1
        return self.worker_device + ("/device:CPU:0" if on_cpu else "")

    def inputs_device(self) -> str:
        return f"{self.worker_device}/device:CPU:0"

    def check_devices(self, num_gpus: int) -> None:
        """Checks that there is a GPU for every clone."""
        if self.num_clones > 1 and not self.clone_on_cpu and self.num_clones > num_gpus:
            raise UserError(
                f"--num_clones={self.num_clones} needs as many GPUs, found {num_gpus}; "
                "pass a smaller number, or --clone_on_cpu"
            )


@contextmanager
def replica_graph(config: DeploymentConfig, seed: int | None) -> Iterator[tf.Variable]:
    """Makes a new graph on the device of a replica the default graph, and yields its global step.

    The index of the replica is added to the seed.
    """
    with tf.Graph().as_default(), tf.device(config.worker_device or None):
        tf.set_random_seed(None if seed is None else seed + config.replica_id)
        with tf.device(config.variables_device() or None):
            global_step = tf.train.create_global_step()
        yield global_step


@dataclass(frozen=True)
class Clone:
    """A clone: the result of its `model_fn`, its name scope (with a slash) and its device."""

    outputs: Any
    scope: str
    device: str


def create_clones(
    config: DeploymentConfig, model_fn: Callable[..., Any], *args: Any, **kwargs: Any
) -> list[Clone]:
    """Builds the clones, which share the variables of the first one.

    `model_fn` builds a clone from `args` and `kwargs`, and adds its losses to their collection.
    """
    # The first clone makes the variables, the others reuse them.
    clones = []
    on_variables = {"device": config.variables_device() or None}
    for index in range(config.num_clones):
        with (
            slim.arg_scope([slim.model_variable, slim.variable], **on_variables),
            tf.name_scope(config.clone_scope(index) or None) as scope,
            tf.device(config.clone_device(index) or None),
            tf.variable_scope(tf.get_variable_scope(), reuse=True if index else None),
        ):
            outputs = model_fn(*args, **kwargs)
        clones.append(Clone(outputs, scope or "", config.clone_device(index)))
    return clones


def optimize_clones(
    clones: Sequence[Clone],
    optimizer: tf.train.Optimizer,
    var_list: Sequence[tf.Variable] | None = None,
) -> tuple[tf.Tensor, list[tuple[tf.Tensor, tf.Variable]]]:
    """Computes the total loss of all clones, and its gradients of the variables it depends on.

    `var_list` are the variables to train, by default all trainable ones.
    """
    # 1. The loss of each clone is its part of the mean. Regularization counts once.
    regularization_losses = tf.losses.get_regularization_losses()
    losses, clones_gradients = [], []
    for index, clone in enumerate(clones):
        with tf.name_scope(clone.scope or None), tf.device(clone.device or None):
            loss = tf.add_n(tf.losses.get_losses(clone.scope or None)) / len(clones)
            if index == 0 and regularization_losses:
                loss += tf.add_n(regularization_losses)
            clones_gradients.append(optimizer.compute_gradients(loss, var_list))
        losses.append(loss)

    # 2. The sum of the clones' gradients is then the gradient of the total loss.
    summed = []
    for pairs in zip(*clones_gradients, strict=True):
        if gradients := [gradient for gradient, _ in pairs if gradient is not None]:
            summed.append((tf.add_n(gradients), pairs[0][1]))
    return tf.add_n(losses), summed
