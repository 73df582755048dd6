"""Conversions that are stopped at all kinds of moments, and started again."""

import fcntl
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slim.common import files
from tests.datasets.conftest import (
    Trap,
    add_line,
    contents,
    convert,
    encode,
    flags_of,
    is_running,
    leftovers,
    picture,
    workers_of,
)
from tests.support import ROOT, TIMEOUT, Process, wait_until

TRAIN, VALIDATION = 80, 40  # images, in 10 shards each


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    """A dataset, and the shards of an undisturbed conversion."""
    folder = tmp_path_factory.mktemp("data") / "images"
    folder.mkdir()
    for index in range(TRAIN + VALIDATION):
        (folder / f"{index}.png").write_bytes(encode(picture(index), "PNG"))
        line = f"{index}.png: {index % 2}"
        add_line(folder, line, "train.txt" if index < TRAIN else "val.txt")
    whole = folder.with_name("whole")
    shutil.copytree(folder, whole)
    convert(whole)
    return folder, contents(whole)


@pytest.fixture
def copy(images, tmp_path) -> tuple[Path, dict[str, bytes]]:
    """A copy of the dataset, and the shards of an undisturbed conversion."""
    folder, expected = images
    return Path(shutil.copytree(folder, tmp_path / "copy", copy_function=os.link)), expected


