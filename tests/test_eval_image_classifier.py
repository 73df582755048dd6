"""Evaluation: as a command, against counts made in another way, and its parts."""

import gc
import io
import re
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import accuracy_score, confusion_matrix

from slim import eval_image_classifier as evaluation
from slim.common.compat import slim, tf
from slim.common.errors import UserError
from slim.datasets.registry import get_dataset
from slim.evaluation import evaluator, results
from slim.evaluation.ensemble import EnsembleMember
from slim.evaluation.evaluator import EvaluationSettings, Outputs, make_evaluator
from slim.evaluation.predictions import load_predictions, read_results
from slim.evaluation.results import Publisher, checkpoints_to_evaluate
from slim.nets.nets_factory import get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing, get_views
from tests.conftest import NUM_VALIDATION, averages, colour_classifier, recipe_weights
from tests.support import (
    SMALL_DEPTH,
    SMALL_NETWORK,
    SMALL_SIZE,
    invoke,
    variable_shapes,
    write_checkpoint,
)

LOGITS = f"{SMALL_NETWORK}/logits"

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture(scope="module")
def model_dir(colours, tmp_path_factory) -> Path:
    """A folder with a checkpoint whose moving averages give other answers than its variables."""
    folder = tmp_path_factory.mktemp("model")
    plain, other = (colour_classifier(colours, order) for order in ([0, 1, 2], [0, 2, 1]))
    write_checkpoint(folder / "model.ckpt-12", {**plain, **averages(other), "global_step": 12})
    return folder


def arguments(data: Path, checkpoint_path: Path, *more: object) -> list[object]:
    return [
        f"--dataset_dir={data}",
        "--dataset_name=colours",
        f"--checkpoint_path={checkpoint_path}",
        f"--model_name={SMALL_NETWORK}",
        f"--eval_image_size={SMALL_SIZE}",
        "--batch_size=4",
        "--max_number_of_evaluations=1",
        *more,
    ]


def accuracy_one_by_one(data: Path, checkpoint: Path, averaged: bool) -> float:
    """The share of images of val.txt that the network gets right, an image a run."""
    folder = data / "colours"
    right = []
    with tf.Graph().as_default(), tf.Session() as session:
        pixels = tf.placeholder(tf.uint8, [None, None, 3])
        image = get_preprocessing("inception")(pixels, SMALL_SIZE, SMALL_SIZE)
        logits, _ = get_network_fn(SMALL_NETWORK, 3)(image[None])
        suffix = "/ExponentialMovingAverage" if averaged else ""
        named = {v.op.name + suffix: v for v in slim.get_model_variables()}
        tf.train.Saver(named).restore(session, str(checkpoint))
        for line in (folder / "val.txt").read_text().splitlines():
            path, label = line.split(": ")
            found = session.run(logits, {pixels: np.asarray(Image.open(folder / path))})
            right.append(found.argmax() == int(label))
    return float(np.mean(right))


@pytest.mark.parametrize("averaged", [False, True], ids=["plain", "averages"])
def test_counts_each_image_once(colours, model_dir, tmp_path, averaged):
    """14 images in batches of 4: the last one has 2."""
    more = [f"--eval_dir={tmp_path}"] + ["--moving_average_decay=0.9"] * averaged
    done = invoke(evaluation, *arguments(colours, model_dir, *more))
    assert done.code == 0, done.error
    expected = accuracy_one_by_one(colours, model_dir / "model.ckpt-12", averaged)
    (line,) = done.output.splitlines()
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
    assert read_results(tmp_path) == {
        "step": 12,
        "checkpoint": f"{model_dir}/model.ckpt-12",
        "accuracy": pytest.approx(expected),
        "recall_5": 1.0,
        "num_images": NUM_VALIDATION,
    }
    chosen = ["plain variables", "moving averages"]
    assert f"model.ckpt-12: {chosen[averaged]} ({chosen[not averaged]} with " in done.error


def test_the_auxiliary_classifier_need_not_be_in_a_checkpoint(colours):
    dataset = get_dataset("colours", "validation", str(colours))
    member = EnsembleMember("", "inception_v3", "inception", 75, None)
    graph = make_evaluator(member, dataset, EvaluationSettings(num_classes=3)).graph
    restored = [variable.op.name for variable in graph.variables]
    assert "InceptionV3/Logits/Conv2d_1c_1x1/weights" in restored
    assert not [name for name in restored if "AuxLogits" in name]


