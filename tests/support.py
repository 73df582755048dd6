"""Runs commands for tests: in this process, or in a process of their own.

A process of its own is forked from a server that has loaded TensorFlow, because loading it takes
some five seconds of processor time.
"""

import io
import multiprocessing
import os
import re
import runpy
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 240  # seconds; a test that waits longer has failed

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["slim.compat"])


class Result(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    output: str
    error: str


def invoke(command: ModuleType, *flags: object) -> Result:
    """Runs a command in this process.

    Args:
        command: The module of the command, such as `slim.classify`.
        flags: The command line without the program's name; each is converted with `str`.
    """
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    argv = [command.__name__, *map(str, flags)]
    with (
        redirect_stdout(streams[0]),
        redirect_stderr(streams[1]),
        pytest.raises(SystemExit) as stopped,
    ):
        command.command(argv)
    output, error = (s.buffer.getvalue().decode("utf-8", "surrogateescape") for s in streams)
    return Result(stopped.value.code, output, error)


class Process:
    """A command in a process of its own; a context that kills it.

    Args:
        module: The name of the command's module, such as `slim.train_image_classifier`.
        flags: Its flags; each is converted with `str`.
        log: The file that receives both output and error.
        env: Variables to add to the environment; None removes one.
    """

    def __init__(
        self, module: str, *flags: object, log: Path, env: Mapping[str, str | None] | None = None
    ) -> None:
        self._log = log
        log.touch()
        arguments = (module, [str(flag) for flag in flags], str(log), dict(env or {}))
        self._process = _forks.Process(target=_run_module, args=arguments)
        self._process.start()
        self.pid = self._process.pid

    @property
    def output(self) -> str:
        """What has been printed so far."""
        return self._log.read_text("utf-8", "surrogateescape")

    @property
    def code(self) -> int | None:
        """The exit code, negative after a signal; None while the process runs."""
        return self._process.exitcode

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Waits for the end of the process and returns its exit code."""
        self._process.join(timeout)
        assert self.code is not None, f"still running after {timeout} s: {self.output}"
        return self.code

    def wait_for(self, pattern: str, timeout: float = TIMEOUT) -> re.Match[str]:
        """Waits until the output matches a regular expression and returns the match."""
        end = time.monotonic() + timeout
        while not (found := re.search(pattern, self.output, re.MULTILINE)):
            assert self.code is None, f"ended with {self.code}: {self.output}"
            assert time.monotonic() < end, f"no '{pattern}' after {timeout} s: {self.output}"
            time.sleep(0.02)
        return found

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills the process as `kill -9` does and waits for its end."""
        self._process.kill()
        self._process.join()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self._process.close()


def _run_module(module: str, flags: list[str], log: str, env: dict[str, str | None]) -> None:
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.chdir(ROOT)
    for name, value in env.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
