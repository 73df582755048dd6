"""The claims that the demo tests: figures of one run, with intervals and verdicts."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from slim.common.errors import UserError
from slim.common.files import write_whole
from slim.common.tables import Table
from slim.evaluation.intervals import Estimate, accuracy_difference, bootstrap
from slim.evaluation.long_tail import group_accuracy
from slim.evaluation.predictions import Predictions
from slim.transfer.domain_similarity import SimilarityTable

POINTS, TIMES, DISTANCE, CORRELATION = "points", "times chance", "EMD", "r"
FORMS = {POINTS: "+.1f", TIMES: ".1f", DISTANCE: "+.3f", CORRELATION: "+.2f"}

# By source and target, whether each validation image is classified correctly, bool `[N]`.
Correct = Mapping[tuple[str, str], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement about a figure.

    Attributes:
        key: A short name.
        statement: The claim in words.
        estimate: The figure with its interval.
        unit: The unit of the figure, a key of `FORMS`.
        least: The smallest figure for which the claim is true.
        most: The largest one.
    """

    key: str
    statement: str
    estimate: Estimate
    unit: str
    least: float = 0.0
    most: float = math.inf

    @property
    def margin(self) -> float:
        """By how much the claim is true, negative if it is false."""
        return min(self.estimate.value - self.least, self.most - self.estimate.value)

    @property
    def verdict(self) -> str:
        """Whether the whole interval agrees, see `Estimate.verdict`."""
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


def claims_table(claims: Sequence[Claim]) -> Table:
    """Returns a table of claims with their figures, 95% intervals and verdicts."""
    rows = [
        [
            claim.statement,
            f"{claim.estimate.format(FORMS[claim.unit])} {claim.unit}",
            claim.verdict,
        ]
        for claim in claims
    ]
    return Table(["claim", "figure (95% interval)", "verdict"], rows)


def write_claims(path: Path, claims: Sequence[Claim], *, full: bool) -> None:
    """Writes claims, and whether they are those of the full demo, as JSON."""
    content = {"full": full, "claims": {claim.key: claim.to_json() for claim in claims}}
    write_whole(path, json.dumps(content, indent=2) + "\n")


def read_claims(path: Path, *, full: bool) -> dict[str, dict[str, Any]] | None:
    """Reads claims that `write_claims` wrote.

    Args:
        path: The file.
        full: Whether the claims of the full demo are needed.

    Returns:
        The properties of each claim by key, None if the needed claims do not exist.

    Raises:
        UserError: The file is damaged.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        return content["claims"] if content["full"] >= full else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is not a file of claims of the demo: delete it, then run the command again"
        ) from None


def better_sources(correct: Correct, nearer: Mapping[str, tuple[str, str]]) -> list[Claim]:
    """Returns the claims that a linear classifier is better on features of the nearer source.

    Args:
        correct: See `Correct`.
        nearer: The nearer and the farther source by target.
    """
    return [
        Claim(
            key=f"accuracy_{target}",
            statement=f"{target}: features of {near} classify better than those of {far}",
            estimate=accuracy_difference(correct[near, target], correct[far, target]),
            unit=POINTS,
        )
        for target, (near, far) in nearer.items()
    ]


def nearer_sources(
    distances: Mapping[str, Estimate], nearer: Mapping[str, tuple[str, str]]
) -> list[Claim]:
    """Returns the claims that the Earth Mover's Distance to the nearer source is smaller.

    Args:
        distances: The distance to the farther source less that to the nearer, by target.
        nearer: The nearer and the farther source by target.
    """
    return [
        Claim(
            key=f"emd_{target}",
            statement=f"{target}: {near} is nearer than {far}",
            estimate=distances[target],
            unit=DISTANCE,
        )
        for target, (near, far) in nearer.items()
    ]


def last_layer(name: str, fine_tuned: np.ndarray, linear: np.ndarray, chance: float) -> list[Claim]:
    """Returns the claims on the fine-tuned last layer: far above chance, close to regression.

    Args:
        name: The target.
        fine_tuned: bool `[N]`, the images that the fine-tuned network classifies correctly.
        linear: bool `[N]`, those of logistic regression on features of the same network.
        chance: The accuracy of guessing.
    """
    return [
        Claim(
            key="last_layer_chance",
            statement=f"{name}: fine-tuning the last layer reaches 5 times chance",
            estimate=bootstrap(lambda rows: rows.mean() / chance, fine_tuned.astype(float)),
            unit=TIMES,
            least=5,
        ),
        Claim(
            key="last_layer_linear",
            statement=f"{name}: fine-tuning the last layer is within 5 points of the linear "
            "classifier",
            estimate=accuracy_difference(fine_tuned, linear),
            unit=POINTS,
            least=-5,
            most=5,
        ),
    ]


def balanced(before: Predictions, after: Predictions, bounds: tuple[int, int]) -> Claim:
    """Returns the claim that a balanced subset helps the tail more than it costs the head.

    The figure is the gain of the tail plus the gain of the head. The latter is usually negative.

    Args:
        before: Predictions with `class_sizes`.
        after: Predictions for the same images.
        bounds: See `group_accuracy`.
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
        key="balanced",
        statement="fine-tuning on a balanced subset lifts the tail by more than it costs the head",
        estimate=bootstrap(
            lambda rows: tail_and_head(after, rows) - tail_and_head(before, rows),
            np.arange(len(before.labels)),
        ),
        unit=POINTS,
    )


