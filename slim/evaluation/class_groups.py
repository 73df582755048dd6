"""Accuracy by groups of classes with few and many training images."""

from dataclasses import dataclass

import numpy as np

from slim.evaluation.predictions import Predictions

# As in Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019.
GROUP_BOUNDS = (20, 100)
ALL = "all"


@dataclass(frozen=True)
class GroupAccuracy:
    name: str  # tail, middle, head or all
    sizes: str  # the range of training images per class, in words; empty for all classes
    classes: int
    training_images: int
    validation_images: int
    accuracy: float  # mean of the class accuracies in [0, 1]; NaN if no class has images

    def __str__(self) -> str:
        return f"{self.name} ({self.sizes})" if self.sizes else self.name


def group_accuracy(
    predictions: Predictions, bounds: tuple[int, int] = GROUP_BOUNDS
) -> list[GroupAccuracy]:
    """Returns the accuracy of the tail, the middle, the head, and all classes.

    Args:
        predictions: Predictions with `class_sizes`.
        bounds: Classes of the tail have fewer training images than the first bound, classes of the
            head more than the second.
    """
    sizes, (low, high) = predictions.class_sizes, bounds
    between = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    groups = {
        ("tail", f"fewer than {low:,}"): sizes < low,
        ("middle", between): (sizes >= low) & (sizes <= high),
        ("head", f"more than {high:,}"): sizes > high,
        (ALL, ""): np.full(len(sizes), True),
    }
    # Class accuracies have equal weights. Classes without validation images have none.
    found = []
    for words, inside in groups.items():
        known = predictions.class_accuracy[inside & (predictions.class_totals > 0)]
        group = GroupAccuracy(
            *words,
            classes=int(inside.sum()),
            training_images=int(sizes[inside].sum()),
            validation_images=int(predictions.class_totals[inside].sum()),
            accuracy=float(known.mean()) if len(known) else float("nan"),
        )
        found.append(group)
    return found
