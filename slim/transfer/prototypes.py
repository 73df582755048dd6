"""Domains as the paper sees them: a mean feature and a number of images for each class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse

from slim.common.errors import UserError
from slim.transfer.features import CHUNK, has_features, load_array, load_features


@dataclass(frozen=True)
class Prototypes:
    """A domain of C classes (section 4.1 of the paper).

    Attributes:
        name: For tables and errors.
        features: `[C, D]` float64, the mean of each class's features.
        counts: `[C]`, the images of each class.
        labels: `[C]`, the class's label in its dataset.
        datasets: `[C]`, the name of that dataset: a union has several.
    """

    name: str
    features: np.ndarray
    counts: np.ndarray
    labels: np.ndarray
    datasets: np.ndarray

    def subset(self, which: np.ndarray) -> "Prototypes":
        """Some of the classes, by mask or by index."""
        arrays = (self.features, self.counts, self.labels, self.datasets)
        return Prototypes(self.name, *(array[which] for array in arrays))


def class_prototypes(values: np.ndarray, labels: np.ndarray, name: str = "") -> Prototypes:
    """The mean feature and the number of images of each class that occurs, in one pass.

    Sums are float64. Beside the result, memory holds one chunk of rows: features can be mapped.

    Args:
        values: `[N, D]`, floats.
        labels: `[N]`, integers.
        name: The domain's.

    Raises:
        UserError: Some value is not finite.
    """
    classes, index = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(classes), values.shape[1]))
    for start in range(0, len(values), CHUNK):
        rows = values[start : start + CHUNK].astype(np.float64)
        # Lists are often sorted by class: a chunk adds to the classes that it has, not to all.
        present, row = np.unique(index[start : start + CHUNK], return_inverse=True)
        members = sparse.csr_array((np.ones(len(row)), (row, np.arange(len(row)))))
        sums[present] += members @ rows
    counts = np.bincount(index)
    # Sums of float32 cannot overflow float64: what is not finite has come in so.
    bad = classes[~np.isfinite(sums).all(axis=1)]
    if len(bad):
        raise UserError(
            f"the features of {name or 'this domain'} have a value that is not finite in class "
            f"{bad[0]}: extract them again with feature_extraction.py"
        )
    datasets = np.full(len(classes), name)
    return Prototypes(name, sums / counts[:, np.newaxis], counts, classes, datasets)


def load_prototypes(folder: str | Path, domain: str) -> Prototypes:
    """The prototypes of a domain, from the first of these that a folder has.

    - `<domain>_feature_train.npy` and `_label_train.npy`, the training images, as in the paper;
    - `<domain>_feature.npy` and `<domain>_label.npy`, what the published notebook reads;
    - `<domain>.npy` and `<domain>_weight.npy`, what it writes: means and counts.

    Args:
        folder: Of one network, `feature/<checkpoint>`.
        domain: A dataset's name.

    Raises:
        UserError: It has none, or they are damaged.
    """
    means, weights = Path(folder, f"{domain}.npy"), Path(folder, f"{domain}_weight.npy")
    splits = [split for split in ("train", None) if has_features(folder, domain, split=split)]
    if splits or not means.exists():
        split = splits[0] if splits else "train"  # whose absence is reported
        # Prototypes tell by themselves whether all values are finite: no second pass for that.
        return class_prototypes(*load_features(folder, domain, split, check_values=False), domain)
    features = load_array(means, 2, "f", "float32 [classes, dimensions]").astype(np.float64)
    counts = load_array(weights, 1, "fiu", "the images of each class").astype(np.int64)
    if len(features) != len(counts) or not np.isfinite(features).all() or counts.min() < 1:
        raise UserError(
            f"{means} and {weights.name} have {len(features)} and {len(counts)} classes: expected "
            "a finite mean and a positive count for each; compute them again"
        )
    labels = np.arange(len(counts))
    return Prototypes(domain, features, counts, labels, np.full(len(labels), domain))


def union(parts: Sequence[Prototypes]) -> Prototypes:
    """One domain of all the classes of several, each class counting by its own images.

    Raises:
        UserError: They come from different networks.
    """
    check_same_network(*parts)
    return Prototypes(
        "+".join(part.name for part in parts),
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.counts for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.datasets for part in parts]),
    )


def side_by_side(views: Sequence[Prototypes]) -> Prototypes:
    """A domain as several networks see it together: their features one after the other.

    Where each network was trained on one of the sources that are compared, this favours none.

    Args:
        views: The prototypes of the same classes by each network.

    Raises:
        UserError: They are not of the same images.
    """
    first = views[0]
    for view in views[1:]:
        if not np.array_equal(view.counts, first.counts):
            raise UserError(
                f"{first.name}: the networks' features are not of the same images; extract them "
                "again with feature_extraction.py"
            )
    features = np.concatenate([view.features for view in views], axis=1)
    return replace(first, features=features)


def check_same_network(*domains: Prototypes) -> None:
    """Refuses to compare domains whose features differ in length.

    Raises:
        UserError: Naming two of them.
    """
    first = domains[0]
    for domain in domains[1:]:
        if domain.features.shape[1] != first.features.shape[1]:
            raise UserError(
                f"{first.name or 'one domain'} has features of {first.features.shape[1]} "
                f"dimensions, {domain.name or 'the other'} of {domain.features.shape[1]}: "
                "extract both with the same network"
            )
