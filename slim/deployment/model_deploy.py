"""Clones of a network on the devices of a machine: shared variables, averaged gradients.

Every clone sees a batch of its own. The total loss is the mean of the clones' losses plus the
regularization losses once; batch norm's moving averages are updated by the first clone, as
published. Of several machines each is a replica with clones of its own, and the variables stand on
parameter servers.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from slim.common.compat import slim, tf
from slim.common.errors import UserError

MIN_INTER_OP_THREADS = 4

Device = str | Callable[[tf.Operation], str]


@dataclass(frozen=True)
class DeploymentConfig:
    """Where clones and variables stand.

    Attributes:
        num_clones: Number of clones.
        clone_on_cpu: All clones on the CPU; else clone i on GPU i.
        replica_id: This replica: the task of job `worker` that it is.
        num_replicas: Number of replicas.
        num_ps_tasks: Tasks of job `ps`, which variables are dealt out to; 0 on one machine.

    Raises:
        ValueError: `num_clones` is below 1.
    """

    num_clones: int = 1
    clone_on_cpu: bool = False
    replica_id: int = 0
    num_replicas: int = 1
    num_ps_tasks: int = 0

    def __post_init__(self) -> None:
        if self.num_clones < 1:
            raise ValueError(f"num_clones must be 1 at least, not {self.num_clones}")

    def clone_scope(self, index: int) -> str:
        """The name scope of a clone; a single clone stands in none, as published."""
        return f"clone_{index}" if self.num_clones > 1 else ""

    @property
    def worker_device(self) -> str:
        """The replica's task: where all stands but what is on parameter servers; else nothing."""
        several = self.num_replicas > 1 or self.num_ps_tasks
        return f"/job:worker/task:{self.replica_id}" if several else ""

    def clone_device(self, index: int) -> str:
        """The device that a clone computes on; a single clone's is TensorFlow's choice."""
        if self.clone_on_cpu:
            return f"{self.worker_device}/device:CPU:0"
        return self.worker_device + (f"/device:GPU:{index}" if self.num_clones > 1 else "")

    @cached_property
    def _parameter_servers(self) -> Callable[[tf.Operation], str]:
        return tf.train.replica_device_setter(
            self.num_ps_tasks, "/job:ps/device:CPU:0", f"{self.worker_device}/device:CPU:0"
        )

    def variables_device(self) -> Device:
        """Where variables live.

        Beside a single clone, on the CPU when several share them; on the parameter servers in turn
        where there are any.
        """
        if self.num_ps_tasks:
            return self._parameter_servers
        on_cpu = self.clone_on_cpu or self.num_clones > 1
        return self.worker_device + ("/device:CPU:0" if on_cpu else "")

    def inputs_device(self) -> str:
        """Where batches are made."""
        return f"{self.worker_device}/device:CPU:0"

    def check_devices(self, num_gpus: int) -> None:
        """Refuses more clones than there are GPUs.

        Raises:
            UserError: Naming both numbers.
        """
        if self.num_clones > 1 and not self.clone_on_cpu and self.num_clones > num_gpus:
            raise UserError(
                f"--num_clones={self.num_clones} needs as many GPUs, found {num_gpus}; "
                "give fewer clones, or --clone_on_cpu"
            )


def session_config(xla: bool = False) -> tf.ConfigProto:
    """GPU memory as it is needed, and what has no GPU kernel on the CPU, as published.

    Args:
        xla: Let XLA compile what it can on the GPU.
    """
    config = tf.ConfigProto(allow_soft_placement=True)
    if xla:
        config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    config.gpu_options.allow_growth = True
    # The input runs in the same pool. With two threads for both, one batch in two was computed on
    # one core only: 19 to 25 images/s in feature extraction where 38 were possible.
    config.inter_op_parallelism_threads = max(MIN_INTER_OP_THREADS, os.cpu_count() or 1)
    return config


@dataclass(frozen=True)
class Clone:
    """A clone: what its `model_fn` returned, its name scope (with a slash) and its device."""

    outputs: Any
    scope: str
    device: str


def create_clones(
    config: DeploymentConfig, model_fn: Callable[..., Any], *args: Any, **kwargs: Any
) -> list[Clone]:
    """Builds the clones; the variables of the first are reused by the others.

    Args:
        config: Where they stand.
        model_fn: Builds a clone and adds its losses to the collection of losses.
        *args: Passed to `model_fn`.
        **kwargs: Passed to `model_fn`.

    Returns:
        `config.num_clones` clones.
    """
    clones = []
    for index in range(config.num_clones):
        with (
            slim.arg_scope(
                [slim.model_variable, slim.variable], device=config.variables_device() or None
            ),
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
    regularization_losses: Sequence[tf.Tensor] | None = None,
) -> tuple[tf.Tensor, list[tuple[tf.Tensor, tf.Variable]]]:
    """The total loss and the gradients that all clones make together.

    Args:
        clones: The clones, their losses in the collection of losses.
        optimizer: Computes the gradients.
        var_list: The variables to train. Default: all trainable ones.
        regularization_losses: Counted once. Default: those in the collection.

    Returns:
        The total loss, a float32 scalar, and (gradient, variable) pairs for the variables that
        the loss depends on.
    """
    if regularization_losses is None:
        regularization_losses = tf.losses.get_regularization_losses()
    total_losses = []
    clones_gradients = []
    for index, clone in enumerate(clones):
        with tf.name_scope(clone.scope or None), tf.device(clone.device or None):
            loss = tf.add_n(tf.losses.get_losses(clone.scope or None)) / len(clones)
            if index == 0 and regularization_losses:
                loss += tf.add_n(regularization_losses)
            clones_gradients.append(optimizer.compute_gradients(loss, var_list))
        total_losses.append(loss)
    return tf.add_n(total_losses), _sum_gradients(clones_gradients)


def _sum_gradients(
    clones_gradients: Sequence[list[tuple[tf.Tensor | None, tf.Variable]]],
) -> list[tuple[tf.Tensor, tf.Variable]]:
    """Adds up the clones' gradients variable by variable, leaving out those without any."""
    summed = []
    for pairs in zip(*clones_gradients, strict=True):
        gradients = [gradient for gradient, _ in pairs if gradient is not None]
        if gradients:
            summed.append((tf.add_n(gradients), pairs[0][1]))
    return summed
