"""Tests of evaluation, as a command against independent counts, and of its parts."""

import csv
import gc
import io
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, log_loss

from slim import classify, long_tail
from slim import convert_dataset as convert
from slim import eval_image_classifier as evaluation
from slim.checkpoints import reading
from slim.checkpoints.description import ModelDescription, write_model_description
from slim.checkpoints.freezing import InferenceGraph
from slim.common.compat import slim, tf
from slim.common.errors import UserError
from slim.datasets.input import Dataset
from slim.datasets.registry import KNOWN, Sizes
from slim.evaluation import members
from slim.evaluation.predictions import load_predictions, read_results
from slim.evaluation.publishing import Publisher
from slim.nets.nets_factory import get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing, get_views
from tests.conftest import COLOURS, NUM_VALIDATION, averages, colour_classifier, small_values
from tests.support import (
    SHORT_INCEPTION,
    SMALL_DEPTH,
    SMALL_NETWORK,
    SMALL_SIZE,
    THIS_MACHINE,
    invoke,
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


def figures_one_by_one(data: Path, checkpoint: Path, averaged: bool) -> tuple[float, float]:
    """Returns the accuracy and the loss on val.txt, computed with one image per run."""
    folder = data / "colours"
    right, losses = [], []
    with tf.Graph().as_default(), tf.Session() as session:
        encoded = tf.placeholder(tf.string, [])
        image = get_preprocessing("inception")(encoded, SMALL_SIZE, SMALL_SIZE)
        logits, _ = get_network_fn(SMALL_NETWORK, 3)(image[None])
        suffix = "/ExponentialMovingAverage" if averaged else ""
        named = {v.op.name + suffix: v for v in slim.get_model_variables()}
        tf.train.Saver(named).restore(session, str(checkpoint))
        for line in (folder / "val.txt").read_text().splitlines():
            path, label = line.split(": ")
            found = session.run(logits, {encoded: (folder / path).read_bytes()})
            right.append(found.argmax() == int(label))
            losses.append(log_loss([int(label)], softmax(found, axis=1), labels=range(3)))
    return float(np.mean(right)), float(np.mean(losses))


def validation_labels(data: Path) -> list[int]:
    return [int(line[-1]) for line in (data / "colours/val.txt").read_text().splitlines()]


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
    expected, loss = figures_one_by_one(colours, model_dir / "model.ckpt-12", averaged)
    (line,) = done.output.splitlines()
    assert line == (
        f"step 12: eval/Accuracy {expected:.4f}, eval/Recall_5 1.0000, eval/Loss {loss:.4f}, "
        f"{NUM_VALIDATION} images, {model_dir}/model.ckpt-12"
    )
    # Without a description of the model, 299 pixels are the default.
    found = {tag: value.simple_value for tag, value in summary_values(tmp_path / RUN, 12).items()}
    assert found == {
        "eval/Accuracy": pytest.approx(expected),
        "eval/Recall_5": pytest.approx(1.0),
        "eval/Loss": pytest.approx(loss, abs=1e-4),
    }
    assert read_results(tmp_path / RUN) == {
        "step": 12,
        "checkpoint": f"{model_dir}/model.ckpt-12",
        "accuracy": pytest.approx(expected),
        "recall_5": 1.0,
        "loss": pytest.approx(loss, abs=1e-4),
        "num_images": NUM_VALIDATION,
    }
    chosen = ["plain variables", "moving averages"]
    assert f"model.ckpt-12: {chosen[averaged]} ({chosen[not averaged]} with " in done.error


def build_one(*more: str) -> tuple[members.Member, InferenceGraph]:
    """Builds the network of a checkpoint without a description, for three classes."""
    values = flags.FlagValues()
    evaluation.define_flags(values)
    values(["eval", "--checkpoint_path=none/model.ckpt-1", *more])
    (member,) = members.list_members(values)
    three = Dataset(name="x", split_name="train", files=(), num_samples=1, num_classes=3)
    return members.build_member(values, member, member.checkpoint_path, three)


def test_the_auxiliary_classifier_need_not_be_in_a_checkpoint():
    _, graph = build_one(f"--model_name={SHORT_INCEPTION}", "--eval_image_size=0")
    restored = [variable.op.name for variable in graph.variables]
    assert f"{SHORT_INCEPTION}/Logits/Conv2d_1c_1x1/weights" in restored
    assert not [name for name in restored if "AuxLogits" in name]


@pytest.mark.parametrize(("more", "expected"), [([], 299), (["--eval_image_size=0"], 32)])
def test_size_without_a_description(more, expected):
    """299 pixels as published; 0 stands for the default of the network."""
    member, graph = build_one(f"--model_name={SMALL_NETWORK}", *more)
    assert member.image_size == graph.images.shape[1] == expected


def write_constant_classifiers(folder: Path, classes: Iterable[int]) -> list[str]:
    """Writes one checkpoint per class, of a network that predicts that class for every image."""
    return [
        write_checkpoint(
            folder / f"model.ckpt-{label}",
            {
                **small_values(3),
                f"{LOGITS}/biases": np.float32(1e4 * np.eye(3)[label]),
                "global_step": label,
            },
        )
        for label in classes
    ]


@pytest.mark.parametrize(
    ("classes", "more"),
    [([0, 2, 1], []), ([2], ["--precision=bfloat16", "--xla", "--max_num_batches=2"])],
    ids=["several", "fast"],
)
def test_checkpoint_after_checkpoint(classes, more, colours, tmp_path, monkeypatch):
    """The accuracy of each is the share of its class; the number of graphs does not grow."""
    found = write_constant_classifiers(tmp_path, classes)
    monkeypatch.setattr(evaluation, "checkpoints_to_evaluate", lambda *_, **__: iter(found))
    more = [*more, f"--max_number_of_evaluations={len(classes)}"]
    alive = []
    save = Publisher.save

    def save_and_count(*arguments: object) -> None:
        save(*arguments)
        alive.append(sum(isinstance(thing, tf.Graph) for thing in gc.get_objects()))

    monkeypatch.setattr(Publisher, "save", save_and_count)
    gc.collect()
    done = invoke(evaluation, *arguments(colours, tmp_path, *more))
    assert done.code == 0, done.error
    computed = "bfloat16 with XLA" if len(more) > 1 else "float32"
    assert f" parameters, {computed}, on {THIS_MACHINE}\n" in done.error
    shown = re.findall(r"eval/Accuracy ([\d.]+), .*, (\d+) images, ", done.output)
    labels = validation_labels(colours)[: 2 * 4 if len(more) > 1 else NUM_VALIDATION]
    shares = [labels.count(label) / len(labels) for label in classes]
    assert shown == [(f"{share:.4f}", str(len(labels))) for share in shares]
    assert alive[-1] == alive[0]


def test_stops_at_a_step_and_keeps_the_best(colours, tmp_path, monkeypatch):
    """The classes 0 and 1 have as many images; every command takes the folder that is kept."""
    found = write_constant_classifiers(tmp_path, range(3))
    flags = ["--max_number_of_evaluations=3", "--stop_at_step=1", "--keep_best"]
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "checkpoints_to_evaluate", lambda *_, **__: iter(found))
        done = invoke(evaluation, *arguments(colours, tmp_path, f"--eval_dir={tmp_path}", *flags))
    assert done.code == 0, done.error
    first, kept, second = done.output.splitlines()
    best = tmp_path / RUN / "best"
    assert kept == f"the best so far: {best}/model.ckpt-0"
    assert first.startswith("step 0: ") and second.startswith("step 1: ")
    assert read_results(best)["accuracy"] == read_results(tmp_path / RUN)["accuracy"]
    again = invoke(evaluation, *arguments(colours, best))
    assert again.output == f"{first.rpartition(', ')[0]}, {best}/model.ckpt-0\n"


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
    folder = tmp_path / f"{RUN}_12_crops"
    assert f"note: results are in {folder}\n" in done.error
    expected = probabilities_one_by_one(colours, two_networks[1], SMALL_SIZE, 12)
    labels = validation_labels(colours)
    accuracy = accuracy_score(labels, expected.argmax(axis=1))
    loss = log_loss(labels, expected)
    shown = f"eval/Accuracy {accuracy:.4f}, eval/Recall_5 1.0000, eval/Loss {loss:.4f}, 14 images"
    assert shown in done.output
    found = load_predictions(folder / "predictions-2.npz")
    assert found.labels.tolist() == labels
    in_order = np.zeros((14, 3))
    np.put_along_axis(in_order, found.top, found.probabilities, axis=1)
    np.testing.assert_allclose(in_order, expected, atol=1e-4)
    matrix = confusion_matrix(labels, expected.argmax(axis=1), labels=range(3))
    assert found.confusion.tolist() == matrix.tolist()
    assert found.class_sizes.tolist() == [10, 10, 10]
    values = summary_values(folder, 2)
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


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_of_evaluation_and_of_classification_agree(colours, two_networks, tmp_path):
    """Names with commas, quotes and bytes that are not UTF-8; lines that conversion has skipped."""
    folder = tmp_path / "data/odd"
    folder.mkdir(parents=True)
    names = [
        'a, "b".jpg',
        os.fsdecode(b"caf\xe9.jpg"),
        "broken.jpg",
        *map("{}.jpg".format, range(9)),
    ]
    images = sorted((colours / "colours/images").glob("train_*"))
    lists = {"train.txt": names, "val.txt": [f"val/{name}" for name in names]}
    for (file, paths), shift in zip(lists.items(), (0, 12), strict=True):
        (folder / "val").mkdir(exist_ok=True)
        for index, path in enumerate(paths):
            shutil.copy(images[index + shift], folder / path)
        text = "".join(f"{path}: {index % 3}\n" for index, path in enumerate(paths))
        (folder / file).write_text(text, errors="surrogateescape")
    (folder / "classes.txt").write_text("".join(f"{i} {c}\n" for i, c in enumerate(COLOURS)))
    for path in ("broken.jpg", "val/broken.jpg"):
        (folder / path).write_text("no image")
    data = [f"--dataset_dir={tmp_path / 'data'}", "--dataset_name=odd"]
    done = invoke(convert, *data, "--num_shards=2", "--on_error=skip")
    assert done.code == 0, done.error

    network = [f"--checkpoint_path={two_networks[1]}", f"--model_name={SMALL_NETWORK}"]
    size, out = f"size={SMALL_SIZE}", tmp_path / "all.csv"
    done = invoke(classify, folder, f"--csv={out}", f"--image_{size}", *data, *network)
    assert done.code == 0, done.error
    assert not done.output
    classified = {row["path"]: row for row in read_table(out)}
    assert list(classified) == [
        f"{folder}/{path}" for paths in lists.values() for path in paths if "broken" not in path
    ]
    for split, paths, more in (
        ("validation", lists["val.txt"], []),
        ("train", lists["train.txt"], []),
        ("validation", lists["val.txt"][:5], ["--max_num_batches=1", "--batch_size=4"]),
    ):
        run, flags = (
            tmp_path / f"{split}_{len(more)}",
            ["--per_class", f"--eval_image_{size}", *more],
        )
        flags += [f"--eval_dir={run}", f"--dataset_split_name={split}"]
        flags.append("--max_number_of_evaluations=1")
        done = invoke(evaluation, *data, *network, *flags)
        assert done.code == 0, done.error
        (table,) = run.rglob("predictions-2.csv")
        rows = read_table(table)
        expected = [path for path in paths if "broken" not in path]
        assert [row["path"] for row in rows] == expected
        for row in rows:
            other = classified[f"{folder}/{row['path']}"]
            places = range(1, 4)
            shares = {other[f"class_{k}"]: float(other[f"probability_{k}"]) for k in places}
            assert row["true"] == COLOURS[paths.index(row["path"]) % 3]
            assert row["predicted"] == other["class_1"]
            assert row["true"] == other[f"class_{row['rank']}"]
            for kind in ("true", "predicted"):
                found = float(row[f"{kind}_probability"])
                assert found == pytest.approx(shares[row[kind]], abs=1e-4)


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
    labels = validation_labels(colours)
    accuracies = [accuracy_score(labels, p.argmax(axis=1)) for p in [*each, np.mean(each, axis=0)]]
    assert re.findall(r"eval/Accuracy ([\d.]+)", done.output) == [f"{a:.4f}" for a in accuracies]
    first, second, mean = done.output.splitlines()
    assert first.endswith(f"{two_networks[0]}/model.ckpt-1, 32 pixels")
    assert second.endswith(f"{two_networks[1]}/model.ckpt-2, 40 pixels")
    assert mean.startswith("step 2: ")
    assert mean.endswith("14 images, mean of 2")
    found = load_predictions(tmp_path / "eval_32+40/predictions-2.npz")
    loss = log_loss(labels, np.mean(each, axis=0))
    assert f", eval/Loss {loss:.4f}, " in mean
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
        (predictions,) = (tmp_path / name).rglob("predictions-2.npz")
        assert (predictions.parent.name == name) == (not more)
        return load_predictions(predictions).probabilities, done.error

    found, said = evaluate("as_trained")
    assert "note:" not in said
    shutil.copytree(two_networks[1], folder.with_name("without"))
    other, said = evaluate("other", "--eval_image_size=40", "--preprocessing_name=inception")
    assert "note: --eval_image_size=40: trained at 48" in said
    assert "note: --preprocessing_name=inception: trained with vgg" in said
    (folder / "model.json").unlink()
    same = ["--eval_image_size=48", "--preprocessing_name=vgg", f"--model_name={SMALL_NETWORK}"]
    expected, said = evaluate("without", *same)
    assert "note: --" not in said
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(found, other, atol=1e-3)


