"""Selects source classes near a target (section 4.2 of the paper)."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from slim.common.errors import UserError
from slim.datasets.derived.writing import (
    Listed,
    read_dataset,
    write_derived,
)
from slim.datasets.lists import CLASSES, compose_class_names, compose_list
from slim.datasets.tfrecord import LISTS
from slim.transfer.domain_similarity import emd
from slim.transfer.prototypes import Prototypes, check_same_network, load_prototypes

SELECTION = "selection.tsv"
RANDOM_DRAWS = 20  # subsets that a selection is compared with


class SelectionSource(NamedTuple):
    """A data set to choose classes from."""

    prototypes: Prototypes
    listed: Listed


class Selection(NamedTuple):
    """K source classes that were chosen, in the order of sources and labels."""

    indices: np.ndarray  # [K], places among the source's classes
    distances: np.ndarray  # [K], to the nearest target
    targets: np.ndarray  # [K], which that is


class SelectionComparison(NamedTuple):
    """What it costs to get to a target: the EMD from three sources."""

    target: str
    whole: float
    selected: float
    random: float  # the mean over subsets of the same number of classes


def class_distances(source: Prototypes, target: Prototypes) -> np.ndarray:
    """How far each source class is from the nearest prototype of a target.

    Not from all of them on average, which is the EMD of the class alone: that would prefer what
    lies between a target's groups of classes to what lies in one of them.

    Returns:
        `[C]`, of the source's classes.

    Raises:
        UserError: They come from different networks.
    """
    check_same_network(source, target)
    return cdist(source.features, target.features).min(axis=1)


def select_classes(
    source: Prototypes, targets: Mapping[str, Prototypes], top_k: Mapping[str, int]
) -> Selection:
    """The source classes nearest to each target, best k a target, united over the targets.

    Args:
        source: The classes to choose from, a union of several domains for one.
        targets: By name.
        top_k: How many to take for each target.

    Raises:
        UserError: There are fewer source classes than that, or networks differ.
    """
    num_classes = len(source.counts)
    distances = np.full((num_classes, len(targets)), np.inf)  # where not among the best k
    for column, (name, target) in enumerate(targets.items()):
        if not 1 <= top_k[name] <= num_classes:
            raise UserError(
                f"--top_k={top_k[name]} for {name}: expected 1 to {num_classes}, the source "
                "classes of --min_count images or more"
            )
        all_distances = class_distances(source, target)
        best = np.argsort(all_distances, kind="stable")[: top_k[name]]
        distances[best, column] = all_distances[best]
    chosen = np.flatnonzero(np.isfinite(distances).any(axis=1))
    nearest = distances[chosen].argmin(axis=1)
    return Selection(chosen, distances[chosen, nearest], np.array(list(targets))[nearest])


def compare(
    source: Prototypes, targets: Mapping[str, Prototypes], indices: np.ndarray, seed: int = 0
) -> list[SelectionComparison]:
    """Compares a selection with all source classes and with random ones, as many, by EMD."""
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


def write_dataset(
    folder: Path, sources: Mapping[str, SelectionSource], chosen: Prototypes, selection: Selection
) -> None:
    """Writes a data set of the chosen classes, ready for `convert_dataset.py`.

    Images stay where they are: `<folder>/<source>` links to the source's folder, beside this one.

    Args:
        folder: Where; beside the folders of the sources.
        sources: By name.
        chosen: The K classes; their new labels are their places here.
        selection: Why they were chosen.

    Raises:
        UserError: The folder holds something else, or cannot be written.
    """
    origins = list(zip(chosen.datasets.tolist(), chosen.labels.tolist(), strict=True))
    label_of = {origin: label for label, origin in enumerate(origins)}
    names = [sources[source].listed.class_names[label] for source, label in origins]
    table = ["label\tname\tsource\tsource_label\timages\tdistance\tnearest_target\n"]
    for i, (source, label) in enumerate(origins):
        reason = f"{selection.distances[i]:.4f}\t{selection.targets[i]}"
        table.append(f"{i}\t{names[i]}\t{source}\t{label}\t{chosen.counts[i]}\t{reason}\n")
    lists = {
        LISTS[split_name]: compose_list(
            (f"{name}/{entry.path}", label_of[name, entry.label])
            for name, source in sources.items()
            for entry in source.listed.splits[split_name]
            if (name, entry.label) in label_of
        )
        for split_name in ("validation", "train")
    }
    files = {SELECTION: "".join(table), CLASSES: compose_class_names(names), **lists}
    write_derived(folder, "selection of classes", list(sources), files)


def load_source(name: str, feature_dir: str, dataset_dir: str) -> SelectionSource:
    """Reads a source's prototypes, lists and class names.

    Raises:
        UserError: Something is missing, or features and training list do not match.
    """
    listed = read_dataset(name, dataset_dir)
    prototypes = load_prototypes(feature_dir, name)
    counted = np.bincount([entry.label for entry in listed.splits["train"]])
    occurring = np.flatnonzero(counted)
    if not (
        np.array_equal(prototypes.labels, occurring)
        and np.array_equal(prototypes.counts, counted[occurring])
    ):
        path = Path(dataset_dir, name, LISTS["train"])
        raise UserError(
            f"{path} lists {counted.sum()} images of {len(occurring)} classes, the "
            f"features in {feature_dir} are of {prototypes.counts.sum()} images of "
            f"{len(prototypes.labels)}, or of others: extract {name} again"
        )
    return SelectionSource(prototypes, listed)
