"""Does the nearer source transfer better? Sources compared by distance and by accuracy.

Differences of distances have intervals by the bootstrap over the training images of sources and
target, differences of accuracies by the paired bootstrap over the validation images of the target.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import NamedTuple

import numpy as np

from slim.common.command_line import available_cores
from slim.common.progress import progress
from slim.common.tables import Table
from slim.evaluation.intervals import Estimate, accuracy_difference
from slim.transfer.domain_similarity import SimilarityTable, emd, large_classes
from slim.transfer.features import Features
from slim.transfer.prototypes import class_prototypes

# In [0, 1], by source and target. Pairs without a result are absent.
Accuracies = Mapping[tuple[str, str], float]


class SourcePair(NamedTuple):
    """Two sources of a target, in ascending distance."""

    target: str
    nearer: str
    farther: str


def source_pairs(table: SimilarityTable) -> list[SourcePair]:
    """Returns all pairs of sources for each target, the nearer source of each pair first."""
    return [
        SourcePair(target, *names)
        for target in table.targets
        for names in combinations(table.nearest_first(target), 2)
    ]


def accuracy_differences(
    pairs: Sequence[SourcePair], correct: Mapping[tuple[str, str], np.ndarray]
) -> dict[SourcePair, Estimate]:
    """Estimates how much more accurately a target is classified with the nearer source.

    An estimate is the accuracy with the nearer source less that with the farther, in percentage
    points. A pair is left out if one of its sources is not in `correct`, which has by source and
    target the images that are classified correctly, bool `[N]`.
    """
    return {
        pair: accuracy_difference(*(correct[source, pair.target] for source in pair[1:]))
        for pair in pairs
        if all((source, pair.target) in correct for source in pair[1:])
    }


def emd_differences(
    pairs: Sequence[SourcePair],
    images: Mapping[str, Features],
    *,
    min_count: int = 1,
    resamples: int = 200,
) -> dict[SourcePair, Estimate]:
    """Estimates how much farther from the target the farther source is.

    Means of drawn images are noisier than means of all images, which adds more to small distances
    than to large ones: intervals lean towards 0.

    Args:
        pairs: Pairs of sources; a pair is left out if `images` lacks one of its domains, such as
            a union.
        images: The features of the training images by domain.
        min_count: Images that a class of a source must have in `images`.
        resamples: The number of draws, each of which computes the distances of all pairs.

    Returns:
        The Earth Mover's Distance of the farther source less that of the nearer.
    """
    pairs = [pair for pair in pairs if images.keys() >= set(pair)]
    if not pairs:
        return {}
    # 1. The distances that the pairs need, and the classes of the sources, which do not depend on
    #    the draw.
    ways = sorted({(source, pair.target) for pair in pairs for source in pair[1:]})
    sources, targets = (dict.fromkeys(names) for names in zip(*ways, strict=True))
    large = {
        name: large_classes(class_prototypes(*images[name], name), min_count).labels
        for name in sources
    }

    # 2. All images, then draws with replacement, each of which serves all pairs.
    def distances(draw: int | None) -> list[float]:
        random = None if draw is None else np.random.default_rng([0, draw])
        drawn = {}
        for name in sources | targets:
            count, times = len(images[name].labels), None
            if random:
                times = np.bincount(random.integers(count, size=count), minlength=count)
            drawn[name] = class_prototypes(*images[name], times=times)
        kept = {
            name: drawn[name].subset(np.isin(drawn[name].labels, large[name])) for name in large
        }
        return [emd(kept[source], drawn[target]) for source, target in ways]

    draws = [None, *range(resamples)]
    with ThreadPoolExecutor(available_cores()) as pool:
        items = pool.map(distances, draws)
        found = np.array(list(progress("bootstrap", len(draws), " draws", items=items)))

    # 3. The differences, first of all images, then of the draws.
    by_way = dict(zip(ways, found.T, strict=True))
    estimates = {}
    for pair in pairs:
        whole, *drawn = by_way[pair.farther, pair.target] - by_way[pair.nearer, pair.target]
        estimates[pair] = Estimate.from_resamples(whole, drawn)
    return estimates


def comparison_table(
    pairs: Sequence[SourcePair],
    distances: Mapping[SourcePair, Estimate],
    accuracies: Mapping[SourcePair, Estimate],
) -> Table:
    """Returns a table of the results of `emd_differences` and of `accuracy_differences`."""
    header = ["target", "nearer source", "farther source", "EMD, farther - nearer", "is nearer"]
    header += ["accuracy in points, nearer - farther", "classifies better"]
    rows = []
    for pair in pairs:
        distance, accuracy = distances.get(pair), accuracies.get(pair)
        if distance or accuracy:
            cells = [distance.format("+.3f"), distance.verdict()] if distance else ["-", "-"]
            cells += [accuracy.format("+.1f"), accuracy.verdict()] if accuracy else ["-", "-"]
            rows.append([*pair, *cells])
    return Table(header, rows)


class Correlation(NamedTuple):
    """Pearson's correlation of similarity and accuracy, NaN if one of them is constant."""

    overall: float
    within_targets: float  # of the differences from each target's means


def transfer_correlation(table: SimilarityTable, accuracy: Accuracies) -> Correlation:
    points = []  # `[sources, 2]` of each target
    for target, similarities in zip(table.targets, table.similarity.T, strict=True):
        here = [
            (similarity, accuracy[source, target])
            for source, similarity in zip(table.sources, similarities, strict=True)
            if (source, target) in accuracy
        ]
        if here:
            points.append(np.array(here))
    if not points:
        return Correlation(float("nan"), float("nan"))
    # Targets differ in difficulty, so their points are also compared with their own means.
    found = []
    for groups in (points, [place - place.mean(axis=0) for place in points]):
        joined = np.concatenate(groups)
        x, y = (joined - joined.mean(axis=0)).T
        scale = np.sqrt((x @ x) * (y @ y))
        found.append(float(x @ y / scale) if scale > 0 else float("nan"))
    return Correlation(*found)


def best_sources(accuracy: Accuracies, target: str) -> list[str]:
    """Returns the source with the highest accuracy, or several if they are equal."""
    found = {source: value for (source, name), value in accuracy.items() if name == target}
    return [source for source, value in found.items() if value == max(found.values())]
