"""Numbers of images per class."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from slim.datasets.listed import read_dataset
from slim.datasets.prepare import __main__ as prepare
from slim.datasets.prepare.statistics import gini
from tests.datasets.conftest import check

# 20 classes: 1 with 100 images, 9 with 10, 10 with 1; validation has 2 of each except the last.
TRAIN = [10] * 4 + [100] + [10] * 5 + [1] * 10
VALIDATION = [2] * 19 + [0]


@pytest.fixture
def long_tailed(tmp_path):
    """Returns a dataset that has only lists and class names."""
    folder = tmp_path / "long_tailed"
    folder.mkdir()
    for name, counts in (("train.txt", TRAIN), ("val.txt", VALIDATION)):
        lines = [f"{name}{k}/{i}.jpg: {k}\n" for k, n in enumerate(counts) for i in range(n)]
        (folder / name).write_text("".join(lines))
    (folder / "classes.txt").write_text("".join(f"{k} species {k}\n" for k in range(20)))
    return folder


def report(folder, code=0):
    flags = [f"--dataset_name={folder.name}", f"--dataset_dir={folder.parent}", "--stats"]
    done = check(prepare, *flags, code=code)
    return done.error if code else done.output


def test_the_table_of_a_long_tail(long_tailed):
    out = report(long_tailed)
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("| ")]
    assert {row: values for row, *values in rows if not row.startswith("---")} == {
        "long_tailed": ["train", "validation"],
        "images": ["200", "38"],
        "classes with images": ["20", "19"],
        "least in a class": ["1", "0"],
        "median": ["5.5", "2.0"],
        "mean": ["10.0", "1.9"],
        "most in a class": ["100", "2"],
        "part of the largest tenth of classes": ["55.0%", "10.5%"],
        # From the area under the Lorenz curve: 1 - (0.5 x 0.05 + 0.45 x 0.55 + 0.05 x 1.5), where
        # each product has the fraction of classes and the sum of the curve at both ends; 1 / 20.
        "Gini coefficient": ["0.65", "0.05"],
        "classes with fewer than 10": ["10", "20"],
        "classes with fewer than 50": ["19", "20"],
        "classes with fewer than 100": ["19", "20"],
    }
    largest = "species 4 (100), species 0 (10), species 1 (10)"
    assert f"largest training classes: {largest}\n" in out
    assert "smallest training classes: species 19 (1), species 18 (1), species 17 (1)\n" in out


def test_the_plot_is_written(long_tailed):
    assert f"plot: {long_tailed / 'statistics.png'}\n" in report(long_tailed)
    with Image.open(long_tailed / "statistics.png") as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    kept = {"train.txt", "val.txt", "classes.txt", "statistics.png"}
    assert {path.name for path in long_tailed.iterdir()} == kept


def test_the_plot_of_another_process_is_no_obstacle(long_tailed, monkeypatch):
    save = Figure.savefig

    def save_after_another(figure, path, **options):
        save(figure, path, **options)
        monkeypatch.setattr(Figure, "savefig", save)
        monkeypatch.setattr("os.getpid", lambda: 1)
        report(long_tailed)

    monkeypatch.setattr(Figure, "savefig", save_after_another)
    report(long_tailed)
    kept = {"train.txt", "val.txt", "classes.txt", "statistics.png"}
    assert {path.name for path in long_tailed.iterdir()} == kept


def test_images_are_counted_per_class(long_tailed):
    counts = read_dataset(long_tailed.name, long_tailed.parent).count_images()
    assert counts["train"].tolist() == TRAIN
    assert counts["validation"].tolist() == VALIDATION


def test_gini_is_half_the_relative_mean_difference():
    random = np.random.default_rng(0)
    for size in (1, 2, 7, 50):
        counts = random.integers(0, 100, size) + 1
        differences = np.abs(counts[:, None] - counts[None, :]).mean()
        assert gini(counts) == pytest.approx(differences / (2 * counts.mean()))
    assert gini(np.array([5, 5, 5])) == 0
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)


def test_an_invalid_list_is_reported(long_tailed):
    with (long_tailed / "val.txt").open("a") as file:
        file.write("no label\n")
    error = report(long_tailed, code=1)
    assert "val.txt line 39: 'no label' is not of the form" in error and error.count("\n") == 1
