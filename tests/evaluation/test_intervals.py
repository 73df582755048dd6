"""Bootstrap intervals against SciPy's and against the normal approximation."""

import numpy as np
import pytest
from scipy import stats

from slim.common.errors import UserError
from slim.evaluation.intervals import Estimate, accuracy, accuracy_difference, bootstrap


def test_paired_difference_agrees_with_scipy():
    random = np.random.default_rng(1)
    first = random.random(300) < 0.7
    second = np.where(random.random(300) < 0.8, first, random.random(300) < 0.5)
    found = accuracy_difference(first, second)
    reference = stats.bootstrap(
        (first, second),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert found.value == pytest.approx(100 * (first.mean() - second.mean()))
    expected = (100 * reference.low, 100 * reference.high)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.6)


def test_pairs_make_the_interval_narrower():
    random = np.random.default_rng(3)
    first = random.random(400) < 0.6
    second = first.copy()
    second[:20] = ~second[:20]  # 20 images differ
    found = accuracy_difference(first, second)
    differences = first.astype(float) - second
    error = 100 * differences.std() / np.sqrt(len(first))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_results_on_other_images_are_not_compared():
    with pytest.raises(UserError, match="classifiers of 3 and of 4 images cannot be compared"):
        accuracy_difference(np.ones(3, bool), np.ones(4, bool))


def test_samples_are_drawn_independently():
    first, second = np.arange(50.0), np.arange(80.0)
    found = bootstrap(lambda a, b: a.mean() - b.mean(), first, second)
    error = np.sqrt(first.var() / 50 + second.var() / 80)
    assert found.value == first.mean() - second.mean()
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert bootstrap(lambda a, b: a.mean() - b.mean(), first, second) == found


@pytest.mark.parametrize(
    ("interval", "bounds", "verdict"),
    [
        ((0.01, 0.2), (), "holds"),
        ((0.0, 0.0), (), "within noise"),
        ((-0.01, 0.2), (), "within noise"),
        ((-0.2, -0.01), (), "does not hold"),
        ((-2, 9), (-3,), "holds"),
        ((-2, 2), (-3, 3), "holds"),
        ((-3, 4), (-3, 3), "within noise"),
        ((-9, 9), (-3, 3), "within noise"),
        ((4, 5), (-3, 3), "does not hold"),
    ],
)
def test_the_whole_interval_decides(interval, bounds, verdict):
    assert Estimate(np.mean(interval), *interval).verdict(*bounds) == verdict


def test_an_accuracy_with_the_normal_interval():
    found = accuracy(np.arange(500) % 5 > 0)
    assert found.value == 0.8
    error = np.sqrt(0.8 * 0.2 / 500)
    assert (found.low, found.high) == pytest.approx(
        (0.8 - 1.96 * error, 0.8 + 1.96 * error), abs=0.005
    )


def test_text():
    assert Estimate(0.123, -0.04, 0.2).format(".1%") == "12.3% (-4.0% to 20.0%)"
    assert Estimate(12.3, -4, 20).format("+.1f") == "+12.3 (-4.0 to +20.0)"
