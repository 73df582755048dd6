"""Comparison of sources, against closed forms."""

import numpy as np
import pytest

from slim.common.errors import UserError
from slim.evaluation.intervals import Estimate, accuracy_difference
from slim.transfer.comparison import (
    SourcePair,
    accuracy_differences,
    comparison_table,
    emd_differences,
    source_pairs,
    transfer_correlation,
)
from slim.transfer.domain_similarity import SimilarityTable, emd, large_classes
from slim.transfer.features import Features
from slim.transfer.prototypes import class_prototypes

PAIR = SourcePair("birds", "inat", "net")


def cloud(places, each, *, spread=1.0, seed=0):
    """Returns images of classes around places on a line."""
    labels = np.repeat(np.arange(len(places)), each)
    values = np.random.default_rng(seed).normal(np.array(places, float)[labels], spread)
    return Features(values[:, np.newaxis], labels)


def test_the_nearer_source_comes_first():
    table = SimilarityTable(
        ["net", "inat", "x"], ["a", "b"], np.array([[3.0, 1], [2, 2], [1, 3]]), 0
    )
    assert source_pairs(table) == [
        ("a", "x", "inat"),
        ("a", "x", "net"),
        ("a", "inat", "net"),
        ("b", "net", "inat"),
        ("b", "net", "x"),
        ("b", "inat", "x"),
    ]


def test_distances_of_single_classes_are_differences_of_means():
    domains = {
        "birds": cloud([0], 40, seed=1),
        "inat": cloud([10], 50, spread=2, seed=2),
        "net": cloud([15], 60, spread=3, seed=3),
    }
    far, near = (domains[name].values for name in ("net", "inat"))
    (found,) = emd_differences([PAIR], domains).values()
    assert found.value == pytest.approx(far.mean() - near.mean())
    error = np.sqrt(far.var() / 60 + near.var() / 50)  # the target's mean cancels
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.verdict() == "holds"
    both = [PAIR, SourcePair("birds", "net", "inat")]
    few, again = (emd_differences(both, domains, resamples=20) for _ in range(2))
    assert few == again
    assert few[both[1]].value == -few[PAIR].value == pytest.approx(-found.value)


def test_small_classes_of_sources_do_not_count():
    domains = {"birds": cloud([0], 5), "inat": cloud([1], 20), "net": cloud([3], 20, seed=1)}
    settings = {"min_count": 10, "resamples": 20}
    (expected,) = emd_differences([PAIR], domains, **settings).values()
    few = cloud([100], 4, seed=2)
    domains["net"] = Features(
        np.concatenate([few.values, domains["net"].values]),
        np.concatenate([few.labels, domains["net"].labels + 1]),
    )
    (found,) = emd_differences([PAIR], domains, **settings).values()
    assert found.value == pytest.approx(expected.value) and found.high < expected.value + 2
    # As a target, a domain keeps its small classes, also if it is a source itself.
    other = SourcePair("net", "net", "inat")
    (found,) = emd_differences([other], domains, **settings).values()
    means = [class_prototypes(*domains[name]) for name in ("inat", "net")]
    large = large_classes(means[1], 10)
    assert found.value == pytest.approx(emd(means[0], means[1]) - emd(large, means[1]))
    with pytest.raises(UserError, match="no class of inat has at least 21 images"):
        emd_differences([PAIR], domains, min_count=21)


def test_a_class_may_be_drawn_not_at_all():
    domains = {"birds": cloud([0, 5], 1), "inat": cloud([1, 4], 1), "net": cloud([2, 9], 1)}
    (found,) = emd_differences([PAIR], domains, resamples=50).values()
    assert np.isfinite([found.value, found.low, found.high]).all()


def test_accuracies_and_the_table():
    random = np.random.default_rng(0)
    correct = {(s, "birds"): random.random(200) < p for s, p in (("inat", 0.8), ("net", 0.5))}
    other = SourcePair("birds", "inat", "inat+net")
    found = accuracy_differences([PAIR, other], correct)
    assert found == {PAIR: accuracy_difference(correct["inat", "birds"], correct["net", "birds"])}
    distances = {PAIR: Estimate(0.5, -0.1, 0.7)}
    table = comparison_table([PAIR, other], distances, found)
    ((*names, distance, nearer, points, better),) = table.rows
    assert names == ["birds", "inat", "net"] and better == "holds"
    assert (distance, nearer) == ("+0.500 (-0.100 to +0.700)", "within noise")
    assert points == found[PAIR].format("+.1f")
    ((*_, points, better),) = comparison_table([PAIR], distances, {}).rows
    assert (points, better) == ("-", "-")


def test_without_features_of_images_there_is_no_estimate():
    assert emd_differences([PAIR], {"birds": cloud([0], 5), "inat": cloud([1], 5)}) == {}


def test_correlation_needs_variation():
    table = SimilarityTable(["net", "inat"], ["a"], np.zeros((2, 1)), np.array([[0.1], [0.3]]))
    rising = {("net", "a"): 0.5, ("inat", "a"): 0.9}
    assert transfer_correlation(table, rising) == pytest.approx((1, 1))
    for accuracy in ({("net", "a"): 0.5, ("inat", "a"): 0.5}, {("net", "a"): 0.5}, {}):
        assert np.isnan(transfer_correlation(table, accuracy)).all()
