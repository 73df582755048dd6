"""The claims of the demo: figures counted by hand, and made-up results."""

import json
from pathlib import Path

import numpy as np
import pytest

from demo import claims
from demo.claims import Claim, SourcePair
from slim.checkpoints.description import ModelDescription, write_model_description
from slim.common.errors import UserError
from slim.datasets.registry import DESCRIPTION, DatasetDescription, SplitDescription
from slim.evaluation.intervals import Estimate
from slim.evaluation.predictions import Predictions
from slim.transfer.domain_similarity import SimilarityTable
from slim.transfer.features import load_features
from slim.transfer.linear_classifier import classify
from tests.support import invoke

CLASSES, IMAGES = 3, 20  # of each made-up domain; images per class and split


def right(share: float, images: int = 100) -> np.ndarray:
    """Returns results of which the first are correct."""
    return np.arange(images) < share * images


def values(found: list[Claim]) -> dict[str, float]:
    return {claim.key: pytest.approx(claim.estimate.value) for claim in found}


@pytest.mark.parametrize(
    ("figure", "verdict", "margin"),
    [(-1, "holds", 2), (2.5, "within noise", 0.5), (5, "does not hold", -2)],
)
def test_a_claim_between_two_bounds(figure, verdict, margin):
    estimate = Estimate(figure, figure - 1, figure + 1)
    claim = Claim("k", "s", estimate, least=-3, most=3)
    assert (claim.verdict, claim.margin) == (verdict, margin)


def test_accuracies_of_the_nearer_and_the_farther_source():
    correct = {("a", "x"): right(0.7), ("b", "x"): right(0.5), ("a", "y"): right(0.4)}
    correct["b", "y"] = right(0.4)
    found = claims.source_claims(
        [SourcePair("x", "a", "b"), SourcePair("y", "b", "a")], correct, {}
    )
    assert values(found) == {"accuracy_x": 20, "accuracy_y": 0}
    assert found[0].statement == "x: features of a classify better than those of b"
    # Of the same images both are right or both are wrong, so there is no noise.
    assert (found[1].estimate.low, found[1].estimate.high) == (0, 0)


def test_last_layer_in_times_of_chance_and_against_the_linear_classifier():
    chance, linear = claims.last_layer_claims("x", right(0.6), right(0.63), 1 / 12)
    assert chance.estimate.value == pytest.approx(7.2)
    assert linear.estimate.value == pytest.approx(-3)
    assert (chance.verdict, linear.margin) == ("holds", pytest.approx(2))


def predictions(shares: list[float], sizes: list[int], images: int = 20) -> Predictions:
    """Returns predictions with the given share of correct ones per class."""
    labels = np.repeat(np.arange(len(shares)), images)
    hits = np.concatenate([right(share, images) for share in shares])
    first = np.where(hits, labels, (labels + 1) % len(shares))
    top = (first[:, np.newaxis] + np.arange(min(5, len(shares)))) % len(shares)
    return Predictions(
        1, labels, top, np.ones(top.shape, "f"), len(shares), class_sizes=np.array(sizes)
    )


def test_tail_and_head_add_up():
    sizes = [5, 9, 20, 50, 60]
    before = predictions([0.1, 0.3, 0.9, 1.0, 0.8], sizes)
    after = predictions([0.5, 0.5, 0.1, 0.9, 0.7], [5] * 5)  # its own training images do not count
    claim = claims.balanced_claim(before, after, (10, 40))
    assert claim.estimate.value == pytest.approx(30 - 10)
    assert claim.verdict == "holds"


def test_resolutions_are_compared_on_the_same_images():
    found = claims.resolution_claims((right(0.4), right(0.6)), (right(0.5), right(0.45)), (75, 107))
    assert values(found) == {"resolution_trained": 20, "resolution_fine_tuned": -5}


def test_union_is_compared_with_the_better_source():
    shares = {
        "x": {"a": 0.6, "b": 0.5, "a+b": 0.58, "s": 0.5},
        "y": {"a": 0.2, "b": 0.4, "a+b": 0.5, "s": 0.6},
    }
    correct = {(s, t): right(share) for t, row in shares.items() for s, share in row.items()}
    found = claims.union_claims(correct, "a+b", ["a", "b"], ["x", "y"])
    assert values(found) == {"union_x": -2, "union_y": 10, "union_mean": 54 - 45}
    assert [claim.margin for claim in found] == pytest.approx([1, 13, 9])
    selected = claims.selection_claim(correct, "s", "a+b", ["x", "y"])
    assert selected.estimate.value == pytest.approx(55 - 54)


