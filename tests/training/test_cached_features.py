"""Tests of training the last layer on cached features."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from shutil import ignore_patterns

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from slim import convert_dataset as convert
from slim import train_image_classifier as training
from slim.common import files
from slim.common.compat import tf
from slim.nets.nets_factory import get_network_fn
from slim.training.cached_features import FeatureBatches, feature_batches
from slim.training.start import Run
from tests.conftest import NUM_CLASSES, NUM_TRAIN, recipe_weights
from tests.nets.conftest import few_repeats
from tests.support import (
    SMALL_NETWORK,
    SMALL_SIZE,
    Result,
    invoke,
    training_flags,
    variable_shapes,
    write_checkpoint,
)

pytestmark = pytest.mark.usefixtures("small_network")

RATE, DECAY, STEPS = 0.1, 0.01, 4


def train(colours, train_dir, *flags: str) -> Result:
    return invoke(
        training,
        f"--dataset_dir={colours}",
        "--dataset_name=colours",
        f"--model_name={SMALL_NETWORK}",
        f"--train_image_size={SMALL_SIZE}",
        f"--train_dir={train_dir}",
        *flags,
    )


@pytest.fixture(scope="module")
def source(small_network, colours, tmp_path_factory) -> str:
    """A checkpoint whose moving statistics are close to those of its batches."""
    folder = tmp_path_factory.mktemp("source")
    done = train(
        colours,
        folder,
        "--max_number_of_steps=3",
        "--batch_size=8",
        "--batch_norm_decay=0.1",
        "--learning_rate=0.00001",
    )
    assert done.code == 0, done.error
    return str(folder / "model.ckpt-3")


def cached(colours, train_dir, source: str, *flags: str) -> Result:
    return train(
        colours,
        train_dir,
        f"--checkpoint_path={source}",
        "--checkpoint_exclude_scopes=logits",
        "--trainable_scopes=logits",
        "--noaugment",
        "--cache_features",
        "--optimizer=sgd",
        "--learning_rate_decay_type=fixed",
        f"--learning_rate={RATE}",
        f"--weight_decay={DECAY}",
        f"--batch_size={NUM_TRAIN}",  # all images, so that their order does not matter
        *flags,
    )


def test_equals_logistic_regression_by_gradient_descent(colours, source, tmp_path):
    done = cached(colours, tmp_path / "run", source, f"--max_number_of_steps={STEPS}")
    assert done.code == 0, done.error
    features = np.load(tmp_path / "run/features/colours_feature_train.npy")
    labels = np.load(tmp_path / "run/features/colours_label_train.npy")
    np.testing.assert_array_equal(np.bincount(labels), [NUM_TRAIN // NUM_CLASSES] * NUM_CLASSES)
    begun = tf.train.load_checkpoint(str(tmp_path / "run/model.ckpt-0"))
    weights = begun.get_tensor(f"{SMALL_NETWORK}/logits/weights")[0, 0].astype(np.float64)
    biases = begun.get_tensor(f"{SMALL_NETWORK}/logits/biases").astype(np.float64)
    for _ in range(STEPS):
        scores = features @ weights + biases
        scores = np.exp(scores - scores.max(1, keepdims=True))
        error = scores / scores.sum(1, keepdims=True) - np.eye(NUM_CLASSES)[labels]
        weights -= RATE * (features.T @ error / NUM_TRAIN + DECAY * weights)
        biases -= RATE * error.mean(0)
    after = tf.train.load_checkpoint(str(tmp_path / f"run/model.ckpt-{STEPS}"))
    found = after.get_tensor(f"{SMALL_NETWORK}/logits/weights")[0, 0]
    np.testing.assert_allclose(found, weights, atol=1e-4 * np.abs(weights).max())
    np.testing.assert_allclose(
        after.get_tensor(f"{SMALL_NETWORK}/logits/biases"), biases, atol=1e-5
    )
    before = tf.train.load_checkpoint(source)
    for name in before.get_variable_to_shape_map():
        if "logits" not in name and name != "global_step" and not name.endswith("Momentum"):
            np.testing.assert_array_equal(after.get_tensor(name), before.get_tensor(name), name)

    done = cached(colours, tmp_path / "run", source, f"--max_number_of_steps={STEPS + 1}")
    assert done.code == 0, done.error
    assert "nothing to do: " in done.output  # for the features, which exist
    assert re.search(rf"^step {STEPS + 1} of {STEPS + 1}, loss ", done.output, re.M)


@pytest.fixture(scope="module")
def uneven(colours, tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A dataset with one line skipped, and its images per class: 10, 6, 1, and none of class 3."""
    data = tmp_path_factory.mktemp("uneven")
    folder = shutil.copytree(colours / "colours", data / "colours", ignore=ignore_patterns("*.tf*"))
    (folder / "dataset.json").unlink()
    lines = (folder / "train.txt").read_text().splitlines(keepends=True)
    lines = [*lines[::3], *lines[1:18:3], lines[2], "images/missing.jpg: 2\n"]
    (folder / "train.txt").write_text("".join(lines))
    with (folder / "val.txt").open("a") as file:
        file.write("images/train_005.jpg: 3\n")
    done = invoke(
        convert,
        f"--dataset_dir={data}",
        "--dataset_name=colours",
        "--num_shards=2",
        "--on_error=skip",
    )
    assert done.code == 0, done.error
    return data, np.array([10, 6, 1, 0])


