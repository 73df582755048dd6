"""Conversions that are stopped at all kinds of moments, and started again."""

import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datasets.conftest import REPOSITORY, add_line, command, contents, encode, leftovers

# Runs the command, and kills the run (its parent process) at the n-th renaming that leads to a file
# of the given kind in a folder of the given name.
KILL_AT_RENAMING = """
import os, signal, sys
from pathlib import Path
place, ending, count, moment = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
main, rename, seen = os.getpid(), Path.replace, 0
def replace(self, target):
    global seen
    target = Path(target)
    hit = target.name.endswith(ending) and target.parent.name.startswith(place)
    seen += hit
    if moment == "after":
        rename(self, target)
    if hit and seen == count:
        os.kill(main, signal.SIGKILL)
    if moment == "before":
        rename(self, target)
Path.replace = replace
sys.argv = ["convert_dataset.py", *sys.argv[5:]]
from slim.datasets import convert
convert.command()
"""


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A dataset that takes a second or two, as its images are encoded again; and its shards."""
    folder = tmp_path_factory.mktemp("data") / "slow"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    for index in range(120):
        content = encode(Image.fromarray(np.roll(noise, index, 0)), "PNG", compress_level=1)
        (folder / f"{index}.png").write_bytes(content)
        add_line(folder, f"{index}.png: {index % 2}", "train.txt" if index < 80 else "val.txt")
    whole = folder.with_name("whole")
    shutil.copytree(folder, whole)
    subprocess.run(command(whole), cwd=REPOSITORY, check=True)
    return folder, contents(whole)


@pytest.fixture
def copy(slow, tmp_path):
    """A dataset that takes a second or two, and the shards of an undisturbed conversion."""
    folder, expected = slow
    return Path(shutil.copytree(folder, tmp_path / "slow", copy_function=os.link)), expected


def start(folder, *options):
    return subprocess.Popen(
        command(folder, *options),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(folder):
    return len(list(folder.glob(".conversion-*/*.json")))


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def mtime(path):
    return path.stat().st_mtime_ns


def check_nothing_is_half(folder, expected):
    found = contents(folder)
    assert all(found[name] == expected[name] for name in found)
    if "dataset.json" in found:
        assert found == expected


def test_killed_again_and_again(copy, convert):
    folder, expected = copy
    for count in (0, 1, 5, 9, 14):
        process = start(folder)
        wait_until(lambda count=count: finished(folder) >= count and leftovers(folder))
        process.kill()
        process.wait()
        assert contents(folder) == {}
    kept = {path: mtime(path) for path in folder.glob(".conversion-*/*.tfrecord")}
    done = convert(folder, "--num_workers=3")
    assert contents(folder) == expected
    assert leftovers(folder) == []
    assert "120 images, 2 classes, 20 shards" in done.stdout
    assert len(kept) >= 14
    same = [path for path, time in kept.items() if mtime(folder / path.name) == time]
    assert len(same) >= 14  # not made again


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("place", "ending", "count"),
    [
        (".conversion", ".tfrecord", 1),
        (".conversion", ".tfrecord.json", 2),
        (".conversion", "dataset.json", 1),
        ("slow", ".tfrecord", 1),
        ("slow", ".tfrecord", 7),
        ("slow", ".tfrecord", 20),
        ("slow", "dataset.json", 1),
    ],
)
def test_killed_at_a_renaming(copy, convert, place, ending, count, moment):
    folder, expected = copy
    line = [sys.executable, "-c", KILL_AT_RENAMING, place, ending, str(count), moment]
    killed = subprocess.run([*line, *command(folder)[2:]], cwd=REPOSITORY, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    check_nothing_is_half(folder, expected)
    convert(folder)
    assert contents(folder) == expected
    assert leftovers(folder) == []


def test_workers_of_a_killed_run_stop(copy):
    folder, _ = copy
    process = start(folder)
    wait_until(lambda: finished(folder) >= 1)
    group = process.pid
    process.kill()
    process.communicate(timeout=5)  # ends when no worker holds the pipes any more

    def gone():
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(gone, 5)


@pytest.mark.parametrize("whole_group", [True, False])
def test_interrupted(copy, convert, whole_group):
    folder, expected = copy
    process = start(folder)
    wait_until(lambda: finished(folder) >= 3)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=10)
    assert process.returncode == 130
    assert stdout == ""
    stopped, last = stderr.splitlines()[-2:]
    kept = finished(folder)
    assert kept >= 3
    assert stopped == (
        f"stopped: {kept} of 20 shards are finished and kept, the same command goes on from there"
    )
    assert last == "interrupted"
    assert "Traceback" not in stderr
    assert contents(folder) == {}
    assert not list(folder.glob(".conversion-*/*.tmp"))
    convert(folder)
    assert contents(folder) == expected


def test_a_killed_worker(copy, convert):
    folder, expected = copy
    process = start(folder)
    wait_until(lambda: finished(folder) >= 1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        process.communicate()
        pytest.skip("no /proc/PID/task/TID/children on this system")
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "error: a worker was stopped (exit code -9; -9 is often a lack of memory)" in stderr
    convert(folder)
    assert contents(folder) == expected


def test_two_at_a_time(copy):
    folder, expected = copy
    first = start(folder, "--num_workers=1")
    wait_until(lambda: finished(folder) >= 1)
    first.send_signal(signal.SIGSTOP)
    second = start(folder)
    _, stderr = second.communicate(timeout=30)
    assert second.returncode == 1
    assert stderr == f"error: {folder} is being written by another process: wait for its end\n"
    first.send_signal(signal.SIGCONT)
    first.communicate(timeout=30)
    assert contents(folder) == expected


def test_staged_shards_of_other_settings_are_not_used(copy, convert):
    folder, expected = copy
    for options in (["--seed=1"], ["--num_shards=4"], ["--noverify"]):
        process = start(folder, *options)
        wait_until(lambda: finished(folder) >= 1)
        process.kill()
        process.communicate()
    # Of the last: only its verification differs.
    note = next(folder.glob(".conversion-*/*.tfrecord.json"))
    shard = note.with_suffix("")
    shard.write_bytes(bytes(shard.stat().st_size))
    convert(folder)
    assert contents(folder) == expected
    assert leftovers(folder) == []


@pytest.mark.parametrize("lost", ["shard", "note"])
def test_files_that_a_loss_of_power_left_empty(copy, convert, lost):
    folder, expected = copy
    process = start(folder)
    wait_until(lambda: finished(folder) >= 2)
    process.kill()
    process.communicate()
    note = next(folder.glob(".conversion-*/*.tfrecord.json"))
    (note if lost == "note" else note.with_suffix("")).write_bytes(b"")
    convert(folder)
    assert contents(folder) == expected


def test_problems_survive_an_interruption(copy, convert):
    folder, _ = copy
    for index in range(0, 120, 3):
        (folder / f"{index}.png").unlink()
        (folder / f"{index}.png").touch()
    process = start(folder)
    wait_until(lambda: finished(folder) >= 6)
    process.kill()
    process.communicate()
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
    process = start(folder, "--num_workers=1")
    wait_until(lambda: finished(folder) >= 5)
    process.kill()
    process.communicate()
    primary, secondary = os.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    process = subprocess.Popen(
        command(folder, "--num_workers=1"),
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=secondary,
    )
    os.close(secondary)
    shown = b""
    try:
        while piece := os.read(primary, 65536):
            shown += piece
    except OSError:  # how the end of a terminal reads
        pass
    os.close(primary)
    assert process.wait() == 0
    assert b"images/s" in shown
    assert b"120/120" in shown
    assert b"  0/120" not in shown
