"""Tests of the training command: complete, stopped, killed, resumed and invalid runs."""

import json
import math
import re
import resource
import shutil
import signal
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from absl import flags
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from slim import eval_image_classifier as evaluation
from slim import train_image_classifier as training
from slim.checkpoints.description import ModelDescription, read_model_description
from slim.checkpoints.reading import read_shapes, read_step
from slim.common.compat import slim, tf
from slim.nets.nets_factory import get_network_fn
from slim.training import run_log, saving
from tests.conftest import NUM_TRAIN, NUM_VALIDATION
from tests.support import (
    SHORT_INCEPTION,
    SHORT_INCEPTION_SIZE,
    SMALL_NETWORK,
    SMALL_SIZE,
    THIS_MACHINE,
    Process,
    Result,
    invoke,
    wait_until,
    write_checkpoint,
)

pytestmark = pytest.mark.usefixtures("small_network")

NETWORK, SIZE = SHORT_INCEPTION, SHORT_INCEPTION_SIZE
ENDLESS = f"--max_number_of_steps={10**18}"
SEEDED = ("--max_number_of_steps=3", "--learning_rate=0.001")


def arguments(data: Path, train_dir: Path, *more: str) -> list[str]:
    """Returns flags for a network with an auxiliary classifier."""
    return [
        f"--model_name={NETWORK}",
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
    """Returns flags for the last layer of the small network."""
    network = (f"--model_name={SMALL_NETWORK}", f"--train_image_size={SMALL_SIZE}")
    return arguments(data, train_dir, *network, "--trainable_scopes=logits", *more)


def steps_in(output: str) -> list[int]:
    return [int(step) for step in re.findall(r"^step (\d+)", output, re.MULTILINE)]


def latest_step(train_dir: Path) -> int:
    """Returns the step of the latest checkpoint, or -1 if there is none."""
    latest = tf.train.latest_checkpoint(str(train_dir))
    return -1 if latest is None else read_step(latest)


def trained_parameters(train_dir: Path) -> int:
    """Returns the number of parameters that have a momentum in the latest checkpoint."""
    shapes = read_shapes(tf.train.latest_checkpoint(str(train_dir)))
    return sum(math.prod(shapes[name]) for name in shapes if name.endswith("/Momentum"))


def summaries(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns the steps and values of all summaries by tag."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events*")):
        for event in tf.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@pytest.fixture(scope="module")
def trained(colours, tmp_path_factory) -> tuple[Path, str]:
    """The folder and the output of a run with auxiliary logits and moving averages.

    Each look at the clock takes 11 s, so that every step has a summary.
    """
    train_dir = tmp_path_factory.mktemp("trained")
    more = ("--save_summaries_secs=10", "--moving_average_decay=0.9", "--seed=3")
    slow = SimpleNamespace(monotonic=count(0, 11).__next__)
    with mock.patch.object(run_log, "time", slow):
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
        get_network_fn(NETWORK, 3, is_training=True)(tf.zeros([1, SIZE, SIZE, 3]))
        model = {variable.op.name for variable in slim.get_model_variables()}
        trainable = {variable.op.name for variable in tf.trainable_variables()}
    expected = model | {"global_step"}
    expected |= {f"{name}/ExponentialMovingAverage" for name in model}
    expected |= {f"{name}/Momentum" for name in trainable}
    assert names == expected


def test_says_how_large_the_network_is_and_where_it_runs(trained):
    train_dir, output = trained
    size = f"{trained_parameters(train_dir):,} parameters (all trained)"
    line = f"{NETWORK} at {SIZE} pixels: {size}, float32, on {THIS_MACHINE}\n"
    assert line in output[: output.index("step 1")]


