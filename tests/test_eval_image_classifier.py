"""Evaluation: as a command, against counts made in another way, and its parts."""

import gc
import re
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slim import eval_image_classifier as evaluation
from slim.compat import slim, tf
from slim.errors import UserError, run_command
from slim.nets.nets_factory import get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing
from tests.conftest import NUM_VALIDATION, run

SIZE = 75


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    """A folder with a checkpoint of random weights, and of other ones as their averages."""
    folder = tmp_path_factory.mktemp("model")
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(5)
        get_network_fn("inception_v3", 3)(tf.zeros([1, SIZE, SIZE, 3]), create_aux_logits=False)
        variables = slim.get_model_variables()
        global_step = tf.train.create_global_step()
        averages = tf.train.ExponentialMovingAverage(0.9)
        averages.apply(variables)
        session.run(tf.global_variables_initializer())
        session.run([averages.average(v).assign(0.5 * v) for v in variables])
        global_step.load(12, session)
        tf.train.Saver().save(session, str(folder / "model.ckpt"), global_step)
    return folder


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    """Runs the command in this process, which has TensorFlow loaded."""
    with pytest.raises(SystemExit) as stopped:
        run_command(evaluation.define_flags, evaluation.main, ["eval", *map(str, arguments)])
    return stopped.value.code, *capsys.readouterr()


def arguments(data: Path, checkpoint_path: Path, *more: object) -> list[object]:
    return [
        f"--dataset_dir={data}",
        "--dataset_name=colours",
        f"--checkpoint_path={checkpoint_path}",
        f"--eval_image_size={SIZE}",
        "--batch_size=4",
        "--max_number_of_evaluations=1",
        *more,
    ]


def accuracy_one_by_one(data: Path, checkpoint: Path, averages: bool) -> float:
    """The share of images of val.txt that the network gets right, an image a run."""
    folder = data / "colours"
    right = []
    with tf.Graph().as_default(), tf.Session() as session:
        pixels = tf.placeholder(tf.uint8, [None, None, 3])
        image = get_preprocessing("inception_v3")(pixels, SIZE, SIZE)
        logits, _ = get_network_fn("inception_v3", 3)(image[None], create_aux_logits=False)
        suffix = "/ExponentialMovingAverage" if averages else ""
        named = {v.op.name + suffix: v for v in slim.get_model_variables()}
        tf.train.Saver(named).restore(session, str(checkpoint))
        for line in (folder / "val.txt").read_text().splitlines():
            path, label = line.split(": ")
            found = session.run(logits, {pixels: np.asarray(Image.open(folder / path))})
            right.append(found.argmax() == int(label))
    return float(np.mean(right))


