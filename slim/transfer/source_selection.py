"""Chooses source classes near a target, and makes a data set of them (section 4.2 of the paper).

    python -m slim.transfer.source_selection --feature_dir=feature/inception_v3_iNat_299 \
        --sources=ILSVRC2012,inat2017 --targets=cub_200,nabirds --top_k=400 --output_name=birds

writes `data/birds/` with `train.txt`, `val.txt`, `classes.txt`, links to the sources' images, and
`selection.tsv`, the list of classes with where they come from. Convert it as any data set:

    python convert_dataset.py --dataset_name=birds
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from scipy.spatial.distance import cdist

from slim.datasets.derived import (
    Listed,
    compose_class_names,
    compose_list,
    output_folder,
    read_dataset,
    write_derived,
)
from slim.datasets.registry import conversion_command
from slim.datasets.tfrecord import LISTS
from slim.errors import UserError, run_command
from slim.flags import FlagSet
from slim.transfer.domain_similarity import MIN_COUNT, emd, large_classes
from slim.transfer.prototypes import Prototypes, check_same_network, load_prototypes, union

SELECTION = "selection.tsv"
RANDOM_DRAWS = 20  # subsets that a selection is compared with


class Source(NamedTuple):
    """A data set to choose classes from."""

    prototypes: Prototypes
    listed: Listed


class Selection(NamedTuple):
    """K source classes that were chosen, in the order of sources and labels."""

    indices: np.ndarray  # [K], places among the source's classes
    distances: np.ndarray  # [K], to the nearest target
    targets: np.ndarray  # [K], which that is


class Comparison(NamedTuple):
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
) -> list[Comparison]:
    """Compares a selection with all source classes and with random ones, as many, by EMD."""
    random = np.random.default_rng(seed)
    draws = [
        source.subset(random.choice(len(source.counts), len(indices), replace=False))
        for _ in range(RANDOM_DRAWS)
    ]
    return [
        Comparison(
            name,
            emd(source, target),
            emd(source.subset(indices), target),
            float(np.mean([emd(draw, target) for draw in draws])),
        )
        for name, target in targets.items()
    ]


def write_dataset(
    folder: Path, sources: Mapping[str, Source], chosen: Prototypes, selection: Selection
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
            (name, entry.path, label_of[name, entry.label])
            for name, source in sources.items()
            for entry in source.listed.splits[split_name]
            if (name, entry.label) in label_of
        )
        for split_name in ("validation", "train")
    }
    files = {SELECTION: "".join(table), "classes.txt": compose_class_names(names), **lists}
    write_derived(folder, "selection of classes", list(sources), files)


def load_source(name: str, feature_dir: str, dataset_dir: str) -> Source:
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
    return Source(prototypes, listed)


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.string("feature_dir", None, "Features of all by one network: feature/<checkpoint>.")
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    define.words("sources", [], "Datasets to choose classes from.")
    define.words("targets", [], "Datasets to be near to.")
    define.words("top_k", ["200"], "Classes for each target: one number, or one each.")
    define.integer("min_count", MIN_COUNT, "Training images that a source class must have.", 1)
    define.string("output_name", None, "The dataset to make, a folder in --dataset_dir.")
    define.integer("seed", 0, "Of the random subsets compared with.")


def main(values: flags.FlagValues) -> None:
    """Makes a dataset of the source classes nearest to the targets."""
    for name in ("feature_dir", "sources", "targets", "output_name"):
        if not values[name].value:
            raise UserError(f"--{name} is missing: {values[name].help}")
    sources = {
        name: load_source(name, values.feature_dir, values.dataset_dir) for name in values.sources
    }
    targets = {name: load_prototypes(values.feature_dir, name) for name in values.targets}
    source = large_classes(union([s.prototypes for s in sources.values()]), values.min_count)
    selection = select_classes(source, targets, _counts_by_target(values.top_k, values.targets))
    chosen = source.subset(selection.indices)
    folder = output_folder(values.output_name, values.dataset_dir)
    write_dataset(folder, sources, chosen, selection)

    few, all_ = len(chosen.counts), len(source.counts)
    print(f"{folder}: {few} of {all_} classes, listed in {folder / SELECTION}\n")
    print(f"| EMD to | all {all_} | these {few} | {few} at random |")
    print("| --- | --- | --- | --- |")
    for row in compare(source, targets, selection.indices, values.seed):
        print(f"| {row.target} | {row.whole:.3f} | {row.selected:.3f} | {row.random:.3f} |")
    print(f"\nnext: {conversion_command(values.output_name, values.dataset_dir)}")


def _counts_by_target(top_k: Sequence[str], targets: Sequence[str]) -> dict[str, int]:
    """The number of classes to take for each target."""
    expected = f"expected a number, or {len(targets)}, one for each of --targets"
    if len(top_k) not in (1, len(targets)):
        raise UserError(f"--top_k has {len(top_k)} numbers: {expected}")
    if not all(number.isdecimal() for number in top_k):
        raise UserError(f"--top_k={','.join(top_k)}: {expected}")
    numbers = [int(number) for number in top_k]
    return dict(zip(targets, numbers * len(targets) if len(numbers) == 1 else numbers, strict=True))


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
