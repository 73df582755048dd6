"""Confidence intervals of statistics of images, by the bootstrap."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from slim.common.errors import UserError

RESAMPLES = 1000
CONFIDENCE = 95  # percent


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95% confidence interval."""

    value: float
    low: float
    high: float

    @classmethod
    def from_resamples(cls, value: float, found: Sequence[float]) -> "Estimate":
        """Returns the value of a sample with the percentile interval of those of resamples."""
        tail = (100 - CONFIDENCE) / 2
        low, high = np.percentile(found, [tail, 100 - tail])
        return cls(float(value), float(low), float(high))

    def format(self, form: str) -> str:
        """Returns the value and its interval in a format: `0.52 (0.48 to 0.55)` for `.2f`."""
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"

    def verdict(self, least: float = 0.0, most: float = math.inf) -> str:
        """Returns `within noise` if one of two bounds is in the interval.

        Otherwise returns `holds` if the interval is between the bounds, or `does not hold`.
        """
        if least < self.low and self.high < most:
            return "holds"
        return "does not hold" if self.high < least or most < self.low else "within noise"


def bootstrap(
    statistic: Callable[..., float],
    *samples: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Estimates a statistic with the interval of the percentile bootstrap (Efron, 1979).

    Args:
        statistic: The function from the samples to a number.
        *samples: Arrays whose rows are drawn with replacement, each sample by itself. To compare
            classifiers on the same images, put their results side by side: the rows of one sample
            stay together (a paired bootstrap).
        resamples: The number of times to draw.
        seed: The seed of the draws.
    """
    random = np.random.default_rng(seed)
    found = [
        statistic(*(rows[random.integers(len(rows), size=len(rows))] for rows in samples))
        for _ in range(resamples)
    ]
    return Estimate.from_resamples(statistic(*samples), found)


def accuracy(correct: np.ndarray) -> Estimate:
    """Estimates an accuracy from bool `[N]`, whether each image is classified correctly."""
    return bootstrap(np.mean, np.asarray(correct, np.float64))


def accuracy_difference(correct: np.ndarray, other: np.ndarray) -> Estimate:
    """Estimates by how many points one classifier is more accurate than another.

    Args:
        correct: bool `[N]`, the images that the first classifies correctly.
        other: bool `[N]`, the same for the second, in the same order.

    Returns:
        The difference in percentage points, with the interval of the paired bootstrap.
    """
    if len(correct) != len(other):
        raise UserError(
            f"classifiers of {len(correct)} and of {len(other)} images cannot be compared: "
            "evaluate both on the same images"
        )
    return bootstrap(np.mean, 100 * (np.asarray(correct, np.float64) - other))
