"""The shell scripts: published defaults, settings from the environment, what passes through."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, run

PUBLISHED_TRAINING = {
    "train_dir": "./checkpoints/cub_200",
    "dataset_dir": "./data/",
    "dataset_name": "cub_200",
    "model_name": "inception_v3",
    "checkpoint_path": "./checkpoints/inception/inception_v3_iNat_299.ckpt",
    "checkpoint_exclude_scopes": "Logits",
    "trainable_scopes": "Logits",
    "optimizer": "momentum",
    "learning_rate": "0.01",
    "end_learning_rate": "0.0001",
    "learning_rate_decay_factor": "0.1",
    "num_epochs_per_decay": "10.0",
    "batch_size": "64",
    "train_image_size": "299",
    "max_number_of_steps": "2810",
    "log_every_n_steps": "10",
    "save_summaries_secs": "10",
    "save_interval_secs": "60",
}
PUBLISHED_EVALUATION = {
    "checkpoint_path": "./checkpoints/cub_200",
    "eval_dir": "./checkpoints/cub_200",
    "dataset_dir": "./data/",
    "dataset_name": "cub_200",
    "model_name": "inception_v3",
    "batch_size": "100",
    "eval_image_size": "299",
    "eval_interval_secs": "0",
}


def command_of(script: str, *arguments: str, **env: str) -> tuple[list[str], dict[str, str]]:
    """The module that a script runs, and the flags that it gives, by way of `echo` for Python."""
    done = run(f"./{script}", *arguments, env={"PYTHON": "echo", **env})
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    flags = [word for word in words if word.startswith("--")]
    assert all("=" in flag for flag in flags)
    return words[:2], dict(flag[2:].split("=", 1) for flag in flags)


@pytest.mark.parametrize(
    ("script", "module", "published"),
    [
        ("train.sh", "slim.train_image_classifier", PUBLISHED_TRAINING),
        ("eval.sh", "slim.eval_image_classifier", PUBLISHED_EVALUATION),
    ],
)
def test_published_defaults(script, module, published):
    assert command_of(script) == (["-m", module], published)


def test_settings_come_from_the_environment_and_flags_pass_through():
    _, flags = command_of(
        "train.sh", "--num_clones=2", "--seed=1", DATASET_NAME="aircraft", LR="0.001"
    )
    expected = {
        "dataset_name": "aircraft",
        "train_dir": "./checkpoints/aircraft",
        "learning_rate": "0.001",
        "num_clones": "2",
        "seed": "1",
    }
    assert flags == {**PUBLISHED_TRAINING, **expected}
    _, flags = command_of("eval.sh", "--max_number_of_evaluations=1", MODEL_DIR="/a b/c")
    assert flags["max_number_of_evaluations"] == "1"


def test_empty_settings_train_everything_from_random_weights():
    _, flags = command_of(
        "train.sh", CHECKPOINT_PATH="", CHECKPOINT_EXCLUDE_SCOPES="", TRAINABLE_SCOPES=""
    )
    assert flags["checkpoint_path"] == flags["trainable_scopes"] == ""


def test_missing_shards_and_checkpoints_say_which_command_makes_them(colours, tmp_path):
    env = {"DATASET_NAME": "none", "DATASET_DIR": str(tmp_path), "MODEL_DIR": f"{tmp_path}/model"}
    (tmp_path / "none").mkdir()
    done = run("./eval.sh", env=env)
    assert done.returncode == 1
    assert f"python convert_dataset.py --dataset_name=none --dataset_dir={tmp_path}" in done.stderr
    env |= {"DATASET_NAME": "colours", "DATASET_DIR": str(colours), "CHECKPOINT_PATH": "none.ckpt"}
    done = run("./train.sh", env=env)
    assert done.returncode == 1
    assert "no checkpoint at none.ckpt" in done.stderr
    assert "./train.sh writes them, for the released models see checkpoints/README.md" in (
        done.stderr
    )


def test_scripts_work_from_any_folder(tmp_path):
    done = run("sh", "-c", f"cd {tmp_path} && PYTHON=echo {ROOT}/train.sh")
    assert done.returncode == 0
    assert done.stdout.startswith("-m slim.train_image_classifier")


def test_install_says_what_it_needs(tmp_path):
    for name in ("install.sh", "requirements.txt", "tests/requirements.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    done = run(tmp_path / "install.sh", env={"PYTHON": "/nowhere/python"})
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Python 3.10 to 3.13")
    assert "/nowhere/python" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_installed_is_not_installed_again(tmp_path):
    """With a stamp of the same requirements and a Python in .venv nothing is run."""
    if not (ROOT / ".venv/bin/python").exists() or not list(Path(ROOT).glob(".venv/installed-*")):
        pytest.skip("not run in a folder that install.sh has installed")
    done = run("./install.sh", "-r", "tests/requirements.txt", env={"PYTHON": "/nowhere/python"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_pipe_that_is_closed_early_is_no_error():
    for command in ("slim.checkpoints --list", "slim.datasets.prepare --help"):
        done = run(
            "bash", "-c", f"{sys.executable} -m {command} | head -1; exit ${{PIPESTATUS[0]}}"
        )
        assert done.stderr == ""
        assert len(done.stdout.splitlines()) == 1
        assert done.returncode in (0, 141)
