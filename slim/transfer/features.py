"""Loads features that `feature_extraction.py` wrote, with checks."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slim.common.errors import UserError
from slim.datasets.listed import count_listed_classes
from slim.datasets.lists import CLASSES
from slim.datasets.registry import read_class_names, read_converted_list
from slim.features.feature_files import SPLITS, feature_files

BIG = 2**30  # bytes; larger files are mapped into memory
CHUNK = 4096  # rows; 64 MB with 2,048 float64 values each


class Features(NamedTuple):
    """Features and labels of N images."""

    values: np.ndarray  # [N, D], floats
    labels: np.ndarray  # [N], integers from 0


class Pictures(NamedTuple):
    """Files and labels of N images."""

    paths: list[Path]
    labels: np.ndarray  # [N], integers from 0
    class_names: Sequence[str]  # from classes.txt, otherwise the folders of the images


def has_features(folder: str | Path, dataset: str, split: str | None = "train") -> bool:
    """Returns whether a folder has features and labels of a split."""
    return all(path.exists() for path in feature_files(folder, dataset, split))


def has_splits(folder: str | Path, dataset: str) -> bool:
    """Returns whether a folder has features of training and of validation images."""
    return all(has_features(folder, dataset, split) for split in SPLITS)


def load_features(
    folder: str | Path, dataset: str, split: str | None, *, check_values: bool = True
) -> Features:
    """Loads the features of a split.

    Args:
        folder: The folder of one network, `feature/<checkpoint>`.
        dataset: The name of the dataset.
        split: `train` or `val`; None for the merged `<dataset>_feature.npy`.
        check_values: Whether to check that all values are finite, which reads all of them.

    Returns:
        Features `[N, D]` and labels `[N]`; large ones are mapped into memory, read only.

    Raises:
        UserError: A file is missing, damaged or of another kind, or the two do not match.
    """
    feature_file, label_file = feature_files(folder, dataset, split)
    values = load_array(feature_file, 2, "f", "float32 [images, dimensions]")
    labels = load_array(label_file, 1, "iu", "int32 [images]")
    again = f"extract {dataset} again with feature_extraction.py"
    if len(values) != len(labels):
        raise UserError(
            f"{feature_file} has {len(values)} rows, {label_file.name} has {len(labels)} labels: "
            f"expected one label per row; {again}"
        )
    if labels.min() < 0:
        raise UserError(f"{label_file} has label {labels.min()}: expected labels from 0; {again}")
    # scikit-learn would not say which file has a value that is not finite.
    for start in range(0, len(values), CHUNK) if check_values else ():
        bad = ~np.isfinite(values[start : start + CHUNK]).all(axis=1)
        if bad.any():
            raise UserError(
                f"{feature_file} has a value that is not finite in row {start + bad.argmax()} "
                f"(counted from 0): {again}"
            )
    return Features(values, labels)


def load_side_by_side(folders: Sequence[str | Path], dataset: str, *, normalize: bool) -> Features:
    """Loads the features of training images by several networks side by side, as float64.

    With `normalize`, each network's features are scaled to length 1 per image.
    """
    views = [load_features(folder, dataset, "train") for folder in folders]
    if any(not np.array_equal(view.labels, views[0].labels) for view in views):
        raise UserError(
            f"{dataset}: the features of the networks are of different images; extract them again "
            "with feature_extraction.py"
        )
    values = [view.values.astype(np.float64) for view in views]
    values = [normalized(each) for each in values] if normalize else values
    return Features(np.concatenate(values, axis=1), views[0].labels)


def normalized(values: np.ndarray) -> np.ndarray:
    """Returns the rows of an array scaled to Euclidean length 1; rows of zeros stay as they are."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(lengths > 0, lengths, 1)


def load_array(path: Path, dimensions: int, kinds: str, expected: str) -> np.ndarray:
    """Loads a non-empty array with a number of dimensions and with one of several dtype kinds."""
    if not path.is_file():
        raise UserError(
            f"no features {path}: write them with `python feature_extraction.py`, whose "
            "--checkpoint_path and --dataset_name determine the path; ./demo.sh writes features of "
            "the toy domains"
        )
    try:
        array = np.load(path, mmap_mode="r" if path.stat().st_size > BIG else None)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as an array ({error}): delete it and run "
            "feature_extraction.py again"
        ) from None
    if array.ndim != dimensions or array.dtype.kind not in kinds or not array.size:
        found = f"{array.dtype} {list(array.shape)}"
        raise UserError(
            f"{path} is {found}, expected {expected}, not empty: write it with "
            "feature_extraction.py"
        )
    return array


def load_pictures(
    dataset_dir: str | Path, dataset: str, split: str, labels: np.ndarray
) -> Pictures:
    """Returns the images of a split that features with these labels, `[N]`, were extracted from.

    The list of the dataset must have the same labels.
    """
    path = Path(dataset_dir, dataset, f"{split}.txt")
    files = [name for name in map("{}.txt".format, SPLITS) if path.with_name(name).is_file()]
    lists = {name: read_converted_list(path.parent, name) for name in {*files, path.name}}
    entries = lists[path.name].entries
    if [entry.label for entry in entries] != labels.tolist():
        raise UserError(
            f"{path} has {len(entries)} images, whose labels differ from the {len(labels)} of the "
            "features: extract them again with feature_extraction.py"
        )
    # A class may have images in the other split only. Without classes.txt, it has the name of the
    # folder of its images.
    num_classes = count_listed_classes(path.parent, lists)
    names = read_class_names(path.with_name(CLASSES), num_classes)
    images = [entry for list_ in lists.values() for entry in list_.entries]
    folders = {entry.label: Path(entry.path).parent.name for entry in images}
    return Pictures(
        [path.parent / entry.path for entry in entries],
        labels,
        names or [folders.get(label, str(label)) for label in range(num_classes)],
    )
