"""The installed project: its entry points and its requirements."""

import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from tests.support import ROOT

PROJECT = distribution("cvpr18-inaturalist-transfer")


def test_every_command_has_an_entry_point():
    scripts = PROJECT.entry_points.select(group="console_scripts")
    modules = {script.value.partition(":")[0].removesuffix(".__main__") for script in scripts}
    commands = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in (ROOT / "slim").rglob("*.py")
        if re.search(r"^command = ", path.read_text(), re.MULTILINE)
    }
    assert modules == commands
    assert all(callable(script.load()) for script in scripts)


def test_requirements_are_those_of_requirements_txt():
    def names(lines):
        return {re.match(r"[\w-]+", line)[0].lower() for line in lines}

    expected = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line]
    assert names(r for r in PROJECT.requires if "extra ==" not in r) == names(expected)


def test_an_entry_point_works_from_another_folder(tmp_path):
    classify = Path(sys.executable).with_name("slim-classify")
    done = subprocess.run([classify, "none.jpg"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: no image at none.jpg")
