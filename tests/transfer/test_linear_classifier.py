"""Logistic regression compared with scikit-learn, neighbours with brute force."""

import numpy as np
import pytest
from scipy.optimize import fmin_l_bfgs_b
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from slim.common.errors import UserError
from slim.transfer.features import Features
from slim.transfer.linear_classifier import classify, map_features, nearest_neighbours


@pytest.fixture(scope="module")
def splits() -> tuple[Features, Features]:
    random = np.random.default_rng(0)
    centres = random.normal(size=(6, 20)) * 0.5

    def split(count):
        labels = np.arange(count, dtype=np.int32) % 6
        return Features((centres[labels] + random.normal(size=(count, 20))).astype("f"), labels)

    return split(240), split(120)


def test_equals_scikit_learn(splits):
    train, val = splits
    found = classify(train, val)
    peer = LogisticRegression(max_iter=100).fit(*train)
    assert abs(found.accuracy - peer.score(*val)) <= 0.002
    assert 0.5 < found.accuracy < 1
    assert (found.predictions == peer.predict(val.values)).mean() > 0.99


def fit_as_published(train: Features, val: Features) -> np.ndarray:
    """Predicts labels by the recipe of 2018: L-BFGS on the sum of the losses, in float64."""
    values, num_classes = train.values.astype(np.float64), train.labels.max() + 1
    one_hot = np.eye(num_classes)[train.labels]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights = parameters.reshape(num_classes, -1)
        logits = values @ weights[:, :-1].T + weights[:, -1]
        log_probabilities = logits - logsumexp(logits, axis=1, keepdims=True)
        gradient = np.exp(log_probabilities) - one_hot
        by_weights = gradient.T @ values + weights[:, :-1]
        total = (weights[:, :-1] ** 2).sum() / 2 - (one_hot * log_probabilities).sum()
        return total, np.column_stack([by_weights, gradient.sum(axis=0)]).ravel()

    start = np.zeros(num_classes * (values.shape[1] + 1))
    fitted, _, _ = fmin_l_bfgs_b(loss, start, maxiter=100, pgtol=1e-4)
    weights = fitted.reshape(num_classes, -1)
    return (val.values @ weights[:, :-1].T + weights[:, -1]).argmax(axis=1)


def test_equals_the_published_recipe():
    """scikit-learn's default tolerance stops earlier and predicts other labels."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(20, 200)) * 0.3
    train, val = (
        Features((centres[labels] + random.normal(size=(len(labels), 200))).astype("f"), labels)
        for labels in (np.arange(count) % 20 for count in (600, 2000))
    )
    expected = fit_as_published(train, val)
    assert (classify(train, val).predictions == expected).mean() > 0.998
    early = LogisticRegression(max_iter=100).fit(*train).predict(val.values)
    assert (early == expected).mean() < 0.995


def test_confusion_and_accuracy(splits):
    train, val = splits
    found = classify(train, val)
    for true, predicted in np.ndindex(6, 6):
        times = ((val.labels == true) & (found.predictions == predicted)).sum()
        assert found.confusion[true, predicted] == times
    assert found.accuracy == pytest.approx((found.predictions == val.labels).mean())
    assert found.class_accuracy.mean() == pytest.approx(found.accuracy)  # classes of one size
    assert found.class_sizes.tolist() == [40] * 6


def test_a_class_may_be_absent_from_a_split(splits):
    train, val = splits
    known = train.labels != 2
    found = classify(Features(train.values[known], train.labels[known]), val)
    assert found.class_sizes[2] == 0 and found.class_accuracy[2] == 0
    seen = val.labels != 2
    found = classify(train, Features(val.values[seen], val.labels[seen]))
    assert (
        np.isnan(found.class_accuracy[2]) and np.isfinite(np.delete(found.class_accuracy, 2)).all()
    )


def test_iterations_are_limited_without_a_warning(splits, recwarn):
    assert classify(*splits, max_iterations=3).iterations == 3
    assert not recwarn


def test_invalid_features_are_an_error(splits):
    train, val = splits
    with pytest.raises(UserError, match="have 20 dimensions, validation features 19: extract both"):
        classify(train, Features(val.values[:, 1:], val.labels))
    with pytest.raises(UserError, match="have only one class"):
        classify(Features(train.values, train.labels * 0), Features(val.values, val.labels * 0))


def test_neighbours_equal_brute_force(splits):
    train, val = splits
    distances, rows = nearest_neighbours(train.values, val.values, 5)
    every = np.linalg.norm(val.values[:, None].astype(float) - train.values[None], axis=2)
    np.testing.assert_array_equal(rows, np.argsort(every, axis=1)[:, :5])
    np.testing.assert_allclose(distances, np.sort(every, axis=1)[:, :5], rtol=1e-5)
    with pytest.raises(UserError, match="241 neighbours: expected 1 to 240"):
        nearest_neighbours(train.values, val.values, 241)


def test_a_map_keeps_neighbours_and_is_the_same_each_time():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    values = 20 * random.normal(size=(3, 60))[labels] + random.normal(size=(60, 60))
    rows, places = map_features(values)
    assert rows.tolist() == list(range(60)) and places.shape == (60, 2)
    _, nearest = nearest_neighbours(places, places, 2)
    np.testing.assert_array_equal(labels[nearest[:, 1]], labels)
    np.testing.assert_allclose(map_features(values)[1], places, rtol=1e-3, atol=1e-3)
    rows, places = map_features(values, most=30)
    assert len(places) == 30 and (np.diff(rows) > 0).all()
