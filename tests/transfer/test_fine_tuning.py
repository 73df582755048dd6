"""Fine-tuning in the transfer study: the processes that it runs, interrupts and resumes."""

import asyncio
import fcntl
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slim.checkpoints.reading import read_shapes
from slim.common import files
from slim.common.files import exclusive
from slim.evaluation.predictions import read_results
from slim.features.feature_files import find_split
from slim.transfer import fine_tuning
from slim.transfer.fine_tuning import share_gpus
from tests.conftest import NUM_VALIDATION, small_values
from tests.support import (
    ROOT,
    SMALL_COMMANDS,
    SMALL_NETWORK,
    SMALL_SIZE,
    wait_until,
    write_checkpoint,
)
from tests.transfer.study_world import (
    PLAIN,
    modified,
    read_labels,
    read_table,
    run_study,
    save_features,
    score,
)

FAKE_COMMANDS = """\
import json, os, signal, sys
from pathlib import Path
module = sys.argv[2]
flags = dict(flag[2:].partition("=")[::2] for flag in sys.argv[3:])
folder = Path(flags["train_dir" if "train" in module else "checkpoint_path"])
(folder / "calls.txt").open("a").write(module + "\\n")
(folder / "gpus.txt").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
if "eval" in module:
    results = {"step": 4, "accuracy": 0.75, "recall_5": 1.0, "num_images": 14}
    Path(flags["eval_dir"]).mkdir()
    Path(flags["eval_dir"], "results.json").write_text(json.dumps(results))
elif "plants" in str(folder) and BEHAVIOUR == "fail":
    sys.exit("error: the loss is not finite")
else:
    if BEHAVIOUR == "slow":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        (folder / "started").touch()
        signal.sigwait([signal.SIGTERM])
        (folder / "model.ckpt-2.index").touch()
        sys.exit(143)
    for step in (0, 4):
        (folder / f"model.ckpt-{step}.index").touch()
"""


@pytest.fixture
def replace_python(tmp_path, monkeypatch) -> Callable[[str], None]:
    """Replaces the interpreter that runs training and evaluation by a script."""
    script = tmp_path / "python"

    def replace(code: str) -> None:
        script.write_text(f"#!{sys.executable}\n{code}")
        script.chmod(0o755)

    replace("")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(fine_tuning, "PYTHON", str(script))
    return replace


@pytest.fixture
def commands(replace_python) -> Callable[[str], None]:
    """Replaces training and evaluation; takes how training ends: good, fail or slow."""
    return lambda behaviour: replace_python(f"BEHAVIOUR = {behaviour!r}\n{FAKE_COMMANDS}")


@pytest.fixture
def tuning(world, colours) -> dict[str, object]:
    """Flags of a study with two sources and a converted target, whose features exist."""
    for name in PLAIN:
        for split_name in ("train", "val"):
            split = find_split("colours", split_name, str(colours), world / "feature" / name)
            save_features(world, name, split, np.eye(3)[read_labels(split)])
    return {
        "sources": ",".join(PLAIN),
        "targets": "colours",
        "checkpoints": ",".join(str(world / "checkpoints" / name) for name in PLAIN),
        "dataset_dir": colours,
        "similarity": False,
        "fine_tune": True,
        "fine_tune_steps": 4,
        "num_workers": 2,
    }


