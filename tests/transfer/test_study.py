"""The transfer study: its figures against other libraries, what is done again, errors."""

import fcntl
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import ot
import pytest
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression

from slim.checkpoints.reading import read_shapes
from slim.features.files import Settings, describe, find_split, hash_checkpoint
from slim.transfer.study import __main__ as study
from slim.transfer.study import training as study_training
from tests.conftest import NUM_VALIDATION, recipe_weights
from tests.support import (
    ROOT,
    SMALL_NETWORK,
    SMALL_SIZE,
    Result,
    invoke,
    variable_shapes,
    write_checkpoint,
)

PLAIN, TARGETS = ("plants", "things"), ("birds", "cars")
SOURCES = (*PLAIN, "plants+things", "picked")  # both together, and classes picked from them
CLASSES = {"plants": 5, "things": 4, "picked": 2, "birds": 3, "cars": 3}
# Where a domain lies on a line.
PLACES = {"plants": 0, "things": 6, "picked": 2.5, "birds": 1, "cars": 7}
PYTHON = sys.executable
NEUTRAL = "neutral"  # a network that was trained on neither source


def write_lists(data: Path) -> None:
    for name, classes in CLASSES.items():
        (data / name).mkdir(parents=True)
        for split, each in (("train", 12), ("val", 10)):
            lines = [f"{split}/{i}.jpg: {i % classes}\n" for i in range(each * classes)]
            (data / name / f"{split}.txt").write_text("".join(lines))
    (data / "picked/selection.tsv").write_text("label\tname\n")


def write_features(world: Path, network: str, noise: float) -> None:
    """Features of all lists as extraction would have written them; noise makes them worse."""
    folder = world / "feature" / network
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings("inception_v3", "", False, "Mixed_7c", 299)
    checkpoint = world / "checkpoints" / network / "model.ckpt-1"
    if network != NEUTRAL:
        hashed = hash_checkpoint(str(checkpoint))
        settings = Settings("inception_v3", hashed, False, "Mixed_7c", 299)
    for name, classes in CLASSES.items():
        random = np.random.default_rng([len(name), len(network)])
        centres = random.normal(size=(classes, 8))
        centres[:, 0] += PLACES[name]
        for split_name in ("train", "val"):
            split = find_split(name, split_name, str(world / "data"), folder)
            labels = np.array([entry.label for entry in split.image_list.entries], np.int32)
            values = centres[labels] + noise * random.normal(size=(len(labels), 8))
            np.save(split.feature_path, values.astype(np.float32))
            np.save(split.label_path, labels)
            description = split.feature_path.with_suffix(".json")
            description.write_text(describe(split, settings))


def write_source(world: Path, name: str, value: float, noise: float) -> None:
    folder = world / "checkpoints" / name
    write_checkpoint(folder / "model.ckpt-1", {"InceptionV3/weights": np.float32(value)})
    write_features(world, name, noise)


@pytest.fixture
def world(tmp_path) -> Path:
    """Lists, checkpoints, and the features that they gave: no image and no network is needed."""
    write_lists(tmp_path / "data")
    for number, name in enumerate(SOURCES):
        write_source(tmp_path, name, number, noise=1 + number)
    write_features(tmp_path, NEUTRAL, noise=0.5)
    return tmp_path


def run_study(world: Path, *more: str, **changed: object) -> Result:
    settings = {
        "sources": ",".join(SOURCES),
        "targets": ",".join(TARGETS),
        "checkpoints": ",".join(str(world / "checkpoints" / name) for name in SOURCES),
        "dataset_dir": world / "data",
        "feature_dir": world / "feature",
        "output_dir": world / "study",
        "min_count": 1,
    } | changed
    given = [f"--{name}={value}" for name, value in settings.items() if value is not None]
    return invoke(study, *given, *more)


