"""Optimizers and learning rates."""

from collections.abc import Callable
from dataclasses import dataclass

from slim.common.compat import tf


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The flags of the same names, and the steps that the flags of the decay amount to."""

    optimizer: str
    adadelta_rho: float
    adagrad_initial_accumulator_value: float
    adam_beta1: float
    adam_beta2: float
    opt_epsilon: float
    ftrl_learning_rate_power: float
    ftrl_initial_accumulator_value: float
    ftrl_l1: float
    ftrl_l2: float
    momentum: float
    rmsprop_momentum: float
    rmsprop_decay: float
    learning_rate_decay_type: str
    learning_rate: float
    learning_rate_decay_factor: float
    end_learning_rate: float
    decay_steps: float  # between two exponential decays, or until polynomial decay ends
    moving_average_decay: float | None


OPTIMIZERS: dict[str, Callable[[tf.Tensor, OptimizerSettings], tf.train.Optimizer]] = {
    "adadelta": lambda rate, s: tf.train.AdadeltaOptimizer(
        rate, rho=s.adadelta_rho, epsilon=s.opt_epsilon
    ),
    "adagrad": lambda rate, s: tf.train.AdagradOptimizer(
        rate, initial_accumulator_value=s.adagrad_initial_accumulator_value
    ),
    "adam": lambda rate, s: tf.train.AdamOptimizer(
        rate, beta1=s.adam_beta1, beta2=s.adam_beta2, epsilon=s.opt_epsilon
    ),
    "ftrl": lambda rate, s: tf.train.FtrlOptimizer(
        rate,
        learning_rate_power=s.ftrl_learning_rate_power,
        initial_accumulator_value=s.ftrl_initial_accumulator_value,
        l1_regularization_strength=s.ftrl_l1,
        l2_regularization_strength=s.ftrl_l2,
    ),
    "momentum": lambda rate, s: tf.train.MomentumOptimizer(rate, momentum=s.momentum),
    "rmsprop": lambda rate, s: tf.train.RMSPropOptimizer(
        rate, decay=s.rmsprop_decay, momentum=s.rmsprop_momentum, epsilon=s.opt_epsilon
    ),
    "sgd": lambda rate, s: tf.train.GradientDescentOptimizer(rate),
}


def find_decay_steps(
    num_samples: int, num_epochs: float, batch_size: int, gradients_per_step: int = 1
) -> float:
    """Returns the number of steps between two decays.

    As published, an epoch is counted in batches of one clone, rounded down to at least one batch.
    Several gradients per step divide the batches; the number of steps keeps its fraction.
    """
    return max(1, int(num_samples * num_epochs / batch_size)) / gradients_per_step


def configure_learning_rate(settings: OptimizerSettings, global_step: tf.Tensor) -> tf.Tensor:
    """Returns the learning rate at a step, a float32 scalar.

    Exponential decay is a staircase; polynomial decay is linear.
    """
    rate, steps = settings.learning_rate, settings.decay_steps
    if settings.learning_rate_decay_type == "exponential":
        factor = settings.learning_rate_decay_factor
        return tf.train.exponential_decay(rate, global_step, steps, factor, staircase=True)
    if settings.learning_rate_decay_type == "polynomial":
        return tf.train.polynomial_decay(rate, global_step, steps, settings.end_learning_rate)
    return tf.constant(rate, name="fixed_learning_rate")
