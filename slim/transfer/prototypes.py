"""Domains as in the paper: a mean feature and a number of images per class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse

from slim.common.errors import UserError
from slim.transfer.features import CHUNK, has_features, load_array, load_features, normalized


@dataclass(frozen=True)
class Prototypes:
    """A domain of C classes (section 4.1 of the paper)."""

    name: str  # for tables and errors
    features: np.ndarray  # [C, D] float64, the mean feature per class
    counts: np.ndarray  # [C], images per class
    labels: np.ndarray  # [C], labels of the classes in their dataset
    datasets: np.ndarray  # [C], names of the datasets; a union has several

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.features, self.counts, self.labels, self.datasets

    def subset(self, which: np.ndarray) -> "Prototypes":
        """Returns some of the classes, by mask or by index."""
        return Prototypes(self.name, *(array[which] for array in self.arrays))


def class_prototypes(
    values: np.ndarray,
    labels: np.ndarray,
    name: str = "",
    *,
    normalize: bool = False,
    times: np.ndarray | None = None,
) -> Prototypes:
    """Computes the mean feature and the number of images per class in one pass.

    Args:
        values: `[N, D]`, floats.
        labels: `[N]`, integers.
        name: The name of the domain.
        normalize: Whether each image's features are scaled to Euclidean length 1 first.
        times: `[N]`, how often each image counts, for resampling; a class without any is left out.
    """
    times = np.ones(len(labels), np.int64) if times is None else times
    classes, index = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(classes), values.shape[1]))
    # The features may be mapped into memory, so only a chunk of rows is read at a time.
    for start in range(0, len(values), CHUNK):
        rows = np.asarray(values[start : start + CHUNK], np.float64)
        rows = normalized(rows) if normalize else rows
        # Lists are often sorted by class, so a chunk adds to few classes.
        present, row = np.unique(index[start : start + CHUNK], return_inverse=True)
        weights = times[start : start + CHUNK].astype(np.float64)
        members = sparse.csr_array((weights, (row, np.arange(len(row)))))
        sums[present] += members @ rows
    counts = np.bincount(index, times).astype(np.int64)
    # Sums of float32 cannot overflow float64, so an input value is not finite.
    bad = classes[~np.isfinite(sums).all(axis=1)]
    if len(bad):
        raise UserError(
            f"the features of {name or 'this domain'} have a value that is not finite in class "
            f"{bad[0]}: extract them again with feature_extraction.py"
        )
    some = counts > 0
    means = sums[some] / counts[some, np.newaxis]
    return Prototypes(name, means, counts[some], classes[some], np.full(len(means), name))


def has_prototypes(folder: str | Path, domain: str) -> bool:
    """Returns whether `load_prototypes` finds a domain."""
    means = all(Path(folder, f"{domain}{ending}.npy").exists() for ending in ("", "_weight"))
    return means or any(has_features(folder, domain, split=split) for split in ("train", None))


def load_prototypes(folder: str | Path, domain: str, *, normalize: bool = False) -> Prototypes:
    """Loads the prototypes of a domain from a folder.

    The first of these files that exist are read:

    - `<domain>_feature_train.npy` and `_label_train.npy`, the training images, as in the paper;
    - `<domain>_feature.npy` and `<domain>_label.npy`, which the published notebook reads;
    - `<domain>.npy` and `<domain>_weight.npy`, which it writes: means and counts.

    Args:
        folder: The folder of one network, `feature/<checkpoint>`.
        domain: The name of the dataset.
        normalize: Whether each image's features are scaled to Euclidean length 1, so that the
            scale of a network's features does not matter. The default is as published.

    Raises:
        UserError: The files are missing or damaged, or means cannot be normalized.
    """
    means, weights = Path(folder, f"{domain}.npy"), Path(folder, f"{domain}_weight.npy")
    splits = [split for split in ("train", None) if has_features(folder, domain, split=split)]
    if splits or not means.exists():
        split = splits[0] if splits else "train"  # reported as missing
        # class_prototypes checks that all values are finite.
        found = load_features(folder, domain, split, check_values=False)
        return class_prototypes(*found, domain, normalize=normalize)
    if normalize:
        raise UserError(
            f"{means} has the means of classes, and features can only be normalized per image: "
            f"extract {domain} with feature_extraction.py, or do not normalize"
        )
    features = load_array(means, 2, "f", "float32 [classes, dimensions]").astype(np.float64)
    counts = load_array(weights, 1, "fiu", "the images of each class").astype(np.int64)
    if len(features) != len(counts) or not np.isfinite(features).all() or counts.min() < 1:
        raise UserError(
            f"{means} and {weights.name} have {len(features)} and {len(counts)} classes: expected "
            "one finite mean and one positive count per class; compute them again"
        )
    labels = np.arange(len(counts))
    return Prototypes(domain, features, counts, labels, np.full(len(labels), domain))


def union(parts: Sequence[Prototypes]) -> Prototypes:
    """Returns one domain with all classes of several, each with its own number of images."""
    check_same_network(*parts)
    name = "+".join(part.name for part in parts)
    arrays = zip(*(part.arrays for part in parts), strict=True)
    return Prototypes(name, *map(np.concatenate, arrays))


def side_by_side(views: Sequence[Prototypes]) -> Prototypes:
    """Concatenates the features of the same images by several networks.

    If each network was trained on one of the sources to compare, this treats them equally.
    """
    first = views[0]
    for view in views[1:]:
        if not np.array_equal(view.counts, first.counts):
            raise UserError(
                f"{first.name}: the features of the networks are of different images; extract them "
                "again with feature_extraction.py"
            )
    features = np.concatenate([view.features for view in views], axis=1)
    return replace(first, features=features)


def check_same_network(*domains: Prototypes) -> None:
    first = domains[0]
    for domain in domains[1:]:
        if domain.features.shape[1] != first.features.shape[1]:
            raise UserError(
                f"{first.name or 'one domain'} has features of {first.features.shape[1]} "
                f"dimensions, {domain.name or 'the other'} of {domain.features.shape[1]}: "
                "extract both with the same network"
            )
