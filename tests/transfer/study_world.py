"""Small domains for tests of the transfer study, and the study run on them."""

from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from slim.features.feature_files import (
    FeatureSplit,
    Settings,
    describe,
    find_split,
    hash_checkpoint,
)
from slim.transfer import study
from tests.support import Result, invoke, write_checkpoint

PLAIN, TARGETS = ("plants", "things"), ("birds", "cars")
SOURCES = (*PLAIN, "plants+things", "picked")  # a union, and a selection of classes
CLASSES = {"plants": 5, "things": 4, "picked": 2, "birds": 3, "cars": 3}
# Positions of the domains on a line.
PLACES = {"plants": 0, "things": 6, "picked": 2.5, "birds": 1, "cars": 7}
NEUTRAL = "neutral"  # a network that was trained on neither source


def write_lists(data: Path) -> None:
    """Writes the lists of all datasets, without images."""
    for name, classes in CLASSES.items():
        (data / name).mkdir(parents=True)
        for split, each in (("train", 12), ("val", 10)):
            lines = [f"{split}/{i}.jpg: {i % classes}\n" for i in range(each * classes)]
            (data / name / f"{split}.txt").write_text("".join(lines))
    (data / "picked/selection.tsv").write_text("label\tname\n")


def read_labels(split: FeatureSplit) -> np.ndarray:
    """Returns the labels of a list."""
    return np.array([entry.label for entry in split.image_list.entries], np.int32)


def save_features(world: Path, network: str, split: FeatureSplit, values: np.ndarray) -> None:
    """Writes features as extraction does."""
    checkpoint = world / "checkpoints" / network / "model.ckpt-1"
    hashed = "" if network == NEUTRAL else hash_checkpoint(str(checkpoint))
    settings = Settings("inception_v3", hashed, False, "Mixed_7c", 299)
    np.save(split.feature_path, values.astype(np.float32))
    np.save(split.label_path, read_labels(split))
    split.feature_path.with_suffix(".json").write_text(describe(split, settings))


def write_features(world: Path, network: str, noise: float) -> None:
    """Writes features of all lists; noise makes a network worse."""
    folder = world / "feature" / network
    folder.mkdir(parents=True, exist_ok=True)
    for name, classes in CLASSES.items():
        random = np.random.default_rng([len(name), len(network)])
        centres = random.normal(size=(classes, 8))
        centres[:, 0] += PLACES[name]
        for split_name in ("train", "val"):
            split = find_split(name, split_name, str(world / "data"), folder)
            labels = read_labels(split)
            values = centres[labels] + noise * random.normal(size=(len(labels), 8))
            save_features(world, network, split, values)


def write_source(world: Path, name: str, value: float, noise: float) -> None:
    """Writes the checkpoint and features of a source."""
    path = world / "checkpoints" / name / "model.ckpt-1"
    write_checkpoint(path, {"InceptionV3/weights": np.float32(value)})
    write_features(world, name, noise)


def run_study(world: Path, *more: str, **changed: object) -> Result:
    """Runs the study in this process, with default flags unless changed."""
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
    """Loads features and labels."""
    folder = world / "feature" / network
    return tuple(np.load(folder / f"{name}_{kind}_{split}.npy") for kind in ("feature", "label"))


def score(world: Path, source: str, target: str) -> float:
    """Returns the accuracy of scikit-learn's logistic regression."""
    model = LogisticRegression(max_iter=100).fit(*load(world, source, target, "train"))
    return model.score(*load(world, source, target, "val"))


def read_table(text: str, title: str) -> dict[tuple[str, str], str]:
    """Returns the first table below a title, by row and column."""
    lines = text.split(f"## {title}\n")[1].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    rows = rows[: next((i for i, row in enumerate(rows) if len(row) < 2), len(rows))]
    return {
        (row[0], column): cell
        for row in rows[2:]
        for column, cell in zip(rows[0][1:], row[1:], strict=True)
    }


def modified(folder: Path) -> dict[Path, int]:
    """Returns the time of the last change of each file."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