def second_images(folder: Path, num_shards: int, seed: int) -> list[Path]:
    """The second image of each shard, in the order in which the shards are made."""
    found = []
    for name in ("train.txt", "val.txt"):
        images = [line.split(": ")[0] for line in (folder / name).read_text().splitlines()]
        if name == "train.txt":
            random.Random(seed).shuffle(images)
        found += [folder / image for image in images[1 :: len(images) // num_shards]]
    return found


@contextmanager
def held(
    folder: Path, *shards: int, num_shards: int = 10, seed: int = 0, more: str = "--verify"
) -> Iterator[tuple[Process, list[Trap]]]:
    """A conversion by two workers, which wait in the middle of the given shards.

    Its workers have ended after the block, and with them their lock on the folder.
    """
    paths = second_images(folder, num_shards, seed)
    traps = [Trap(paths[shard]) for shard in shards]
    flags = flags_of(folder, f"--num_shards={num_shards}", f"--seed={seed}", "--num_workers=2")
    workers = []
    try:
        with Process("convert_dataset", *flags, more, log=folder.with_suffix(".log")) as process:
            for trap in traps:
                trap.wait()
            workers += workers_of(process)
            yield process, traps
    finally:
        for trap in traps:
            trap.remove()
        wait_until(lambda: not any(map(is_running, workers)))


def kill_after(folder: Path, count: int, **options: object) -> None:
    """Kills a conversion after a number of finished shards, in the middle of the next two."""
    with held(folder, count, count + 1, **options):
        assert finished(folder) == count
        assert leftovers(folder)


def finished(folder: Path) -> int:
    return len(list(folder.glob(".conversion-*/*.json")))


def mtime(path: Path) -> int:
    return path.stat().st_mtime_ns


def check_nothing_is_half(folder: Path, expected: dict[str, bytes]) -> None:
    found = contents(folder)
    assert all(found[name] == expected[name] for name in found)
    if "dataset.json" in found:
        assert found == expected


def test_killed_again_and_again(copy):
    folder, expected = copy
    for count in (0, 1, 5, 9, 14):
        kill_after(folder, count)
        assert contents(folder) == {}
    kept = {path: mtime(path) for path in folder.glob(".conversion-*/*.tfrecord")}
    assert len(kept) == 14
    done = convert(folder, "--num_workers=3")
    assert contents(folder) == expected
    assert leftovers(folder) == []
    assert "120 images, 2 classes, 20 shards" in done.output
    assert all(mtime(folder / path.name) == time for path, time in kept.items())  # not made again


@pytest.mark.parametrize(
    ("moment", "place", "ending", "count"),
    [
        ("before", ".conversion", ".tfrecord", 1),
        ("after", ".conversion", ".tfrecord", 1),
        ("after", ".conversion", ".tfrecord.json", 2),
        ("before", ".conversion", "dataset.json", 1),
        ("after", ".conversion", "dataset.json", 1),
        ("after", "copy", ".tfrecord", 1),
        ("after", "copy", ".tfrecord", 7),
        ("after", "copy", ".tfrecord", 20),
        ("after", "copy", "dataset.json", 1),
    ],
)
def test_killed_at_a_renaming(copy, tmp_path, monkeypatch, moment, place, ending, count):
    folder, expected = copy
    arguments = (place, ending, count, moment, *flags_of(folder))
    module = "tests.datasets.killed_at_renaming"
    with Process(module, *arguments, log=tmp_path / "log") as process:
        assert process.wait() == -signal.SIGKILL
    check_nothing_is_half(folder, expected)
    monkeypatch.setattr(files, "LOCK_SECONDS", TIMEOUT)  # its workers may still be running
    convert(folder)
    assert contents(folder) == expected
    assert leftovers(folder) == []


def test_workers_of_a_killed_run_stop(copy):
    folder, _ = copy
    with held(folder, 1) as (process, (trap,)):
        wait_until(lambda: finished(folder) == 19)  # the other worker waits for the run
        workers = workers_of(process)
        assert len(workers) == 2
        process.kill()
        trap.serve()
        wait_until(lambda: not any(map(is_running, workers)))


@pytest.mark.parametrize("whole_group", [True, False])
def test_interrupted(copy, whole_group):
    folder, expected = copy
    with held(folder, 3, 4) as (process, _):
        # A terminal sends the signal to the run and to its workers.
        receivers = [process.pid, *(workers_of(process) if whole_group else [])]
        for receiver in receivers:
            os.kill(receiver, signal.SIGINT)
        assert process.wait() == 130
        assert process.output.splitlines()[-2:] == [
            "stopped: 3 of 20 shards are finished and kept, run the same command to resume",
            "interrupted",
        ]
        assert "Traceback" not in process.output
        assert "images, " not in process.output
    assert finished(folder) == 3
    assert contents(folder) == {}
    assert not list(folder.glob(".conversion-*/*.tmp"))
    convert(folder)
    assert contents(folder) == expected


def test_a_killed_worker(copy):
    folder, expected = copy
    with held(folder, 1, 2) as (process, traps):
        traps[0].kill()
        assert process.wait() == 1
        error = (
            "error: a worker process was killed (exit code -9; -9 often means too little memory)"
        )
        assert error in process.output
    convert(folder)
    assert contents(folder) == expected


def test_two_at_a_time(copy, monkeypatch):
    folder, expected = copy
    with held(folder, 1, 2) as (process, traps):
        monkeypatch.setattr(files, "LOCK_SECONDS", 0.3)
        second = convert(folder, code=1)
        holder = rf"process \d+ on {re.escape(socket.gethostname())}"
        message = f"error: {re.escape(str(folder))} is in use by {holder}: wait until it ends"
        assert re.fullmatch(f"{message}, or stop it\n", second.error)
        for trap in traps:
            trap.serve()
        assert process.wait() == 0
    assert contents(folder) == expected


def test_staged_shards_of_other_settings_are_not_used(copy):
    folder, expected = copy
    for options in ({"seed": 1}, {"num_shards": 4}, {"more": "--noverify"}):
        kill_after(folder, 1, **options)
    # Of the last run: only its verification differs.
    note = next(folder.glob(".conversion-*/*.tfrecord.json"))
    shard = note.with_suffix("")
    shard.write_bytes(bytes(shard.stat().st_size))
    convert(folder)
    assert contents(folder) == expected
    assert leftovers(folder) == []


@pytest.mark.parametrize("lost", ["shard", "note"])
def test_files_that_a_loss_of_power_left_empty(copy, lost):
    folder, expected = copy
    kill_after(folder, 2)
    note = next(folder.glob(".conversion-*/*.tfrecord.json"))
    (note if lost == "note" else note.with_suffix("")).write_bytes(b"")
    convert(folder)
    assert contents(folder) == expected


def test_problems_survive_an_interruption(copy):
    folder, _ = copy
    for index in range(0, 120, 3):
        (folder / f"{index}.png").unlink()
        (folder / f"{index}.png").touch()
    kill_after(folder, 6)
    convert(folder, code=1)
    assert len((folder / "conversion_problems.txt").read_text().splitlines()) == 40
    convert(folder, "--on_error=skip")
    splits = json.loads((folder / "dataset.json").read_text())["splits"]
    assert [(split["samples"], split["skipped"]) for split in splits.values()] == [
        (53, 27),
        (27, 13),
    ]


def test_progress(copy):
    folder, _ = copy
    kill_after(folder, 5)
    primary, secondary = os.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    command = [sys.executable, "convert_dataset.py", *flags_of(folder, "--num_workers=1")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=secondary)
    os.close(secondary)
    shown = b""
    try:
        while piece := os.read(primary, 65536):
            shown += piece
    except OSError:  # the end of a terminal
        pass
    os.close(primary)
    assert process.wait() == 0
    assert b"images/s" in shown
    assert b"120/120" in shown
    assert b"  0/120" not in shown
