"""The installed project: its entry points and its requirements."""

import re
import runpy
import subprocess
import sys
from importlib import import_module
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("extra", ["library", "cluster", "notebooks", "tfds"])
def test_requirements_are_those_of_their_files(extra):
    def names(lines):
        return {re.match(r"[\w-]+", line)[0].lower() for line in lines}

    expected = names((ROOT / f"requirements-{extra}.txt").read_text().splitlines())
    found = [r for r in PROJECT.requires if ("extra" in r) == (extra != "library")]
    assert names(r for r in found if extra == "library" or f'extra == "{extra}"' in r) == expected
    if extra in ("library", "notebooks"):
        assert f"-r requirements-{extra}.txt" in (ROOT / "requirements.txt").read_text()


def test_imported_packages_are_declared():
    code = "\n".join(path.read_text() for path in (ROOT / "slim").rglob("*.py"))
    imported = set(re.findall(r"^ *(?:import|from) (\w+)", code, re.MULTILINE)) - {"slim"}
    declared = {re.match(r"[\w-]+", line)[0].lower().replace("-", "_") for line in PROJECT.requires}
    for module, packages in packages_distributions().items():
        names = {name.lower().replace("-", "_") for name in packages}
        assert module not in imported or names & declared, f"{module} is imported, not declared"


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("train", "train_image_classifier"),
        ("eval", "eval_image_classifier"),
        ("convert_dataset", "convert_dataset"),
        ("feature_extraction", "feature_extraction"),
    ],
)
def test_published_files_at_the_root(name, module):
    script = runpy.run_path(ROOT / f"{name}.py")
    assert script["command"] is import_module(f"slim.{module}").command


def test_an_entry_point_works_from_another_folder(tmp_path):
    describe = Path(sys.executable).with_name("slim-long-tail")
    done = subprocess.run([describe, "none.npz"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: ") and "none.npz" in done.stderr
