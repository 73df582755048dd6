"""Tests of optimizers and learning rates against closed forms and the published code."""

import ast

import numpy as np
import pytest

from slim.common.compat import tf
from slim.deployment.cluster import find_cluster
from slim.deployment.replicas import choose_replicas
from slim.training.optimizers import OPTIMIZERS, configure_learning_rate, find_decay_steps
from tests.support import training_flags

VARIABLES = ("v0", "v1")
VARIANTS = {
    "rmsprop:eps": ("--opt_epsilon=1e-3", "--rmsprop_decay=0.8", "--rmsprop_momentum=0.7"),
    "adam:eps": ("--opt_epsilon=1e-8", "--adam_beta1=0.8", "--adam_beta2=0.99"),
    "adadelta:eps": ("--opt_epsilon=1e-6", "--adadelta_rho=0.9"),
    "ftrl:l1l2": (
        "--ftrl_l1=0.01",
        "--ftrl_l2=0.02",
        "--ftrl_learning_rate_power=-0.4",
        "--ftrl_initial_accumulator_value=0.2",
    ),
    "adagrad:init": ("--adagrad_initial_accumulator_value=0.5",),
    "momentum:.5": ("--momentum=0.5",),
}


@pytest.fixture(scope="module")
def published(reference) -> dict[str, np.ndarray]:
    """Figures of the published code, see the README beside them."""
    with np.load(reference / "training.npz") as figures:
        return dict(figures)


def rates(decay_type: str, steps: list[int], *flags: str) -> list[float]:
    values = training_flags(
        "--batch_size=1",
        "--num_epochs_per_decay=1",
        f"--learning_rate_decay_type={decay_type}",
        "--learning_rate=0.1",
        "--learning_rate_decay_factor=0.5",
        "--end_learning_rate=0.02",
        *flags,
    )
    with tf.Graph().as_default(), tf.Session() as session:
        global_step = tf.placeholder(tf.int64, [])
        rate = configure_learning_rate(values, 10, 1, global_step)
        return [session.run(rate, {global_step: step}) for step in steps]


def test_learning_rates():
    steps = [0, 9, 10, 25, 100]
    np.testing.assert_allclose(rates("fixed", steps), [0.1] * 5, rtol=1e-6)
    expected = [0.1 * 0.5 ** (step // 10) for step in steps]
    np.testing.assert_allclose(rates("exponential", steps), expected, rtol=1e-6)
    expected = [0.02 + 0.08 * (1 - min(step, 10) / 10) for step in steps]
    np.testing.assert_allclose(rates("polynomial", steps), expected, rtol=1e-6)
    expected = [0.02 + 0.04 * (1 + np.cos(np.pi * min(step, 10) / 10)) for step in steps]
    np.testing.assert_allclose(rates("cosine", steps), expected, rtol=1e-6)


@pytest.mark.parametrize("decay_type", ["fixed", "exponential", "polynomial", "cosine"])
def test_the_warmup_is_a_line_to_the_rate_of_the_decay(decay_type):
    first, *later = rates(decay_type, [4, 5, 9, 10, 25])
    expected = [first * share for share in (0.25, 0.5, 0.75, 1)] + [first, *later]
    steps = [0, 1, 2, 3, 4, 5, 9, 10, 25]
    found = rates(decay_type, steps, "--warmup_steps=4")
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_rate_that_rises_is_a_warning(capsys):
    rates("cosine", [0], "--learning_rate=0.001")
    text = "warning: --end_learning_rate=0.02 is larger than --learning_rate=0.001: the rate rises"
    assert text in capsys.readouterr().err


def test_decay_steps_are_counted_per_clone_and_divided_by_the_replicas():
    assert find_decay_steps(5994, 10.0, 64) == 936
    assert find_decay_steps(3, 1.0, 64) == 1
    assert find_decay_steps(459, 10.0, 64, gradients_per_step=4) == 71 / 4


def test_learning_rates_of_the_published_code(published):
    found = [name for name in published if name.startswith("lr ")]
    assert len(found) == 22
    for name in found:
        kind, samples, epochs, batch_size, sync, replicas, rate, end, factor = ast.literal_eval(
            name.removeprefix("lr ")
        )
        values = training_flags(
            f"--learning_rate_decay_type={kind}",
            f"--num_epochs_per_decay={epochs}",
            f"--batch_size={batch_size}",
            f"--sync_replicas={sync}",
            f"--replicas_to_aggregate={replicas}",
            f"--learning_rate={rate}",
            f"--end_learning_rate={end}",
            f"--learning_rate_decay_factor={factor}",
        )
        cluster = find_cluster(values, {})
        gathered = choose_replicas(cluster, sync, replicas).gradients_per_step
        d = max(1, int(samples * epochs / batch_size))
        steps = sorted({0, 1, d // 3, d // 2, d - 1, d, d + 1, 2 * d, 5 * d // 2, 4 * d})
        with tf.Graph().as_default(), tf.Session() as session:
            step = tf.placeholder(tf.int64, [])
            learning_rate = configure_learning_rate(values, samples, gathered, step)
            rates = [session.run(learning_rate, {step: number}) for number in steps]
        np.testing.assert_allclose(rates, published[name], rtol=1e-5, err_msg=name)


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
    values = training_flags(
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
        optimizer = OPTIMIZERS[name](tf.constant(0.1), values)
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
    assert list(OPTIMIZERS) == training_flags()["optimizer"].parser.enum_values


def test_updates_of_the_published_code(published):
    """Compares every variable and slot after each of five steps on given gradients."""
    found = {name.split()[1] for name in published if name.startswith("opt ")}
    assert found == {*OPTIMIZERS, *VARIANTS}
    for variant in sorted(found):
        name = variant.partition(":")[0]
        tolerance = 5e-4 if name == "ftrl" else 1e-5
        values = training_flags(f"--optimizer={name}", *VARIANTS.get(variant, ()))
        with tf.Graph().as_default(), tf.Session() as session:
            variables = [tf.get_variable(v, initializer=published[f"start {v}"]) for v in VARIABLES]
            gradients = [tf.placeholder(tf.float32, v.shape) for v in variables]
            optimizer = OPTIMIZERS[name](tf.constant(0.05), values)
            step = optimizer.apply_gradients(
                zip(gradients, variables, strict=True), tf.train.create_global_step()
            )
            session.run(tf.global_variables_initializer())
            for number in range(5):
                given = [published[f"gradient {number} {v}"] for v in VARIABLES]
                session.run(step, dict(zip(gradients, given, strict=True)))
                start = f"opt {variant} {number} "
                expected = {
                    key.removeprefix(start): value
                    for key, value in published.items()
                    if key.startswith(start)
                }
                found = session.run({v.op.name: v for v in tf.global_variables()})
                assert set(found) == set(expected)
                for key, value in expected.items():
                    # A value near 0 is the difference of larger ones, which float32 rounds.
                    np.testing.assert_allclose(
                        found[key], value, rtol=tolerance, atol=1e-7, err_msg=start + key
                    )
