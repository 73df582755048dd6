"""Optimizers and learning rates."""

from collections.abc import Callable, Mapping

from slim.common.compat import tf

OPTIMIZERS: dict[str, Callable[[tf.Tensor, Mapping[str, float]], tf.train.Optimizer]] = {
    "adadelta": lambda rate, s: tf.train.AdadeltaOptimizer(
        rate, rho=s["adadelta_rho"], epsilon=s["opt_epsilon"]
    ),
    "adagrad": lambda rate, s: tf.train.AdagradOptimizer(
        rate, initial_accumulator_value=s["adagrad_initial_accumulator_value"]
    ),
    "adam": lambda rate, s: tf.train.AdamOptimizer(
        rate, beta1=s["adam_beta1"], beta2=s["adam_beta2"], epsilon=s["opt_epsilon"]
    ),
    "ftrl": lambda rate, s: tf.train.FtrlOptimizer(
        rate,
        learning_rate_power=s["ftrl_learning_rate_power"],
        initial_accumulator_value=s["ftrl_initial_accumulator_value"],
        l1_regularization_strength=s["ftrl_l1"],
        l2_regularization_strength=s["ftrl_l2"],
    ),
    "momentum": lambda rate, s: tf.train.MomentumOptimizer(rate, momentum=s["momentum"]),
    "rmsprop": lambda rate, s: tf.train.RMSPropOptimizer(
        rate,
        decay=s["rmsprop_decay"],
        momentum=s["rmsprop_momentum"],
        epsilon=s["opt_epsilon"],
    ),
    "sgd": lambda rate, s: tf.train.GradientDescentOptimizer(rate),
}
DECAY_TYPES = ("fixed", "exponential", "polynomial")


def decay_steps(
    num_samples: int, num_epochs_per_decay: float, batch_size: int, replicas_to_aggregate: int = 1
) -> int:
    """Steps between two decays, 1 at least.

    As published: epochs of one clone's batches, the clones of as many replicas as make a step.
    """
    return max(1, int(num_samples * num_epochs_per_decay / batch_size / replicas_to_aggregate))


def configure_learning_rate(
    decay_type: str,
    learning_rate: float,
    global_step: tf.Tensor,
    steps: int,
    decay_factor: float,
    end_learning_rate: float,
) -> tf.Tensor:
    """The learning rate at a step.

    Args:
        decay_type: One of `DECAY_TYPES`; exponential decays in a staircase.
        learning_rate: The rate at step 0.
        global_step: The step.
        steps: Steps between two exponential decays, or until polynomial decay ends.
        decay_factor: Of exponential decay.
        end_learning_rate: Where polynomial (here: linear) decay ends.

    Returns:
        A float32 scalar.
    """
    if decay_type == "exponential":
        return tf.train.exponential_decay(
            learning_rate, global_step, steps, decay_factor, staircase=True
        )
    if decay_type == "polynomial":
        return tf.train.polynomial_decay(learning_rate, global_step, steps, end_learning_rate)
    return tf.constant(learning_rate, name="fixed_learning_rate")


def with_scaled_loss(
    optimizer: tf.train.Optimizer, loss_scale: tf.mixed_precision.LossScale
) -> tf.train.Optimizer:
    """An optimizer whose gradients pass through 16 bits without vanishing.

    The loss is multiplied by a power of two, and the gradients divided by it (Micikevicius et al.,
    Mixed Precision Training, 2018, section 3.2). A step whose gradients overflow is left out, and
    the factor halved; it doubles after 2,000 good steps.
    """
    return tf.mixed_precision.MixedPrecisionLossScaleOptimizer(optimizer, loss_scale)
