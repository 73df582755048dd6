"""Tests of flags with bounds."""

import pytest
from absl import flags

from slim.common.command_line import FlagSet


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