def test_writes_summaries(trained):
    train_dir, _ = trained
    found = summaries(train_dir)
    scalars = {"total_loss", "learning_rate", "epoch", "images_per_second", "input_share"}
    losses = {tag for tag in found if tag.startswith("losses/")}
    assert scalars <= set(found)
    assert all(0 <= share <= 1 for _, share in found["input_share"])
    assert any("aux_loss" in tag for tag in losses)
    assert any("softmax_cross_entropy" in tag for tag in losses)
    assert "losses/regularization_loss" in losses
    assert [step for step, _ in found["augmented_images/image/0"]] == [1]  # of three summaries
    total = dict(found["total_loss"])
    parts = [dict(found[tag]) for tag in losses]
    for step, value in total.items():
        assert value == pytest.approx(sum(part[step] for part in parts), rel=1e-4)
    assert [step for step, _ in found["global_step/sec"]] == [2, 3]
    assert all(0 < rate <= 1 / 11 for _, rate in found["global_step/sec"])
    epochs = dict(found["epoch"])
    # The summary of a step shows the state before the step.
    assert epochs[3] == pytest.approx(2 * 4 / NUM_TRAIN, abs=4 / NUM_TRAIN + 1e-6)


def test_tensorboard_finds_the_graph_the_flags_and_a_description_of_every_tag(trained):
    accumulator = EventAccumulator(str(trained[0])).Reload()
    assert any(node.name.endswith("/weights") for node in accumulator.Graph().node)
    descriptions = {
        tag: accumulator.SummaryMetadata(tag).summary_description
        for tag in accumulator.Tags()["tensors"]
        if not tag.startswith(("_", CONFIG_SUMMARY_TAG))  # TensorBoard's own
    }
    assert {"train/Accuracy", "total_loss", "augmented_images/image/0"} <= descriptions.keys()
    assert all(descriptions.values())
    content = accumulator.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    assert values["moving_average_decay"].number_value == 0.9
    assert values["model_name"].string_value == NETWORK
    (flags,) = accumulator.Tensors("flags")
    assert b"| moving_average_decay | `0.9` |" in flags.tensor_proto.string_val[0]
    (layout,) = accumulator.Tensors(CONFIG_SUMMARY_TAG)
    (category,) = Layout.FromString(layout.tensor_proto.string_val[0]).category
    lines = [tuple(chart.multiline.tag) for chart in category.chart]
    assert lines == [(f"train/{name}$", f"eval/{name}$") for name in ("Loss", "Accuracy")]


def test_writes_the_description_of_the_model(trained):
    expected = ModelDescription(NETWORK, SIZE, NETWORK, "colours", ("0", "1", "2"))
    assert read_model_description(trained[0]) == expected


def test_a_complete_run_is_not_repeated(trained, colours):
    train_dir, _ = trained
    before = sorted(path.name for path in train_dir.iterdir())
    done = invoke(training, *arguments(colours, train_dir, "--max_number_of_steps=3"))
    assert done.code == 0
    assert "nothing to do" in done.output
    assert sorted(path.name for path in train_dir.iterdir()) == before
    assert (train_dir / "done").read_text() == "model.ckpt-3\n"


def test_evaluates_as_trained(trained, colours):
    data = (f"--dataset_dir={colours}", "--dataset_name=colours")
    done = invoke(evaluation, *data, f"--checkpoint_path={trained[0]}/model.ckpt-3")
    assert done.code == 0, done.error
    assert re.match(rf"step 3: eval/Accuracy [\d.]+, .* {NUM_VALIDATION} images, ", done.output)


def test_says_what_it_does_before_the_first_step(trained):
    """Prints the flags and the data, then the phases of the start."""
    phases = "".join(
        rf"{phase} took \d+\.\d s; {following} \.\.\.\n"
        for phase, following in (
            ("building the graph", "initializing the variables"),
            ("initializing the variables", "running the first step"),
        )
    )
    assert re.match(
        rf"flags: --dataset_name=colours (?s:.*)--seed=3(?s:.*); otherwise\sdefaults\n"
        rf"data: {NUM_TRAIN} images of 3 classes in colours \(train\), 4 per step, "
        rf"{NUM_TRAIN / 4} steps per epoch\n"
        r"building the graph \.\.\.\n.*\n" + phases + r"running the first step took .* s\nstep 1 ",
        trained[1],
    )


