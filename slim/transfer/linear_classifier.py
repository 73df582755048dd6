"""How well features tell classes apart: logistic regression and nearest neighbours."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from slim.common.errors import UserError
from slim.evaluation.predictions import share
from slim.transfer.features import Features

MAX_ITERATIONS = 100
SMALL_PRODUCT = 10**9  # multiplications


@dataclass(frozen=True)
class Evaluation:
    """What a classifier made of N images of C classes.

    Attributes:
        predictions: `[N]`, the label predicted for each image.
        confusion: `[C, C]`, how many images of class i (row) were taken for class j (column).
        class_sizes: `[C]`, training images.
        iterations: What the optimiser took.
    """

    predictions: np.ndarray
    confusion: np.ndarray
    class_sizes: np.ndarray
    iterations: int

    @property
    def accuracy(self) -> float:
        """The share of all images that was recognised."""
        return float(self.confusion.trace() / self.confusion.sum())

    @property
    def class_accuracy(self) -> np.ndarray:
        """`[C]`, the share of each class's images, NaN for a class without any."""
        return share(self.confusion.diagonal(), self.confusion.sum(axis=1))


def classify(train: Features, val: Features, max_iterations: int = MAX_ITERATIONS) -> Evaluation:
    """Fits multinomial logistic regression to the raw features, as published, and evaluates it.

    L-BFGS takes at most 100 iterations; the penalty, scikit-learn's, is |W|^2 / 2 beside the sum of
    all images' losses.

    Args:
        train: Features `[N, D]` of training images of C >= 2 classes, labels 0 to C - 1.
        val: Features `[M, D]` of other images of them.
        max_iterations: Of L-BFGS. Stopping there is part of the recipe: no warning.

    Raises:
        UserError: There is but one class, or the two do not fit together.
    """
    num_classes = int(max(train.labels.max(), val.labels.max())) + 1
    sizes = np.bincount(train.labels, minlength=num_classes)
    if np.count_nonzero(sizes) < 2:
        raise UserError("the training images show one class only: a classifier needs two or more")
    if train.values.shape[1] != val.values.shape[1]:
        raise UserError(
            f"training features have {train.values.shape[1]} dimensions, validation features "
            f"{val.values.shape[1]}: extract both with the same network"
        )
    model = LogisticRegression(solver="lbfgs", max_iter=max_iterations)
    # Threads cost more than they give in small products: 5 to 12 times on two cores.
    threads = 1 if train.values.size * num_classes < SMALL_PRODUCT else None
    with threadpool_limits(threads, "blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train.values, train.labels)
    predictions = model.predict(val.values)
    confusion = confusion_matrix(val.labels, predictions, labels=np.arange(num_classes))
    return Evaluation(predictions, confusion, sizes, int(model.n_iter_.max()))


def nearest_neighbours(
    values: np.ndarray, queries: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest images to each query by Euclidean distance, the nearest first.

    All distances are computed: in 2,048 dimensions no tree avoids any.

    Args:
        values: `[N, D]`, where to look.
        queries: `[Q, D]`.
        count: How many to find for each.

    Returns:
        Distances and row numbers in `values`, `[Q, count]` each.

    Raises:
        UserError: There are fewer images than that.
    """
    if not 1 <= count <= len(values):
        raise UserError(f"{count} neighbours asked for: expected 1 to {len(values)}, the images")
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(values)
    return search.kneighbors(queries)
