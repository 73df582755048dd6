"""Training: as a command that is run, stopped, killed and resumed; and its parts."""

import json
import re
import signal
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from slim import eval_image_classifier as evaluation
from slim import train_image_classifier as training
from slim.checkpoints.description import ModelDescription, read_model_description
from slim.checkpoints.reading import read_shapes, read_step
from slim.common.compat import slim, tf
from slim.common.errors import UserError
from slim.nets.nets_factory import get_network_fn
from slim.training.flags import OPTIMIZERS as OPTIMIZER_NAMES
from slim.training.graph import build_train_op
from slim.training.networks import build_clone, variables_to_train
from slim.training.optimizers import (
    OPTIMIZERS,
    OptimizerSettings,
    configure_learning_rate,
    find_decay_steps,
)
from slim.training.settings import from_flags
from slim.training.start import StartSettings, start_from
from tests.conftest import NUM_TRAIN
from tests.support import SMALL_NETWORK, SMALL_SIZE, Process, invoke, write_checkpoint

pytestmark = pytest.mark.usefixtures("small_network")

SIZE = 75  # the smallest that Inception-V3 takes
ENDLESS = "--max_number_of_steps=1000000"


def arguments(data: Path, train_dir: Path, *more: str) -> list[str]:
    """Flags for Inception-V3, the default network."""
    return [
        f"--dataset_dir={data}",
        "--dataset_name=colours",
        f"--train_dir={train_dir}",
        f"--train_image_size={SIZE}",
        "--batch_size=4",
        "--log_every_n_steps=1",
        "--batch_norm_decay=0.9",
        *more,
    ]


def small(data: Path, train_dir: Path, *more: str) -> list[str]:
    """Flags for the small network."""
    network = (f"--model_name={SMALL_NETWORK}", f"--train_image_size={SMALL_SIZE}")
    return arguments(data, train_dir, *network, *more)


def steps_in(output: str) -> list[int]:
    return [int(step) for step in re.findall(r"^step (\d+)", output, re.MULTILINE)]


def latest_step(train_dir: Path) -> int:
    """The step of the latest checkpoint, -1 while there is none."""
    latest = tf.train.latest_checkpoint(str(train_dir))
    return -1 if latest is None else read_step(latest)


def summaries(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads: by tag, the step and value of each summary."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events*")):
        for event in tf.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@pytest.fixture(scope="module")
def trained(colours, tmp_path_factory) -> tuple[Path, str]:
    """A run with auxiliary logits and averages: its folder and what it printed."""
    train_dir = tmp_path_factory.mktemp("trained")
    more = ("--save_summaries_secs=0", "--moving_average_decay=0.9", "--seed=3")
    done = invoke(training, *arguments(colours, train_dir, "--max_number_of_steps=3", *more))
    assert done.code == 0, done.error
    return train_dir, done.output


def test_writes_checkpoints_with_the_published_names(trained):
    train_dir, output = trained
    assert steps_in(output) == [1, 2, 3]
    assert "done: step 3" in output
    latest = tf.train.latest_checkpoint(str(train_dir))
    assert latest == str(train_dir / "model.ckpt-3")
    assert len(list(train_dir.glob("model.ckpt-*.index"))) > 1
    names = set(read_shapes(latest))
    with tf.Graph().as_default():
        get_network_fn("inception_v3", 3, is_training=True)(tf.zeros([1, SIZE, SIZE, 3]))
        model = {variable.op.name for variable in slim.get_model_variables()}
        trainable = {variable.op.name for variable in tf.trainable_variables()}
    expected = model | {"global_step"}
    expected |= {f"{name}/ExponentialMovingAverage" for name in model}
    expected |= {f"{name}/Momentum" for name in trainable}
    assert names == expected


def test_tensorboard_sees_the_run(trained):
    train_dir, _ = trained
    found = summaries(train_dir)
    scalars = {"total_loss", "learning_rate", "epoch", "images_per_second", "input_share"}
    losses = {tag for tag in found if tag.startswith("losses/")}
    assert scalars <= set(found)
    assert all(0 <= share <= 1 for _, share in found["input_share"])
    assert any("aux_loss" in tag for tag in losses)
    assert any("softmax_cross_entropy" in tag for tag in losses)
    assert "losses/regularization_loss" in losses
    assert any(tag.startswith("augmented_images") for tag in found)
    total = dict(found["total_loss"])
    parts = [dict(found[tag]) for tag in losses]
    for step, value in total.items():
        assert value == pytest.approx(sum(part[step] for part in parts), rel=1e-4)
    epochs = dict(found["epoch"])
    # The summary of a step is of the state before it.
    assert epochs[3] == pytest.approx(2 * 4 / NUM_TRAIN, abs=4 / NUM_TRAIN + 1e-6)