def test_zero_turns_checkpoints_summaries_and_the_log_off(colours, tmp_path):
    """An image size of zero selects the image size of the network, as published."""
    off = ("--save_interval_secs=0", "--save_summaries_secs=0", "--log_every_n_steps=0")
    more = ("--max_number_of_steps=3", "--train_image_size=0", *off)
    done = invoke(training, *small(colours, tmp_path, *more))
    assert done.code == 0, done.error
    assert steps_in(done.output) == []
    assert summaries(tmp_path) == {}
    assert [path.name for path in tmp_path.glob("*.index")] == ["model.ckpt-3.index"]
    assert read_model_description(tmp_path).image_size == SMALL_SIZE


@pytest.fixture(scope="module")
def seeded(colours, tmp_path_factory) -> tuple[Path, str, list]:
    """The folder and the output of a run with a seed, and the tensors that each step ran."""
    train_dir = tmp_path_factory.mktemp("seeded")
    run, steps = tf.Session.run, []

    def record(session, fetches, feed_dict=None, **kwargs):
        if isinstance(fetches, dict) and "caller" in fetches:
            steps.append([*tf.nest.flatten(list(fetches.values())), *feed_dict])
        return run(session, fetches, feed_dict, **kwargs)

    with mock.patch.object(tf.Session, "run", record):
        done = invoke(training, *small(colours, train_dir, *SEEDED, "--seed=3"))
    assert done.code == 0, done.error
    return train_dir, done.output, steps


def test_steps_with_and_without_a_summary_run_the_same_tensors(seeded):
    """TensorFlow prepares each set of tensors, which takes as long as many steps."""
    train_dir, _, steps = seeded
    assert len(steps) == 3
    assert len({tuple(map(id, tensors)) for tensors in steps}) == 1
    assert [step for step, _ in summaries(train_dir)["total_loss"]] == [1]


def test_seed_repeats_a_run(seeded, colours, tmp_path):
    outputs = [seeded[1]]
    for seed in (3, 4):
        flags = small(colours, tmp_path / str(seed), *SEEDED, f"--seed={seed}")
        outputs.append(invoke(training, *flags).output)
    first, again, other = (np.float64(re.findall(r"loss ([\d.]+)", text)) for text in outputs)
    assert len(first) == 3
    # Parallel reductions may add in a different order.
    np.testing.assert_allclose(first, again, rtol=1e-3)
    assert np.abs(first - other).max() > 0.01