def write_constant_classifiers(folder: Path, classes: Iterable[int]) -> list[str]:
    """Writes one checkpoint per class, of a network that predicts that class for every image."""
    shapes = variable_shapes(SMALL_NETWORK, 3).items()
    values = {name: recipe_weights(name, shape) for name, shape in shapes}
    return [
        write_checkpoint(
            folder / f"model.ckpt-{label}",
            {
                **values,
                f"{LOGITS}/biases": np.float32(1e4 * np.eye(3)[label]),
                "global_step": label,
            },
        )
        for label in classes
    ]


@pytest.mark.parametrize(
    ("classes", "more"),
    [([0, 2, 1], []), ([2], ["--precision=bfloat16", "--xla"])],
    ids=["several", "fast"],
)
def test_checkpoint_after_checkpoint(classes, more, colours, tmp_path, monkeypatch):
    """Of 14 images 5, 5 and 4 are of the classes; graphs do not pile up."""
    found = write_constant_classifiers(tmp_path, classes)
    monkeypatch.setattr(results, "checkpoints_to_evaluate", lambda *_: iter(found))
    alive = []
    publish = Publisher.publish

    def publish_and_count(*arguments: object) -> None:
        publish(*arguments)
        alive.append(sum(isinstance(thing, tf.Graph) for thing in gc.get_objects()))

    monkeypatch.setattr(Publisher, "publish", publish_and_count)
    gc.collect()
    done = invoke(evaluation, *arguments(colours, tmp_path, *more))
    assert done.code == 0, done.error
    accuracies = re.findall(r"eval/Accuracy ([\d.]+)", done.output)
    assert accuracies == [f"{[5, 5, 4][label] / NUM_VALIDATION:.4f}" for label in classes]
    assert alive[-1] == alive[0]


def test_max_num_batches(colours, model_dir):
    checkpoint = model_dir / "model.ckpt-12"
    done = invoke(evaluation, *arguments(colours, checkpoint, "--max_num_batches=2"))
    assert done.code == 0
    assert ", 8 images, " in done.output


def test_the_likeliest_five_of_a_batch():
    logits = np.float32(
        [
            [9, 8, 7, 6, 5, 4, 3],
            [3, 4, 5, 6, 7, 8, 9],
            [np.nan] * 7,
            [9, np.inf, 7, 6, 5, 4, 3],
            [0, 0, 0, 0, 0, 0, 0],  # the first of equals come first
        ]
    )
    with tf.Graph().as_default(), tf.Session() as session:
        labels = tf.constant([0, 4, 5, 0, 6], tf.int64)
        found = session.run(evaluator.build_outputs(tf.constant(logits), labels))
    none = [-1] * 5
    expected = [[0, 1, 2, 3, 4], [6, 5, 4, 3, 2], none, none, [0, 1, 2, 3, 4]]
    assert found.top.tolist() == expected
    shares = softmax(logits[0].astype(float))[:5]
    np.testing.assert_allclose(found.of_top, [shares, shares, [0] * 5, [0] * 5, [1 / 7] * 5], 1e-5)


