"""Tests of flags with bounds, of the interpreter in messages, and of output that is lost."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stdout

import pytest
from absl import flags

from slim.common.command_line import FlagSet, python_command, run_command
from tests.support import ROOT


@pytest.fixture
def values():
    values = flags.FlagValues()
    define = FlagSet(values)
    define.real("rate", 0.5, "", 0, below=1)
    define.real("share", None, "", above=0, most=1)
    return values


@pytest.mark.parametrize("text", ["--rate=0", "--rate=0.999", "--share=1e-9", "--share=1"])
def test_allowed(values, text):
    name, _, value = text[2:].partition("=")
    values(["command", text])
    assert values[name].value == float(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--rate=-1e-9", ">= 0 and < 1"),
        ("--rate=1", ">= 0 and < 1"),
        ("--rate=nan", ">= 0 and < 1"),
        ("--share=0", "> 0 and <= 1"),
        ("--share=1.5", "> 0 and <= 1"),
        ("--share=-inf", "> 0 and <= 1"),
    ],
)
def test_refused(values, text, expected):
    with pytest.raises(flags.IllegalFlagValueError, match=f"expected a finite number {expected}$"):
        values(["command", text])


def test_the_interpreter_in_messages_runs_from_the_working_directory(tmp_path, monkeypatch):
    executable = tmp_path / ".venv/bin/python"
    executable.parent.mkdir(parents=True)
    executable.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(executable))
    assert python_command() == str(executable)
    monkeypatch.chdir(tmp_path)
    assert python_command() == ".venv/bin/python"
    monkeypatch.setenv("PATH", str(executable.parent), prepend=os.pathsep)  # .venv is activated
    assert python_command() == "python"


@pytest.mark.parametrize(
    ("encoding", "accent"), [("latin-1", b"\xe9"), ("ascii", rb"\xe9"), ("utf-8", b"\xc3\xa9")]
)
def test_any_name_is_printed_in_any_encoding(encoding, accent):
    """What the encoding lacks is escaped; bytes of file names that are not UTF-8 are kept."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    with redirect_stdout(stream), pytest.raises(SystemExit) as stopped:
        run_command(
            lambda values: None, lambda values: print("\xe9 \udce9 \ud83d \u9ebb", end=""), ["x"]
        )
    assert stopped.value.code == 0
    bird = "\u9ebb".encode() if encoding == "utf-8" else rb"\u9ebb"
    assert stream.buffer.getvalue() == b" ".join([accent, b"\xe9", rb"\ud83d", bird])


@pytest.mark.parametrize("flag", ["--list", "--help"])
def test_output_to_a_full_disk_is_an_error_of_one_line(flag):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "slim.checkpoints", flag]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    expected = "error: cannot write the output: No space left on device; free some space, then"
    assert (done.returncode, done.stderr) == (1, f"{expected} run the command again\n")


def test_figures_without_matplotlib_are_an_error_of_one_line(monkeypatch, capsys):
    def draw(values):
        import matplotlib  # noqa: F401

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as ended:
        run_command(lambda values: None, draw, ["command"])
    expected = "figures need Matplotlib; run 'pip install -r requirements-notebooks.txt'"
    assert (ended.value.code, capsys.readouterr().err) == (1, f"error: {expected}\n")
