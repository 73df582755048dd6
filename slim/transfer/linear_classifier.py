"""Logistic regression and nearest neighbours on features."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from slim.common.errors import UserError
from slim.evaluation.predictions import share
from slim.transfer.features import Features

MAX_ITERATIONS = 100
GRADIENT_TOLERANCE = 1e-4  # L-BFGS stops when no component of the gradient is larger
MAP_IMAGES = 2000  # t-SNE takes about ten seconds
SMALL_PRODUCT = 10**9  # multiplications


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a classifier for N images of C classes."""

    predictions: np.ndarray  # [N], the predicted labels
    confusion: np.ndarray  # [C, C], the number of images of class i (row) predicted as class j
    class_sizes: np.ndarray  # [C], training images per class
    iterations: int  # of the optimizer

    @property
    def accuracy(self) -> float:
        return float(self.confusion.trace() / self.confusion.sum())

    @property
    def class_accuracy(self) -> np.ndarray:
        """The accuracy per class, `[C]`, NaN without images."""
        return share(self.confusion.diagonal(), self.confusion.sum(axis=1))


def classify(train: Features, val: Features, max_iterations: int = MAX_ITERATIONS) -> Evaluation:
    """Fits multinomial logistic regression to the raw features, as published, and evaluates it.

    The loss is the sum over all images plus the penalty |W|^2 / 2, scikit-learn's default. L-BFGS
    stops after 100 iterations, or when no component of the gradient exceeds 1e-4.

    Args:
        train: Features `[N, D]` of training images of C >= 2 classes, labels 0 to C - 1.
        val: Features `[M, D]` of validation images.
        max_iterations: Maximum number of iterations.

    Raises:
        UserError: There is only one class, or the dimensions differ.
    """
    num_classes = int(max(train.labels.max(), val.labels.max())) + 1
    sizes = np.bincount(train.labels, minlength=num_classes)
    if np.count_nonzero(sizes) < 2:
        raise UserError("the training images have only one class: a classifier needs at least two")
    if train.values.shape[1] != val.values.shape[1]:
        raise UserError(
            f"training features have {train.values.shape[1]} dimensions, validation features "
            f"{val.values.shape[1]}: extract both with the same network"
        )
    # The scikit-learn of 2018 compared `tol` with the gradient of this sum, while present versions
    # use the mean loss: their default stops after 20 iterations on features of the size of
    # CUB-200-2011, with an accuracy half a point lower.
    tolerance = GRADIENT_TOLERANCE / len(train.values)
    model = LogisticRegression(solver="lbfgs", max_iter=max_iterations, tol=tolerance)
    # More BLAS threads slow down small products, 5 to 12 times on two cores.
    threads = 1 if train.values.size * num_classes < SMALL_PRODUCT else None
    with threadpool_limits(threads, "blas"), warnings.catch_warnings():
        # To stop after the maximum number of iterations is part of the recipe.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train.values, train.labels)
    predictions = model.predict(val.values)
    confusion = confusion_matrix(val.labels, predictions, labels=np.arange(num_classes))
    return Evaluation(predictions, confusion, sizes, int(model.n_iter_.max()))


def map_features(values: np.ndarray, *, most: int = MAP_IMAGES) -> tuple[np.ndarray, np.ndarray]:
    """Maps images to the plane by t-SNE, so that images with similar features are neighbours.

    Distances between groups and the axes have no meaning.

    Args:
        values: `[N, D]`, at least 4 images.
        most: Maximum number of images; of more, a random sample is mapped.

    Returns:
        The row numbers of the M mapped images in ascending order, `[M]`, and their places,
        `[M, 2]`.
    """
    rows = np.arange(len(values))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    components = min(50, len(rows), values.shape[1])
    reduced = PCA(components, random_state=0).fit_transform(values[rows])
    perplexity = min(15, (len(rows) - 1) / 3)
    # Threads wait for each other in each iteration: 20 times slower if the machine is busy.
    with threadpool_limits(1):
        return rows, TSNE(perplexity=perplexity, random_state=0).fit_transform(reduced)


def nearest_neighbours(
    values: np.ndarray, queries: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest images to each query by Euclidean distance, in ascending order.

    Args:
        values: `[N, D]`, the images to search.
        queries: `[Q, D]`.
        count: Number of neighbours per query.

    Returns:
        Distances and row numbers in `values`, each `[Q, count]`.
    """
    if not 1 <= count <= len(values):
        raise UserError(f"{count} neighbours: expected 1 to {len(values)}, the number of images")
    # Trees do not help in 2,048 dimensions.
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(values)
    return search.kneighbors(queries)