def test_only_a_failed_training_is_repeated(world, commands, tuning, monkeypatch):
    commands("fail")
    done = run_study(world, **tuning)
    assert done.code == 1
    assert re.fullmatch(
        r"error: 1 of 4 cells failed, the first is plants -> colours: fine-tuned: the loss is not "
        r"finite \(.*/log.txt\); .*\n",
        done.error,
    )
    assert read_table(done.output, "Fine-tuned")["things", "colours"] == "**75.0%**"
    (finished,) = (world / "study/fine_tuned/things").iterdir()
    assert [path.name for path in finished.glob("model*")] == ["model.ckpt-4.index"]
    (tried,) = (world / "study/fine_tuned/plants").iterdir()
    commands("good")
    before = modified(finished)
    # A process that a killed study left running holds the lock until the study waits for it.
    lock = (tried / fine_tuning.LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    calls = (tried / "calls.txt").read_text()
    seen = []

    async def release(seconds: float) -> None:
        seen.append((tried / "calls.txt").read_text())
        lock.close()

    with monkeypatch.context() as changed:
        changed.setattr(asyncio, "sleep", release)
        done = run_study(world, **tuning)
    assert done.code == 0, done.error
    assert "plants -> colours: fine-tuned: waiting for the training" in done.output
    assert seen == [calls]
    assert modified(finished) == before
    assert (tried / "gpus.txt").read_text() == "all" and " on GPU " not in done.output
    modules = [line.split(".")[1] for line in (tried / "calls.txt").read_text().splitlines()]
    assert modules == ["train_image_classifier"] * 2 + ["eval_image_classifier"]
    # Other flags are another run, in another folder.
    tuning["fine_tune_flags"] = "--learning_rate=0.5"
    assert run_study(world, **tuning).code == 0
    assert len(list((world / "study/fine_tuned/plants").iterdir())) == 2


@pytest.mark.parametrize(
    ("count", "visible", "clones", "expected"),
    [
        (4, None, 1, ["0", "1", "2", "3"]),
        (2, "3,GPU-5f,7", 1, ["3", "GPU-5f"]),  # CUDA sees the devices before an invalid one
        (3, "0,1,2", 2, [None]),
        (1, None, 1, [None]),
        (0, "", 1, [None]),
    ],
)
def test_shares_of_gpus(count, visible, clones, expected, monkeypatch):
    monkeypatch.setattr(fine_tuning.tf.config, "list_physical_devices", lambda _: [None] * count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert share_gpus(clones) == expected


def test_each_worker_has_gpus_of_its_own(world, commands, tuning, monkeypatch):
    commands("good")
    monkeypatch.setattr(fine_tuning.tf.config, "list_physical_devices", lambda _: [None] * 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    done = run_study(world, **tuning, fine_tune_flags="--num_clones=2")
    assert done.code == 0, done.error
    assert {path.read_text() for path in world.rglob("gpus.txt")} == {"0,1", "2,3"}
    assert set(re.findall(r"4 steps on GPU (\S+), ", done.output)) == {"0,1", "2,3"}


def test_one_study_at_a_time_writes_to_a_folder(world, monkeypatch):
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.1)
    (world / "study").mkdir()
    with exclusive(world / "study"):
        done = run_study(world)
        assert done.code == 1
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        assert done.error.startswith(f"error: {world}/study is in use by {holder}: ")
        assert [path.name for path in (world / "study").iterdir()] == [".lock"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_trainings_save_checkpoints_when_the_study_is_stopped(
    world, commands, tuning, monkeypatch, number
):
    commands("slow")
    wait, waited_for = asyncio.subprocess.Process.wait, []

    async def note(process: asyncio.subprocess.Process) -> int:
        waited_for.append(process)
        return await wait(process)

    def stop_when_started() -> None:
        wait_until(
            lambda: len(waited_for) == len(list(world.glob("study/fine_tuned/*/*/started"))) == 2
        )
        os.kill(os.getpid(), number)

    monkeypatch.setattr(asyncio.subprocess.Process, "wait", note)
    threading.Thread(target=stop_when_started, daemon=True).start()
    done = run_study(world, **tuning)
    assert done.code == 128 + number
    assert "training saves a checkpoint" in done.output
    assert len(list(world.glob("study/fine_tuned/*/*/model.ckpt-2.index"))) == 2


@pytest.mark.usefixtures("small_network")
def test_trains_and_evaluates_with_the_commands(colours, tmp_path, replace_python):
    checkpoint = write_checkpoint(tmp_path / "net.ckpt", small_values(None))
    replace_python(SMALL_COMMANDS)
    flags = {
        "sources": "recipe",
        "checkpoints": checkpoint,
        "targets": "colours",
        "dataset_dir": colours,
        "model_name": SMALL_NETWORK,
        "image_size": SMALL_SIZE,
        "batch_size": 8,
        "similarity": False,
        "fine_tune": True,
        "fine_tune_steps": 2,
        "fine_tune_flags": "--learning_rate=0.001 --batch_norm_decay=0.5",
    }
    done = run_study(tmp_path, **flags)
    assert done.code == 0, done.error
    (cell,) = json.loads((tmp_path / "study/study.json").read_text())["cells"]
    assert cell["linear"]["accuracy"] == pytest.approx(score(tmp_path, "recipe", "colours"))
    assert cell["fine_tuned"]["step"] == 2 and cell["fine_tuned"]["images"] == NUM_VALIDATION
    train_dir = Path(cell["fine_tuned"]["train_dir"])
    assert cell["fine_tuned"]["accuracy"] == read_results(train_dir / "eval")["accuracy"]
    printed = (train_dir / "eval.txt").read_text().split("eval/Accuracy ")[1].split(",")[0]
    assert cell["fine_tuned"]["accuracy"] == pytest.approx(float(printed), abs=5e-5)
    # All layers were trained, and the classifier has the three classes of the target.
    stored = read_shapes(str(train_dir / "model.ckpt-2"))
    assert stored[f"{SMALL_NETWORK}/logits/biases"] == [3]
    assert f"{SMALL_NETWORK}/conv1/weights/Momentum" in stored
    before = modified(tmp_path)
    assert run_study(tmp_path, **flags).code == 0
    assert modified(tmp_path) == before
