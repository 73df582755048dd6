"""The contents of figures."""

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from slim.common.errors import UserError
from slim.transfer import plots
from slim.transfer.domain_similarity import SimilarityTable
from slim.transfer.features import Pictures
from slim.transfer.linear_classifier import Evaluation


@pytest.fixture
def evaluation() -> Evaluation:
    confusion = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 10]])
    return Evaluation(np.zeros(30), confusion, np.array([10, 20, 40]), 5)


@pytest.fixture
def pictures(tmp_path) -> Pictures:
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        Image.new("L" if i else "RGB", (300 + i, 120), 40 * i).save(path)
    return Pictures(paths, np.array([0, 1, 2] * 2), ["001.Sooty_Albatross", "002.Auklet", "Crow"])


@pytest.fixture
def table() -> SimilarityTable:
    distances = np.array([[3.0, 5, 9], [8, 6, 2]])
    return SimilarityTable(["inat", "net"], ["a", "b", "c"], distances, np.exp(-0.01 * distances))


def drawn(figure: Figure):
    """Draws a figure and returns its axes and all its text."""
    figure.canvas.draw()
    assert not pyplot.get_fignums()  # pyplot has no figure to show
    texts = [text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text"))]
    return figure.axes, "\n".join(texts)


def images(axes) -> int:
    return sum(len(axis.images) for axis in axes)


def test_confusion(evaluation):
    axes, text = drawn(plots.plot_confusion(evaluation, ["001.Sooty_Albatross", "b", "c"]))
    assert axes[0].get_xlabel() == "predicted class" and axes[0].get_ylabel() == "true class"
    assert "90.0% of 30 images correct" in text and "Sooty Albatross" in text
    np.testing.assert_allclose(axes[0].images[0].get_array()[0], [0.8, 0.2, 0])


def test_confusion_of_many_classes_has_no_names():
    many = Evaluation(np.zeros(40), np.eye(40, dtype=int), np.ones(40), 5)
    assert "name_7" not in drawn(plots.plot_confusion(many, ["name_7"] * 40))[1]


def test_confused_pairs(pictures):
    confusion = np.array([[0, 2, 0], [1, 1, 0], [0, 0, 2]])
    evaluation = Evaluation(np.array([1, 0, 2, 1, 1, 2]), confusion, np.array([2, 2, 2]), 5)
    axes, text = drawn(plots.plot_confused_pairs(evaluation, pictures, pictures, examples=2))
    assert len(axes) == 8 and images(axes) == 2 + 2 + 1 + 2
    assert "Sooty Albatross, 2 predicted as:" in text and "Auklet, 1 predicted as:" in text
    perfect = Evaluation(pictures.labels, np.eye(3, dtype=int) * 2, np.array([2, 2, 2]), 5)
    with pytest.raises(UserError, match="no confused pairs"):
        plots.plot_confused_pairs(perfect, pictures, pictures)


def test_retrieval_marks_correct_and_wrong_neighbours(pictures):
    found = np.array([[3, 1, 0], [2, 4, 1]])
    axes, text = drawn(plots.plot_retrieval(pictures, [0, 4], pictures, found))
    assert len(axes) == images(axes) == 8
    assert "query: Sooty Albatross" in text and "query: Auklet" in text
    assert text.count("✓") == 4 and "✗ Auklet" in text and "✗ Crow" in text
    assert axes[0].images[0].get_array().shape[0] <= plots.THUMBNAIL


def test_similarity(table):
    axes, text = drawn(plots.plot_similarity(table))
    assert axes[0].get_xlabel() == "target domain" and axes[0].get_ylabel() == "source domain"
    assert "★ 0.970\n(3.00)" in text and "0.923\n(8.00)" in text
    assert text.count("★ 0.") == 3


def test_transfer_shows_the_correlation(table):
    accuracy = {("inat", "a"): 0.9, ("net", "a"): 0.6, ("inat", "c"): 0.3, ("net", "c"): 0.5}
    axes, text = drawn(plots.plot_transfer(table, accuracy))
    assert axes[0].get_ylabel() == "transfer accuracy" and "similarity" in axes[0].get_xlabel()
    x = table.similarity[[0, 1, 0, 1], [0, 0, 2, 2]]
    y = np.array([0.9, 0.6, 0.3, 0.5])
    assert f"r = {np.corrcoef(x, y)[0, 1]:+.2f}" in text
    x, y = (v - np.repeat(v.reshape(2, 2).mean(axis=1), 2) for v in (x, y))
    assert f"within targets r = {np.corrcoef(x, y)[0, 1]:+.2f}" in text
    assert "from inat" in text and "b" not in text.split("\n")


def test_class_accuracy(evaluation):
    axes, text = drawn(plots.plot_class_accuracy(evaluation))
    assert axes[0].get_xlabel() == "training images of the class"
    np.testing.assert_allclose(
        axes[0].collections[0].get_offsets(), [[10, 0.8], [20, 0.9], [40, 1]]
    )
    assert "3 classes, mean accuracy 90.0%" in text


def test_correlation_needs_variation():
    assert plots.correlation(np.array([[0, 1], [1, 3.0]])) == pytest.approx(1)
    assert np.isnan(plots.correlation(np.array([[0, 1], [0, 3.0]])))
