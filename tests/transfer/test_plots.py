"""The contents of figures."""

import warnings

import numpy as np
import pytest
from matplotlib.font_manager import fontManager

from slim.common import figures
from slim.evaluation.confusion import confusion_colours
from slim.transfer import plots
from slim.transfer.domain_similarity import SimilarityTable, emd, optimal_flow
from slim.transfer.linear_classifier import Evaluation
from slim.transfer.prototypes import Prototypes, union
from tests.transfer.drawing import drawn


@pytest.fixture
def evaluation() -> Evaluation:
    confusion = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 10]])
    return Evaluation(np.zeros(30), confusion, np.array([10, 20, 40]), 5)


@pytest.fixture
def table() -> SimilarityTable:
    distances = np.array([[3.0, 5, 9], [8, 6, 2]])
    return SimilarityTable(["inat", "net"], ["a", "b", "c"], distances, np.exp(-0.01 * distances))


def test_confusion(evaluation):
    axes, text = drawn(plots.plot_confusion(evaluation, ["001.Sooty_Albatross", "b", "c"]))
    assert axes[0].get_xlabel() == "predicted class" and axes[0].get_ylabel() == "true class"
    assert "90.0% of 30 images correct" in text and "Sooty Albatross" in text
    np.testing.assert_array_equal(
        axes[0].images[0].get_array(), confusion_colours(evaluation.confusion)
    )
    counts = {text.get_position(): text.get_text() for text in axes[0].texts}
    assert counts == {(0, 0): "8", (1, 0): "2", (0, 1): "1", (1, 1): "9", (2, 2): "10"}


def test_names_in_any_script(evaluation, table, monkeypatch):
    """On axes and in titles; dollars are no formula, and no character becomes a box."""
    only = [font for font in fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(figures, "_fonts", lambda: only)
    names = ["麻雀", "Воробей_$x_$", r"$\broken$"]
    domains = SimilarityTable(["鳥 1", "net"], ["花", "b", "c"], table.emd, table.similarity)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as Matplotlib's about a missing glyph
        text = drawn(plots.plot_confusion(evaluation, names))[1]
        of_domains = drawn(plots.plot_similarity(domains))[1]
    assert r"\u9ebb\u96c0" in text and "Воробей $x $" in text and r"$\broken$" in text
    assert r"\u9ce5 1" in of_domains and r"\u82b1" in of_domains and "★ 0.970" in of_domains


def test_confusion_of_many_classes_has_no_names():
    many = Evaluation(np.zeros(40), np.eye(40, dtype=int), np.ones(40), 5)
    assert "name_7" not in drawn(plots.plot_confusion(many, ["name_7"] * 40))[1]
    several = Evaluation(np.zeros(300), np.eye(300, dtype=int), np.ones(300), 5)
    (axes,), _ = drawn(plots.plot_confusion(several, [""] * 300))
    assert axes.get_xlim() == (-0.5, 299.5)  # counts classes, though two share a cell


def test_similarity(table):
    axes, text = drawn(plots.plot_similarity(table))
    assert axes[0].get_xlabel() == "target domain" and axes[0].get_ylabel() == "source domain"
    assert "★ 0.970\n(3.00)" in text and "0.923\n(8.00)" in text
    assert text.count("★ 0.") == 3


def test_the_bars_of_flows_sum_to_all_mass():
    random = np.random.default_rng(0)
    parts = [
        Prototypes(
            name, random.normal(size=(4, 3)), np.arange(1, 5), np.arange(4), np.full(4, name)
        )
        for name in ("inat", "net", "birds", "cars")
    ]
    source, targets = union(parts[:2]), parts[2:]
    flows = {target.name: optimal_flow(source, target) for target in targets}
    axes, text = drawn(plots.plot_flows(flows, source))
    for target, axis in zip(targets, axes, strict=True):
        assert f"to {target.name}: EMD {emd(source, target):.3f}" in text
        assert sum(bar.get_height() for bar in axis.patches) == pytest.approx(1)
    assert "from inat" in text and "from net" in text


def test_transfer_shows_the_correlation(table):
    accuracy = {("inat", "a"): 0.9, ("net", "a"): 0.6, ("inat", "c"): 0.3, ("net", "c"): 0.5}
    axes, text = drawn(plots.plot_transfers(table, {"transfer accuracy": accuracy}))
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
