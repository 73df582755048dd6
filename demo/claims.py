"""Prints the figures of `./demo.sh`, and tests the claims of the paper on them.

    python -m demo.claims --full

runs in the folder of the demo, at its end. The claims, with 95% intervals by the bootstrap over
images, are also written to `feature/claims.json`.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from slim.checkpoints.description import read_model_description
from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.common.files import write_whole
from slim.common.tables import Table
from slim.datasets.registry import read_dataset_description
from slim.evaluation.intervals import Estimate, accuracy_difference, bootstrap
from slim.evaluation.predictions import (
    Predictions,
    find_predictions,
    group_accuracy,
    load_predictions,
)
from slim.transfer.comparison import SourcePair, accuracy_differences, emd_differences
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
BALANCED = "toy_inat_balanced"  # the toy_inat network, fine-tuned
SMALL = f"toy_imagenet_{SMALLER}"
FINE_TUNED = (f"{SMALL}_at_{SMALLER}", f"{SMALL}_at_{SIZE}")  # from SMALL
DATA, CHECKPOINTS, FEATURES = Path("data"), Path("checkpoints"), Path("feature")
CLAIMS = FEATURES / "claims.json"

# The paper's claim: toy_inat has birds and flowers, toy_imagenet has cars.
PAIRS = (
    SourcePair("toy_birds", nearer="toy_inat", farther="toy_imagenet"),
    SourcePair("toy_flowers", nearer="toy_inat", farther="toy_imagenet"),
    SourcePair("toy_cars", nearer="toy_imagenet", farther="toy_inat"),
)
POINTS, TIMES, DISTANCE, CORRELATION = "points", "times chance", "EMD", "r"
FORMS = {POINTS: "+.1f", TIMES: ".1f", DISTANCE: "+.3f", CORRELATION: "+.2f"}

# By source and target, whether each validation image is classified correctly, bool `[N]`.
Correct = Mapping[tuple[str, str], np.ndarray]


@dataclass(frozen=True)
class Claim:
    """A statement that is true if a figure is between two bounds."""

    key: str
    statement: str
    estimate: Estimate
    _: KW_ONLY
    unit: str = POINTS  # a key of FORMS
    least: float = 0.0
    most: float = math.inf

    @property
    def margin(self) -> float:
        """By how much the claim is true, negative if it is false."""
        return min(self.estimate.value - self.least, self.most - self.estimate.value)

    @property
    def verdict(self) -> str:
        """Whether the whole interval agrees: holds, within noise, or does not hold."""
        return self.estimate.verdict(self.least, self.most)

    def to_json(self) -> dict[str, Any]:
        """Returns everything about the claim; infinite bounds are null."""
        return {
            "statement": self.statement,
            "value": self.estimate.value,
            "low": self.estimate.low,
            "high": self.estimate.high,
            "unit": self.unit,
            "least": self.least,
            "most": self.most if math.isfinite(self.most) else None,
            "margin": self.margin,
            "verdict": self.verdict,
        }


def define_flags(values: flags.FlagValues) -> None:
    FlagSet(values).boolean("full", False, "Also test the claims of ./demo.sh --full.")


def main(values: flags.FlagValues) -> None:
    networks, sources, domains = [*SOURCES, "toy_birds"], [*SOURCES], [*SOURCES, *TARGETS]
    if values.full:
        networks += [BALANCED, SMALL, *FINE_TUNED]
        sources += [UNION, SELECTED]
        domains += [SELECTED]

    # 1. The accuracies of the networks on the validation images of their own datasets.
    evaluated = {n: load_predictions(find_predictions(CHECKPOINTS / n)) for n in networks}
    print(f"\n{network_table(evaluated)}")

    # 2. Logistic regression on the features of each target by the network of each source.
    correct = {}
    for source in sources:
        for target in TARGETS:
            train, val = (load_features(FEATURES / source, target, s) for s in ("train", "val"))
            correct[source, target] = classify(train, val).predictions == val.labels
    print(f"\n{accuracy_table(correct, sources)}")

    # 3. Distances between sources and targets, by the features of both networks and of each.
    images = load_domains(SOURCES, domains)
    distances = {"both networks": measure_distances(images, sources)}
    for network in SOURCES:
        alone = load_domains([network], [*SOURCES, *TARGETS])
        distances[f"{network} alone"] = measure_distances(alone, SOURCES)
    print(f"\n{distance_table(distances)}\n", flush=True)

    # 4. The claims.
    labels = load_features(FEATURES / "toy_inat", "toy_birds", "val").labels
    claims = [
        *source_claims(PAIRS, correct, images),
        *last_layer_claims(
            "toy_birds",
            correct_images(evaluated["toy_birds"], labels, "toy_birds"),
            correct["toy_inat", "toy_birds"],
            1 / evaluated["toy_birds"].num_classes,
        ),
    ]
    if values.full:
        correct_images(evaluated[BALANCED], evaluated["toy_inat"].labels, BALANCED)  # a check
        small, large, *fine_tuned = (
            correct_images(evaluated[name], evaluated["toy_imagenet"].labels, name)
            for name in (SMALL, "toy_imagenet", *FINE_TUNED)
        )
        claims += [
            balanced_claim(evaluated["toy_inat"], evaluated[BALANCED], GROUP_BOUNDS),
            *resolution_claims((small, large), fine_tuned, (SMALLER, SIZE)),
            *union_claims(correct, UNION, SOURCES, TARGETS),
            selection_claim(correct, SELECTED, UNION, TARGETS),
            correlation_claim(correct, distances["both networks"]),
        ]
    rows = [
        [c.statement, f"{c.estimate.format(FORMS[c.unit])} {c.unit}", c.verdict] for c in claims
    ]
    print(f"\n{Table(['claim', 'figure (95% interval)', 'verdict'], rows)}")
    write_claims(CLAIMS, claims, full=values.full)


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
    """Returns a table of distances, with the smallest per network and target in bold."""
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


def source_claims(
    pairs: Sequence[SourcePair], correct: Correct, images: Mapping[str, Features]
) -> list[Claim]:
    """Returns the claims that the source that should be nearer is, and classifies better."""
    better, nearer = accuracy_differences(pairs, correct), emd_differences(pairs, images)
    return [
        *(
            Claim(
                f"accuracy_{target}",
                f"{target}: features of {near} classify better than those of {far}",
                better[target, near, far],
            )
            for target, near, far in better
        ),
        *(
            Claim(
                f"emd_{target}",
                f"{target}: {near} is nearer than {far}",
                nearer[target, near, far],
                unit=DISTANCE,
            )
            for target, near, far in nearer
        ),
    ]


def last_layer_claims(
    name: str, fine_tuned: np.ndarray, linear: np.ndarray, chance: float
) -> list[Claim]:
    """Returns the claims on the fine-tuned last layer: far above chance, close to regression.

    Args:
        name: The target.
        fine_tuned: bool `[N]`, the images that the fine-tuned network classifies correctly.
        linear: bool `[N]`, those of logistic regression on features of the same network.
        chance: The accuracy of guessing.
    """
    tuning = f"{name}: fine-tuning the last layer"
    times = bootstrap(lambda rows: rows.mean() / chance, fine_tuned.astype(float))
    lead = accuracy_difference(fine_tuned, linear)
    close = f"{tuning} is within 5 points of the linear classifier"
    return [
        Claim("last_layer_chance", f"{tuning} reaches 5 times chance", times, unit=TIMES, least=5),
        Claim("last_layer_linear", close, lead, least=-5, most=5),
    ]


def balanced_claim(before: Predictions, after: Predictions, bounds: tuple[int, int]) -> Claim:
    """Returns the claim that a balanced subset helps the tail more than it costs the head.

    The figure is the gain of the tail plus the gain of the head. The latter is usually negative.
    """

    def tail_and_head(predictions: Predictions, rows: np.ndarray) -> float:
        drawn = replace(
            predictions,
            labels=predictions.labels[rows],
            top=predictions.top[rows],
            probabilities=predictions.probabilities[rows],
            class_sizes=before.class_sizes,
        )
        tail, _, head, _ = group_accuracy(drawn, bounds)
        return 100 * (tail.accuracy + head.accuracy)

    return Claim(
        "balanced",
        "fine-tuning on a balanced subset lifts the tail by more than it costs the head",
        bootstrap(
            lambda rows: tail_and_head(after, rows) - tail_and_head(before, rows),
            np.arange(len(before.labels)),
        ),
    )


def resolution_claims(
    trained: Sequence[np.ndarray], fine_tuned: Sequence[np.ndarray], sizes: tuple[int, int]
) -> list[Claim]:
    """Returns the claims that larger images are better.

    Args:
        trained: bool `[N]` each, the images that the networks that were trained at the smaller
            and at the larger size classify correctly. Each is evaluated at its own size.
        fine_tuned: The same for the network of the smaller size, fine-tuned at each size.
        sizes: The smaller and the larger size in pixels.
    """
    small, large = sizes
    return [
        Claim(
            "resolution_trained",
            f"training at {large} pixels is better than at {small}",
            accuracy_difference(trained[1], trained[0]),
        ),
        Claim(
            "resolution_fine_tuned",
            f"fine-tuning the network of {small} pixels at {large} is better than at {small}",
            accuracy_difference(fine_tuned[1], fine_tuned[0]),
        ),
    ]


def union_claims(
    correct: Correct, union: str, sources: Sequence[str], targets: Sequence[str]
) -> list[Claim]:
    """Returns the claims that the union is about as good as the best source for every target."""
    images = {target: side_by_side(correct, [union, *sources], target) for target in targets}
    return [
        *(
            Claim(
                f"union_{target}",
                f"{target}: the union is within 3 points of the better source",
                bootstrap(lead_of_first, images[target]),
                least=-3,
            )
            for target in targets
        ),
        Claim(
            "union_mean",
            "mean of the targets: the union is better than each source",
            bootstrap(lead_of_first, *images.values()),
        ),
    ]


def selection_claim(correct: Correct, selected: str, union: str, targets: Sequence[str]) -> Claim:
    """Returns the claim that the selected classes are at least as good as all classes."""
    images = [side_by_side(correct, [selected, union], target) for target in targets]
    return Claim(
        "selected_mean",
        "mean of the targets: the selected classes are at least as good as the union",
        bootstrap(lead_of_first, *images),
    )


def correlation_claim(correct: Correct, table: SimilarityTable) -> Claim:
    """Returns the claim that accuracy and similarity correlate over the sources of a target.

    The interval accounts for the validation images alone: the similarities are constant.
    """

    def mean_correlation(*images: np.ndarray) -> float:
        accuracies = [drawn.mean(axis=0) for drawn in images]
        pairs = zip(accuracies, table.similarity.T, strict=True)
        return float(np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs]))

    images = [side_by_side(correct, table.sources, target) for target in table.targets]
    return Claim(
        "correlation",
        "mean of the targets: accuracy and similarity correlate over the sources",
        bootstrap(mean_correlation, *images),
        unit=CORRELATION,
        least=0.6,
    )


def side_by_side(correct: Correct, sources: Sequence[str], target: str) -> np.ndarray:
    """Returns the results of S sources on the same images, float64 `[N, S]`."""
    return np.stack([correct[source, target] for source in sources], axis=1).astype(float)


def lead_of_first(*images: np.ndarray) -> float:
    """Returns by how many points the first column is above the best other one.

    Args:
        *images: Results per image `[N, S]` of each target. All targets have the same weight.
    """
    first, *others = np.mean([drawn.mean(axis=0) for drawn in images], axis=0)
    return 100 * (first - max(others))


def correct_images(predictions: Predictions, labels: np.ndarray, name: str) -> np.ndarray:
    """Returns whether each image is classified correctly, bool `[N]`, after checking the labels."""
    if not np.array_equal(predictions.labels, labels):
        raise UserError(
            f"{name} was evaluated on {len(predictions.labels)} images, not on the {len(labels)} "
            "images that it is compared on: delete its predictions-*.npz and run ./demo.sh again"
        )
    return predictions.correct


def write_claims(path: Path, claims: Sequence[Claim], *, full: bool) -> None:
    """Writes claims, and whether they are those of the full demo, as JSON."""
    content = {"full": full, "claims": {claim.key: claim.to_json() for claim in claims}}
    write_whole(path, json.dumps(content, indent=2) + "\n")


def read_claims(path: Path, *, full: bool) -> dict[str, dict[str, Any]] | None:
    """Reads the claims by key; None if they do not exist, or are not the full ones if needed."""
    try:
        content = json.loads(path.read_text("utf-8"))
        return content["claims"] if content["full"] >= full else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is not a file of claims of the demo: delete it, then run the command again"
        ) from None


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
