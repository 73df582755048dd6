"""Linear classifier: logistic regression on features."""

from dataclasses import replace

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.measure import LIMIT, PEER, THIS, Comparison, Settings, Task, alternate
from slim.datasets.registry import KNOWN, Sizes
from slim.transfer.features import Features
from slim.transfer.linear_classifier import GRADIENT_TOLERANCE, classify

DEPTH, SMALL_DEPTH = 2048, 512  # dimensions of a feature
SMALL = Sizes(train=1000, validation=500, classes=50)
RANK = 64  # directions with most of the variance
SEPARATION = 0.7  # of class means, in standard deviations within a class
NOISE = 0.3  # in all other directions, in standard deviations within a class


def measure(settings: Settings) -> list[Comparison]:
    """Measures a fit with its evaluation, and compares its arithmetic with a matrix product."""
    sizes, depth = (SMALL, SMALL_DEPTH) if settings.small else (KNOWN["cub_200"], DEPTH)
    train, val = draw_features(sizes, depth)
    iterations = {}

    def fit() -> int:
        iterations["classify"] = classify(train, val).iterations
        return sizes.train

    def peer(name: str, *steps: BaseEstimator) -> Task:
        def fit() -> int:
            pipeline = make_pipeline(*steps).fit(train.values, train.labels)
            pipeline.score(val.values, val.labels)
            iterations[name] = pipeline[-1].n_iter_.max()
            return sizes.train

        return Task(name, PEER, fit)

    weights = np.ones((depth, sizes.classes), np.float32)

    def products() -> float:
        logits = train.values @ weights
        train.values.T @ logits
        return gflop(sizes.train)

    def gflop(images: float) -> float:
        return 2 * 2 * images * depth * sizes.classes / 1e9

    regression = LogisticRegression(tol=GRADIENT_TOLERANCE / sizes.train)  # stops as `classify`
    tasks = [
        Task("classify", THIS, fit),
        peer("scikit-learn's LogisticRegression", regression),
        peer("the same after StandardScaler", StandardScaler(), regression),
        Task("the two products alone", LIMIT, products),
    ]
    *figures, product = alternate(tasks, settings)
    fits = [
        replace(figure, name=f"{figure.name}, {iterations[figure.name]} iterations")
        for figure in figures
    ]
    size = f"{sizes.train:,} images, {depth:,} features, {sizes.classes} classes"
    return [
        Comparison(f"a fit to {size}", "images/s", fits),
        Comparison(
            "its arithmetic, two matrix products per iteration",
            "GFLOP/s",
            [fits[0].scaled(gflop(iterations["classify"])), product],
        ),
    ]


def draw_features(sizes: Sizes, depth: int) -> list[Features]:
    """Draws features of training and validation images with most variance in a few directions.

    Args:
        sizes: Numbers of images and classes.
        depth: Dimensions of a feature.
    """
    random = np.random.default_rng(0)
    means = SEPARATION * random.standard_normal((sizes.classes, RANK))
    directions = random.standard_normal((RANK, depth)) / np.sqrt(RANK)
    drawn = []
    for count in (sizes.train, sizes.validation):
        labels = np.arange(count) % sizes.classes
        places = means[labels] + random.standard_normal((count, RANK))
        values = places @ directions + NOISE * random.standard_normal((count, depth))
        drawn.append(Features(np.maximum(values, 0).astype(np.float32), labels))
    return drawn
