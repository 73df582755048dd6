"""The best checkpoint of a folder of evaluations."""

import json
from contextlib import suppress
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from slim.checkpoints.finding import find_checkpoint
from slim.checkpoints.reading import check_readable, read_step
from slim.common.errors import UserError
from slim.evaluation.candidates import Candidate
from slim.evaluation.predictions import Predictions
from tests.support import write_checkpoint


def evaluate(folder: Path, step: int, right: int, *, averages: bool = False) -> None:
    """Keeps a checkpoint of a step, whose files training deletes meanwhile, if it is the best."""
    prefix = write_checkpoint(folder / f"train/model.ckpt-{step}", {"w": 0.5, "global_step": step})
    (folder / "train/model.json").write_text("{}")
    candidate = Candidate(prefix, averages=averages)
    for path in (folder / "train").glob("model.ckpt*"):
        path.unlink()
    labels, shares = np.arange(10) >= right, np.ones((10, 1), np.float32)
    top, losses = np.zeros((10, 1), np.int64), np.zeros(10)
    found = Predictions(step, labels.astype(int), top, shares, 2, losses=losses, ranks=1 + labels)
    candidate.keep_if_best(folder, found)


def kept(folder: Path) -> tuple[int, float]:
    """Returns the step of the checkpoint that is kept, and the accuracy next to it."""
    checkpoint = find_checkpoint(str(folder / "best"))
    check_readable(checkpoint)
    assert (folder / "best/model.json").read_text() == "{}"
    figures = json.loads((folder / "best/results.json").read_text())
    assert figures["checkpoint"] == checkpoint
    assert figures["step"] == read_step(checkpoint)
    return figures["step"], figures["accuracy"]


def test_the_first_of_the_most_accurate_is_kept(tmp_path):
    """Also over restarts, and of a run that begins again with the same steps."""
    for step, right, expected in ((1, 3, 1), (2, 5, 2), (3, 5, 2), (4, 4, 2), (2, 6, 2), (5, 9, 5)):
        evaluate(tmp_path, step, right)
        assert kept(tmp_path)[0] == expected
        files = [path.name for path in (tmp_path / "best").glob("model.ckpt*")]
        assert len(files) == 2 and not list((tmp_path / "best").glob("*.tmp"))
    assert kept(tmp_path) == (5, 0.9)
    with pytest.raises(UserError, match="best is of another model, on other images, or only one"):
        evaluate(tmp_path, 6, 10, averages=True)
    assert kept(tmp_path) == (5, 0.9)


@pytest.mark.parametrize("moment", range(12))
def test_a_killed_evaluation_leaves_one_of_both_whole(moment, tmp_path):
    """It is killed before it replaces or removes the next file."""
    evaluate(tmp_path, 1, 3)
    left = iter(range(moment))

    class Killed(BaseException):
        pass

    def step(method):
        def run(*arguments, **options):
            if next(left, None) is None:
                raise Killed
            return method(*arguments, **options)

        return run

    with (
        mock.patch.object(Path, "replace", step(Path.replace)),
        mock.patch.object(Path, "unlink", step(Path.unlink)),
        suppress(Killed),
    ):
        evaluate(tmp_path, 2, 5)
    checkpoint = find_checkpoint(str(tmp_path / "best"))
    check_readable(checkpoint)
    left = read_step(checkpoint)
    evaluate(tmp_path, 3, 4)  # better than the first only
    assert kept(tmp_path) == {1: (3, 0.4), 2: (2, 0.5)}[left]