def test_other_evaluations_of_a_step_do_not_replace_the_published_one(
    colours, two_networks, tmp_path
):
    """At another size, on the other split, with other crops, and on a part of the images."""
    shutil.copytree(two_networks[1], tmp_path / "model")
    description = ModelDescription(SMALL_NETWORK, SMALL_SIZE, "inception", "colours", COLOURS)
    write_model_description(tmp_path / "model", description)
    out = tmp_path / "out"
    for more in (
        [],
        ["--eval_image_size=40"],
        ["--dataset_split_name=train"],
        ["--num_crops=5"],
        ["--central_fraction=0.5"],
        ["--max_num_batches=1"],
    ):
        flags = arguments(colours, tmp_path / "model", "--per_class", f"--eval_dir={out}", *more)
        done = invoke(evaluation, *flags)
        assert done.code == 0, done.error
        if not more:
            before = {path.name: path.read_bytes() for path in out.glob("[!e]*")}
    assert {path.name: path.read_bytes() for path in out.glob("[!e]*")} == before
    kinds = ("npz", "txt", "csv")
    assert before.keys() == {"results.json", *(f"predictions-2.{kind}" for kind in kinds)}
    sizes = {"40": 14, "train": 30, "5_crops": 14, "central_0.5": 14, "part": 4}
    for name, images in sizes.items():
        assert read_results(out / f"eval_{name}")["num_images"] == images
        assert len(load_predictions(out / f"eval_{name}/predictions-2.npz").labels) == images
    for name in before:
        (out / name).unlink()
    done = invoke(long_tail, out)
    assert f"or pass {out / 'eval_40'} or {out / 'eval_5_crops'} or" in done.error