def test_correlation_is_the_mean_of_those_of_the_targets():
    similarity = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    table = SimilarityTable(["a", "b", "c"], ["x", "y"], -np.log(similarity), similarity)
    shares = {"x": [0.2, 0.4, 0.6], "y": [0.3, 0.2, 0.4]}
    correct = {
        (source, target): right(share)
        for target, row in shares.items()
        for source, share in zip(table.sources, row, strict=True)
    }
    claim = claims.correlation_claim(correct, table)
    assert claim.estimate.value == pytest.approx((1 - 0.5) / 2)
    assert claim.verdict == "does not hold"


def write_features(folder: Path, name: str, depth: int, seed: int) -> None:
    """Writes random features around a centre per class."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), IMAGES).astype(np.int32)
    centres = np.abs(random.normal(size=(CLASSES, depth)))
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        features = centres[labels] + random.normal(size=(len(labels), depth))
        np.save(folder / f"{name}_feature_{split}.npy", features.astype(np.float32))
        np.save(folder / f"{name}_label_{split}.npy", labels)


def write_network(name: str, dataset: str, image_size: int) -> None:
    """Writes the description and the predictions of a network."""
    found = predictions([0.7, 0.8, 0.9], [5, 50, 200], IMAGES)
    description = ModelDescription("inception_v3", image_size, "inception_v3", dataset, ())
    found.save(claims.CHECKPOINTS / name)
    write_model_description(claims.CHECKPOINTS / name, description)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The results of a demo: random features, and predictions."""
    monkeypatch.chdir(tmp_path)
    sources = [*claims.SOURCES, claims.UNION, claims.SELECTED]
    for number, network in enumerate(sources):
        for seed, name in enumerate([*claims.SOURCES, claims.SELECTED, *claims.TARGETS]):
            write_features(claims.FEATURES / network, name, 8 + number, 10 * number + seed)
    for name in (*claims.SOURCES, "toy_birds"):
        write_network(name, name, 107)
        split = SplitDescription(60, 0, [], "")
        written = DatasetDescription(
            CLASSES, 0, True, "fail", {"train": split, "validation": split}
        )
        (claims.DATA / name).mkdir(parents=True)
        (claims.DATA / name / DESCRIPTION).write_text(written.to_json())
    for name in (claims.SMALL, *claims.FINE_TUNED, claims.BALANCED):
        write_network(name, "toy_inat", 75)
    return tmp_path


def test_demo_tests_its_claims_on_its_own_results(folder):
    done = invoke(claims)
    assert done.code == 0, done.error
    written = json.loads(claims.CLAIMS.read_text())
    assert not written["full"]
    correct = {}
    for source in claims.SOURCES:
        train, val = (
            load_features(claims.FEATURES / source, "toy_cars", s) for s in ("train", "val")
        )
        correct[source] = classify(train, val).accuracy
    expected = 100 * (correct["toy_imagenet"] - correct["toy_inat"])
    found = written["claims"]["accuracy_toy_cars"]
    assert found["value"] == pytest.approx(expected)
    assert found["low"] <= found["value"] <= found["high"]
    assert "| toy_birds | toy_birds | 60 | 60 | 3 | 107 | 1 | 80.0% |" in done.output
    statement = "toy_birds: fine-tuning the last layer reaches 5 times chance"
    assert f"| {statement} | 2.4 (" in done.output and "| does not hold |" in done.output


def test_distances_do_not_depend_on_the_scale_of_one_network(folder):
    def distances():
        images = claims.load_domains(claims.SOURCES, [*claims.SOURCES, *claims.TARGETS])
        return claims.measure_distances(images, claims.SOURCES).emd

    before = distances()
    for path in (claims.FEATURES / "toy_inat").glob("*_feature_train.npy"):
        np.save(path, 1000 * np.load(path))
    assert distances() == pytest.approx(before, rel=1e-4)


def test_full_demo_tests_more_claims(folder):
    done = invoke(claims, "--full")
    assert done.code == 0, done.error
    written = json.loads(claims.CLAIMS.read_text())
    assert written["full"]
    assert {"balanced", "resolution_fine_tuned", "union_mean", "selected_mean", "correlation"} < (
        written["claims"].keys()
    )
    assert written["claims"]["balanced"]["value"] == 0  # the same predictions before and after


def test_predictions_for_other_images_are_refused(folder):
    predictions([0.5, 0.5, 0.5], [5, 5, 5], images=4).save(claims.CHECKPOINTS / "toy_birds")
    done = invoke(claims)
    assert done.code == 1
    assert "toy_birds was evaluated on 12 images, not on the 60 images" in done.error
    assert not claims.CLAIMS.exists()


def test_errors_name_missing_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke(claims)
    assert done.code == 1 and "no file checkpoints/toy_inat" in done.error
    with pytest.raises(UserError, match="was evaluated on 3 images"):
        claims.correct_images(predictions([1], [1], 3), np.zeros(4), "x")
