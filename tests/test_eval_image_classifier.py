"""Tests of evaluation, as a command against independent counts, and of its parts."""

import gc
import io
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from slim import eval_image_classifier as evaluation
from slim.checkpoints.description import ModelDescription, write_model_description
from slim.common.compat import slim, tf
from slim.common.errors import UserError
from slim.datasets.registry import get_dataset
from slim.evaluation import evaluator, results
from slim.evaluation.ensemble import EnsembleMember, find_members
from slim.evaluation.evaluator import EvaluationSettings, make_evaluator
from slim.evaluation.predictions import load_predictions, read_results
from slim.evaluation.results import Publisher
from slim.nets.nets_factory import get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing, get_views
from tests.conftest import COLOURS, NUM_VALIDATION, averages, colour_classifier, recipe_weights
from tests.support import (
    SMALL_DEPTH,
    SMALL_NETWORK,
    SMALL_SIZE,
    THIS_MACHINE,
    invoke,
    variable_shapes,
    write_checkpoint,
)

LOGITS = f"{SMALL_NETWORK}/logits"

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture(scope="module")
def model_dir(colours, tmp_path_factory) -> Path:
    """A folder with a checkpoint whose moving averages predict other classes than its variables."""
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
    """Returns the accuracy on val.txt, computed with one image per run."""
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


RUN = f"eval_{SMALL_SIZE}"


