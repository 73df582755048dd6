"""Prints the figures of `./demo.sh`, and tests the claims of the paper on them.

    python -m benchmarks.demo --full

runs in the folder of the demo, at its end. The claims, with 95% intervals by the bootstrap over
images, are also written to `feature/claims.json`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks import claims
from benchmarks.claims import Claim, Correct, claims_table, write_claims
from slim.checkpoints.description import read_model_description
from slim.common.command_line import FlagSet, run_command
from slim.common.tables import Table
from slim.datasets.registry import read_dataset_description
from slim.evaluation.predictions import Predictions, find_predictions, load_predictions
from slim.transfer.comparison import SourcePair, emd_differences
from slim.transfer.domain_similarity import SimilarityTable, similarity_table
from slim.transfer.features import Features, load_features, load_side_by_side
from slim.transfer.linear_classifier import classify
from slim.transfer.prototypes import class_prototypes

# The names and sizes of demo.sh.
SOURCES = ("toy_inat", "toy_imagenet")
UNION = "+".join(SOURCES)
SELECTED = "toy_selected"
TARGETS = ("toy_birds", "toy_flowers", "toy_cars")
SMALLER, SIZE = 75, 107  # pixels
GROUP_BOUNDS = (40, 120)  # training images per class
# The nearer and the farther source by target: toy_inat has birds and flowers, toy_imagenet cars.
NEARER = {
    "toy_birds": ("toy_inat", "toy_imagenet"),
    "toy_flowers": ("toy_inat", "toy_imagenet"),
    "toy_cars": ("toy_imagenet", "toy_inat"),
}
BALANCED = "toy_inat_balanced"  # the toy_inat network, fine-tuned
SMALL = f"toy_imagenet_{SMALLER}"
FINE_TUNED = (f"{SMALL}_at_{SMALLER}", f"{SMALL}_at_{SIZE}")  # from SMALL
DATA, CHECKPOINTS, FEATURES = Path("data"), Path("checkpoints"), Path("feature")
CLAIMS = FEATURES / "claims.json"


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flag of the command."""
    FlagSet(values).boolean("full", False, "Also test the claims of ./demo.sh --full.")


def main(values: flags.FlagValues) -> None:
    """Prints tables of figures and of claims."""
    networks, sources, domains = [*SOURCES, "toy_birds"], [*SOURCES], [*SOURCES, *TARGETS]
    if values.full:
        networks += [BALANCED, SMALL, *FINE_TUNED]
        sources += [UNION, SELECTED]
        domains += [SELECTED]
    evaluated = {name: load_evaluation(name) for name in networks}
    print(f"\n{network_table(evaluated)}")
    correct = fit_classifiers(sources)
    print(f"\n{accuracy_table(correct, sources)}")

    images = load_domains(SOURCES, domains)
    distances = {"both networks": measure_distances(images, sources)}
    for network in SOURCES:
        alone = load_domains([network], [*SOURCES, *TARGETS])
        distances[f"{network} alone"] = measure_distances(alone, SOURCES)
    print(f"\n{distance_table(distances)}\n", flush=True)

    found = basic_claims(correct, images, evaluated["toy_birds"])
    if values.full:
        found += full_claims(correct, evaluated, distances["both networks"])
    print(f"\n{claims_table(found)}")
    write_claims(CLAIMS, found, full=values.full)


def load_evaluation(name: str) -> Predictions:
    """Loads the predictions of the last evaluation of a network."""
    return load_predictions(find_predictions(CHECKPOINTS / name))


def network_table(evaluated: Mapping[str, Predictions]) -> Table:
    """Returns a table of networks and their accuracy on the validation images."""
    header = ["network", "trained on", "training images", "validation images", "classes"]
    header += ["pixels", "steps", "top-1", "top-5", "chance"]
    rows = []
    for name, found in evaluated.items():
        trained = read_model_description(CHECKPOINTS / name)
        converted = read_dataset_description(DATA / trained.dataset_name)
        samples = converted.splits["train"].samples
        counts = (samples, len(found.labels), found.num_classes, trained.image_size, found.step)
        shares = (found.accuracy, found.recall_5, 1 / found.num_classes)
        cells = [*(f"{n:,}" for n in counts), *(f"{share:.1%}" for share in shares)]
        rows.append([name, trained.dataset_name, *cells])
    return Table(header, rows, numeric=range(2, len(header)))


