"""Tests of optimizers and learning rates against closed forms."""

import numpy as np
import pytest
from absl import flags

from slim.common.compat import tf
from slim.training.flags import OPTIMIZERS as OPTIMIZER_NAMES
from slim.training.flags import define_training_flags
from slim.training.optimizers import (
    OPTIMIZERS,
    OptimizerSettings,
    configure_learning_rate,
    find_decay_steps,
)
from slim.training.settings import from_flags


def optimizer_settings(*given: str) -> OptimizerSettings:
    values = flags.FlagValues()
    define_training_flags(values)
    values(["train", *given])
    return from_flags(OptimizerSettings, values, decay_steps=10)


def rates(decay_type: str, steps: list[int]) -> list[float]:
    settings = optimizer_settings(
        f"--learning_rate_decay_type={decay_type}",
        "--learning_rate=0.1",
        "--learning_rate_decay_factor=0.5",
        "--end_learning_rate=0.02",
    )
    with tf.Graph().as_default(), tf.Session() as session:
        global_step = tf.placeholder(tf.int64, [])
        rate = configure_learning_rate(settings, global_step)
        return [session.run(rate, {global_step: step}) for step in steps]


def test_learning_rates():
    steps = [0, 9, 10, 25, 100]
    np.testing.assert_allclose(rates("fixed", steps), [0.1] * 5, rtol=1e-6)
    expected = [0.1 * 0.5 ** (step // 10) for step in steps]
    np.testing.assert_allclose(rates("exponential", steps), expected, rtol=1e-6)
    expected = [0.02 + 0.08 * (1 - min(step, 10) / 10) for step in steps]
    np.testing.assert_allclose(rates("polynomial", steps), expected, rtol=1e-6)


def test_decay_steps_are_counted_per_clone():
    assert find_decay_steps(5994, 10.0, 64) == 936
    assert find_decay_steps(3, 1.0, 64) == 1


def momentum(w, g, lr, s):
    s["a"] = 0.8 * s.get("a", 0) + g
    return w - lr * s["a"]


def adam(w, g, lr, s):
    s["t"] = s.get("t", 0) + 1
    s["m"] = 0.7 * s.get("m", 0) + 0.3 * g
    s["v"] = 0.6 * s.get("v", 0) + 0.4 * g * g
    rate = lr * np.sqrt(1 - 0.6 ** s["t"]) / (1 - 0.7 ** s["t"])
    return w - rate * s["m"] / (np.sqrt(s["v"]) + 0.5)


def rmsprop(w, g, lr, s):
    s["v"] = 0.75 * s.get("v", 1) + 0.25 * g * g
    s["m"] = 0.85 * s.get("m", 0) + lr * g / np.sqrt(s["v"] + 0.5)
    return w - s["m"]


def adagrad(w, g, lr, s):
    s["a"] = s.get("a", 0.3) + g * g
    return w - lr * g / np.sqrt(s["a"])


def adadelta(w, g, lr, s):
    s["g"] = 0.9 * s.get("g", 0) + 0.1 * g * g
    step = np.sqrt(s.get("d", 0) + 0.5) / np.sqrt(s["g"] + 0.5) * g
    s["d"] = 0.9 * s.get("d", 0) + 0.1 * step * step
    return w - lr * step


def ftrl(w, g, lr, s):
    n = s.get("n", 0.3)
    new = n + g * g
    s["z"] = s.get("z", 0) + g - (np.sqrt(new) - np.sqrt(n)) / lr * w
    s["n"] = new
    if abs(s["z"]) <= 0.01:
        return 0.0
    return (np.sign(s["z"]) * 0.01 - s["z"]) / (np.sqrt(new) / lr + 2 * 0.02)


@pytest.mark.parametrize(
    "update",
    [momentum, adam, rmsprop, adagrad, adadelta, ftrl, lambda w, g, lr, s: w - lr * g],
    ids=["momentum", "adam", "rmsprop", "adagrad", "adadelta", "ftrl", "sgd"],
)
def test_optimizers_take_their_flags(update, request):
    """Three steps on (w - 1)² from w = 3, with the gradient 2 (w - 1), as in the papers."""
    settings = optimizer_settings(
        "--momentum=0.8",
        "--adam_beta1=0.7",
        "--adam_beta2=0.6",
        "--opt_epsilon=0.5",
        "--rmsprop_decay=0.75",
        "--rmsprop_momentum=0.85",
        "--adagrad_initial_accumulator_value=0.3",
        "--adadelta_rho=0.9",
        "--ftrl_initial_accumulator_value=0.3",
        "--ftrl_l1=0.01",
        "--ftrl_l2=0.02",
    )
    name = request.node.callspec.id
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("w", initializer=3.0)
        optimizer = OPTIMIZERS[name](tf.constant(0.1), settings)
        step = optimizer.minimize((variable - 1) ** 2)
        session.run(tf.global_variables_initializer())
        found = []
        for _ in range(3):
            session.run(step)
            found.append(session.run(variable))
    expected, w, state = [], 3.0, {}
    for _ in range(3):
        w = update(w, 2 * (w - 1), 0.1, state)
        expected.append(w)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_every_optimizer_is_a_choice_of_the_flag():
    assert tuple(OPTIMIZERS) == OPTIMIZER_NAMES
