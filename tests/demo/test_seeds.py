"""The demo with several seeds: made-up claims and scripts in its place."""

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from demo import seeds
from demo.claims import CLAIMS, DATA, SOURCES, TARGETS, Claim, write_claims
from slim.evaluation.intervals import Estimate
from tests.conftest import run
from tests.support import ROOT, invoke


def write_run(folder: Path, seed: int, figure: float, *, full: bool = False) -> None:
    """Writes the claims of a finished demo."""
    estimate = Estimate(figure, figure - 1, figure + 1)
    path = folder / f"seed_{seed}" / CLAIMS
    path.parent.mkdir(parents=True)
    more = [Claim("f", "a is better", estimate, least=-3)] if full else []
    write_claims(path, [Claim("k", "a is better", estimate), *more], full=full)


def test_finished_seeds_are_only_summarized(tmp_path):
    for seed, figure in ((1, 3.0), (2, 5.0), (3, -1.0)):
        write_run(tmp_path, seed, figure, full=seed < 3)
    done = invoke(seeds, "--seeds=3", "--full_seeds=2", f"--folder={tmp_path}")
    assert done.code == 0, done.error
    table = (tmp_path / "claims.md").read_text()
    assert table in done.output
    spread = np.std([3, 5, -1], ddof=1)
    assert (
        f"| a is better (points) | +2.3 | {spread:.1f} | -1.0 | +5.0 | {7 / 3 / spread:.1f} "
        "| 2 of 3 | 2 holds, 1 within noise |"
    ) in table
    # Its margin is above -3.
    margin = 7 / np.std([3, 5], ddof=1)
    assert f"| +4.0 | 1.4 | +3.0 | +5.0 | {margin:.1f} | 2 of 2 | 2 holds |" in table
    assert not (tmp_path / DATA).exists()


def test_a_demo_is_complete_with_all_its_claims(tmp_path):
    write_run(tmp_path, 1, 3.0)
    write_run(tmp_path, 2, 3.0, full=True)
    one, two, three = (tmp_path / f"seed_{seed}" for seed in (1, 2, 3))
    assert seeds.Demo(1, False, one).claims and not seeds.Demo(1, True, one).claims
    assert seeds.Demo(2, False, two).claims and seeds.Demo(2, True, two).claims
    assert seeds.Demo(3, False, three).claims is None


def test_the_folder_of_a_seed_has_the_scripts_and_the_shared_datasets(tmp_path):
    runs, folder = tmp_path / "runs", tmp_path / "runs/seed_1"
    for name in (*SOURCES, *TARGETS):
        (runs / DATA / name).mkdir(parents=True)
    for _ in range(2):
        seeds.link_files(folder, runs)
    assert (folder / "data/toy_cars").samefile(runs / "data/toy_cars")
    assert not (folder / "data").is_symlink() and not (folder / "checkpoints").exists()
    done = run(folder / "demo.sh", "--wrong")
    assert (done.returncode, done.stderr) == (
        1,
        "error: ./demo.sh --wrong: expected nothing, or --full\n",
    )


def test_a_seed_is_checked_first():
    done = run(ROOT / "demo.sh", env={"SEED": "abc"})
    assert done.returncode == 1
    assert done.stderr == "error: SEED=abc: expected a whole number, such as SEED=1\n"


def start_demo(folder: Path, script: str) -> None:
    """Runs a script as the demo with seed 5."""
    path = folder / "demo.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    asyncio.run(seeds.run_demos([seeds.Demo(5, True, folder)], 2))


def test_a_demo_runs_with_its_seed_and_its_log(tmp_path, capfd):
    start_demo(tmp_path, 'echo "seed $SEED" "$@"; exit 3')
    assert (tmp_path / "demo.log").read_text() == "seed 5 --full\n"
    assert "seed 5: failed with exit code 3" in capfd.readouterr().out


def test_ctrl_c_ends_the_demos(tmp_path, capfd, monkeypatch):
    # The parent calls this when it has started the demo.
    monkeypatch.setattr(seeds.os, "sched_setaffinity", lambda *_: (tmp_path / "started").touch())
    script = "trap 'echo ended; exit' INT; until [ -e started ]; do sleep 0.1; done"
    # Background processes of a shell ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            start_demo(tmp_path, f"{script}; kill -INT $PPID; sleep 600")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "demo.log").read_text() == "ended\n"
    assert "seed 5: interrupted, training saves a checkpoint" in capfd.readouterr().out


def test_damaged_claims_are_an_error(tmp_path):
    write_run(tmp_path, 1, 3.0)
    (tmp_path / "seed_1" / CLAIMS).write_text('{"full": tr')
    done = invoke(seeds, "--seeds=2", f"--folder={tmp_path}")
    assert done.code == 1 and "claims.json is not a file of claims of the demo" in done.error


def test_every_worker_has_cores():
    for count in (1, 2, 5):
        shares = seeds.share_cores(count)
        assert len(shares) == count and all(shares)
        assert set.union(*shares) == os.sched_getaffinity(0)