@pytest.mark.parametrize("kind", ["balanced", "effective"])
def test_a_step_with_class_weights(kind, uneven, source, tmp_path):
    """With a background class, which has no images; weights by scikit-learn and equation 2."""
    data, sizes = uneven
    classes, images = len(sizes) + 1, sizes.sum()
    more = ("--labels_offset=-1", "--label_smoothing=0.2", "--class_weights_beta=0.9")
    flags = (f"--class_weights={kind}", f"--batch_size={images}", "--weight_decay=0", *more)
    done = cached(data, tmp_path, source, "--max_number_of_steps=1", *flags)
    assert done.code == 0, done.error
    features = np.load(tmp_path / "features/colours_feature_train.npy")
    labels = np.load(tmp_path / "features/colours_label_train.npy") + 1
    np.testing.assert_array_equal(np.bincount(labels, minlength=classes), [0, *sizes])
    if kind == "balanced":
        weights = compute_class_weight("balanced", classes=np.arange(1, 4), y=labels)
    else:
        weights = np.array([(1 - 0.9) / (1 - 0.9**number) for number in sizes[:3]])
    weights = np.array([0, *(3 * weights / weights.sum()), 0])
    ends = f"class weights: {weights[3]:.3g} for 1 image to {weights[1]:.3g} for 10 images\n"
    assert ends in done.output
    begun, after = (tf.train.load_checkpoint(f"{tmp_path}/model.ckpt-{step}") for step in (0, 1))
    name = f"{SMALL_NETWORK}/logits/"
    scores = features @ begun.get_tensor(f"{name}weights")[0, 0]
    scores += begun.get_tensor(f"{name}biases")
    scores = np.exp(scores - scores.max(1, keepdims=True))
    error = scores / scores.sum(1, keepdims=True) - 0.8 * np.eye(classes)[labels] - 0.2 / classes
    error *= weights[labels, np.newaxis]
    for part, slope in (("weights", features.T @ error / images), ("biases", error.mean(0))):
        change = begun.get_tensor(name + part) - after.get_tensor(name + part)
        np.testing.assert_allclose(change.squeeze(), RATE * slope, atol=1e-5 * np.abs(slope).max())


def test_class_weights_need_the_list_of_the_shards(uneven, tmp_path):
    data = shutil.copytree(uneven[0], tmp_path / "data")
    (data / "colours/train.txt").unlink()
    code, _, error = train(data, tmp_path / "run", "--class_weights=balanced")
    assert code == 1
    assert error == (
        f"error: --class_weights=balanced: {data}/colours/train.txt lists 0 images of the "
        "network's classes, but the shards have 17; put the list of the shards there, or omit the "
        "flag\n"
    )