def test_images_that_shards_without_a_description_lack_are_named(
    colours, two_networks, tmp_path, monkeypatch
):
    """The first of three shards has 5 images, which is its share of 14 and of 15."""
    shutil.copytree(colours / "colours", tmp_path / "colours")
    (tmp_path / "colours/dataset.json").unlink()
    monkeypatch.setitem(KNOWN, "colours", Sizes(30, 15, 3))
    done = invoke(evaluation, *arguments(tmp_path, two_networks[1]))
    assert done.code == 0, done.error
    assert ", 14 images, " in done.output
    assert "the shards of colours have 14 validation images, expected 15: " in done.error


def test_errors(colours, model_dir, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    narrow = write_checkpoint(
        tmp_path / "other/model.ckpt-3", {"w": np.float32(0), "global_step": 3}
    )
    count = len(small_values(3))
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
        ({"keep_best": "true"}, "--keep_best: --eval_dir is missing"),
        (
            {"keep_best": "true", "eval_dir": tmp_path, "eval_image_size": "32,40"},
            "--keep_best: several networks have no best checkpoint",
        ),
        ({"quantize": "true"}, "--quantize: TensorFlow 2 has no contrib quantizer"),
        ({"master": "grpc://x"}, "--master=grpc://x: evaluation runs on one machine"),
        (
            {"checkpoint_path": narrow},
            f"lacks {count} of {count} variables: {SMALL_NETWORK}/conv1/weights",
        ),
        (
            {"moving_average_decay": 0.9, "checkpoint_path": narrow},
            "other/model.ckpt-3 has no moving averages; omit the flag",
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
                patch.setattr("slim.checkpoints.freezing.build_network", pytest.fail)
            done = invoke(evaluation, *(f"--{name}={value}" for name, value in settings))
        assert done.code == 1, changed
        line = f"(.* parameters.*\n|.*: plain variables.*\n)*error: .*{message}.*\n"
        assert re.fullmatch(line, done.error), (changed, done.error)


def copy(checkpoint: str, folder: Path) -> None:
    """Copies a checkpoint to a folder, as the latest one there."""
    folder.mkdir(exist_ok=True)
    for path in Path(checkpoint).parent.glob(f"{Path(checkpoint).name}.*"):
        shutil.copy(path, folder)
    state = f'model_checkpoint_path: "{Path(checkpoint).name}"\n'
    (folder / "checkpoint").write_text(state)


def write_one_variable(folder: Path, step: int) -> str:
    values = {"w": np.float32(0), "global_step": step}
    return write_checkpoint(folder / f"model.ckpt-{step}", values)


def test_watches_a_folder_for_new_checkpoints(tmp_path, capsys, monkeypatch):
    """The folder may be empty, or not exist yet."""
    evaluation.checkpoints_to_evaluate(str(tmp_path), 0, wait=True)
    assert capsys.readouterr().out == f"waiting for a first checkpoint in {tmp_path}\n"
    folder, steps = tmp_path / "to_come", iter([1, 2])
    checkpoints = evaluation.checkpoints_to_evaluate(str(folder), 0, wait=True)
    assert capsys.readouterr().out == (
        f"waiting for a first checkpoint in {folder}, which does not exist yet\n"
    )
    monkeypatch.setattr("time.sleep", lambda _: write_one_variable(folder, next(steps)))
    found = [next(checkpoints), next(checkpoints)]
    assert found == [f"{folder}/model.ckpt-1", f"{folder}/model.ckpt-2"]


def test_the_checkpoints_of_a_path(tmp_path):
    """A checkpoint is evaluated once, a folder is watched; folders can be moved."""
    first = write_one_variable(tmp_path / "before", 1)
    for path in (first, f"{first}.index"):
        assert list(evaluation.checkpoints_to_evaluate(path, 0, wait=True)) == [first]
    shutil.move(tmp_path / "before", tmp_path / "after")
    found = next(evaluation.checkpoints_to_evaluate(str(tmp_path / "after"), 0, wait=False))
    assert found == str(tmp_path / "after/model.ckpt-1")
    with pytest.raises(UserError, match=r"no checkpoint at .*model\.ckpt-3"):
        evaluation.checkpoints_to_evaluate(str(tmp_path / "model.ckpt-3"), 0, wait=True)


@pytest.mark.parametrize("moment", ["build_member", "read_step"])
def test_a_checkpoint_that_training_deletes_before_it_is_read(
    moment, colours, tmp_path, monkeypatch
):
    """A watcher goes on with the next one; a command that takes one checkpoint says what to do."""
    first, second = write_constant_classifiers(tmp_path / "other", [0, 1])
    run = tmp_path / "run"
    run.mkdir()
    copy(first, run)
    module = members if moment == "build_member" else reading
    unchanged = getattr(module, moment)

    def save_and_delete(*arguments: object) -> object:
        monkeypatch.setattr(module, moment, unchanged)
        result = unchanged(*arguments) if module is members else None
        copy(second, run)
        for path in run.glob(f"{Path(first).name}.*"):
            path.unlink()
        return result or unchanged(*arguments)

    monkeypatch.setattr(module, moment, save_and_delete)
    done = invoke(evaluation, *arguments(colours, run, "--eval_interval_secs=0"))
    assert done.code == 0, done.error
    missing = f"{run / Path(first).name} is missing or incomplete; if a training run has deleted it"
    assert f"note: checkpoint {missing}" in done.error
    (line,) = done.output.splitlines()
    assert line.endswith(f"14 images, {run / Path(second).name}")

    copy(first, tmp_path / "one")
    monkeypatch.setattr(module, moment, save_and_delete)
    run = tmp_path / "one"
    done = invoke(evaluation, *arguments(colours, run / Path(first).name))
    assert done.code == 1
    assert f"error: checkpoint {run / Path(first).name} is missing" in done.error
