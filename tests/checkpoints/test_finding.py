"""Tests of finding the latest checkpoint of a folder."""

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from slim.checkpoints.finding import find_checkpoint, latest_checkpoint, new_checkpoints
from slim.common.errors import UserError
from tests.support import write_checkpoint


@pytest.fixture
def run_dir(tmp_path) -> Path:
    """A folder with checkpoints of the steps 9 and 10, and without the data of step 11."""
    for step in (9, 10, 11):
        write_checkpoint(tmp_path / f"run/model.ckpt-{step}", {"w": np.float32(step)})
    (tmp_path / "run/model.ckpt-11.data-00000-of-00001").unlink()
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (None, "checkpoint is missing"),
        ("", "checkpoint is not valid"),
        ("\xff\x00", "checkpoint is not valid"),
        ('model_checkpoint_path: "model.ckpt-12"\n', "model.ckpt-12, which is missing or incompl"),
        ('model_checkpoint_path: "model.ckpt-11"\n', "model.ckpt-11, which is missing or incompl"),
    ],
)
def test_without_a_valid_state_the_newest_complete_checkpoint_is_taken(
    run_dir, state, problem, capsys
):
    (run_dir / "checkpoint").unlink()
    if state is not None:
        (run_dir / "checkpoint").write_text(state, "latin-1")
    expected = f"{run_dir}/model.ckpt-10"
    assert latest_checkpoint(run_dir) == find_checkpoint(f"{run_dir}/") == expected
    assert list(islice(new_checkpoints(str(run_dir), 0), 1)) == [expected]
    (line,) = capsys.readouterr().err.splitlines()  # once per process
    assert line.startswith("warning: ")
    assert problem in line
    assert line.endswith(f": taking the newest complete one, {expected}")


def test_the_state_takes_precedence_over_the_step(run_dir, capsys):
    (run_dir / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-9"\n')
    assert latest_checkpoint(run_dir) == f"{run_dir}/model.ckpt-9"
    assert capsys.readouterr().err == ""


def test_a_folder_without_a_complete_checkpoint(run_dir, capsys):
    for path in run_dir.glob("model.ckpt-*"):
        path.unlink()
    assert latest_checkpoint(run_dir) is None
    assert "names" in capsys.readouterr().err
    with pytest.raises(UserError, match="holds no checkpoint"):
        find_checkpoint(str(run_dir))
    shutil.rmtree(run_dir)
    assert latest_checkpoint(run_dir) is None
    assert capsys.readouterr().err == ""


def test_a_fetched_model_stands_for_its_folder_but_not_a_run_for_the_folder_above(tmp_path):
    fetched = tmp_path / "inception/inception_v3_iNat_299"
    prefix = write_checkpoint(fetched / "model.ckpt-12345", {"w": np.float32(1)}, latest=False)
    (fetched / "model.ckpt-12345.index").rename(fetched / "other.index")
    (fetched / "model.ckpt-12345.data-00000-of-00001").rename(fetched / "other.data-00000-of-00001")
    expected = prefix.replace("model.ckpt-12345", "other")
    assert find_checkpoint(f"{fetched}.ckpt") == find_checkpoint(str(fetched)) == expected
    with pytest.raises(UserError, match="holds no checkpoint"):
        find_checkpoint(str(fetched.parent))


def test_ends_with_the_checkpoint_that_completes_training(run_dir, monkeypatch):
    """Training says it after evaluation has begun to wait; what it said of an older run is past."""
    last = latest_checkpoint(run_dir)
    (run_dir / "done").write_text("model.ckpt-1\n")
    monkeypatch.setattr("time.sleep", lambda _: (run_dir / "done").write_text(Path(last).name))
    assert list(new_checkpoints(str(run_dir), 0, until_done=True)) == [last]
