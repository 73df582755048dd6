"""Checks of a dataset before its lists are written."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from slim.common.errors import UserError, warn
from slim.common.progress import progress
from slim.datasets.listed import ListedDataset
from slim.datasets.prepare.archives import where_to_get
from slim.datasets.registry import KNOWN

SHOWN = 3  # names in an error


def count_some(what: str, names: Sequence[object]) -> str:
    """Returns a phrase with the number of names and the first few of them."""
    shown = [str(name) for name in names[:SHOWN]] + ["..."] * (len(names) > SHOWN)
    return f"{what} ({len(names)}): {', '.join(shown)}"


def report_faults(
    faults: Sequence[str], subject: str, allow_partial: bool, *, origin: str = ""
) -> None:
    """Warns of the faults of a subject if `allow_partial`, else raises an error.

    Raises:
        UserError: There are faults; `origin` says where to get the complete subject.
    """
    if faults and not allow_partial:
        raise UserError(
            f"{subject}: {'; '.join(faults)}; nothing was written: complete it{origin}, or set "
            "--allow_partial to use it as it is"
        )
    for fault in faults:
        warn(f"{subject}: {fault}")


def check_dataset(dataset: ListedDataset, name: str, allow_partial: bool) -> ListedDataset:
    """Checks the numbers of images and classes, the labels, and that all images exist.

    Args:
        dataset: The dataset.
        name: The name of the dataset; the paper's nine have known sizes.
        allow_partial: Whether to warn of faults rather than raise an error.

    Returns:
        The dataset without images that are missing or cannot be listed.

    Raises:
        UserError: There are faults, or a split has no images left.
    """
    subject = f"{name} in {dataset.folder}"
    paths = [image.path for image in dataset.images]
    missing = _find_missing(dataset.folder, paths)
    unlistable = [path for path in paths if "\n" in path]
    left_out = {*missing, *unlistable}
    splits = {
        split_name: [image for image in images if image.path not in left_out]
        for split_name, images in dataset.splits.items()
    }
    kept = replace(dataset, splits=splits)
    labels, used = ({image.label for image in some.images} for some in (dataset, kept))
    valid = range(dataset.num_classes)
    groups = {
        f"labels that are not 0 to {valid.stop - 1}": sorted(labels - set(valid)),
        "missing images": missing,
        "file names with a line break": unlistable,
        "classes without images": [dataset.class_names[i] for i in valid if i not in used],
    }
    faults = [count_some(what, names) for what, names in groups.items() if names]
    if (expected := KNOWN.get(name, dataset.sizes)) != dataset.sizes:
        faults.insert(0, f"found {dataset.sizes}, expected {expected}")
    origin = f" ({where_to_get(name)})" if name in KNOWN else ""
    report_faults(faults, subject, allow_partial, origin=origin)
    if empty := [split_name for split_name, images in splits.items() if not images]:
        raise UserError(f"{subject}: no images for {' and '.join(empty)}: add some there")
    return kept


def _find_missing(root: Path, paths: Iterable[str]) -> list[str]:
    """Returns the files that do not exist, sorted; lists each folder once, which is faster."""
    names = defaultdict(set)
    for path in paths:
        folder, _, name = path.rpartition("/")
        names[folder].add(name)
    missing = []
    folders = progress("checking images", len(names), " folders", items=names.items(), delay=1)
    for folder, expected in folders:
        try:
            lacking = expected.difference(os.listdir(root / folder))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            lacking = expected
        missing += [f"{folder}/{name}" if folder else name for name in lacking]
    return sorted(missing)