def test_says_beside_its_checkpoints_what_they_are(trained):
    expected = ModelDescription("inception_v3", SIZE, "inception_v3", "colours", ("0", "1", "2"))
    assert read_model_description(trained[0]) == expected


def test_a_finished_run_is_not_run_again(trained, colours):
    train_dir, _ = trained
    before = sorted(path.name for path in train_dir.iterdir())
    done = invoke(training, *arguments(colours, train_dir, "--max_number_of_steps=3"))
    assert done.code == 0
    assert "nothing to do" in done.output
    assert sorted(path.name for path in train_dir.iterdir()) == before


def test_seed_repeats_a_run(colours, tmp_path):
    losses = []
    for folder, seed in (("first", 3), ("second", 3), ("third", 4)):
        more = ("--max_number_of_steps=3", f"--seed={seed}", "--learning_rate=0.001")
        done = invoke(training, *small(colours, tmp_path / folder, *more))
        losses.append(np.float64(re.findall(r"loss ([\d.]+)", done.output)))
    assert len(losses[0]) == 3
    # The sums of parallel reductions may come in another order.
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    assert np.abs(losses[0] - losses[2]).max() > 0.01


@pytest.fixture
def start(colours, tmp_path):
    """Starts training in a process of its own, of which the folder is `tmp_path / "run"`."""
    numbers = count()
    with ExitStack() as processes:

        def start(*flags: str) -> Process:
            flags = small(colours, tmp_path / "run", *flags)
            log = tmp_path / f"{next(numbers)}.log"
            process = Process("slim.train_image_classifier", *flags, log=log)
            return processes.enter_context(process)

        yield start


def kill_within_a_checkpoint(process: Process, train_dir: Path) -> None:
    """Kills a process while it writes a checkpoint, which it does all the time."""

    def is_writing() -> bool:
        return any(train_dir.glob("model.ckpt-*.tempstate*"))

    end = time.monotonic() + 60
    while True:
        assert time.monotonic() < end and process.code is None, process.output
        if is_writing():
            process.send(signal.SIGSTOP)
            time.sleep(0.02)  # until all of its threads stand still
            if is_writing():
                break
            process.send(signal.SIGCONT)
    process.kill()
    assert is_writing()


def test_killed_at_any_moment_a_run_goes_on_from_its_last_checkpoint(start, tmp_path):
    """Kill -9 before the first step, amid steps, and while a checkpoint is being written."""
    train_dir = tmp_path / "run"
    first = start(ENDLESS)
    while not (train_dir.exists() and any(train_dir.iterdir())):
        assert first.code is None, first.output
        time.sleep(0.005)
    first.kill()
    assert not steps_in(first.output)

    second = start(ENDLESS, "--save_interval_secs=1")
    second.wait_for("^step 3")
    while latest_step(train_dir) < 1:
        assert second.code is None, second.output
        time.sleep(0.05)
    second.wait_for(f"^step {latest_step(train_dir) + 2} ")
    second.kill()
    saved = latest_step(train_dir)

    third = start(ENDLESS, "--save_interval_secs=0")
    third.wait_for(f"^resuming from step {saved} ")
    third.wait_for(f"^step {saved + 2} ")
    kill_within_a_checkpoint(third, train_dir)
    saved = latest_step(train_dir)

    last = start(f"--max_number_of_steps={saved + 2}")
    assert last.wait() == 0, last.output
    assert f"resuming from step {saved} " in last.output
    assert steps_in(last.output) == [saved + 1, saved + 2]
    assert not list(train_dir.glob("*tempstate*"))


def test_ctrl_c_and_sigterm_save_a_checkpoint(start, tmp_path):
    stopped_at = 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = start(ENDLESS, "--save_interval_secs=1000")
        if stopped_at:
            process.wait_for(f"^resuming from step {stopped_at} ")
        process.wait_for(f"^step {stopped_at + 2}")
        process.send(number)
        assert process.wait() == code, process.output
        stopped_at = latest_step(tmp_path / "run")
        assert f"stopped by {number.name} at step {stopped_at}" in process.output
        assert stopped_at >= 2


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(colours, tmp_path):
    more = ("--max_number_of_steps=50", "--learning_rate=1e30", "--save_interval_secs=1000")
    code, _, error = invoke(training, *small(colours, tmp_path, *more))
    assert code == 1
    step = int(re.search(r"not finite at step (\d+)", error)[1])
    assert 1 < step < 50
    assert f"the last good checkpoint is {tmp_path}/model.ckpt-" in error
    latest = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path)))
    for name in latest.get_variable_to_shape_map():
        assert np.isfinite(latest.get_tensor(name)).all(), name


