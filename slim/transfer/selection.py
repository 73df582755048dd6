"""Selection of the source classes nearest to a target (section 4.2 of the paper)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from slim.common.errors import UserError
from slim.transfer.domain_similarity import emd
from slim.transfer.prototypes import Prototypes, check_same_network

SELECTION = "selection.tsv"
RANDOM_DRAWS = 20  # random subsets that a selection is compared with


class Selection(NamedTuple):
    """K selected source classes, in the order of the source."""

    indices: np.ndarray  # [K], among the classes of the source
    distances: np.ndarray  # [K], to the nearest target
    targets: np.ndarray  # [K], names of the nearest targets


class SelectionComparison(NamedTuple):
    """The EMD to a target from all source classes, the selected classes and random ones."""

    target: str
    whole: float
    selected: float
    random: float  # the mean over random subsets of the same number of classes


def select_classes(
    source: Prototypes, targets: Mapping[str, Prototypes], top_k: Mapping[str, int]
) -> Selection:
    """Selects the nearest source classes of each target, whose number `top_k` has by its name.

    A class that is near to several targets is selected once.
    """
    # The distance of a class is that to the nearest prototype of the target. The mean distance to
    # all prototypes, which is the EMD of the single class, would prefer classes between groups of
    # target classes to classes within a group.
    num_classes = len(source.counts)
    distances = np.full((num_classes, len(targets)), np.inf)  # stays infinite beyond the best k
    for column, (name, target) in enumerate(targets.items()):
        if not 1 <= top_k[name] <= num_classes:
            raise UserError(
                f"--top_k={top_k[name]} for {name}: expected 1 to {num_classes}, the number of "
                "source classes with --min_count images or more"
            )
        check_same_network(source, target)
        all_distances = cdist(source.features, target.features).min(axis=1)
        best = np.argsort(all_distances, kind="stable")[: top_k[name]]
        distances[best, column] = all_distances[best]
    selected = np.flatnonzero(np.isfinite(distances).any(axis=1))
    nearest = distances[selected].argmin(axis=1)
    return Selection(selected, distances[selected, nearest], np.array(list(targets))[nearest])


def compare_selection(
    source: Prototypes, targets: Mapping[str, Prototypes], indices: np.ndarray, *, seed: int = 0
) -> list[SelectionComparison]:
    """Compares selected classes of a source with all its classes and with random subsets."""
    random = np.random.default_rng(seed)
    draws = [
        source.subset(random.choice(len(source.counts), len(indices), replace=False))
        for _ in range(RANDOM_DRAWS)
    ]
    return [
        SelectionComparison(
            name,
            emd(source, target),
            emd(source.subset(indices), target),
            float(np.mean([emd(draw, target) for draw in draws])),
        )
        for name, target in targets.items()
    ]