@pytest.mark.parametrize("averages", [False, True], ids=["plain", "averages"])
def test_counts_each_image_once(colours, model_dir, tmp_path, averages):
    """14 images in batches of 4: the last one has 2."""
    more = [f"--eval_dir={tmp_path}"] + ["--moving_average_decay=0.9"] * averages
    done = run("python", "-m", "slim.eval_image_classifier", *arguments(colours, model_dir, *more))
    assert done.returncode == 0, done.stderr
    expected = accuracy_one_by_one(colours, model_dir / "model.ckpt-12", averages)
    (line,) = done.stdout.splitlines()
    assert line == (
        f"step 12: eval/Accuracy {expected:.4f}, eval/Recall_5 1.0000, {NUM_VALIDATION} images, "
        f"{model_dir}/model.ckpt-12"
    )
    (events,) = tmp_path.glob("events*")
    found = {
        value.tag: (event.step, value.simple_value)
        for event in tf.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert found == {
        "eval/Accuracy": (12, pytest.approx(expected)),
        "eval/Recall_5": (12, pytest.approx(1.0)),
    }


def write_constant_classifiers(folder: Path, classes: Iterable[int]) -> list[str]:
    """Checkpoints, one a class: a network that takes every image for one of that class."""
    prefixes = []
    with tf.Graph().as_default(), tf.Session() as session:
        get_network_fn("resnet_v2_50", 3)(tf.zeros([1, 32, 32, 3]))
        session.run(tf.global_variables_initializer())
        (biases,) = (v for v in slim.get_model_variables() if v.op.name.endswith("logits/biases"))
        saver = tf.train.Saver()
        for label in classes:
            biases.load(1e4 * np.eye(3)[label], session)
            prefixes.append(saver.save(session, str(folder / "model.ckpt"), label))
    return prefixes


@pytest.mark.parametrize(
    ("classes", "flags"),
    [([0, 2, 1], []), ([2], ["--precision=bfloat16", "--xla"])],
    ids=["several", "fast"],
)
def test_checkpoint_after_checkpoint(classes, flags, colours, tmp_path, capsys, monkeypatch):
    """Of 14 images 5, 5 and 4 are of the classes; graphs do not pile up."""
    found = write_constant_classifiers(tmp_path, classes)
    monkeypatch.setattr(evaluation, "checkpoints_to_evaluate", lambda *_: iter(found))
    alive = []
    report = evaluation.report

    def report_and_count(*arguments: object) -> None:
        report(*arguments)
        alive.append(sum(isinstance(thing, tf.Graph) for thing in gc.get_objects()))

    monkeypatch.setattr(evaluation, "report", report_and_count)
    gc.collect()
    code, out, error = call(
        capsys,
        *arguments(colours, tmp_path, "--model_name=resnet_v2_50", "--eval_image_size=32", *flags),
    )
    assert code == 0, error
    accuracies = re.findall(r"eval/Accuracy ([\d.]+)", out)
    assert accuracies == [f"{[5, 5, 4][label] / NUM_VALIDATION:.4f}" for label in classes]
    assert alive[-1] == alive[0]


def test_max_num_batches(colours, model_dir, capsys):
    checkpoint = model_dir / "model.ckpt-12"
    code, out, _ = call(capsys, *arguments(colours, checkpoint, "--max_num_batches=2"))
    assert code == 0
    assert ", 8 images, " in out


def test_top_1_and_top_5_of_a_batch():
    logits = np.float32(
        [
            [9, 8, 7, 6, 5, 4, 3],
            [9, 8, 7, 6, 5, 4, 3],
            [9, 8, 7, 6, 5, 4, 3],
            [np.nan] * 7,
            [9, np.inf, 7, 6, 5, 4, 3],
            [0, 0, 0, 0, 0, 0, 0],
        ]
    )
    labels = [0, 4, 5, 0, 1, 6]  # first, fifth, sixth, not finite twice, the last of equals
    with tf.Graph().as_default(), tf.Session() as session:
        counts = evaluation.build_counts(tf.constant(logits), tf.constant(labels, tf.int64))
        found = session.run(counts)
    assert found == {"images": 6, "right": 1, "right_5": 2, "not_finite": 2}


def test_logits_that_are_not_finite_are_said(capsys):
    evaluation.report(evaluation.Result(3, 10, 0.5, 0.9, num_not_finite=2), "model.ckpt-3")
    assert "2 images gave logits that are not finite" in capsys.readouterr().out


def write_checkpoint(folder: Path, step: int) -> str:
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("w", [])
        session.run(tf.global_variables_initializer())
        return tf.train.Saver(save_relative_paths=True).save(
            session, str(folder / "model.ckpt"), step
        )


def test_watches_a_folder_for_new_checkpoints(tmp_path, capsys):
    found = []
    checkpoints = evaluation.checkpoints_to_evaluate(str(tmp_path), 0, None)
    watcher = threading.Thread(
        target=lambda: found.extend(next(checkpoints) for _ in range(2)), daemon=True
    )
    watcher.start()
    first = write_checkpoint(tmp_path, 1)
    limit = time.monotonic() + 30
    while len(found) < 1 and time.monotonic() < limit:
        time.sleep(0.1)
    # One that is gone again when it is its turn is passed over.
    second = write_checkpoint(tmp_path, 2)
    watcher.join(30)
    assert found == [first, second]
    assert f"waiting for a first checkpoint in {tmp_path}" in capsys.readouterr().out


def test_ends_after_the_number_of_evaluations(tmp_path):
    first = write_checkpoint(tmp_path, 1)
    assert list(evaluation.checkpoints_to_evaluate(str(tmp_path), 0, 1)) == [first]


def test_a_single_checkpoint_is_evaluated_once(tmp_path):
    first = write_checkpoint(tmp_path, 1)
    assert list(evaluation.checkpoints_to_evaluate(first, 0, None)) == [first]
    assert list(evaluation.checkpoints_to_evaluate(first + ".index", 0, None)) == [first]


def test_a_folder_of_checkpoints_can_be_moved(tmp_path):
    write_checkpoint(tmp_path / "before", 1)
    shutil.move(tmp_path / "before", tmp_path / "after")
    (found,) = evaluation.checkpoints_to_evaluate(str(tmp_path / "after"), 0, 1)
    assert found == str(tmp_path / "after/model.ckpt-1")


def test_errors(colours, model_dir, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    narrow = write_checkpoint(tmp_path / "other", 3)
    good = {
        "dataset_dir": colours,
        "dataset_name": "colours",
        "checkpoint_path": model_dir,
        "eval_image_size": SIZE,
        "max_number_of_evaluations": 1,
    }
    for changed, message in (
        ({"dataset_name": "colour"}, "no dataset 'colour'.*did you mean colours"),
        ({"dataset_split_name": "test"}, "no split 'test': expected train or validation"),
        ({"model_name": "inceptionv3"}, "unknown network 'inceptionv3'; did you mean inception_v3"),
        ({"eval_image_size": 60}, "60x60 is too small for inception_v3, .* at least 75x75"),
        ({"checkpoint_path": ""}, "--checkpoint_path is missing"),
        ({"checkpoint_path": tmp_path / "none"}, "--checkpoint_path: no checkpoint at .*none"),
        ({"checkpoint_path": tmp_path / "empty"}, "empty holds no checkpoint"),
        ({"quantize": "true"}, "--quantize: TensorFlow 2 has no contrib quantizer"),
        ({"master": "grpc://x"}, "--master=grpc://x: evaluation runs on one machine"),
        ({"checkpoint_path": narrow}, "lacks 378 of 378 variables: InceptionV3/Conv2d_1a_3x3/wei"),
        (
            {"moving_average_decay": 0.9, "checkpoint_path": narrow},
            "written without averages: leave --moving_average_decay out",
        ),
        (
            {"labels_offset": 1},
            r"has 2 variables of other shapes: InceptionV3/Logits/Conv2d_1c_1x1/weights is "
            r"\[1, 1, 2048, 3\] there and \[1, 1, 2048, 2\] here",
        ),
        ({"eval_dir": tmp_path / "file"}, "--eval_dir=.*file: cannot write there"),
    ):
        flags = [f"--{name}={value}" for name, value in {**good, **changed}.items()]
        code, _, error = call(capsys, *flags)
        assert code == 1, changed
        assert re.fullmatch(f"error: .*{message}.*\n", error), (changed, error)


def test_an_empty_split_is_said():
    with tf.Graph().as_default(), tf.Session() as session:
        batches = tf.data.Dataset.range(0).batch(1)
        iterator = tf.data.make_one_shot_iterator(batches)
        counts = {"images": iterator.get_next(), "right": 0, "right_5": 0, "not_finite": 0}
        counts = {name: tf.convert_to_tensor(count) for name, count in counts.items()}
        with pytest.raises(UserError, match="hold no image"):
            evaluation.evaluate(session, counts, step=0, num_images=1)