def test_fine_tuning_leaves_the_rest_alone(trained, colours, tmp_path):
    source = tf.train.latest_checkpoint(str(trained[0]))
    more = (
        "--max_number_of_steps=2",
        f"--checkpoint_path={trained[0]}",
        "--checkpoint_exclude_scopes=Logits",
        "--trainable_scopes=Logits",
        "--num_clones=2",
        "--clone_on_cpu",
    )
    done = invoke(training, *arguments(colours, tmp_path, *more))
    assert done.code == 0, done.error
    assert f"fine-tuning from {source}" in done.output
    before = tf.train.load_checkpoint(source)
    after = tf.train.load_checkpoint(str(tmp_path / "model.ckpt-2"))
    for name in after.get_variable_to_shape_map():
        if name == "global_step" or name.endswith("Momentum") or "moving_" in name:
            continue
        equal = np.array_equal(after.get_tensor(name), before.get_tensor(name))
        # Logits and AuxLogits, as the published substring means it.
        assert equal == ("Logits" not in name), name


def test_training_the_last_layer_computes_no_gradient_below_it():
    with tf.Graph().as_default() as graph:
        network_fn = get_network_fn(SMALL_NETWORK, 3, 0.0001, is_training=True)
        logits, _ = network_fn(tf.zeros([2, SMALL_SIZE, SMALL_SIZE, 3]))
        tf.losses.softmax_cross_entropy(tf.one_hot([0, 1], 3), logits)
        optimizer = tf.train.MomentumOptimizer(0.1, 0.9)
        update = optimizer.minimize(
            tf.losses.get_total_loss(), var_list=variables_to_train(["logits"])
        )
        graph_def = tf.graph_util.extract_sub_graph(graph.as_graph_def(), [update.name])
    backward = [node.name for node in graph_def.node if "Backprop" in node.op]
    assert len(backward) > 0
    assert all("logits" in name for name in backward)
    assert not [node for node in graph_def.node if node.op == "FusedBatchNormGradV3"]


def test_a_scaled_loss_keeps_small_gradients_and_leaves_out_steps_that_overflow():
    """In 16 bits 1e-8 is 0, and 1,000 times the first scale of 2**15 is infinite."""
    for slope, halvings in ((1e-8, 0), (1000.0, 9)):
        with tf.Graph().as_default(), tf.Session() as session:
            variable = tf.get_variable("w", initializer=1.0)
            scale = tf.mixed_precision.DynamicLossScale()
            optimizer = tf.mixed_precision.MixedPrecisionLossScaleOptimizer(
                tf.train.GradientDescentOptimizer(1.0), scale
            )
            step = tf.train.create_global_step()
            # The gradient comes back through the cast as 16 bits.
            loss = tf.cast(tf.cast(variable, tf.float16), tf.float32) * slope
            pairs = optimizer.compute_gradients(loss)
            update, _ = build_train_op(loss, pairs, optimizer, global_step=step, loss_scale=scale)
            session.run(tf.global_variables_initializer())
            for _ in range(halvings):
                session.run(update)
            assert session.run([variable, step]) == [1.0, 0]
            session.run(update)
            value, steps = session.run([variable, step])
            assert steps == 1
            assert 1.0 - value == pytest.approx(slope, rel=0.01, abs=1e-7)
            assert session.run(pairs[0][0]) == pytest.approx(slope, rel=0.02)


# Errors, in the order in which a run meets them.


