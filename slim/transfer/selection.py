"""Selection of the source classes nearest to a target (section 4.2 of the paper)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from slim.common.errors import UserError
from slim.common.tables import Table
from slim.datasets.derived.writing import DerivedDataset
from slim.datasets.listed import ListedDataset, read_dataset
from slim.datasets.lists import compose_class_names
from slim.datasets.tfrecord import LISTS
from slim.transfer.domain_similarity import emd
from slim.transfer.prototypes import Prototypes, check_same_network, load_prototypes

SELECTION = "selection.tsv"
RANDOM_DRAWS = 20  # random subsets that a selection is compared with


class SelectionSource(NamedTuple):
    """A dataset to select classes from."""

    prototypes: Prototypes
    listed: ListedDataset


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


def load_source(
    name: str, feature_dir: str, dataset_dir: str, *, normalize: bool = False
) -> SelectionSource:
    """Loads a source and checks that its features match its training list."""
    listed = read_dataset(name, dataset_dir)
    prototypes = load_prototypes(feature_dir, name, normalize=normalize)
    counts = listed.count_images()["train"]
    labels = np.flatnonzero(counts)
    if not (
        np.array_equal(prototypes.labels, labels)
        and np.array_equal(prototypes.counts, counts[labels])
    ):
        raise UserError(
            f"{listed.folder / LISTS['train']} lists {counts.sum()} images of {len(labels)} "
            f"classes, the features in {feature_dir} are of {prototypes.counts.sum()} images of "
            f"{len(prototypes.labels)} classes or of other images: extract {name} again"
        )
    return SelectionSource(prototypes, listed)


def class_distances(source: Prototypes, target: Prototypes) -> np.ndarray:
    """Computes the distance of each source class to the nearest prototype of a target, `[C]`.

    The mean distance to all prototypes, which is the EMD of the single class, would prefer classes
    between groups of target classes to classes within a group.
    """
    check_same_network(source, target)
    return cdist(source.features, target.features).min(axis=1)


def select_classes(
    source: Prototypes, targets: Mapping[str, Prototypes], top_k: Mapping[str, int]
) -> Selection:
    """Selects the `top_k` nearest source classes of each target.

    Raises:
        UserError: There are too few source classes, or the networks differ.
    """
    num_classes = len(source.counts)
    distances = np.full((num_classes, len(targets)), np.inf)  # stays infinite beyond the best k
    for column, (name, target) in enumerate(targets.items()):
        if not 1 <= top_k[name] <= num_classes:
            raise UserError(
                f"--top_k={top_k[name]} for {name}: expected 1 to {num_classes}, the number of "
                "source classes with --min_count images or more"
            )
        all_distances = class_distances(source, target)
        best = np.argsort(all_distances, kind="stable")[: top_k[name]]
        distances[best, column] = all_distances[best]
    selected = np.flatnonzero(np.isfinite(distances).any(axis=1))
    nearest = distances[selected].argmin(axis=1)
    return Selection(selected, distances[selected, nearest], np.array(list(targets))[nearest])


def compare_selection(
    source: Prototypes, targets: Mapping[str, Prototypes], indices: np.ndarray, *, seed: int = 0
) -> list[SelectionComparison]:
    """Compares selected classes with all classes and with random subsets of the same size."""
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


def format_comparisons(
    comparisons: Sequence[SelectionComparison], num_selected: int, num_classes: int
) -> Table:
    """Returns a table with a row per target."""
    header = ["EMD to", f"all {num_classes}", f"these {num_selected}", f"{num_selected} at random"]
    rows = [(name, *(f"{distance:.3f}" for distance in rest)) for name, *rest in comparisons]
    return Table(header, rows)


def derive_dataset(
    sources: Mapping[str, SelectionSource], selected: Prototypes, selection: Selection
) -> DerivedDataset:
    """Returns the dataset of the selected classes, given with their prototypes."""
    origins = list(zip(selected.datasets.tolist(), selected.labels.tolist(), strict=True))
    names = [sources[source].listed.class_names[label] for source, label in origins]
    return DerivedDataset(
        kind="selection of classes",
        table=SELECTION,
        origins=origins,
        sources=[source.listed for source in sources.values()],
        class_names=names,
        columns={
            "source": selected.datasets,
            "source_label": selected.labels,
            "images": selected.counts,
            "distance": [f"{distance:.4f}" for distance in selection.distances],
            "nearest_target": selection.targets,
        },
        classes=compose_class_names(names),
    )