def load(world: Path, network: str, name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    folder = world / "feature" / network
    return tuple(np.load(folder / f"{name}_{kind}_{split}.npy") for kind in ("feature", "label"))


def score(world: Path, source: str, target: str) -> float:
    """scikit-learn's own accuracy."""
    model = LogisticRegression(max_iter=100).fit(*load(world, source, target, "train"))
    return model.score(*load(world, source, target, "val"))


def distance(world: Path, networks: tuple[str, ...], source: str, target: str) -> float:
    """The EMD by POT, all classes having as many images."""
    means = []
    for domain in (source.split("+"), [target]):
        means.append([])
        for name in domain:
            views = [load(world, network, name, "train") for network in networks]
            values = np.concatenate([view[0] for view in views], axis=1).astype(float)
            labels = views[0][1]
            means[-1] += [values[labels == label].mean(axis=0) for label in range(CLASSES[name])]
    return ot.emd2([], [], cdist(*map(np.array, means)))


def read_table(text: str, title: str) -> dict[tuple[str, str], str]:
    """The first table below a title, as printed, by row and column."""
    lines = text.split(f"## {title}\n")[1].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    rows = rows[: next((i for i, row in enumerate(rows) if len(row) < 2), len(rows))]
    return {
        (row[0], column): cell
        for row in rows[2:]
        for column, cell in zip(rows[0][1:], row[1:], strict=True)
    }


def modified(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_figures_are_those_of_other_libraries_and_table_and_json_agree(world):
    done = run_study(world)
    assert done.code == 0, done.error
    found = json.loads((world / "study/study.json").read_text())
    text = (world / "study/study.md").read_text()
    assert text in done.output
    accuracies, distances = (
        read_table(text, "Linear classifier"),
        read_table(text, "Domain similarity"),
    )
    assert len(found["cells"]) == 4 * 2
    expected = {}
    for cell in found["cells"]:
        source, target = pair = cell["source"], cell["target"]
        expected[pair] = score(world, source, target)
        assert cell["linear"]["accuracy"] == pytest.approx(expected[pair])
        assert cell["linear"]["images"] == 10 * CLASSES[target]
        assert cell["fine_tuned"] is None
        assert accuracies[pair].strip("*") == f"{expected[pair]:.1%}"
        # Both sources' networks side by side; those of the same images again are left out.
        emd = distance(world, PLAIN, source, target)
        assert cell["emd"] == pytest.approx(emd)
        assert cell["similarity"] == pytest.approx(np.exp(-0.01 * emd))
        assert distances[pair] == f"{emd:.3f} ({np.exp(-0.01 * emd):.3f})"
    for target in TARGETS:
        best = max(expected[source, target] for source in found["mean_accuracy"]["linear"])
        for (source, column), value in expected.items():
            if column == target:
                assert accuracies[source, target].startswith("**") == (value == best)
                assert (source in found["best"]["linear"][target]) == (value == best)
    for source, mean in found["mean_accuracy"]["linear"].items():
        assert mean == pytest.approx(np.mean([expected[source, t] for t in TARGETS]))
        assert accuracies[source, "mean"].strip("*") == f"{mean:.1%}"
    assert found["nearest"] == {"birds": "plants", "cars": "things"}
    points = np.array([[c["similarity"], c["linear"]["accuracy"]] for c in found["cells"]])
    overall = np.corrcoef(points.T)[0, 1]
    assert found["correlation"]["linear"]["overall"] == pytest.approx(overall)
    points = points.reshape(4, 2, 2)
    within = np.corrcoef((points - points.mean(axis=0)).reshape(8, 2).T)[0, 1]
    assert found["correlation"]["linear"]["within_targets"] == pytest.approx(within)
    assert f"{overall:+.2f} over all pairs, {within:+.2f} within targets" in text
    assert re.search(r"birds: nearest source plants \(EMD [\d.]+\), best source \w+", text)
    for name in ("study.png", "similarity.png"):
        assert (world / "study" / name).read_bytes().startswith(b"\x89PNG")


def test_done_is_not_done_again(world, monkeypatch):
    assert run_study(world).code == 0
    before = modified(world)
    monkeypatch.setattr(study, "fit_linear", None)
    monkeypatch.setattr("slim.transfer.study.cells.emd", None)
    done = run_study(world)
    assert done.code == 0, done.error
    assert done.output.count("(done before)") == 2 * 8
    assert modified(world) == before


def test_a_changed_checkpoint_changes_its_row_only(world):
    neutral = {"similarity_features": world / "feature" / NEUTRAL}
    assert run_study(world, **neutral).code == 0
    emd = json.loads((world / "study/study.json").read_text())["cells"][0]["emd"]
    assert emd == pytest.approx(distance(world, (NEUTRAL,), "plants", "birds"))
    write_source(world, "things", value=7, noise=3)
    done = run_study(world, **neutral)
    assert done.code == 0, done.error
    again = [
        line for line in done.output.splitlines() if " -> " in line and "done before" not in line
    ]
    assert [line.rsplit(" ", 1)[0] for line in again] == [
        f"things -> {target}: linear" for target in TARGETS
    ]
    cells = json.loads((world / "study/study.json").read_text())["cells"]
    found = {(cell["source"], cell["target"]): cell["linear"]["accuracy"] for cell in cells}
    assert found["things", "cars"] == pytest.approx(score(world, "things", "cars"))
    # Another --gamma needs nothing but exp.
    done = run_study(world, "--gamma=0.1", **neutral)
    assert done.output.count("(done before)") == 16
    assert json.loads((world / "study/study.json").read_text())["cells"][0][
        "similarity"
    ] == pytest.approx(np.exp(-0.1 * emd))


def test_a_failed_cell_does_not_lose_the_others(world):
    path = world / "feature/things/cars_feature_val.npy"
    good = np.load(path)
    np.save(path, np.full_like(good, np.nan))
    done = run_study(world)
    assert done.code == 1
    assert re.fullmatch(
        r"error: 1 of 16 cells failed, the first is things -> cars: linear: .*cars_feature_val.npy "
        r"has a value that is not finite .*the same command tries again\n",
        done.error,
    )
    found = json.loads((world / "study/study.json").read_text())
    assert [cell["linear"] is None for cell in found["cells"]].count(True) == 1
    assert found["mean_accuracy"]["linear"]["things"] is None
    assert read_table(done.output, "Linear classifier")["things", "cars"] == "-"
    np.save(path, good)
    done = run_study(world)
    assert done.code == 0, done.error
    assert done.output.count("(done before)") == 15


def test_errors_are_one_line_and_come_first(world, colours):
    write_checkpoint(world / "resnet.ckpt", {"resnet_v2_50/weights": np.float32(1)})
    for changed, message in (
        ({"sources": None}, "--sources is missing: "),
        ({"targets": "birds,birds"}, "--targets=birds,birds: a name is there twice"),
        ({"checkpoints": "a,b"}, "--checkpoints has 2 paths, --sources 4 names: expected one"),
        ({"checkpoints": None}, "--checkpoints: no checkpoint at ./checkpoints/plants "),
        ({"model_name": "a,b"}, "--model_name has 2 networks: expected one, or 4"),
        ({"model_name": "inception_v5"}, "unknown network 'inception_v5'; did you mean"),
        ({"image_size": 70}, "image size 70x70 is too small for inception_v3"),
        (
            {"sources": "plants", "checkpoints": world / "resnet.ckpt"},
            "resnet.ckpt has no variable of inception_v3 .*: give its --model_name",
        ),
        ({"targets": "birds,cras"}, "no dataset 'cras', .*: did you mean cars"),
        (
            {"sources": "plants,things,picked,plants+grass"},
            "no dataset 'grass', there is no folder .*data/grass.* or leave .*--nosimilarity",
        ),
        ({"min_count": 13}, "--min_count=13: no class of plants has .*, the largest has 12; lower"),
        (
            {"similarity_features": world},
            f"--similarity_features: no features of birds in {world} .* or leave .*--nosimilarity",
        ),
        (
            {"sources": "plants+things", "checkpoints": world / "checkpoints/plants"},
            "--similarity_features is missing: each of --sources is made of others",
        ),
        (
            {"sources": "picked", "checkpoints": world / "checkpoints/plants"},
            "--similarity_features is missing: each of --sources is made of others",
        ),
        ({"fine_tune_steps": 5}, "--fine_tune_steps is for fine-tuning: give --fine_tune"),
        ({"fine_tune": True}, "no train shards in .*birds: make them with .*convert_dataset.py"),
        (
            {"fine_tune": True, "fine_tune_steps": "1,2,3"},
            "--fine_tune_steps=1,2,3: expected a number, or 2, one for each of --targets",
        ),
        (
            {"fine_tune": True, "fine_tune_flags": "--learning_rat=1"},
            "--fine_tune_flags: Unknown command line flag 'learning_rat'",
        ),
        ({"fine_tune": True, "fine_tune_flags": "'x"}, "--fine_tune_flags: No closing quotation"),
        ({"fine_tune": True, "fine_tune_flags": "x"}, "--fine_tune_flags: unexpected 'x', flags"),
        (
            {"fine_tune": True, "fine_tune_flags": "--train_dir=x"},
            "--fine_tune_flags: --train_dir is chosen by the study; leave it out",
        ),
    ):
        done = run_study(world, **changed)
        assert done.code == 1, changed
        assert re.fullmatch(f"error: .*{message}.*\n", done.error), (changed, done.error)
    assert not (world / "study").exists()


FAKE_COMMANDS = """\
import os, signal, sys, time
from pathlib import Path
module = sys.argv[2]
flags = dict(flag[2:].partition("=")[::2] for flag in sys.argv[3:])
folder = Path(flags["train_dir" if "train" in module else "checkpoint_path"])
(folder / "calls.txt").open("a").write(module + "\\n")
if "eval" in module:
    print("step 4: eval/Accuracy 0.7500, eval/Recall_5 1.0000, 14 images, model.ckpt-4")
elif "plants" in str(folder) and BEHAVIOUR == "fail":
    sys.exit("error: the loss is not finite")
else:
    if BEHAVIOUR == "slow":
        def save(*_):
            (folder / "model.ckpt-2.index").touch()
            sys.exit(143)
        signal.signal(signal.SIGTERM, save)
        (folder / "started").touch()
        time.sleep(60)
    for step in (0, 4):
        (folder / f"model.ckpt-{step}.index").touch()
"""


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Stands in for Python where training and evaluation are run; says how training ends."""
    script = tmp_path / "python"

    def behave(behaviour: str) -> None:
        script.write_text(f"#!{PYTHON}\nBEHAVIOUR = {behaviour!r}\n{FAKE_COMMANDS}")
        script.chmod(0o755)

    monkeypatch.setattr(study_training.sys, "executable", str(script))
    return behave


@pytest.fixture
def fine_tuning(world, colours) -> dict[str, object]:
    """A study with two sources and a converted target, of whose features none is needed."""
    settings = Settings
    for name in PLAIN:
        folder = world / "feature" / name
        for split_name in ("train", "val"):
            split = find_split("colours", split_name, str(colours), folder)
            labels = np.array([entry.label for entry in split.image_list.entries], np.int32)
            np.save(split.feature_path, np.eye(3, dtype=np.float32)[labels])
            np.save(split.label_path, labels)
            hashed = hash_checkpoint(str(world / "checkpoints" / name / "model.ckpt-1"))
            text = describe(split, settings("inception_v3", hashed, False, "Mixed_7c", 299))
            split.feature_path.with_suffix(".json").write_text(text)
    return {
        "sources": ",".join(PLAIN),
        "targets": "colours",
        "checkpoints": ",".join(str(world / "checkpoints" / name) for name in PLAIN),
        "dataset_dir": colours,
        "similarity": False,
        "fine_tune": True,
        "fine_tune_steps": 4,
        "num_workers": 2,
    }


def test_a_training_that_fails_is_tried_again_alone(world, commands, fine_tuning, monkeypatch):
    commands("fail")
    done = run_study(world, **fine_tuning)
    assert done.code == 1
    assert re.fullmatch(
        r"error: 1 of 4 cells failed, the first is plants -> colours: fine-tuned: the loss is not "
        r"finite \(.*/log.txt\); .*\n",
        done.error,
    )
    assert read_table(done.output, "Fine-tuned")["things", "colours"] == "**75.0%**"
    (finished,) = (world / "study/fine_tuned/things").iterdir()
    assert [path.name for path in finished.glob("model*")] == ["model.ckpt-4.index"]
    (tried,) = (world / "study/fine_tuned/plants").iterdir()
    commands("good")
    before = modified(finished)
    # A process that a killed study left behind would hold the lock, until it ends.
    monkeypatch.setattr(study_training, "LOCK_SECONDS", 0.1)
    lock = (tried / ".lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    calls = (tried / "calls.txt").read_text()
    seen = []

    def release() -> None:
        seen.append((tried / "calls.txt").read_text())
        lock.close()

    threading.Timer(1, release).start()
    done = run_study(world, **fine_tuning)
    assert done.code == 0, done.error
    assert "plants -> colours: fine-tuned: waiting for the run" in done.output and seen == [calls]
    assert modified(finished) == before
    modules = [line.split(".")[1] for line in (tried / "calls.txt").read_text().splitlines()]
    assert modules == ["train_image_classifier"] * 2 + ["eval_image_classifier"]
    # Other flags are another run, in another folder.
    fine_tuning["fine_tune_flags"] = "--learning_rate=0.5"
    assert run_study(world, **fine_tuning).code == 0
    assert len(list((world / "study/fine_tuned/plants").iterdir())) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_lets_trainings_save(world, commands, fine_tuning, number):
    commands("slow")

    def stop_when_started() -> None:
        limit = time.monotonic() + 60
        while len(list(world.glob("study/fine_tuned/*/*/started"))) < 2:
            if time.monotonic() > limit:
                break
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop_when_started)
    thread.start()
    done = run_study(world, **fine_tuning)
    thread.join()
    assert done.code == 128 + number
    assert "training saves a checkpoint" in done.output
    assert len(list(world.glob("study/fine_tuned/*/*/model.ckpt-2.index"))) == 2


SMALL_COMMANDS = """\
import runpy, sys
from tests.support import small_network
sys.argv = sys.argv[2:]
with small_network():
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.usefixtures("small_network")
def test_trains_and_evaluates_by_the_commands(colours, tmp_path, monkeypatch):
    shapes = variable_shapes(SMALL_NETWORK, None).items()
    values = {name: recipe_weights(name, shape) for name, shape in shapes}
    checkpoint = write_checkpoint(tmp_path / "net.ckpt", values)
    # Stands in for Python, whose commands do not know the network.
    script = tmp_path / "python"
    script.write_text(f"#!{PYTHON}\n{SMALL_COMMANDS}")
    script.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(study_training.sys, "executable", str(script))
    asked = {
        "sources": "recipe",
        "checkpoints": checkpoint,
        "targets": "colours",
        "dataset_dir": colours,
        "model_name": SMALL_NETWORK,
        "image_size": SMALL_SIZE,
        "batch_size": 8,
        "similarity": False,
        "fine_tune": True,
        "fine_tune_steps": 2,
        "fine_tune_flags": "--learning_rate=0.001 --batch_norm_decay=0.5",
    }
    done = run_study(tmp_path, **asked)
    assert done.code == 0, done.error
    (cell,) = json.loads((tmp_path / "study/study.json").read_text())["cells"]
    assert cell["linear"]["accuracy"] == pytest.approx(score(tmp_path, "recipe", "colours"))
    assert cell["fine_tuned"]["step"] == 2 and cell["fine_tuned"]["images"] == NUM_VALIDATION
    train_dir = Path(cell["fine_tuned"]["train_dir"])
    printed = (train_dir / "eval.txt").read_text().split("eval/Accuracy ")[1].split(",")[0]
    assert cell["fine_tuned"]["accuracy"] == float(printed)
    # Every layer was trained, and the classifier is of the target's three classes.
    stored = read_shapes(str(train_dir / "model.ckpt-2"))
    assert stored[f"{SMALL_NETWORK}/logits/biases"] == [3]
    assert f"{SMALL_NETWORK}/conv1/weights/Momentum" in stored
    before = modified(tmp_path)
    assert run_study(tmp_path, **asked).code == 0
    assert modified(tmp_path) == before
