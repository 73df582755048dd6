"""The last layer on cached features: what it learns, what it leaves alone, what it refuses."""

import re
from itertools import islice

import numpy as np
import pytest

from slim import train_image_classifier as training
from slim.cached_features import feature_batches
from slim.compat import tf
from slim.errors import run_command
from tests.conftest import NUM_CLASSES, NUM_TRAIN

RATE, DECAY, STEPS = 0.001, 0.01, 4


def train(capsys, colours, train_dir, *flags: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        run_command(
            training.define_flags,
            training.main,
            [
                "train",
                f"--dataset_dir={colours}",
                "--dataset_name=colours",
                "--model_name=resnet_v2_50",
                "--train_image_size=32",
                f"--train_dir={train_dir}",
                *flags,
            ],
        )
    return stopped.value.code, *capsys.readouterr()


@pytest.fixture
def source(colours, tmp_path, capsys) -> str:
    """A checkpoint to begin from, whose averages are those of its batches."""
    code, _, error = train(
        capsys,
        colours,
        tmp_path / "source",
        "--max_number_of_steps=3",
        "--batch_size=8",
        "--batch_norm_decay=0.1",
        "--learning_rate=0.00001",
    )
    assert code == 0, error
    return str(tmp_path / "source/model.ckpt-3")


def cached(capsys, colours, train_dir, source: str, *flags: str) -> tuple[int, str, str]:
    return train(
        capsys,
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
        f"--batch_size={NUM_TRAIN}",  # the gradient of all images, whatever their order
        *flags,
    )


def test_learns_what_logistic_regression_by_gradient_descent_learns(
    colours, source, tmp_path, capsys
):
    code, out, error = cached(
        capsys, colours, tmp_path / "run", source, f"--max_number_of_steps={STEPS}"
    )
    assert code == 0, error
    features = np.load(tmp_path / "run/features/colours_feature_train.npy")
    labels = np.load(tmp_path / "run/features/colours_label_train.npy")
    np.testing.assert_array_equal(np.bincount(labels), [NUM_TRAIN // NUM_CLASSES] * NUM_CLASSES)
    begun = tf.train.load_checkpoint(str(tmp_path / "run/model.ckpt-0"))
    weights = begun.get_tensor("resnet_v2_50/logits/weights")[0, 0].astype(np.float64)
    biases = begun.get_tensor("resnet_v2_50/logits/biases").astype(np.float64)
    for _ in range(STEPS):
        scores = features @ weights + biases
        scores = np.exp(scores - scores.max(1, keepdims=True))
        error = scores / scores.sum(1, keepdims=True) - np.eye(NUM_CLASSES)[labels]
        weights -= RATE * (features.T @ error / NUM_TRAIN + DECAY * weights)
        biases -= RATE * error.mean(0)
    after = tf.train.load_checkpoint(str(tmp_path / f"run/model.ckpt-{STEPS}"))
    found = after.get_tensor("resnet_v2_50/logits/weights")[0, 0]
    np.testing.assert_allclose(found, weights, atol=1e-4 * np.abs(weights).max())
    np.testing.assert_allclose(after.get_tensor("resnet_v2_50/logits/biases"), biases, atol=1e-5)
    before = tf.train.load_checkpoint(source)
    for name in before.get_variable_to_shape_map():
        if "logits" not in name and name != "global_step" and not name.endswith("Momentum"):
            np.testing.assert_array_equal(after.get_tensor(name), before.get_tensor(name), name)

    code, out, error = cached(
        capsys, colours, tmp_path / "run", source, f"--max_number_of_steps={STEPS + 1}"
    )
    assert code == 0, error
    assert "nothing to do: " in out  # the features are there
    assert re.search(rf"^step {STEPS + 1} of {STEPS + 1}, loss ", out, re.M)


def test_what_cannot_be_cached_is_refused(colours, source, tmp_path, capsys):
    for flags, message in (
        (["--augment"], "distorted images have other features every time; give --noaugment"),
        (["--checkpoint_path="], "--checkpoint_path is missing"),
        (["--num_clones=2", "--clone_on_cpu"], "leave --num_clones out"),
        (["--preprocessing_name=vgg"], "leave --preprocessing_name out"),
        (["--trainable_scopes=block4,logits"], "below the last layer are to be trained, such as"),
    ):
        code, _, error = cached(
            capsys, colours, tmp_path / "run", source, "--max_number_of_steps=1", *flags
        )
        assert code == 1
        assert re.fullmatch(f"(?s).*error: --cache_features: .*{message}.*\n", error), error


def test_batches_have_every_image_once_an_epoch():
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