def summary_values(folder: Path, step: int) -> dict[str, tf.Summary.Value]:
    """Returns the values of a step by tag, from the only event file of a folder."""
    (events,) = folder.glob("events*")
    found = [event for event in tf.train.summary_iterator(str(events)) if event.summary.value]
    assert [event.step for event in found] == [step]
    return {value.tag: value for event in found for value in event.summary.value}


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
    # Without a description of the model, 299 pixels are the default.
    found = {tag: value.simple_value for tag, value in summary_values(tmp_path / RUN, 12).items()}
    assert found == {
        "eval/Accuracy": pytest.approx(expected),
        "eval/Recall_5": pytest.approx(1.0),
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
    """The classes have 5, 5 and 4 images; the number of graphs does not grow."""
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
    computed = "bfloat16 with XLA" if more else "float32"
    assert f" parameters, {computed}, on {THIS_MACHINE}\n" in done.error
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
    values = summary_values(tmp_path / RUN, 2)
    mean = balanced_accuracy_score(labels, expected.argmax(axis=1))
    assert values["eval/Mean_class_accuracy"].simple_value == pytest.approx(mean)
    # Each class has 10 training images.
    assert values["eval/Tail_accuracy"].simple_value == pytest.approx(mean)
    assert not {"eval/Middle_accuracy", "eval/Head_accuracy"} & values.keys()
    for tag in ("eval/confusion", "eval/mistakes"):
        picture = values[tag].image
        with Image.open(io.BytesIO(picture.encoded_image_string)) as image:
            assert image.size == (picture.width, picture.height)
    assert all(value.metadata.summary_description for value in values.values())


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
    # A run for each size, since the steps and the tags may be the same.
    runs = {"eval_32": 1, "eval_40": 2, "eval_32+40": 2}
    shown = [
        summary_values(tmp_path / run, step)["eval/Accuracy"].simple_value
        for run, step in runs.items()
    ]
    assert shown == pytest.approx(accuracies)
    assert {path.parent.name for path in tmp_path.rglob("events*")} == runs.keys()


def test_evaluates_as_trained(colours, two_networks, tmp_path):
    """Network, size and preprocessing are those of `model.json`; notes name flags that differ."""
    folder = tmp_path / "model"
    shutil.copytree(two_networks[1], folder)
    write_model_description(folder, ModelDescription(SMALL_NETWORK, 48, "vgg", "colours", COLOURS))
    data = [f"--dataset_dir={colours}", "--dataset_name=colours", "--max_number_of_evaluations=1"]

    def evaluate(name: str, *more: str) -> tuple[np.ndarray, str]:
        out = ["--per_class", f"--eval_dir={tmp_path / name}"]
        done = invoke(evaluation, *data, f"--checkpoint_path={folder}", *out, *more)
        assert done.code == 0, done.error
        return load_predictions(tmp_path / name / "predictions-2.npz").probabilities, done.error

    found, said = evaluate("as_trained")
    assert "note:" not in said
    shutil.copytree(two_networks[1], folder.with_name("without"))
    other, said = evaluate("other", "--eval_image_size=40", "--preprocessing_name=inception")
    assert "note: --eval_image_size=40: trained at 48" in said
    assert "note: --preprocessing_name=inception: trained with vgg" in said
    (folder / "model.json").unlink()
    same = ["--eval_image_size=48", "--preprocessing_name=vgg", f"--model_name={SMALL_NETWORK}"]
    expected, said = evaluate("without", *same)
    assert "note:" not in said
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(found, other, atol=1e-3)


@pytest.mark.parametrize(("given", "expected"), [([], 299), (["--eval_image_size=0"], 32)])
def test_size_without_a_description(given, expected, two_networks):
    """299 pixels as published; 0 stands for the default of the network."""
    values = flags.FlagValues()
    evaluation.define_flags(values)
    values(
        ["eval", f"--model_name={SMALL_NETWORK}", f"--checkpoint_path={two_networks[0]}", *given]
    )
    (member,) = find_members(values)
    assert member.as_trained(str(two_networks[0] / "model.ckpt-1")).image_size == expected


def test_errors(colours, model_dir, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    narrow = write_checkpoint(
        tmp_path / "other/model.ckpt-3", {"w": np.float32(0), "global_step": 3}
    )
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
        (  # the second of two is refused before the first is evaluated
            {"checkpoint_path": f"{model_dir},{narrow}"},
            f"lacks {count} of {count} variables: {SMALL_NETWORK}/conv1/weights",
        ),
        (
            {"labels_offset": 1},
            rf"has 2 variables of other shapes: {LOGITS}/weights is "
            rf"\[1, 1, {SMALL_DEPTH}, 3\] there and \[1, 1, {SMALL_DEPTH}, 2\] here",
        ),
        ({"eval_dir": tmp_path / "file"}, "--eval_dir=.*file: cannot make the folder"),
        ({"eval_dir": "/dev/null"}, "--eval_dir=/dev/null: cannot make the folder"),
        ({"checkpoint_path": f"{model_dir},"}, "--checkpoint_path=.*: a name is empty"),
        ({"model_name": f"{SMALL_NETWORK},"}, "--model_name=.*: a name is empty"),
        ({"preprocessing_name": "vg"}, "unknown preprocessing 'vg'; did you mean vgg"),
        ({"eval_image_size": -1}, "-1x-1 is too small"),
        ({"max_num_batches": 10**20}, "max_num_batches=1"),
        ({"eval_interval_secs": 10**20}, "eval_interval_secs=1"),
        ({"max_number_of_evaluations": 10**20}, "max_number_of_evaluations=1"),
        ({"eval_image_size": 100000}, "100000x100000 is too large, .* at most 4096x4096"),
    ):
        settings = {**good, **changed}.items()
        network_needed = re.search("variables|averages", message)
        with monkeypatch.context() as patch:
            if not network_needed:  # refused before the network is built
                patch.setattr(evaluator, "build_network", pytest.fail)
            done = invoke(evaluation, *(f"--{name}={value}" for name, value in settings))
        assert done.code == 1, changed
        line = f"(.* parameters.*\n)*error: .*{message}.*\n"
        assert re.fullmatch(line, done.error), (changed, done.error)


def test_an_empty_split_is_reported():
    with tf.Graph().as_default(), tf.Session() as session:
        labels = tf.data.make_one_shot_iterator(tf.data.Dataset.range(0).batch(1)).get_next()
        outputs = evaluator.build_outputs(tf.zeros([1, 3]), labels)
        with pytest.raises(UserError, match="are empty"):
            evaluator.run_batches(session, outputs, "step 1", num_images=1)
