"""Tests of the shell scripts: published defaults, the environment, recipes and other flags."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

import slim.eval_image_classifier as evaluation
import slim.train_image_classifier as training
from slim.datasets.registry import KNOWN
from slim.deployment.cluster import find_cluster
from slim.evaluation import members
from slim.nets.nets_factory import NETWORKS
from slim.weights.catalogue import MODELS
from tests.conftest import ROOT, run
from tests.support import TIMEOUT, invoke

RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.env"))

PUBLISHED_TRAINING = {
    "train_dir": "./checkpoints/cub_200",
    "dataset_dir": "./data/",
    "dataset_name": "cub_200",
    "model_name": "inception_v3",
    "checkpoint_path": "./checkpoints/inception/inception_v3_iNat_299.ckpt",
    "checkpoint_exclude_scopes": "Logits",
    "trainable_scopes": "Logits",
    "optimizer": "momentum",
    "learning_rate": "0.01",
    "end_learning_rate": "0.0001",
    "learning_rate_decay_factor": "0.1",
    "num_epochs_per_decay": "10.0",
    "batch_size": "64",
    "train_image_size": "299",
    "max_number_of_steps": "2810",
    "log_every_n_steps": "10",
    "save_summaries_secs": "10",
    "save_interval_secs": "60",
}
PUBLISHED_EVALUATION = {
    "checkpoint_path": "./checkpoints/cub_200",
    "eval_dir": "./checkpoints/cub_200",
    "dataset_dir": "./data/",
    "dataset_name": "cub_200",
    "batch_size": "100",
    "eval_interval_secs": "0",
}
# Only recipes pass these. By default, evaluation has the values of training, else these.
PUBLISHED_INPUT = {"model_name": "inception_v3", "eval_image_size": "299"}


def command_of(script: str, *arguments: str, **env: str) -> tuple[list[str], dict[str, str]]:
    """Returns the module and the flags that a script passes to Python, which is `echo` here."""
    done = run(f"./{script}", *arguments, env={"PYTHON": "echo", **env})
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    flags = [word for word in words if word.startswith("--")]
    assert all("=" in flag for flag in flags)
    return words[:2], dict(flag[2:].split("=", 1) for flag in flags)


@pytest.mark.parametrize(
    ("script", "module", "published"),
    [
        ("train.sh", "slim.train_image_classifier", PUBLISHED_TRAINING),
        ("eval.sh", "slim.eval_image_classifier", PUBLISHED_EVALUATION),
    ],
)
def test_published_defaults(script, module, published):
    assert command_of(script) == (["-m", module], published)


def test_settings_come_from_the_environment_and_flags_pass_through():
    _, flags = command_of(
        "train.sh", "--num_clones=2", "--seed=1", DATASET_NAME="aircraft", LR="0.001"
    )
    expected = {
        "dataset_name": "aircraft",
        "train_dir": "./checkpoints/aircraft",
        "learning_rate": "0.001",
        "num_clones": "2",
        "seed": "1",
    }
    assert flags == {**PUBLISHED_TRAINING, **expected}
    _, flags = command_of("eval.sh", "--max_number_of_evaluations=1", MODEL_DIR="/a b/c")
    assert flags["max_number_of_evaluations"] == "1"


def test_empty_settings_train_all_layers_from_random_weights():
    _, flags = command_of(
        "train.sh", CHECKPOINT_PATH="", CHECKPOINT_EXCLUDE_SCOPES="", TRAINABLE_SCOPES=""
    )
    assert not {"checkpoint_path", "checkpoint_exclude_scopes", "trainable_scopes"} & flags.keys()


def test_errors_name_the_commands_that_make_shards_and_checkpoints(colours, tmp_path):
    env = {"DATASET_NAME": "none", "DATASET_DIR": str(tmp_path), "MODEL_DIR": f"{tmp_path}/model"}
    (tmp_path / "none").mkdir()
    _, flags = command_of("eval.sh", **env)
    code, _, error = invoke(evaluation, *(f"--{name}={value}" for name, value in flags.items()))
    assert code == 1
    assert f" convert_dataset.py --dataset_name=none --dataset_dir={tmp_path}" in error
    env |= {"DATASET_NAME": "colours", "DATASET_DIR": str(colours), "CHECKPOINT_PATH": "none.ckpt"}
    _, flags = command_of("train.sh", **env)
    code, _, error = invoke(training, *(f"--{name}={value}" for name, value in flags.items()))
    assert code == 1
    assert "no checkpoint at none.ckpt" in error
    assert "./train.sh writes checkpoints, and checkpoints/README.md lists released ones" in error


def test_help_lists_the_settings_with_their_values_and_then_the_flags():
    done = run("./train.sh", "--help", env={"MAX_STEPS": "7", "LOG_STEPS": "", "RECIPE": "cub_200"})
    settings = dict(re.findall(r"^    ([A-Z_]+)=(.*)$", done.stdout, re.MULTILINE))
    expected = {"TRAIN_IMAGE_SIZE": "299", "TRAIN_BATCH_SIZE": "64", "MAX_STEPS": "7"}
    assert settings.items() >= {**expected, "LOG_STEPS": "10", "EPOCHS": ""}.items()
    assert "--max_number_of_steps" in done.stdout
    evaluated = run("./eval.sh", "--help", env={"EVAL_IMAGE_SIZE": "448"}).stdout
    settings |= dict(re.findall(r"^    ([A-Z_]+)=(.*)$", evaluated, re.MULTILINE))
    assert settings["EVAL_IMAGE_SIZE"] == "448"
    text = (ROOT / "recipes/settings.sh").read_text()
    assert settings.keys() == set(re.findall(r"\b([A-Z_]+):[a-z_]+\b", text))


def test_scripts_work_from_any_folder(tmp_path):
    done = run("sh", "-c", f"cd {tmp_path} && PYTHON=echo {ROOT}/train.sh")
    assert done.returncode == 0
    assert done.stdout.startswith("-m slim.train_image_classifier")


@pytest.fixture
def scripts(tmp_path):
    """A folder with copies of the scripts, and a Python that prints its arguments."""
    (tmp_path / "recipes").mkdir()
    for name in ("train.sh", "eval.sh", "recipes/settings.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("script", ["train.sh", "eval.sh"])
def test_a_script_has_the_exit_code_of_its_command(scripts, script):
    (scripts / "python").write_text("#!/bin/sh\nexit 3\n")
    assert run(scripts / script, env={"PYTHON": f"{scripts}/python"}).returncode == 3


def flags_of(scripts, script, recipe, **env):
    """Returns the flags that a script passes with a recipe."""
    (scripts / "recipes/mine.env").write_text(recipe)
    settings = {"PYTHON": f"{scripts}/python", "RECIPE": "mine", **env}
    done = run(scripts / script, env=settings)
    assert done.returncode == 0, done.stderr
    return dict(line[2:].split("=", 1) for line in done.stdout.splitlines()[2:])


def parse(command, given):
    values = flags.FlagValues()
    command.define_flags(values)
    values(["command", *(f"--{name}={value}" for name, value in given.items())])
    return values


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_of_training_and_evaluation_agree(recipe):
    _, given = command_of("train.sh", RECIPE=recipe)
    _, evaluated = command_of("eval.sh", RECIPE=recipe)
    train = parse(training, given)
    training.check_flags(train, find_cluster(train, {}))
    assert len(members.list_members(parse(evaluation, evaluated))) == 1
    assert given["train_dir"] == evaluated["checkpoint_path"] == f"./checkpoints/{recipe}"
    assert given["train_image_size"] == evaluated["eval_image_size"]
    for flag in ("dataset_name", "model_name", "moving_average_decay"):
        assert given.get(flag) == evaluated.get(flag)
    assert (train.max_number_of_steps is None) != (train.max_number_of_epochs is None)
    assert set(train.dataset_name.partition("_balanced_")[0].split("+")) <= set(KNOWN)
    assert train.model_name in NETWORKS

    origin = Path(train.checkpoint_path or "")
    if origin.name in RECIPES:  # a stage before this one, of the same network and classes
        _, before = command_of("train.sh", RECIPE=origin.name)
        assert before["model_name"] == train.model_name
        assert before["dataset_name"] == train.dataset_name.partition("_balanced_")[0]
        assert not train.checkpoint_exclude_scopes
        assert train.learning_rate < float(before["learning_rate"])
    elif train.checkpoint_path:
        models = {model.name: model.network for model in MODELS}
        assert models.get(origin.stem, origin.stem) == train.model_name
        assert train.checkpoint_exclude_scopes == "Logits"
    comment = (ROOT / f"recipes/{recipe}.env").read_text()
    assert ("This project's own choice" in comment) == (recipe != "cub_200")


def test_the_published_recipe_gives_the_published_command():
    assert command_of("train.sh", RECIPE="cub_200")[1] == PUBLISHED_TRAINING
    assert command_of("eval.sh", RECIPE="cub_200")[1] == PUBLISHED_EVALUATION | PUBLISHED_INPUT
    assert "The published" in (ROOT / "recipes/cub_200.env").read_text().splitlines()[0]


def test_precedence_of_environment_recipe_and_default(scripts):
    settings = {
        "LR": "0.5",
        "TRAINABLE_SCOPES": "Mixed_7c",
        "CHECKPOINT_PATH": "",
        "DATASET_NAME": "aircraft",
    }
    empty = {"TRAINABLE_SCOPES": "", "CHECKPOINT_EXCLUDE_SCOPES": "", "LR": ""}
    for form in ("{}={}\n", ': "${{{}={}}}"\n'):
        recipe = "".join(form.format(*setting) for setting in settings.items())
        found = flags_of(scripts, "train.sh", recipe, LR="0.25")
        expected = {
            **PUBLISHED_TRAINING,
            "learning_rate": "0.25",
            "trainable_scopes": "Mixed_7c",
            "dataset_name": "aircraft",
            "train_dir": "./checkpoints/mine",
        }
        del expected["checkpoint_path"]
        assert found == expected
        found = flags_of(scripts, "train.sh", recipe, CHECKPOINT_PATH="x.ckpt", **empty)
        assert not {"trainable_scopes", "checkpoint_exclude_scopes"} & found.keys()
        assert found["checkpoint_path"] == "x.ckpt"
        assert found["learning_rate"] == PUBLISHED_TRAINING["learning_rate"]
    found = flags_of(scripts, "eval.sh", recipe, EVAL_IMAGE_SIZE="448")
    assert (found["dataset_name"], found["eval_image_size"]) == ("aircraft", "448")


def test_length_in_the_environment_takes_precedence_over_the_recipe(scripts):
    def lengths(recipe, **env):
        found = flags_of(scripts, "train.sh", recipe, **env)
        return {name[14:]: value for name, value in found.items() if "max_number" in name}

    assert lengths("LR=1\n") == {"steps": "2810"}
    assert lengths("EPOCHS=7\n") == lengths("LR=1\n", EPOCHS="7") == {"epochs": "7"}
    assert lengths("MAX_STEPS=5\n", EPOCHS="7") == {"epochs": "7"}
    assert lengths("EPOCHS=7\n", MAX_STEPS="5") == {"steps": "5"}
    assert lengths("EPOCHS=7\nMAX_STEPS=5\n") == {"epochs": "7", "steps": "5"}
    assert lengths("LR=1\n", EPOCHS="7", MAX_STEPS="5") == {"epochs": "7", "steps": "5"}
    assert lengths("EPOCHS=7\n", EPOCHS="") == {"steps": "2810"}


def test_each_setting_becomes_its_flag(scripts):
    settings = {
        "DECAY_TYPE": "learning_rate_decay_type",
        "OPT_EPSILON": "opt_epsilon",
        "WEIGHT_DECAY": "weight_decay",
        "LABEL_SMOOTHING": "label_smoothing",
        "CLASS_WEIGHTS": "class_weights",
        "WARMUP_STEPS": "warmup_steps",
        "KEEP_CHECKPOINTS": "keep_checkpoints",
        "BATCH_NORM_DECAY": "batch_norm_decay",
        "MOVING_AVERAGE_DECAY": "moving_average_decay",
        "NUM_CLONES": "num_clones",
    }
    recipe = "".join(f"{name}='value of {name}'\n" for name in settings)
    expected = {flag: f"value of {name}" for name, flag in settings.items()}
    assert flags_of(scripts, "train.sh", recipe) == {
        **PUBLISHED_TRAINING,
        "train_dir": "./checkpoints/mine",
        **expected,
    }
    found = flags_of(scripts, "eval.sh", recipe)
    assert found.items() - PUBLISHED_EVALUATION.items() == {
        ("checkpoint_path", "./checkpoints/mine"),
        ("eval_dir", "./checkpoints/mine"),
        ("moving_average_decay", expected["moving_average_decay"]),
    }


def test_quoted_values_are_not_interpreted_by_the_shell(scripts):
    value = '/a  b/$(touch taken) `touch taken` $HOME "x" * \\ ; touch taken=#z'
    recipe = f"# a comment\n\n  # another\n MODEL_DIR='{value}'  \nDATASET_DIR='/c d'"
    for script, flag in (("train.sh", "train_dir"), ("eval.sh", "eval_dir")):
        found = flags_of(scripts, script, recipe)
        assert (found[flag], found["dataset_dir"]) == (value, "/c d")
    assert not (scripts / "taken").exists()


def test_quotes_comments_and_line_ends_of_other_systems_are_understood(scripts):
    lines = {
        'LR="0.5"': ("learning_rate", "0.5"),
        "TRAINABLE_SCOPES='a, \"b\" # c'  # a comment": ("trainable_scopes", 'a, "b" # c'),
        "END_LR=0.25\t# a comment 'with' quotes": ("end_learning_rate", "0.25"),
        "MODEL_DIR=its#1": ("train_dir", "its#1"),
    }
    for end in ("\n", "\r\n", "  \r\n"):
        found = flags_of(scripts, "train.sh", end.join(["# a comment", "", *lines]))
        assert found == {**PUBLISHED_TRAINING, **dict(lines.values())}


@pytest.mark.parametrize("script", ["train.sh", "eval.sh"])
def test_invalid_recipes_are_errors_of_one_line(scripts, script):
    lines = ["LEARNING_RATE=1", "PATH=/nowhere", ': "${LEARNING_RATE=1}"', "LR END_LR=1", "LR"]
    lines += ["=1", "LR;touch taken=1", "LR=1; touch taken", "LR=$(touch taken)", "touch taken"]
    lines += ["LR='1", 'LR="1" 2', "LR= 1", "MODEL_DIR=/a b", "export LR=1"]
    for line in lines:
        (scripts / "recipes/mine.env").write_text(f"LR=1\n{line}\n")
        done = run(scripts / script, env={"RECIPE": "mine", "PYTHON": "echo"})
        assert (done.returncode, done.stdout) == (1, "")
        start = f"error: recipes/mine.env: '{line}' does not set a known setting; expected KEY="
        assert done.stderr.startswith(start), done.stderr
        assert "; known are DATASET_NAME DATASET_DIR " in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (scripts / "taken").exists()
    done = run(ROOT / script, env={"RECIPE": "inat_299"})
    assert done.returncode == 1
    assert done.stderr.startswith("error: RECIPE=inat_299: there is no recipes/inat_299.env; ")
    assert done.stderr.endswith(f"recipes are {' '.join(RECIPES)}\n")


def test_install_names_its_requirements(tmp_path):
    (tmp_path / "tests").mkdir()
    names = [path.name for path in ROOT.glob("requirements*.txt")]
    for name in ("install.sh", "pyproject.toml", *names, "tests/requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    done = run(tmp_path / "install.sh", env={"PYTHON": "/nowhere/python"})
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Python 3.10 to 3.13")
    assert "/nowhere/python" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("terminal", [False, True])
def test_install_shows_the_progress_of_pip_in_a_terminal(tmp_path, terminal):
    shutil.copy(ROOT / "install.sh", tmp_path)
    (tmp_path / "tests").mkdir()
    for name in ("pyproject.toml", "requirements.txt", "tests/requirements.txt"):
        (tmp_path / name).touch()
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@" >>"$0.log"\n')
    python.chmod(0o755)
    primary, secondary = os.openpty()
    subprocess.run(
        [tmp_path / "install.sh"],
        stdout=secondary if terminal else subprocess.DEVNULL,
        check=True,
        timeout=TIMEOUT,
    )
    os.close(secondary)
    os.close(primary)
    commands = python.with_name("python.log").read_text().splitlines()
    (install,) = [command for command in commands if command.startswith("-m pip install ")]
    assert ("--quiet" in install) != terminal
    assert install.endswith("--editable . --requirement requirements.txt")


def test_an_installation_is_not_repeated(tmp_path):
    """Nothing runs if .venv has Python and the stamp of the same requirements."""
    if not (ROOT / ".venv/bin/python").exists() or not list(Path(ROOT).glob(".venv/installed-*")):
        pytest.skip("not run in a folder that install.sh has installed")
    done = run("./install.sh", "-r", "tests/requirements.txt", env={"PYTHON": "/nowhere/python"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_pipe_that_is_closed_early_is_not_an_error():
    for command in ("slim.checkpoints --list", "slim.datasets.prepare --help"):
        done = run(
            "bash", "-c", f"{sys.executable} -m {command} | head -1; exit ${{PIPESTATUS[0]}}"
        )
        assert done.stderr == ""
        assert len(done.stdout.splitlines()) == 1
        assert done.returncode in (0, 141)