def test_errors_before_anything_is_built(colours, tmp_path):
    good = {
        "dataset_dir": colours,
        "dataset_name": "colours",
        "train_dir": tmp_path / "run",
        "train_image_size": SIZE,
        "max_number_of_steps": 1,
    }
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for changed, message in (
        ({"dataset_name": "colour"}, "no dataset 'colour'.*did you mean colours"),
        ({"dataset_split_name": "test"}, "no split 'test': expected train or validation"),
        ({"model_name": "inceptionv3"}, "unknown network 'inceptionv3'; did you mean inception_v3"),
        ({"preprocessing_name": "vggg"}, "unknown preprocessing 'vggg'; did you mean vgg"),
        ({"train_image_size": 74}, "74x74 is too small for inception_v3, .* at least 75x75"),
        ({"train_dir": ""}, "--train_dir is missing"),
        ({"train_dir": tmp_path / "file"}, "--train_dir=.*file: cannot make the folder"),
        ({"checkpoint_path": tmp_path / "none"}, "--checkpoint_path: no checkpoint at .*none"),
        ({"checkpoint_path": tmp_path / "empty"}, "empty holds no checkpoint; ./train.sh writes"),
        ({"labels_offset": 3}, "--labels_offset=3: expected 0 to 2, the dataset has 3 classes"),
        ({"num_clones": 2}, "--num_clones=2 needs as many GPUs, found 0"),
        ({"optimizer": "adamw"}, "optimizer=adamw: value should be one of <adadelta"),
        ({"learning_rate_decay_type": "cosine"}, r"value should be one of <fixed\|exponential"),
        ({"learning_rate": "fast"}, "learning_rate=fast"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"quantize_delay": 0}, "--quantize_delay=0: TensorFlow 2 has no contrib quantizer"),
        ({"master": "grpc://x"}, "--master=grpc://x: expected grpc://host:port"),
        ({"worker_replicas": 2}, "--worker_replicas=2: addresses are missing; give --ps_hosts"),
        ({"num_ps_tasks": 1}, "--num_ps_tasks=1: addresses are missing"),
        ({"task": 1}, "--task=1: expected 0 to 0, worker has 1 task"),
        ({"unknown_flag": 1}, "Unknown command line flag 'unknown_flag'"),
    ):
        given = [f"--{name}={value}" for name, value in {**good, **changed}.items()]
        code, _, error = invoke(training, *given)
        assert code == 1, changed
        assert re.fullmatch(f"error: .*{message}.*\n", error), (changed, error)
    code, _, error = invoke(training, "stray")
    assert (code, error) == (
        1,
        "error: unexpected argument 'stray': flags are given as --name=value\n",
    )


def test_no_shards(tmp_path):
    (tmp_path / "bare").mkdir()
    code, _, error = invoke(
        training, f"--dataset_dir={tmp_path}", "--dataset_name=bare", f"--train_dir={tmp_path}/t"
    )
    assert code == 1
    assert "no train shards" in error
    assert f"python convert_dataset.py --dataset_name=bare --dataset_dir={tmp_path}" in error


@pytest.fixture
def small_checkpoint(tmp_path) -> str:
    """A checkpoint of two variables, `net/weights` [3, 2] and `net/Logits/weights` [2, 5]."""
    random = np.random.default_rng(0)
    shapes = {"net/weights": [3, 2], "net/Logits/weights": [2, 5]}
    values = {name: random.normal(size=shape).astype("f") for name, shape in shapes.items()}
    return write_checkpoint(tmp_path / "small/model.ckpt-7", {**values, "global_step": 7})


def choose_start(tmp_path: Path, checkpoint: str, exclude="", ignore_missing_vars=False):
    settings = StartSettings(
        checkpoint_path=checkpoint,
        checkpoint_exclude_scopes=exclude,
        ignore_missing_vars=ignore_missing_vars,
    )
    return start_from(tmp_path / "run", settings, [])


def test_checkpoint_that_lacks_variables_or_has_other_shapes(tmp_path, small_checkpoint):
    with tf.Graph().as_default(), tf.Session() as session:
        kept = slim.model_variable("net/weights", [3, 2])
        slim.model_variable("net/Logits/weights", [2, 4])
        for index in range(5):
            slim.model_variable(f"net/more_{index}", [1])
        with pytest.raises(UserError) as lacking:
            choose_start(tmp_path, small_checkpoint)
        assert "lacks 5 of 7 variables: net/more_0, net/more_1, net/more_2 and 2 more" in str(
            lacking.value
        )
        assert "--ignore_missing_vars" in str(lacking.value)
        with pytest.raises(UserError) as differing:
            choose_start(tmp_path, small_checkpoint, exclude="more")
        assert "net/Logits/weights is [2, 5] there and [2, 4] here" in str(differing.value)
        assert "--checkpoint_exclude_scopes=Logits" in str(differing.value)
        session.run(tf.global_variables_initializer())
        choose_start(tmp_path, small_checkpoint, "Logits", ignore_missing_vars=True)(session)
        stored = tf.train.load_variable(small_checkpoint, "net/weights")
        np.testing.assert_array_equal(session.run(kept), stored)


def test_damaged_checkpoint(tmp_path, small_checkpoint):
    Path(small_checkpoint + ".index").write_bytes(b"no checkpoint")
    with tf.Graph().as_default():
        slim.model_variable("net/weights", [3, 2])
        with pytest.raises(UserError, match="cannot be read"):
            choose_start(tmp_path, small_checkpoint)


