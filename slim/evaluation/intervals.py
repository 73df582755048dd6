"""Confidence intervals of statistics of images, by the bootstrap."""

from collections.abc import Callable, Sequence
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

    @classmethod
    def from_resamples(cls, value: float, found: Sequence[float]) -> "Estimate":
        """Returns a value with the percentile interval of its values in resamples."""
        tail = (100 - CONFIDENCE) / 2
        low, high = np.percentile(found, [tail, 100 - tail])
        return cls(float(value), float(low), float(high))

    def format(self, form: str, scale: float = 1) -> str:
        """Returns the value and its interval as text, such as `0.52 (0.48 to 0.55)`.

        Args:
            form: The format of the numbers, such as `.2f`.
            scale: The factor of the numbers, such as 100 for percent.
        """
        value, low, high = (f"{scale * each:{form}}" for each in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"

    def verdict(self, threshold: float = 0.0) -> str:
        """Returns whether the statistic is above a threshold.

        Returns:
            `holds` or `does not hold` if the whole interval is on one side, else `within noise`.
        """
        if self.low > threshold:
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
    return Estimate.from_resamples(statistic(*samples), found)


def accuracy(correct: np.ndarray) -> Estimate:
    """Estimates an accuracy.

    Args:
        correct: bool `[N]`, the images that are classified correctly.
    """
    return bootstrap(np.mean, np.asarray(correct, np.float64))


def accuracy_difference(correct: np.ndarray, other: np.ndarray) -> Estimate:
    """Estimates by how much one classifier is more accurate than another on the same images.

    Args:
        correct: bool `[N]`, the images that the first classifies correctly.
        other: bool `[N]`, those of the second.
    """
    difference = np.asarray(correct, np.float64) - np.asarray(other, np.float64)
    return bootstrap(np.mean, difference)
