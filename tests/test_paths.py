"""Tests of paths that TensorFlow or the system would take for something else."""

from pathlib import Path

import pytest

from slim import (
    classify,
    convert_dataset,
    eval_image_classifier,
    export,
    feature_extraction,
    inspect_checkpoint,
    long_tail,
    train_image_classifier,
)
from slim.checkpoints import __main__ as fetch
from slim.common.errors import UserError
from slim.datasets.prepare import __main__ as prepare
from slim.datasets.registry import (
    DatasetDescription,
    SplitDescription,
    conversion_command,
    removal,
)
from slim.datasets.tfrecord import LISTS
from slim.serving.classifier import load_classifier
from slim.transfer import study
from tests.support import invoke

STUDY = ("--sources=colours", "--targets=colours", "--fine_tune")


@pytest.mark.parametrize("character", ["[a]", "*", "?", "\\"])
@pytest.mark.parametrize(
    ("command", "flag", "more"),
    [
        (train_image_classifier, "train_dir", ["--dataset_name=colours"]),
        (
            train_image_classifier,
            "checkpoint_path",
            ["--train_dir=run", "--dataset_name=colours"],
        ),
        (eval_image_classifier, "checkpoint_path", ["--dataset_name=colours"]),
        (feature_extraction, "checkpoint_path", ["--dataset_name=colours"]),
        (classify, "checkpoint_path", [__file__]),
        (export, "output_dir", ["--checkpoint_path=run"]),
        (fetch, "checkpoints_dir", ["inception_v3_iNat_299"]),
        (study, "output_dir", STUDY),
    ],
)
def test_a_pattern_is_no_path_of_checkpoints(
    command, flag, more, character, colours, tmp_path, monkeypatch
):
    """TensorFlow would delete the checkpoints of other folders that match, or find none."""
    monkeypatch.chdir(tmp_path)
    if command is not classify:
        more = [*more, f"--dataset_dir={colours}"]
    done = invoke(command, f"--{flag}=runs/{character}/b", *more)
    assert done.code == 1
    expected = f"error: --{flag}=runs/{character}/b: TensorFlow takes a path of checkpoints with "
    assert done.error.splitlines()[-1].startswith(expected)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (train_image_classifier, "train_dir"),
        (train_image_classifier, "dataset_dir"),
        (eval_image_classifier, "eval_dir"),
        (eval_image_classifier, "checkpoint_path"),
        (feature_extraction, "output_dir"),
        (convert_dataset, "dataset_dir"),
        (prepare, "from_folders"),
        (export, "output_dir"),
        (classify, "images"),
        (inspect_checkpoint, "checkpoint_path"),
        (long_tail, "files"),
        (fetch, "checkpoints_dir"),
        (study, "checkpoints"),
    ],
)
@pytest.mark.parametrize("address", ["gs://bucket/run", "s3://bucket/run", "hdfs:/run"])
def test_an_address_is_no_local_path(command, flag, address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke(command, f"--{flag}={address}")
    assert done.code == 1
    expected = f"error: --{flag}={address}: expected a local file or folder; copy the files here"
    assert done.error.startswith(expected)
    assert done.error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "expected"), [("gs://bucket/run", "local"), (Path("gs://bucket/run"), "local")]
)
def test_the_python_interface_refuses_them_too(path, expected):
    with pytest.raises(UserError, match=expected):
        load_classifier(path)


def test_a_comma_separates_networks(tmp_path):
    run = tmp_path / "warblers, terns"
    run.mkdir()
    done = invoke(eval_image_classifier, f"--checkpoint_path={run}", "--dataset_name=colours")
    assert done.code == 1
    assert "a comma separates the networks of an ensemble; rename the folder" in done.error
    done = invoke(study, *STUDY, f"--output_dir={run}")
    assert (done.code, "separates networks by commas" in done.error) == (1, True)


def test_commands_in_messages_are_quoted_for_the_shell():
    assert conversion_command("own", "my data").endswith(
        "--dataset_name=own '--dataset_dir=my data'"
    )
    assert "'--dataset_dir=my data' --adopt`" in removal(Path("my data/own"), None)
    split = SplitDescription(samples=1, skipped=0, shard_bytes=[1], list_sha256="0")
    splits = dict.fromkeys(LISTS, split)
    converted = DatasetDescription(2, seed=0, verified=True, on_error="fail", splits=splits)
    assert (
        "(rm -f 'my data/own'/train_?????-of-00001.tfrecord "
        "'my data/own'/validation_?????-of-00001.tfrecord 'my data/own'/dataset.json)"
    ) in removal(Path("my data/own"), converted)