def resolution(
    trained: tuple[np.ndarray, np.ndarray],
    fine_tuned: tuple[np.ndarray, np.ndarray],
    sizes: tuple[int, int],
) -> list[Claim]:
    """Returns the claims that larger images are better.

    Args:
        trained: bool `[N]` each, the images that the networks that were trained at the smaller
            and at the larger size classify correctly. Each is evaluated at its own size.
        fine_tuned: The same for the network of the smaller size, fine-tuned at each size.
        sizes: The smaller and the larger size in pixels.
    """
    small, large = sizes
    ways = {
        "resolution_trained": (f"training at {large} pixels is better than at {small}", trained),
        "resolution_fine_tuned": (
            f"fine-tuning the network of {small} pixels at {large} is better than at {small}",
            fine_tuned,
        ),
    }
    return [
        Claim(
            key=key,
            statement=statement,
            estimate=accuracy_difference(larger, smaller),
            unit=POINTS,
        )
        for key, (statement, (smaller, larger)) in ways.items()
    ]


def union_of_sources(
    correct: Correct, union: str, sources: Sequence[str], targets: Sequence[str]
) -> list[Claim]:
    """Returns the claims that the union is about as good as the best source for every target.

    Args:
        correct: See `Correct`.
        union: The name of the union.
        sources: The names of its parts.
        targets: The names of the targets.
    """
    images = {target: _columns(correct, [union, *sources], target) for target in targets}
    claims = [
        Claim(
            key=f"union_{target}",
            statement=f"{target}: the union is within 3 points of the better source",
            estimate=bootstrap(_lead_of_first, images[target]),
            unit=POINTS,
            least=-3,
        )
        for target in targets
    ]
    mean = Claim(
        key="union_mean",
        statement="mean of the targets: the union is better than each source",
        estimate=bootstrap(_lead_of_first, *images.values()),
        unit=POINTS,
    )
    return [*claims, mean]


def selected_classes(correct: Correct, selected: str, union: str, targets: Sequence[str]) -> Claim:
    """Returns the claim that the selected classes are at least as good as all classes."""
    return Claim(
        key="selected_mean",
        statement="mean of the targets: the selected classes are at least as good as the union",
        estimate=bootstrap(
            _lead_of_first, *(_columns(correct, [selected, union], target) for target in targets)
        ),
        unit=POINTS,
    )


def similarity_predicts_accuracy(correct: Correct, table: SimilarityTable) -> Claim:
    """Returns the claim that accuracy and similarity correlate over the sources of a target.

    The interval accounts for the validation images alone: the similarities are constant.

    Args:
        correct: See `Correct`.
        table: The similarities of sources and targets.
    """

    def mean_correlation(*images: np.ndarray) -> float:
        accuracies = [drawn.mean(axis=0) for drawn in images]
        pairs = zip(accuracies, table.similarity.T, strict=True)
        return float(np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs]))

    return Claim(
        key="correlation",
        statement="mean of the targets: accuracy and similarity correlate over the sources",
        estimate=bootstrap(
            mean_correlation,
            *(_columns(correct, table.sources, target) for target in table.targets),
        ),
        unit=CORRELATION,
        least=0.6,
    )


def correct_images(predictions: Predictions, labels: np.ndarray, name: str) -> np.ndarray:
    """Returns whether each image is classified correctly, bool `[N]`.

    Args:
        predictions: Predictions of an evaluation.
        labels: The labels of the images in the expected order, `[N]`.
        name: The evaluation, for the error.

    Raises:
        UserError: The predictions are for other images.
    """
    if not np.array_equal(predictions.labels, labels):
        raise UserError(
            f"{name} was evaluated on {len(predictions.labels)} images, not on the {len(labels)} "
            "images that it is compared on: delete its predictions-*.npz and run ./demo.sh again"
        )
    return predictions.correct


def _columns(correct: Correct, sources: Sequence[str], target: str) -> np.ndarray:
    """Returns the results of several sources on the same images, float64 `[N, S]`."""
    return np.stack([correct[source, target] for source in sources], axis=1).astype(float)


def _lead_of_first(*images: np.ndarray) -> float:
    """Returns by how many points the first column is above the best other one.

    Args:
        *images: Results per image `[N, S]` of each target. All targets have the same weight.
    """
    first, *others = np.mean([drawn.mean(axis=0) for drawn in images], axis=0)
    return 100 * (first - max(others))
