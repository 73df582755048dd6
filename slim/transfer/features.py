"""Features as `feature_extraction.py` writes them, read with checks."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slim.common.errors import UserError
from slim.datasets.lists import CLASSES, read_list
from slim.datasets.registry import read_class_names
from slim.features.files import feature_files

BIG = 2**30  # bytes; larger files are mapped into memory rather than read
CHUNK = 4096  # rows looked at together: 64 MB of 2,048 float64 each


class Features(NamedTuple):
    """Features of N images, and what the images show."""

    values: np.ndarray  # [N, D], floats
    labels: np.ndarray  # [N], integers from 0


class Pictures(NamedTuple):
    """N images as files, and what they show."""

    paths: list[Path]
    labels: np.ndarray  # [N], integers from 0
    class_names: Sequence[str]  # of all classes: from classes.txt, else their images' folders


def has_features(folder: str | Path, *datasets: str, split: str | None = "train") -> bool:
    """Whether a folder has the features of a split of all these datasets."""
    return all(
        path.exists() for dataset in datasets for path in feature_files(folder, dataset, split)
    )


def load_features(
    folder: str | Path, dataset: str, split: str | None, check_values: bool = True
) -> Features:
    """Loads the features of a dataset's split.

    Args:
        folder: Of one network, `feature/<checkpoint>`.
        dataset: Its name, `cub_200`.
        split: `train` or `val`; None for the merged `<dataset>_feature.npy`.
        check_values: Whether to look for values that are not finite, which reads all of them.

    Returns:
        Features `[N, D]` and labels `[N]`; mapped into memory, read only, where they are big.

    Raises:
        UserError: A file is missing or damaged, or is not such an array; the two do not match.
    """
    feature_file, label_file = feature_files(folder, dataset, split)
    values = load_array(feature_file, 2, "f", "float32 [images, dimensions]")
    labels = load_array(label_file, 1, "iu", "int32 [images]")
    again = f"extract {dataset} again with feature_extraction.py"
    if len(values) != len(labels):
        raise UserError(
            f"{feature_file} has {len(values)} rows, {label_file.name} has {len(labels)} labels: "
            f"expected one label a row; {again}"
        )
    if labels.min() < 0:
        raise UserError(f"{label_file} has label {labels.min()}: expected labels from 0; {again}")
    if check_values and (bad := _find_bad_row(values)) is not None:
        raise UserError(
            f"{feature_file} has a value that is not finite in row {bad} (counted from 0): {again}"
        )
    return Features(values, labels)


def load_array(path: Path, dimensions: int, kinds: str, expected: str) -> np.ndarray:
    """Loads an array that is not empty, has this many dimensions and a dtype of these kinds.

    Raises:
        UserError: There is no such file, or it has something else.
    """
    if not path.is_file():
        raise UserError(
            f"no features {path}: write them with `python feature_extraction.py`, whose "
            "--checkpoint_path and --dataset_name make up the path; those of the toy domains come "
            "from ./demo.sh"
        )
    try:
        array = np.load(path, mmap_mode="r" if path.stat().st_size > BIG else None)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as an array ({error}): delete it and extract it again with "
            "feature_extraction.py"
        ) from None
    if array.ndim != dimensions or array.dtype.kind not in kinds or not array.size:
        found = f"{array.dtype} {list(array.shape)}"
        raise UserError(
            f"{path} is {found}, expected {expected}, not empty: is it another file by mistake? "
            "feature_extraction.py writes the one expected"
        )
    return array


def load_pictures(
    dataset_dir: str | Path, dataset: str, split: str, labels: np.ndarray
) -> Pictures:
    """The images that features were extracted from.

    Args:
        dataset_dir: The folder that holds the datasets.
        dataset: The name of one.
        split: `train` or `val`.
        labels: `[N]`, as extracted.

    Raises:
        UserError: There is no list, or it is not the one that was extracted.
    """
    path = Path(dataset_dir, dataset, f"{split}.txt")
    entries = read_list(path).entries
    if [entry.label for entry in entries] != labels.tolist():
        raise UserError(
            f"{path} has {len(entries)} images that are not, in order, the {len(labels)} of the "
            "features: extract them again with feature_extraction.py"
        )
    num_classes = int(labels.max()) + 1
    names = read_class_names(path.with_name(CLASSES), num_classes)
    folders = {entry.label: Path(entry.path).parent.name for entry in entries}
    return Pictures(
        [path.parent / entry.path for entry in entries],
        labels,
        names or [folders.get(label, str(label)) for label in range(num_classes)],
    )


def _find_bad_row(values: np.ndarray) -> int | None:
    """The first row with a NaN or an infinity, if any."""
    for start in range(0, len(values), CHUNK):
        bad = ~np.isfinite(values[start : start + CHUNK]).all(axis=1)
        if bad.any():
            return start + int(bad.argmax())
    return None
