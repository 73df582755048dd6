"""Confidence intervals of statistics of images, by the bootstrap."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 95  # percent


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def verdict(self, threshold: float = 0.0) -> str:
        """Returns whether the statistic is at least a threshold.

        Returns:
            `holds` or `does not hold` if the whole interval agrees, else `within noise`.
        """
        if self.low >= threshold:
            return "holds"
        return "does not hold" if self.high < threshold else "within noise"


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
        seed: The seed; the same seed gives the same interval.
    """
    random = np.random.default_rng(seed)
    found = [
        statistic(*(rows[random.integers(len(rows), size=len(rows))] for rows in samples))
        for _ in range(resamples)
    ]
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    return Estimate(float(statistic(*samples)), float(low), float(high))


def accuracy_difference(correct: np.ndarray, other: np.ndarray) -> Estimate:
    """Estimates by how much one classifier is more accurate than another on the same images.

    Args:
        correct: bool `[N]`, the images that the first classifies correctly.
        other: bool `[N]`, those of the second.
    """
    difference = np.asarray(correct, np.float64) - np.asarray(other, np.float64)
    return bootstrap(np.mean, difference)
