"""Tests of the checkpoints to evaluate and of the files with results."""

import io
import os
import shutil
import threading
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from slim.checkpoints.description import ModelDescription, write_model_description
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.registry import Dataset
from slim.evaluation.ensemble import EnsembleMember
from slim.evaluation.evaluator import Outputs
from slim.evaluation.predictions import load_predictions, read_results
from slim.evaluation.results import Publisher, checkpoints_to_evaluate, run_name
from tests.support import TIMEOUT, wait_until, write_checkpoint

BIRDS = {
    "dataset": Dataset(
        name="birds", split_name="validation", files=(), num_samples=4, num_classes=2
    ),
    "num_classes": 2,
}


def write_one_variable(folder: Path, step: int) -> str:
    return write_checkpoint(
        folder / f"model.ckpt-{step}", {"w": np.float32(0), "global_step": step}
    )


def test_watches_a_folder_for_new_checkpoints(tmp_path, capsys):
    """The folder may be empty, or not exist yet."""
    checkpoints_to_evaluate(str(tmp_path), 0, None)
    assert capsys.readouterr().out == f"waiting for a first checkpoint in {tmp_path}\n"
    tmp_path /= "to_come"
    found = []
    checkpoints = checkpoints_to_evaluate(str(tmp_path), 0, None)
    watcher = threading.Thread(
        target=lambda: found.extend(next(checkpoints) for _ in range(2)), daemon=True
    )
    watcher.start()
    first = write_one_variable(tmp_path, 1)
    wait_until(lambda: found)
    # A checkpoint that is deleted before its turn is skipped.
    second = write_one_variable(tmp_path, 2)
    watcher.join(TIMEOUT)
    assert found == [first, second]
    assert f"waiting for a first checkpoint in {tmp_path}" in capsys.readouterr().out


def test_a_checkpoint_that_does_not_exist_is_not_waited_for(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint at .*model\.ckpt-3"):
        checkpoints_to_evaluate(str(tmp_path / "model.ckpt-3"), 0, None)


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
def test_runs_of_other_sizes_and_splits_have_other_names(sizes, split_name, expected, tmp_path):
    """The network was trained at 48 pixels."""
    write_model_description(tmp_path, ModelDescription("net", 48, "vgg", "birds", ("a", "b")))
    checkpoint = str(tmp_path / "model.ckpt-1")
    members = [EnsembleMember(checkpoint, "net", None, size, None) for size in sizes]
    assert run_name(members, checkpoint, split_name) == expected


def test_logits_that_are_not_finite_are_reported(capsys):
    top = np.array([[-1, -1], [0, 1], [-1, -1]])
    outputs = Outputs(np.array([0, 0, 1]), top, np.zeros((3, 2), np.float32), None)
    nothing = dict.fromkeys(("class_names", "class_sizes", "eval_dir"))
    Publisher(**BIRDS, per_class=False, **nothing).publish(outputs, 3, "model.ckpt-3")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("step 3: eval/Accuracy 0.3333, eval/Recall_5 0.3333, 3 images, ")
    assert second.startswith("2 images have logits that are not finite")


def test_two_evaluations_into_one_folder_at_once(tmp_path, monkeypatch):
    """The second publishes while the first writes, in the same second: both are complete."""

    def publish(right: list[int], step: int) -> None:
        top = np.stack([1 - np.array(right), right], axis=1)
        outputs = Outputs(np.zeros(4, np.int64), top, np.full((4, 2), 0.5, np.float32), None)
        publisher = Publisher(
            **BIRDS,
            class_names=None,
            class_sizes=None,
            eval_dir=str(tmp_path),
            per_class=True,
        )
        publisher.publish(outputs, step, "model.ckpt")

    save = np.savez_compressed

    def save_amid_another(file: io.BufferedWriter, **arrays: np.ndarray) -> None:
        monkeypatch.setattr(np, "savez_compressed", save)
        with mock.patch("os.getpid", return_value=1):
            publish([1, 1, 1, 1], 7)
        save(file, **arrays)

    monkeypatch.setattr(np, "savez_compressed", save_amid_another)
    publish([1, 0, 0, 0], 7)
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
    nothing = dict.fromkeys(("class_names", "class_sizes"))
    publisher = Publisher(**BIRDS, per_class=False, eval_dir=str(tmp_path), **nothing)
    with pytest.raises(UserError, match=f"--eval_dir={tmp_path}: no permission to write"):
        publisher.make_folder()


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "savez_compressed", mock.Mock(side_effect=OSError(28, "No space")))
    names = dict.fromkeys(("class_names", "class_sizes"))
    publisher = Publisher(**BIRDS, per_class=True, eval_dir=str(tmp_path), **names)
    outputs = Outputs(np.zeros(1, np.int64), np.array([[0, 1]]), np.full((1, 2), 0.5), None)
    with pytest.raises(UserError, match=f"^--eval_dir={tmp_path}: cannot write there .*No space"):
        publisher.publish(outputs, 7, "model.ckpt-7")


def test_temporary_files_of_killed_evaluations_are_removed(tmp_path):
    """Another evaluation may be writing a file that has just changed."""
    for name in ("results.json.a-1.tmp", "predictions-7.npz.a-1.tmp", "results.json", "other.tmp"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "results.json.a-2.tmp").touch()
    nothing = dict.fromkeys(("class_names", "class_sizes"))
    Publisher(**BIRDS, per_class=False, eval_dir=str(tmp_path), **nothing).make_folder()
    kept = ["other.tmp", "results.json", "results.json.a-2.tmp"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