def test_flags_that_cannot_be_combined_with_cached_features(colours, source, tmp_path):
    for flags, message in (
        (["--augment"], "distorted images have different features every time; pass --noaugment"),
        (["--checkpoint_path="], "--checkpoint_path is missing"),
        (["--num_clones=2", "--clone_on_cpu"], "omit --num_clones"),
        (["--preprocessing_name=vgg"], "omit --preprocessing_name"),
        (
            ["--trainable_scopes=block1"],
            "variables below the last layer, such as .*; pass --trainable_scopes=logits, or",
        ),
        (["--checkpoint_exclude_scopes=block1"], "exclude_scopes selects .* below the last layer"),
    ):
        code, _, error = cached(
            colours, tmp_path / "run", source, "--max_number_of_steps=1", *flags
        )
        assert code == 1
        assert re.fullmatch(f"(?s).*error: --cache_features: .*{message}.*\n", error), error


CLUSTER = {"cluster": {"chief": ["a:1"], "worker": ["b:1"], "ps": ["c:1"]}}


@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        (["--worker_hosts=a:1,b:1", "--ps_hosts=c:1"], ""),
        (["--worker_hosts=a:1,b:1", "--all_reduce"], ""),
        (["--worker_hosts=a:1", "--ps_hosts=c:1"], ""),
        (["--master=grpc://a:1", "--worker_replicas=2", "--num_ps_tasks=1"], ""),
        (["--master=grpc://a:1"], ""),
        ([], json.dumps(CLUSTER | {"task": {"type": "worker", "index": 0}})),
    ],
)
def test_clusters_are_refused_however_they_are_described(
    colours, source, tmp_path, monkeypatch, flags, environment
):
    monkeypatch.setenv("TF_CONFIG", environment)
    done = cached(colours, tmp_path / "run", source, "--max_number_of_steps=1", *flags)
    assert done.code == 1
    assert re.fullmatch("error: --cache_features: .* several machines; omit .*\n", done.error)


def test_a_run_and_its_features_start_from_one_checkpoint(colours, source, tmp_path):
    """A resumed run keeps its variables, so the features have to be those of its checkpoint."""
    run, other = tmp_path / "run", tmp_path / "other"
    flags = ("--max_number_of_steps=1", "--batch_size=8", "--trainable_scopes=logits")
    done = train(colours, other, *flags)
    assert done.code == 0, done.error
    assert cached(colours, run, source, "--max_number_of_steps=1").code == 0
    before = contents(run / "features")
    for _ in range(2):
        done = cached(colours, run, f"{other}/model.ckpt-1", "--max_number_of_steps=2")
        assert done.code == 1
        message = "run that did not start from --checkpoint_path=.*other/model.ckpt-1: [0-9]+ varia"
        assert re.search(f"^error: --cache_features: .*{message}", done.error, re.M), done.error
        assert contents(run / "features") == before
        shutil.rmtree(run / "features", ignore_errors=True)  # nor without them
        before = {}
    assert cached(colours, run, source, "--max_number_of_steps=2").code == 0
    # A run on images has other variables below the last layer.
    done = cached(colours, other, source, "--max_number_of_steps=2")
    assert (done.code, "did not start from" in done.error) == (1, True)


@pytest.fixture
def few_blocks() -> Iterator[None]:
    with few_repeats():
        yield