def test_resuming_another_kind_of_run(tmp_path, small_checkpoint):
    with tf.Graph().as_default():
        slim.model_variable("net/weights", [3, 2])
        slim.model_variable("net/Momentum", [3, 2])
        with pytest.raises(UserError, match=r"lacks 1 of 2 variables: net/Momentum; .* another"):
            start_from(Path(small_checkpoint).parent, StartSettings(checkpoint_path=None), [])


def test_trainable_scopes_are_substrings_and_must_match():
    with tf.Graph().as_default():
        for name in ("net/AuxLogits/weights", "net/Logits/weights", "net/conv/weights"):
            slim.model_variable(name, [1])
        chosen = variables_to_train(["Logits"])
        assert [v.op.name for v in chosen] == ["net/AuxLogits/weights", "net/Logits/weights"]
        assert len(variables_to_train([])) == 3
        with pytest.raises(UserError) as error:
            variables_to_train(["Logit5", "nothing"])
        assert "--trainable_scopes=Logit5,nothing matches no variable" in str(error.value)
        assert "net/AuxLogits, net/Logits, net/conv" in str(error.value)


# The arithmetic of a step, against closed forms.


def optimizer_settings(*given: str) -> OptimizerSettings:
    values = flags.FlagValues()
    training.define_flags(values)
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


def test_decay_steps_are_those_of_one_clone():
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
    """Three steps on (w - 1)² from w = 3, whose gradient is 2 (w - 1), as the papers write them."""
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


def test_averages_follow_the_updated_variables():
    """With the published warm-up of the decay."""
    with tf.Graph().as_default(), tf.Session() as session:
        global_step = tf.train.create_global_step()
        variable = slim.model_variable("w", [], initializer=tf.constant_initializer(4.0))
        loss = 1.0 * variable
        step, averages = build_train_op(
            loss,
            [(tf.constant(1.0), variable)],
            tf.train.GradientDescentOptimizer(0.5),
            global_step=global_step,
            moving_average_decay=0.9,
        )
        session.run(tf.global_variables_initializer())
        ((_, average),) = averages
        session.run(average.assign(variable))
        expected = w = 4.0
        for number in range(1, 4):
            done = session.run(step)
            assert (done["step"], done["loss"]) == (number, w)
            w -= 0.5
            decay = min(0.9, (1 + number) / (10 + number))
            expected = decay * expected + (1 - decay) * w
        assert session.run(average) == pytest.approx(expected, rel=1e-5)
        assert session.run(variable) == 2.5


def test_label_smoothing_and_auxiliary_loss():
    with tf.Graph().as_default(), tf.Session() as session:
        logits = tf.constant([[2.0, 0.0, 0.0]])
        batch = (tf.zeros([1, 8, 8, 3]), tf.constant([0], tf.int64))

        class Iterator:
            def get_next(self):
                return batch

        build_clone(
            lambda images: (logits, {"AuxLogits": 2 * logits}), Iterator(), 3, label_smoothing=0.3
        )
        found = session.run(sorted(tf.losses.get_losses(), key=lambda loss: loss.op.name))

    def cross_entropy(values):
        log_p = values - np.log(np.exp(values).sum())
        return -(np.array([0.8, 0.1, 0.1]) * log_p).sum()

    expected = [0.4 * cross_entropy(np.array([4.0, 0, 0])), cross_entropy(np.array([2.0, 0, 0]))]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_flags_are_the_published_ones(reference):
    published = json.loads((reference / "flags.json").read_text())
    kinds = {"string": str, "integer": int, "float": float, "boolean": bool, "bool": bool}
    for script, define in (
        ("train.py", training.define_flags),
        ("eval.py", evaluation.define_flags),
    ):
        values = flags.FlagValues()
        define(values)
        for name, flag in published[script].items():
            default, found = eval(flag["default"]), values[name].default
            if isinstance(found, list):  # which takes several, with commas between them
                (found,) = map(kinds[flag["type"]], found)
            assert found == default, name
            assert default is None or isinstance(found, kinds[flag["type"]]), name


def test_help_lists_every_flag():
    code, text, _ = invoke(training, "--help")
    assert code == 0
    for name in ("train_dir", "num_epochs_per_decay", "batch_norm_decay", "moving_average_decay"):
        assert f"--{name}" in text or f"--[no]{name}" in text


def test_nothing_is_left_of_a_refused_run(colours, tmp_path):
    code, _, _ = invoke(
        training,
        f"--dataset_dir={colours}",
        "--dataset_name=colours",
        f"--train_dir={tmp_path / 'run'}",
        f"--checkpoint_path={tmp_path / 'none'}",
    )
    assert code == 1
    assert not (tmp_path / "run").exists()
