"""Tests of files that are written as a whole, and of the lock on a folder."""

import multiprocessing
import os
import signal

import pytest

from slim.common.errors import UserError
from slim.common.files import exclusive, replacing, write_whole
from tests.support import TIMEOUT

FORK = multiprocessing.get_context("fork")


def hold(folder, held):
    with exclusive(folder):
        held.set()
        signal.pause()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["device", "folder"])
def test_only_files_are_replaced(make, tmp_path):
    """The superuser could replace /dev/null by a file."""
    path = tmp_path / "path"
    make(path)
    before = path.stat()
    with pytest.raises(FileExistsError, match="Exists but is not a file"):
        write_whole(path, "text")
    assert path.stat() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_no_temporary_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "path", "me") as temporary:
        temporary.touch()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.fixture
def holder(tmp_path):
    held = FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path, held))
    process.start()
    assert held.wait(TIMEOUT)
    yield process
    process.kill()
    process.join()


def test_the_refusal_names_the_process_and_the_host(holder, tmp_path):
    with (
        pytest.raises(UserError, match=f"process {holder.pid} on {os.uname().nodename}: wait"),
        exclusive(tmp_path, seconds=0),
    ):
        pass
    assert (tmp_path / ".lock").read_text().startswith(f"process {holder.pid} ")


def test_the_lock_of_a_killed_process_is_free(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert (tmp_path / ".lock").exists()
    with exclusive(tmp_path, seconds=0):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} ")
    assert not list(tmp_path.iterdir())