@pytest.mark.usefixtures("few_blocks")
def test_the_auxiliary_classifier_keeps_its_values_and_every_run_takes_the_checkpoint(
    colours, tmp_path
):
    """Below 299 pixels its last kernel is smaller, and so is the name of its scope."""
    last = "--trainable_scopes=Logits"
    size = ("--model_name=inception_v3_010", "--train_image_size=107", last)
    shapes = variable_shapes("inception_v3_010", NUM_CLASSES, 107)
    values = {name: recipe_weights(name, shape) for name, shape in shapes.items()}
    source = write_checkpoint(tmp_path / "source/model.ckpt-1", {**values, "global_step": 1})
    done = cached(
        colours,
        tmp_path / "cached",
        source,
        *size,
        "--checkpoint_exclude_scopes=Logits",
        "--max_number_of_steps=2",
    )
    assert done.code == 0, done.error
    before, after = (tf.train.load_checkpoint(f"{tmp_path}/cached/model.ckpt-{n}") for n in (0, 2))
    kept = [name for name in after.get_variable_to_shape_map() if "/AuxLogits/" in name]
    assert sum("/Conv2d_2a_1x1/" in name for name in kept) == 4
    for name in kept:
        np.testing.assert_array_equal(after.get_tensor(name), before.get_tensor(name), name)
    classifier = "InceptionV3/Logits/Conv2d_1c_1x1/weights"
    assert (after.get_tensor(classifier) != before.get_tensor(classifier)).any()
    checkpoint = f"--checkpoint_path={tmp_path}/cached/model.ckpt-2"
    more = ("--max_number_of_steps=1", "--batch_size=2", "--checkpoint_exclude_scopes=")
    done = train(colours, tmp_path / "next", *size, checkpoint, *more)
    assert done.code == 0, done.error


@pytest.mark.usefixtures("few_blocks")
def test_variables_have_the_shapes_of_training_on_images(tmp_path):
    """The kernel of Inception-V4's auxiliary classifier has one name at all sizes."""
    flags = ("--model_name=inception_v4", "--train_image_size=107")
    values = training_flags(*flags, "--checkpoint_path=x")
    run = Run(cluster=None, train_dir=tmp_path, last_step=1, source="x")
    shapes = []
    for images in (False, True):
        with tf.Graph().as_default():
            network_fn = get_network_fn("inception_v4", NUM_CLASSES, is_training=True)
            if images:
                network_fn(tf.zeros([1, 107, 107, 3]))
            else:
                features = FeatureBatches(values, None, NUM_CLASSES, run).build(network_fn)
                assert features.end_points["features"].shape == [None, 1, 1, 1536]
            shapes.append({v.op.name: v.shape.as_list() for v in tf.global_variables()})
    assert shapes[0] == shapes[1]


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*")}


def test_labels_out_of_range_are_refused_before_any_work(colours, source, tmp_path):
    done = cached(colours, tmp_path, source, "--max_number_of_steps=1", "--labels_offset=1")
    assert done.code == 1
    message = r"train.txt line 1: label 0 is out of range with --labels_offset=1, .* \(0 to 1\)"
    assert re.search(f"^error: .*{message}", done.error, re.M), done.error
    assert not (tmp_path / "features").exists()


def test_another_process_that_writes_the_features_is_named(colours, source, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_SECONDS", 0)
    folder = tmp_path / "features"
    folder.mkdir()
    with files.exclusive(folder):
        done = cached(colours, tmp_path, source, "--max_number_of_steps=1")
    assert done.code == 1
    assert f"error: {folder} is in use by process {os.getpid()} on " in done.error


def test_batches_have_every_image_once_per_epoch():
    features = np.arange(10, dtype=np.float32)[:, np.newaxis]
    batches = list(islice(feature_batches(features, np.arange(10), 4, seed=3), 5))
    shown = np.concatenate([labels for _, labels in batches])
    for epoch in (shown[:10], shown[10:]):
        assert sorted(epoch) == list(range(10))
    assert list(shown[:10]) != list(shown[10:])
    assert all((rows[:, 0] == labels).all() for rows, labels in batches)
    again = np.concatenate(
        [y for _, y in islice(feature_batches(features, np.arange(10), 4, 3), 5)]
    )
    np.testing.assert_array_equal(shown, again)
