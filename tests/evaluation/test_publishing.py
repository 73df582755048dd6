"""Tests of the lines and the files with results."""

import io
import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.input import Dataset
from slim.evaluation.predictions import Predictions, load_predictions, read_results
from slim.evaluation.publishing import Publisher, run_name

BIRDS = Dataset(name="birds", split_name="validation", files=(), num_samples=4, num_classes=2)


def predictions(step: int, first: list[int]) -> Predictions:
    """Returns predictions for images of class 0, given their likeliest classes."""
    top = np.array([[label, 1 - label] if label >= 0 else [-1, -1] for label in first])
    labels = np.zeros(len(first), np.int64)
    losses = np.where(top[:, 0] < 0, np.nan, np.float32(np.log(2)))
    shares = np.full(top.shape, 0.5, np.float32)
    return Predictions(step, labels, top, shares, 2, losses=losses, ranks=1 + top[:, 0])


def publish(folder: Path | None, found: Predictions, *, per_class: bool = False) -> None:
    publisher = Publisher(folder and str(folder), BIRDS, per_class=per_class)
    publisher.report(found, f"model.ckpt-{found.step}", ".")
    publisher.save(found, f"model.ckpt-{found.step}", ".")


@pytest.mark.parametrize(
    ("sizes", "split_name", "expected"),
    [
        ([48], "validation", "."),
        ([299], "validation", "eval_299"),
        ([48], "train", "eval_train"),
        ([64], "train", "eval_train_64"),
        ([48, 64], "validation", "eval_48+64"),
        ([48, 48, 64], "validation", "eval_mean"),
    ],
)
def test_runs_of_other_sizes_and_splits_have_other_names(sizes, split_name, expected):
    assert run_name(sizes, 48, split_name) == expected


def test_logits_that_are_not_finite_are_reported(capsys):
    publish(None, predictions(3, [-1, 0, -1]))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "step 3: eval/Accuracy 0.3333, eval/Recall_5 0.3333, eval/Loss 0.6931, 3 images, "
    )
    assert second.startswith("2 images have logits that are not finite")


def test_two_evaluations_into_one_folder_at_once(tmp_path, monkeypatch):
    """The second publishes while the first writes, in the same second: both are complete."""
    save = np.savez_compressed

    def save_amid_another(file: io.BufferedWriter, **arrays: np.ndarray) -> None:
        monkeypatch.setattr(np, "savez_compressed", save)
        with mock.patch("os.getpid", return_value=1):
            publish(tmp_path, predictions(7, [0, 0, 0, 0]), per_class=True)
        save(file, **arrays)

    monkeypatch.setattr(np, "savez_compressed", save_amid_another)
    publish(tmp_path, predictions(7, [0, 1, 1, 1]), per_class=True)
    found = [
        value.simple_value
        for events in tmp_path.glob("events*")
        for event in tf.train.summary_iterator(str(events))
        for value in event.summary.value
        if value.tag == "eval/Accuracy"
    ]
    assert sorted(found) == [0.25, 1]
    assert load_predictions(tmp_path / "predictions-7.npz").accuracy == 0.25
    assert read_results(tmp_path)["accuracy"] == 0.25
    assert not list(tmp_path.glob("*.tmp"))


def test_a_folder_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # as for others than the superuser
    with pytest.raises(UserError, match=f"--eval_dir={tmp_path}: no permission to write"):
        Publisher(str(tmp_path), BIRDS, per_class=False)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "savez_compressed", mock.Mock(side_effect=OSError(28, "No space")))
    with pytest.raises(UserError, match=f"^--eval_dir={tmp_path}: cannot write there .*No space"):
        publish(tmp_path, predictions(7, [0]), per_class=True)


def test_temporary_files_of_killed_evaluations_are_removed(tmp_path):
    """Another evaluation may be writing a file that has just changed."""
    for name in ("results.json.a-1.tmp", "predictions-7.npz.a-1.tmp", "results.json", "other.tmp"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "results.json.a-2.tmp").touch()
    Publisher(str(tmp_path), BIRDS, per_class=False)
    kept = ["other.tmp", "results.json", "results.json.a-2.tmp"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