def test_resumes_from_the_newest_checkpoint_without_a_valid_state(seeded, colours, tmp_path):
    """The graph is written once, and the flags at every start."""
    train_dir = shutil.copytree(seeded[0], tmp_path / "run")
    (train_dir / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-9"\n')
    (train_dir / "model.ckpt-8.index").write_text("no data")
    done = invoke(training, *small(colours, train_dir, "--max_number_of_steps=4"))
    assert done.code == 0, done.error
    assert f"taking the newest complete one, {train_dir}/model.ckpt-3\n" in done.error
    assert f"resuming from step 3 ({train_dir}/model.ckpt-3)" in done.output
    assert steps_in(done.output) == [4]
    listed = tf.train.get_checkpoint_state(str(train_dir)).all_model_checkpoint_paths
    assert [Path(path).name for path in listed] == [f"model.ckpt-{step}" for step in (0, 3, 4)]
    events = [
        event
        for path in train_dir.glob("events*")
        for event in tf.train.summary_iterator(str(path))
    ]
    assert sum(event.HasField("graph_def") for event in events) == 1
    assert not any(event.HasField("meta_graph_def") for event in events)
    assert [step for step, _ in summaries(train_dir)["flags"]] == [1, 4]


@pytest.mark.parametrize(("number", "kept"), [(2, (5, 6)), (0, range(7))])
def test_keeps_the_newest_checkpoints(colours, tmp_path, number, kept):
    """Each look at the clock takes 100 s, so that every step has a checkpoint; the run resumes."""
    with mock.patch.object(saving, "time", SimpleNamespace(monotonic=count(0, 100).__next__)):
        for steps in (4, 6):
            limits = (f"--keep_checkpoints={number}", f"--max_number_of_steps={steps}")
            done = invoke(training, *small(colours, tmp_path, *limits, "--save_summaries_secs=0"))
            assert done.code == 0, done.error
    found = {path.stem for path in tmp_path.glob("*.index")}
    assert found == {f"model.ckpt-{step}" for step in kept}


@pytest.fixture
def start(colours, tmp_path):
    """A function that starts training in another process, in the folder `tmp_path / "run"`."""
    numbers = count()
    with ExitStack() as processes:

        def start(*flags: str) -> Process:
            flags = small(colours, tmp_path / "run", *flags)
            log = tmp_path / f"{next(numbers)}.log"
            process = Process("slim.train_image_classifier", *flags, log=log)
            return processes.enter_context(process)

        yield start


def kill_within_a_checkpoint(process: Process, train_dir: Path) -> None:
    """Kills a process when it has written half of its next checkpoint."""
    half = Path(f"{tf.train.latest_checkpoint(str(train_dir))}.data-00000-of-00001").stat().st_size
    resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (half // 2, half // 2))
    assert process.wait() == -signal.SIGXFSZ, process.output
    assert list(train_dir.glob("model.ckpt-*.tempstate*"))


def test_a_killed_run_resumes_from_its_latest_checkpoint(start, colours, tmp_path):
    """Kills runs before the first step, between steps, and while a checkpoint is written.

    While a run trains in a folder, another one is refused.
    """
    train_dir = tmp_path / "run"
    first = start(ENDLESS)
    wait_until(lambda: train_dir.exists() and any(train_dir.iterdir()), first)
    first.kill()
    assert not steps_in(first.output)

    second = start(ENDLESS, "--save_interval_secs=1")
    second.wait_for("^step 3")
    code, output, error = invoke(training, *small(colours, train_dir, ENDLESS))
    assert (code, output) == (1, "")
    assert error.startswith(f"error: {train_dir} is in use by process {second.pid} on ")
    wait_until(lambda: latest_step(train_dir) >= 1, second)
    second.wait_for(f"^step {latest_step(train_dir) + 2} ")
    second.kill()
    saved = latest_step(train_dir)

    third = start(ENDLESS, "--save_interval_secs=1")
    third.wait_for(f"^resuming from step {saved} ")
    third.wait_for(f"^step {saved + 2} ")
    kill_within_a_checkpoint(third, train_dir)
    saved = latest_step(train_dir)
    assert not (train_dir / "done").exists()  # which would end an evaluation

    last = start(f"--max_number_of_steps={saved + 2}")
    assert last.wait() == 0, last.output
    assert f"resuming from step {saved} " in last.output
    assert steps_in(last.output) == [saved + 1, saved + 2]
    assert not list(train_dir.glob("*tempstate*"))
    assert (train_dir / "done").read_text() == f"model.ckpt-{saved + 2}\n"


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


def test_a_full_disk_is_an_error_of_one_line(colours, tmp_path, monkeypatch):
    def save(*_: object, **__: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "model.ckpt-0; No space left on device")

    monkeypatch.setattr(tf.train.Saver, "save", save)
    code, _, error = invoke(training, *small(colours, tmp_path))
    assert code == 1
    assert error == (
        f"error: cannot write to {tmp_path}: no space left on device; free some space or choose "
        "another --train_dir, then run the command again\n"
    )


@pytest.fixture(scope="module")
def overflowed(colours, tmp_path_factory) -> tuple[Path, Result]:
    """The folder of a run whose first step makes the weights overflow, and how it ended."""
    train_dir = tmp_path_factory.mktemp("overflowed")
    rate = ("--optimizer=sgd", "--learning_rate=3e38", "--weight_decay=1000")
    return train_dir, invoke(training, *small(colours, train_dir, *rate, "--max_number_of_steps=1"))


def test_variables_that_are_not_finite_are_not_saved(overflowed):
    train_dir, (code, _, error) = overflowed
    assert code == 1
    assert re.fullmatch(
        rf"error: {SMALL_NETWORK}/\S+ is not finite at step 1; the last good checkpoint is "
        rf"{train_dir}/model.ckpt-0; try a smaller --learning_rate\n",
        error,
    )
    assert [path.name for path in train_dir.glob("*.index")] == ["model.ckpt-0.index"]


@pytest.mark.parametrize("interval", [0, 60])
def test_a_checkpoint_that_is_not_finite_is_not_resumed(overflowed, colours, tmp_path, interval):
    reader = tf.train.load_checkpoint(str(overflowed[0] / "model.ckpt-0"))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    values[f"{SMALL_NETWORK}/logits/biases"][0] = np.inf
    bad = write_checkpoint(tmp_path / "model.ckpt-7", {**values, "global_step": 7})
    more = (f"--save_interval_secs={interval}", "--max_number_of_steps=9", "--optimizer=sgd")
    code, output, error = invoke(training, *small(colours, tmp_path, *more))
    assert code == 1
    assert steps_in(output) == []
    assert error == (
        f"error: {bad} cannot be resumed, {SMALL_NETWORK}/logits/biases is not finite; to resume "
        f"from the checkpoint before it, delete {bad}.*; try a smaller --learning_rate\n"
    )


@pytest.mark.parametrize("frozen", [False, True], ids=["published", "frozen averages"])
def test_fine_tuning_changes_only_trainable_scopes(trained, colours, tmp_path, frozen):
    source = tf.train.latest_checkpoint(str(trained[0]))
    more = (
        "--max_number_of_steps=1",
        "--save_interval_secs=0",
        f"--checkpoint_path={trained[0]}",
        "--checkpoint_exclude_scopes=Logits",
        "--trainable_scopes=Logits",
        "--num_clones=2",
        "--clone_on_cpu",
    )
    if frozen:
        more += ("--freeze_batch_norm", "--histograms", "--precision=bfloat16")
    done = invoke(training, *arguments(colours, tmp_path, *more))
    assert done.code == 0, done.error
    assert re.search(
        rf"^fine-tuning from {source}: \d+ variables, 4 left out: {NETWORK}/AuxLogits, "
        rf"{NETWORK}/Logits\nits classifier has the same classes; to keep it, pass "
        "--checkpoint_exclude_scopes=\n",
        done.output,
        re.MULTILINE,
    )
    before = tf.train.load_checkpoint(source)
    after = tf.train.load_checkpoint(str(tmp_path / "model.ckpt-1"))
    size = f"({trained_parameters(tmp_path):,} trained)"
    precision = "bfloat16" if frozen else "float32"
    assert f"{size}, {precision}, 2 clones on {THIS_MACHINE}\n" in done.output
    for name in after.get_variable_to_shape_map():
        if name == "global_step" or name.endswith("Momentum"):
            continue
        equal = np.array_equal(after.get_tensor(name), before.get_tensor(name))
        # As published, the substring matches Logits and AuxLogits, and averages change in layers
        # that are not trained.
        assert equal == ("Logits" not in name and (frozen or "moving_" not in name)), name


def test_invalid_flags(colours, tmp_path):
    good = {
        "dataset_dir": colours,
        "dataset_name": "colours",
        "train_dir": tmp_path / "run",
        "train_image_size": 75,
        "max_number_of_steps": 1,
    }
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for changed, message in (
        ({"checkpoint_path": tmp_path / "none"}, "--checkpoint_path: no checkpoint at .*none"),
        ({"checkpoint_path": tmp_path / "empty"}, "empty holds no checkpoint; ./train.sh writes"),
        ({"dataset_name": "colour"}, "no dataset 'colour'.*did you mean colours"),
        ({"dataset_split_name": "test"}, "no split 'test': expected train or validation"),
        ({"model_name": "inceptionv3"}, "unknown network 'inceptionv3'; did you mean inception_v3"),
        ({"preprocessing_name": "vggg"}, "unknown preprocessing 'vggg'; did you mean vgg"),
        ({"train_image_size": 74}, "74x74 is too small for inception_v3, .* at least 75x75"),
        ({"train_dir": ""}, "--train_dir is missing"),
        ({"train_dir": tmp_path / "file"}, "--train_dir=.*file: cannot make the folder"),
        ({"labels_offset": 3}, "--labels_offset=3: expected 2 at most, the dataset has 3 classes"),
        ({"num_clones": 2}, "--num_clones=2 needs as many GPUs, found 0"),
        ({"optimizer": "adamw"}, "optimizer=adamw: value should be one of <adadelta"),
        ({"learning_rate_decay_type": "linear"}, r"value should be one of <fixed\|exponential"),
        ({"learning_rate": "fast"}, "learning_rate=fast"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"quantize_delay": 0}, "--quantize_delay=0: TensorFlow 2 has no contrib quantizer"),
        ({"master": "grpc://x"}, "--master=grpc://x: expected grpc://host:port"),
        ({"worker_replicas": 2}, "--worker_replicas=2: addresses are missing; pass --ps_hosts"),
        ({"num_ps_tasks": 1}, "--num_ps_tasks=1: addresses are missing"),
        ({"task": 1}, "--task=1: expected 0 to 0, worker has 1 task"),
        ({"unknown_flag": 1}, "Unknown command line flag 'unknown_flag'"),
    ):
        given = [f"--{name}={value}" for name, value in {**good, **changed}.items()]
        code, _, error = invoke(training, *given)
        assert code == 1, changed
        assert re.fullmatch(f"error: .*{message}.*\n", error), (changed, error)
        assert "checkpoint_path" not in changed or not good["train_dir"].exists()
    code, _, error = invoke(training, "stray")
    assert (code, error) == (
        1,
        "error: unexpected argument 'stray': pass flags as --name=value\n",
    )


def test_missing_shards(tmp_path):
    (tmp_path / "bare").mkdir()
    code, _, error = invoke(
        training, f"--dataset_dir={tmp_path}", "--dataset_name=bare", f"--train_dir={tmp_path}/t"
    )
    assert code == 1
    assert "no train shards" in error
    assert f" convert_dataset.py --dataset_name=bare --dataset_dir={tmp_path}" in error


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
            if name == "num_preprocessing_threads":  # one per core
                default = None
            if isinstance(found, list):  # of comma-separated values
                (found,) = map(kinds[flag["type"]], found)
            assert found == default, name
            assert default is None or isinstance(found, kinds[flag["type"]]), name


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ([], 2 * NUM_TRAIN / 4),
        (["--num_clones=2", "--clone_on_cpu"], 2 * NUM_TRAIN / 8),
        (["--max_number_of_steps=3"], 3),
    ],
)
def test_epochs_are_counted_over_all_clones(colours, tmp_path, arguments, steps):
    last = math.ceil(steps)
    write_checkpoint(tmp_path / f"model.ckpt-{last}", {"global_step": last})
    flags = [f"--train_dir={tmp_path}", f"--dataset_dir={colours}", "--dataset_name=colours"]
    flags += ["--batch_size=4", "--max_number_of_epochs=2", *arguments]
    code, out, error = invoke(training, *flags)
    assert code == 0, error
    assert f"nothing to do: {tmp_path}/model.ckpt-{last} is at step {last} of {last};" in out