def fit_classifiers(sources: Iterable[str]) -> Correct:
    """Fits logistic regression to the features of each target by the network of each source."""
    found = {}
    for source in sources:
        for target in TARGETS:
            train, val = (load_features(FEATURES / source, target, s) for s in ("train", "val"))
            found[source, target] = classify(train, val).predictions == val.labels
    return found


def accuracy_table(correct: Correct, sources: Sequence[str]) -> Table:
    """Returns a table of accuracies of logistic regression with one row per source."""
    rows = []
    for source in sources:
        shares = [correct[source, target].mean() for target in TARGETS]
        rows.append([source, *(f"{share:.1%}" for share in (*shares, np.mean(shares)))])
    header = ["linear classifier on features from", *TARGETS, "mean"]
    return Table(header, rows, numeric=range(1, len(header)))


def load_domains(networks: Sequence[str], domains: Iterable[str]) -> dict[str, Features]:
    """Loads training images of domains by the normalized features of networks, side by side."""
    folders = [FEATURES / network for network in networks]
    return {domain: load_side_by_side(folders, domain, normalize=True) for domain in domains}


def measure_distances(domains: Mapping[str, Features], sources: Sequence[str]) -> SimilarityTable:
    """Measures the distances and similarities, with gamma = 1, of all sources and targets."""
    prototypes = {name: class_prototypes(*images, name) for name, images in domains.items()}
    return similarity_table(prototypes, sources, TARGETS, gamma=1, min_count=1)


def distance_table(distances: Mapping[str, SimilarityTable]) -> Table:
    """Returns a table of distances, with the smallest of each network and target in bold.

    Args:
        distances: The distances by the networks whose features they are measured with.
    """
    rows = []
    for networks, table in distances.items():
        for source, row in zip(table.sources, table.emd, strict=True):
            smallest = row == table.emd.min(axis=0)
            texts = [
                f"**{d:.3f}**" if s else f"{d:.3f}" for d, s in zip(row, smallest, strict=True)
            ]
            rows.append([networks, source, *texts])
    header = ["EMD between normalized features of", "source", *TARGETS]
    return Table(header, rows, numeric=range(2, len(header)))


def basic_claims(
    correct: Correct, images: Mapping[str, Features], fine_tuned: Predictions
) -> list[Claim]:
    """Returns the claims of `./demo.sh`.

    Args:
        correct: See `fit_classifiers`.
        images: The features that distances are measured with, by domain.
        fine_tuned: Predictions of the toy_inat network with a last layer for toy_birds.
    """
    pairs = {target: SourcePair(target, *sources) for target, sources in NEARER.items()}
    differences = emd_differences(list(pairs.values()), images)
    labels = load_features(FEATURES / "toy_inat", "toy_birds", "val").labels
    return [
        *claims.better_sources(correct, NEARER),
        *claims.nearer_sources({t: differences[pair] for t, pair in pairs.items()}, NEARER),
        *claims.last_layer(
            "toy_birds",
            claims.correct_images(fine_tuned, labels, "toy_birds"),
            correct["toy_inat", "toy_birds"],
            1 / fine_tuned.num_classes,
        ),
    ]


def full_claims(
    correct: Correct, evaluated: Mapping[str, Predictions], table: SimilarityTable
) -> list[Claim]:
    """Returns the claims of `./demo.sh --full` beyond those of `./demo.sh`.

    Args:
        correct: See `fit_classifiers`.
        evaluated: Predictions by network.
        table: The similarities of all sources to all targets.
    """
    claims.correct_images(evaluated[BALANCED], evaluated["toy_inat"].labels, BALANCED)
    labels = evaluated["toy_imagenet"].labels
    small, large, *fine_tuned = (
        claims.correct_images(evaluated[name], labels, name)
        for name in (SMALL, "toy_imagenet", *FINE_TUNED)
    )
    return [
        claims.balanced(evaluated["toy_inat"], evaluated[BALANCED], GROUP_BOUNDS),
        *claims.resolution((small, large), tuple(fine_tuned), (SMALLER, SIZE)),
        *claims.union_of_sources(correct, UNION, SOURCES, TARGETS),
        claims.selected_classes(correct, SELECTED, UNION, TARGETS),
        claims.similarity_predicts_accuracy(correct, table),
    ]


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
