"""The graph of a training run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slim.checkpoints.finding import latest_checkpoint
from slim.common.compat import slim, tf
from slim.deployment.model_deploy import optimize_clones
from slim.deployment.replicas import Gradients, Replicas
from slim.training.networks import Feeds, TrainingNetwork
from slim.training.optimizers import OPTIMIZERS, OptimizerSettings, configure_learning_rate
from slim.training.summaries import build_summary

Averages = Sequence[tuple[tf.Variable, tf.Variable]]  # model variables with their averages
NOT_FINITE = "training is not finite"  # in the message of the assertion that ends a run


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The length of a run and its output."""

    train_dir: Path  # receives checkpoints and event files
    last_step: int | None  # None to run until stopped
    images_per_step: int  # of all clones and replicas
    images_per_epoch: int
    log_every_n_steps: int
    save_summaries_secs: int
    save_interval_secs: int
    histograms: bool
    flags: Mapping[str, object]  # of the command, by name, for TensorBoard

    @property
    def latest_checkpoint(self) -> str | None:
        """Returns the prefix of the latest checkpoint in `train_dir`."""
        return latest_checkpoint(self.train_dir)

    def ends_at(self, step: int) -> bool:
        """Returns whether a step is the last one or a later one."""
        return self.last_step is not None and step >= self.last_step


@dataclass(frozen=True, kw_only=True)
class TrainingGraph:
    """The tensors of a training run."""

    # A step: its `loss`, the `step` after it, seconds `waited` for input, serialized `summary`.
    step: Mapping[str, tf.Tensor]
    wants_summary: tf.Tensor  # to be fed: whether `summary` is not empty
    begin_input: Callable[[tf.Session, int], Feeds]  # see `TrainingNetwork`
    global_step: tf.Variable
    averages: Averages


def build_training_graph(
    network: TrainingNetwork,
    settings: OptimizerSettings,
    run: RunSettings,
    *,
    global_step: tf.Variable,
    replicas: Replicas,
) -> TrainingGraph:
    """Builds the steps that train a network, and their summary."""
    learning_rate = configure_learning_rate(settings, global_step)
    optimizer, loss_scale = OPTIMIZERS[settings.optimizer](learning_rate, settings), None
    if network.dtype == tf.float16:
        # Without a scale, gradients vanish in 16 bits. A step whose gradients overflow is skipped
        # and halves the scale; 2,000 good steps double it (Micikevicius et al., Mixed Precision
        # Training, 2018, section 3.2).
        loss_scale = tf.mixed_precision.DynamicLossScale()
        optimizer = tf.mixed_precision.MixedPrecisionLossScaleOptimizer(optimizer, loss_scale)
    clones = network.clones
    loss, gradients = optimize_clones(clones, optimizer, network.trained)
    step, averages = build_train_op(
        loss,
        gradients,
        optimizer,
        global_step=global_step,
        replicas=replicas,
        update_ops=network.update_ops,
        moving_average_decay=settings.moving_average_decay,
        loss_scale=loss_scale,
    )
    step["waited"] = tf.add_n([clone.outputs.waited for clone in clones]) / len(clones)
    epoch = tf.cast(global_step, tf.float32) * run.images_per_step / run.images_per_epoch
    scalars = {"total_loss": loss, "learning_rate": learning_rate, "epoch": epoch}
    wants_summary = tf.placeholder(tf.bool, [])
    step["summary"] = build_summary(clones[0], scalars, run.histograms, wants_summary)
    return TrainingGraph(
        step=step,
        wants_summary=wants_summary,
        begin_input=network.begin_input,
        global_step=global_step,
        averages=averages,
    )


def build_train_op(
    total_loss: tf.Tensor,
    gradients: Gradients,
    optimizer: tf.train.Optimizer,
    *,
    global_step: tf.Variable,
    replicas: Replicas | None = None,
    update_ops: Sequence[tf.Operation] = (),
    moving_average_decay: float | None = None,
    loss_scale: tf.mixed_precision.LossScale | None = None,
) -> tuple[dict[str, tf.Tensor], Averages]:
    """Builds a step: gradients, the updates of batch norm, and moving averages, in this order.

    Args:
        total_loss: The loss.
        gradients: The gradients to apply.
        optimizer: Applies them and increments `global_step`.
        global_step: The step.
        replicas: The replicas that train. Default: this one alone.
        update_ops: The updates of batch norm.
        moving_average_decay: Decay of the moving averages. Default: no averages.
        loss_scale: The loss scale of the optimizer, which skips steps whose gradients overflow.

    Returns:
        The `loss` before the update and the `step` after it, scalars that carry out the step, and
        the model variables with their moving averages. If the loss or a gradient is not finite,
        the step leaves the trained variables alone and raises `tf.errors.InvalidArgumentError`
        with `NOT_FINITE` in its message.
    """
    replicas = replicas or Replicas()
    total_loss, gradients = replicas.combine(total_loss, gradients)
    norm = tf.linalg.global_norm([gradient for gradient, _ in gradients])
    good = tf.math.is_finite(norm)
    if loss_scale:
        good |= loss_scale() > 1  # the optimizer can still reduce it
    finite = tf.Assert(
        tf.math.is_finite(total_loss) & good,
        [NOT_FINITE, "loss", total_loss, "gradient norm", norm],
    )
    with tf.control_dependencies([finite]):
        gradients = [(tf.identity(gradient), variable) for gradient, variable in gradients]
    average = None
    if moving_average_decay:
        average = tf.train.ExponentialMovingAverage(moving_average_decay, global_step)
    update = replicas.apply_gradients(
        optimizer, gradients, global_step, update_ops=update_ops, average=average
    )
    with tf.control_dependencies([update]):
        step = {"loss": tf.identity(total_loss), "step": tf.identity(global_step.read_value())}
    averaged = slim.get_model_variables() if average else []
    return step, [(variable, average.average(variable)) for variable in averaged]
