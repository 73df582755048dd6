"""Optimizers and learning rates, from the flags of training."""

from collections.abc import Callable

from absl import flags

from slim.common.compat import tf
from slim.common.errors import warn

OPTIMIZERS: dict[str, Callable[[tf.Tensor, flags.FlagValues], tf.train.Optimizer]] = {
    "adadelta": lambda rate, values: tf.train.AdadeltaOptimizer(
        rate, rho=values.adadelta_rho, epsilon=values.opt_epsilon
    ),
    "adagrad": lambda rate, values: tf.train.AdagradOptimizer(
        rate, initial_accumulator_value=values.adagrad_initial_accumulator_value
    ),
    "adam": lambda rate, values: tf.train.AdamOptimizer(
        rate, beta1=values.adam_beta1, beta2=values.adam_beta2, epsilon=values.opt_epsilon
    ),
    "ftrl": lambda rate, values: tf.train.FtrlOptimizer(
        rate,
        learning_rate_power=values.ftrl_learning_rate_power,
        initial_accumulator_value=values.ftrl_initial_accumulator_value,
        l1_regularization_strength=values.ftrl_l1,
        l2_regularization_strength=values.ftrl_l2,
    ),
    "momentum": lambda rate, values: tf.train.MomentumOptimizer(rate, momentum=values.momentum),
    "rmsprop": lambda rate, values: tf.train.RMSPropOptimizer(
        rate,
        decay=values.rmsprop_decay,
        momentum=values.rmsprop_momentum,
        epsilon=values.opt_epsilon,
    ),
    "sgd": lambda rate, _: tf.train.GradientDescentOptimizer(rate),
}


def find_decay_steps(
    num_samples: int, num_epochs: float, batch_size: int, gradients_per_step: int = 1
) -> float:
    """Returns the steps between two exponential decays, or until another decay ends."""
    # As published, an epoch is counted in batches of one clone, rounded down; several gradients per
    # step divide the batches, and the number of steps keeps its fraction. There is at least one
    # batch: with none, the published rate is not a number.
    return max(1, int(num_samples * num_epochs / batch_size)) / gradients_per_step


def configure_learning_rate(
    values: flags.FlagValues, num_samples: int, gradients_per_step: int, global_step: tf.Tensor
) -> tf.Tensor:
    """Returns the learning rate at a step, a float32 scalar.

    Exponential decay is a staircase; polynomial decay is linear. With a warmup of W steps,
    step t < W has the share (t + 1) / W of the rate that the decay has at step W.
    """
    rate, end, warmup = values.learning_rate, values.end_learning_rate, values.warmup_steps
    epochs, kind = values.num_epochs_per_decay, values.learning_rate_decay_type
    decay_steps = find_decay_steps(num_samples, epochs, values.batch_size, gradients_per_step)
    if kind in ("polynomial", "cosine") and end > rate:
        warn(f"--end_learning_rate={end} is larger than --learning_rate={rate}: the rate rises")
    step = tf.maximum(global_step, warmup) if warmup else global_step
    if kind == "exponential":
        factor = values.learning_rate_decay_factor
        rate = tf.train.exponential_decay(rate, step, decay_steps, factor, staircase=True)
    elif kind == "polynomial":
        rate = tf.train.polynomial_decay(rate, step, decay_steps, end)
    elif kind == "cosine":
        rate = end + tf.train.cosine_decay(rate - end, step, decay_steps)
    else:
        rate = tf.constant(rate, name="fixed_learning_rate")
    if warmup:
        rate *= tf.minimum(1.0, (tf.cast(global_step, tf.float32) + 1) / warmup)
    return rate


def configure_optimizer(
    values: flags.FlagValues, learning_rate: tf.Tensor, dtype: tf.DType
) -> tuple[tf.train.Optimizer, tf.mixed_precision.LossScale | None]:
    """Returns the optimizer of layers that compute in a type, and its loss scale, if any."""
    optimizer = OPTIMIZERS[values.optimizer](learning_rate, values)
    if dtype != tf.float16:
        return optimizer, None
    # Without a scale, gradients vanish in 16 bits. A step whose gradients overflow is skipped and
    # halves the scale; 2,000 good steps double it (Micikevicius et al., Mixed Precision Training,
    # 2018, section 3.2).
    loss_scale = tf.mixed_precision.DynamicLossScale()
    return tf.mixed_precision.MixedPrecisionLossScaleOptimizer(optimizer, loss_scale), loss_scale