def test_views_are_averaged_by_their_probabilities():
    logits = np.random.RandomState(0).normal(0, 9, (4 * 5, 3)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        found = session.run(tf.nn.softmax(evaluator.average_views(tf.constant(logits), 5)))
    expected = softmax(logits.astype(float), axis=1).reshape(4, 5, 3).mean(axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_logits_that_are_not_finite_are_said(capsys):
    top = np.array([[-1, -1], [0, 1], [-1, -1]])
    outputs = Outputs(np.array([0, 0, 1]), top, np.zeros((3, 2), np.float32), None)
    nothing = dict.fromkeys(("class_names", "class_sizes", "eval_dir"))
    Publisher(num_classes=2, per_class=False, **nothing).publish(outputs, 3, "model.ckpt-3")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("step 3: eval/Accuracy 0.3333, eval/Recall_5 0.3333, 3 images, ")
    assert second.startswith("2 images have logits that are not finite")


@pytest.fixture(scope="module")
def two_networks(colours, tmp_path_factory) -> list[Path]:
    """Folders of two networks, of which the second confuses two colours."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for step, (folder, order) in enumerate(zip(folders, ([0, 1, 2], [0, 2, 1]), strict=True), 1):
        values = colour_classifier(colours, order)
        values[f"{LOGITS}/weights"] *= step  # the mean of both follows the second
        values[f"{LOGITS}/biases"] *= step
        write_checkpoint(folder / f"model.ckpt-{step}", {**values, "global_step": step})
    return folders


def probabilities_one_by_one(data: Path, folder: Path, size: int, num_crops: int) -> np.ndarray:
    """The mean probabilities of each image of val.txt, `[images, 3]`."""
    rows = []
    with tf.Graph().as_default(), tf.Session() as session:
        encoded = tf.placeholder(tf.string, [])
        views = get_views("inception", num_crops)(encoded, size, size)
        logits, _ = get_network_fn(SMALL_NETWORK, 3)(views)
        tf.train.Saver().restore(session, tf.train.latest_checkpoint(str(folder)))
        for line in (data / "colours/val.txt").read_text().splitlines():
            path = data / "colours" / line.split(": ")[0]
            found = session.run(logits, {encoded: path.read_bytes()})
            rows.append(softmax(found.astype(float), axis=1).mean(axis=0))
    return np.stack(rows)


def test_crops_and_all_that_per_class_writes(colours, two_networks, tmp_path):
    more = ["--num_crops=12", "--batch_size=30", "--per_class", f"--eval_dir={tmp_path}"]
    done = invoke(evaluation, *arguments(colours, two_networks[1], *more))
    assert done.code == 0, done.error
    expected = probabilities_one_by_one(colours, two_networks[1], SMALL_SIZE, 12)
    labels = [int(line[-1]) for line in (colours / "colours/val.txt").read_text().splitlines()]
    accuracy = accuracy_score(labels, expected.argmax(axis=1))
    assert f"eval/Accuracy {accuracy:.4f}, eval/Recall_5 1.0000, 14 images" in done.output
    found = load_predictions(tmp_path / "predictions-2.npz")
    assert found.labels.tolist() == labels
    in_order = np.zeros((14, 3))
    np.put_along_axis(in_order, found.top, found.probabilities, axis=1)
    np.testing.assert_allclose(in_order, expected, atol=1e-4)
    matrix = confusion_matrix(labels, expected.argmax(axis=1), labels=range(3))
    assert found.confusion.tolist() == matrix.tolist()
    assert found.class_sizes.tolist() == [10, 10, 10]
    (events,) = tmp_path.glob("events*")
    pictures = {
        value.tag: value.image
        for event in tf.train.summary_iterator(str(events))
        for value in event.summary.value
        if value.HasField("image")
    }
    (picture,) = pictures.values()
    assert list(pictures) == ["eval/confusion"]
    with Image.open(io.BytesIO(picture.encoded_image_string)) as image:
        assert image.size == (picture.width, picture.height)


def test_networks_and_sizes_together(colours, two_networks, tmp_path):
    """Two checkpoints, of which the second sees larger images, and their mean."""
    paths = ",".join(map(str, two_networks))
    more = ["--eval_image_size=32,40", "--per_class", f"--eval_dir={tmp_path}"]
    done = invoke(evaluation, *arguments(colours, paths, *more))
    assert done.code == 0, done.error
    each = [
        probabilities_one_by_one(colours, folder, size, 1)
        for folder, size in zip(two_networks, (32, 40), strict=True)
    ]
    labels = [int(line[-1]) for line in (colours / "colours/val.txt").read_text().splitlines()]
    accuracies = [accuracy_score(labels, p.argmax(axis=1)) for p in [*each, np.mean(each, axis=0)]]
    assert re.findall(r"eval/Accuracy ([\d.]+)", done.output) == [f"{a:.4f}" for a in accuracies]
    first, second, mean = done.output.splitlines()
    assert first.endswith(f"{two_networks[0]}/model.ckpt-1, 32 pixels")
    assert second.endswith(f"{two_networks[1]}/model.ckpt-2, 40 pixels")
    assert mean.startswith("step 2: ")
    assert mean.endswith("14 images, mean of 2")
    found = load_predictions(tmp_path / "predictions-2.npz")
    best = np.sort(np.mean(each, axis=0), axis=1)[:, ::-1]
    np.testing.assert_allclose(found.probabilities, best, atol=1e-4)


def write_one_variable(folder: Path, step: int) -> str:
    return write_checkpoint(
        folder / f"model.ckpt-{step}", {"w": np.float32(0), "global_step": step}
    )


def test_watches_a_folder_for_new_checkpoints(tmp_path, capsys):
    found = []
    checkpoints = checkpoints_to_evaluate(str(tmp_path), 0, None)
    watcher = threading.Thread(
        target=lambda: found.extend(next(checkpoints) for _ in range(2)), daemon=True
    )
    watcher.start()
    first = write_one_variable(tmp_path, 1)
    limit = time.monotonic() + 30
    while len(found) < 1 and time.monotonic() < limit:
        time.sleep(0.1)
    # One that is gone again when it is its turn is passed over.
    second = write_one_variable(tmp_path, 2)
    watcher.join(30)
    assert found == [first, second]
    assert f"waiting for a first checkpoint in {tmp_path}" in capsys.readouterr().out


def test_ends_after_the_number_of_evaluations(tmp_path):
    first = write_one_variable(tmp_path, 1)
    assert list(checkpoints_to_evaluate(str(tmp_path), 0, 1)) == [first]


def test_a_single_checkpoint_is_evaluated_once(tmp_path):
    first = write_one_variable(tmp_path, 1)
    assert list(checkpoints_to_evaluate(first, 0, None)) == [first]
    assert list(checkpoints_to_evaluate(first + ".index", 0, None)) == [first]


def test_a_folder_of_checkpoints_can_be_moved(tmp_path):
    write_one_variable(tmp_path / "before", 1)
    shutil.move(tmp_path / "before", tmp_path / "after")
    (found,) = checkpoints_to_evaluate(str(tmp_path / "after"), 0, 1)
    assert found == str(tmp_path / "after/model.ckpt-1")


def test_errors(colours, model_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    narrow = write_one_variable(tmp_path / "other", 3)
    count = len(variable_shapes(SMALL_NETWORK, 3))
    good = {
        "dataset_dir": colours,
        "dataset_name": "colours",
        "checkpoint_path": model_dir,
        "model_name": SMALL_NETWORK,
        "eval_image_size": SMALL_SIZE,
        "max_number_of_evaluations": 1,
    }
    for changed, message in (
        ({"dataset_name": "colour"}, "no dataset 'colour'.*did you mean colours"),
        ({"dataset_split_name": "test"}, "no split 'test': expected train or validation"),
        ({"model_name": "inceptionv3"}, "unknown network 'inceptionv3'; did you mean inception_v3"),
        ({"eval_image_size": 31}, f"31x31 is too small for {SMALL_NETWORK}, .* at least 32x32"),
        ({"checkpoint_path": ""}, "--checkpoint_path is missing"),
        ({"checkpoint_path": tmp_path / "none"}, "--checkpoint_path: no checkpoint at .*none"),
        ({"checkpoint_path": tmp_path / "empty"}, "empty holds no checkpoint"),
        ({"eval_image_size": "32,x"}, "--eval_image_size=32,x: expected pixels"),
        (
            {"eval_image_size": "32,40", "central_fraction": "0.5,0.7,1"},
            "--eval_image_size has 2 values and --central_fraction has 3: expected 1 or 3",
        ),
        ({"central_fraction": "0"}, "--central_fraction=0.0: expected a fraction of each side"),
        ({"num_crops": 3}, "--num_crops=3: expected 1, 5, 10 or 12"),
        ({"per_class": "true"}, "--per_class: --eval_dir is missing"),
        ({"quantize": "true"}, "--quantize: TensorFlow 2 has no contrib quantizer"),
        ({"master": "grpc://x"}, "--master=grpc://x: evaluation runs on one machine"),
        (
            {"checkpoint_path": narrow},
            f"lacks {count} of {count} variables: {SMALL_NETWORK}/conv1/weights",
        ),
        (
            {"moving_average_decay": 0.9, "checkpoint_path": narrow},
            "other/model.ckpt-3 has no moving averages; leave the flag out",
        ),
        (
            {"labels_offset": 1},
            rf"has 2 variables of other shapes: {LOGITS}/weights is "
            rf"\[1, 1, {SMALL_DEPTH}, 3\] there and \[1, 1, {SMALL_DEPTH}, 2\] here",
        ),
        ({"eval_dir": tmp_path / "file"}, "--eval_dir=.*file: cannot write there"),
    ):
        settings = {**good, **changed}.items()
        done = invoke(evaluation, *(f"--{name}={value}" for name, value in settings))
        assert done.code == 1, changed
        *choice, error = done.error.splitlines()
        assert re.fullmatch(f"error: .*{message}.*", error), (changed, done.error)
        assert choice == [] or "eval_dir" in changed  # the only error after the evaluation


def test_an_empty_split_is_said():
    with tf.Graph().as_default(), tf.Session() as session:
        labels = tf.data.make_one_shot_iterator(tf.data.Dataset.range(0).batch(1)).get_next()
        outputs = evaluator.build_outputs(tf.zeros([1, 3]), labels)
        with pytest.raises(UserError, match="are empty"):
            evaluator.run_batches(session, outputs, "step 1", num_images=1)
