"""Groups of classes counted by hand and by scikit-learn, the command, and its picture."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image
from sklearn.metrics import recall_score

from slim import long_tail
from slim.evaluation.predictions import Predictions, group_accuracy
from tests.support import invoke


def predictions(right: list[tuple[int, int]], sizes: list[int] | None, step=10) -> Predictions:
    """Returns predictions, given the numbers of correct and of all images per class."""
    count = len(right)
    labels = np.repeat(np.arange(count), [images for _, images in right])
    hits = np.concatenate([np.arange(images) < hit for hit, images in right])
    first = np.where(hits, labels, (labels + 1) % count)
    rest = (first[:, np.newaxis] + np.arange(min(5, count))) % count
    known = None if sizes is None else np.array(sizes)
    return Predictions(step, labels, rest, np.zeros(rest.shape, "f"), count, None, known)


# Two classes in the tail, three in the middle, of which one has no image, one in the head.
SIZES = [5, 19, 20, 100, 50, 101]
BEFORE = predictions([(0, 4), (1, 2), (3, 4), (1, 4), (0, 0), (4, 4)], SIZES)
AFTER = predictions([(2, 4), (2, 2), (3, 4), (1, 4), (0, 0), (3, 4)], [5] * 6, step=20)


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    return BEFORE.save(tmp_path / "before"), AFTER.save(tmp_path / "after")


def test_groups_counted_by_hand():
    tail, middle, head, whole = group_accuracy(BEFORE)
    assert [str(group) for group in (tail, middle, head, whole)] == [
        "tail (fewer than 20)",
        "middle (20 to 100)",
        "head (more than 100)",
        "all",
    ]
    assert (tail.classes, tail.training_images, tail.validation_images) == (2, 24, 6)
    assert tail.accuracy == pytest.approx((0 + 1 / 2) / 2)
    assert (middle.classes, middle.training_images, middle.validation_images) == (3, 170, 8)
    assert middle.accuracy == pytest.approx((3 / 4 + 1 / 4) / 2)  # the third has no image
    assert (head.classes, head.accuracy) == (1, 1)
    assert (whole.classes, whole.validation_images) == (6, 18)


def test_mean_over_classes_is_scikit_learns_macro_recall():
    for found, classes in zip(group_accuracy(BEFORE), ([0, 1], [2, 3], [5]), strict=False):
        expected = recall_score(BEFORE.labels, BEFORE.top[:, 0], labels=classes, average="macro")
        assert found.accuracy == pytest.approx(expected)


def test_a_group_may_be_empty():
    tail, middle, head, _ = group_accuracy(BEFORE, (200, 300))
    assert tail.classes == 6 and middle.classes == head.classes == 0
    assert np.isnan(head.accuracy)
    assert "| head (more than 300) | 0 | 0 | 0 | - | - | - |" in long_tail.group_table(
        [BEFORE, BEFORE], ["a", "b"], (200, 300)
    )


def test_command_compares_files(files):
    done = invoke(long_tail, *files)
    assert done.code == 0
    lines = done.output.splitlines()
    assert lines[:6] == [
        "| group | classes | training images | validation images | before | after "
        "| difference (points) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| tail (fewer than 20) | 2 | 24 | 6 | 25.0% | 75.0% | +50.0 |",
        "| middle (20 to 100) | 3 | 170 | 8 | 50.0% | 50.0% | +0.0 |",
        "| head (more than 100) | 1 | 101 | 4 | 100.0% | 75.0% | -25.0 |",
        "| all | 6 | 295 | 18 | 50.0% | 65.0% | +15.0 |",
    ]
    assert lines[7].startswith("Accuracy is the mean over the classes of a group")
    assert lines[7].endswith("Over all images: before 50.0%, after 61.1%.")
    plot = files[1].parent / "long_tail-20.png"
    assert lines[-1] == f"plot: {plot}"
    assert Image.open(plot).format == "PNG"


def test_command_takes_folders_names_bounds_and_a_plot(files, tmp_path):
    replace(AFTER, step=3).save(files[1].parent)
    plot = tmp_path / "mine.png"
    folders = [file.parent for file in files]
    flags = ["--names=all,even", "--group_bounds=6,50", f"--plot={plot}"]
    done = invoke(long_tail, *folders, *flags)
    assert done.code == 0
    assert "| all | even |" in done.output and "| middle (6 to 50) | 3 | 89 | 6 |" in done.output
    assert Image.open(plot).format == "PNG"


def test_command_describes_one_file(files):
    done = invoke(long_tail, files[0])
    assert done.code == 0
    assert "validation images | accuracy |\n" in done.output and "difference" not in done.output
    assert "| tail (fewer than 20) | 2 | 24 | 6 | 25.0% |\n" in done.output


def test_command_names_three_files(files):
    done = invoke(long_tail, files[0], *files)
    assert done.code == 0
    assert "| before | after 1 | after 2 | difference" in done.output


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--group_bounds=20", "--group_bounds=20: expected two numbers in ascending order"),
        ("--group_bounds=100,20", "--group_bounds=100,20: expected two numbers"),
        ("--group_bounds=a,b", "--group_bounds=a,b: expected two numbers"),
        ("--group_bounds=0,5", "--group_bounds=0,5: expected two numbers"),
        ("--names=one", "--names=one: expected 2 names, one per file"),
        ("--plot=none/here.png", "cannot write none/here.png: No such file or directory; free"),
    ],
)
def test_refuses_flags(files, flag, message):
    done = invoke(long_tail, *files, flag)
    assert done.code == 1
    assert message in done.error


def test_refuses_files(files, tmp_path):
    unknown = predictions([(1, 2), (1, 2)], None).save(tmp_path / "unknown")
    names = ("abcdef", "abcdeg")
    others = [
        replace(BEFORE, class_names=tuple(letters)).save(tmp_path / letters) for letters in names
    ]
    for paths, message in (
        ([], "FILE is missing: .* -m slim.long_tail BEFORE.npz"),
        ([tmp_path / "none.npz"], "no file"),
        ([unknown], "has no training images per class"),
        ([files[0], unknown], r"\(4 images, 2 classes\) is not for the same images as"),
        ([files[0], unknown], r"\(18 images, 6 classes\): compare evaluations of one split"),
        (others, "is not for the same images as"),
    ):
        done = invoke(long_tail, *paths)
        assert done.code == 1
        assert re.search(message, done.error)


def test_plot_shows_groups_and_classes():
    after = replace(AFTER, class_sizes=BEFORE.class_sizes)
    figure = long_tail.plot_groups([BEFORE, after], ["before", "after"], (20, 100))
    figure.canvas.draw()
    assert not pyplot.get_fignums()  # nothing is there to be shown
    bars, points = figure.axes
    heights = [[bar.get_height() for bar in container] for container in bars.containers]
    np.testing.assert_allclose(heights, [[0.25, 0.5, 1, 0.5], [0.75, 0.5, 0.75, 0.65]])
    assert [label.get_text().splitlines()[0] for label in bars.get_xticklabels()] == [
        "tail",
        "middle",
        "head",
        "all",
    ]
    drawn = points.collections[1].get_offsets()
    np.testing.assert_allclose(drawn, [[5, 0.5], [19, 1], [20, 0.75], [100, 0.25], [101, 0.75]])
    assert points.get_xscale() == "log" and points.get_xlabel() == "training images of the class"
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert legend >= {"before", "after", "a class"}
