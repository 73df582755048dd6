"""Checks of a layout before its lists are written."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from slim.common.errors import UserError, warn
from slim.datasets.prepare.archives import where_to_get
from slim.datasets.prepare.layouts import Layout
from slim.datasets.prepare.writing import show_progress
from slim.datasets.registry import KNOWN, Sizes

SHOWN = 3  # names in an error


def name_some(names: Sequence[object]) -> str:
    """The first few of some names, as a clause."""
    shown = ", ".join(map(str, names[:SHOWN]))
    return f"the first {shown}" if len(names) > SHOWN else f"namely {shown}"


def judge(faults: Sequence[str], subject: str, allow_partial: bool, origin: str = "") -> None:
    """Warns of what is wrong, where a part is allowed.

    Args:
        faults: What is wrong.
        subject: With what.
        allow_partial: Whether that is allowed.
        origin: Where to get it anew, where that is known.

    Raises:
        UserError: Something is wrong and a part is not allowed.
    """
    if faults and not allow_partial:
        raise UserError(
            f"{subject}: {'; '.join(faults)}; nothing was written: complete it{origin}, or go on "
            "with what is there by --allow_partial"
        )
    for fault in faults:
        warn(f"{subject}: {fault}")


def check_layout(layout: Layout, name: str, allow_partial: bool) -> Layout:
    """Checks counts, labels, and that all images are there.

    Args:
        layout: The dataset.
        name: Its name; the counts of the paper's nine are known.
        allow_partial: Warn of what differs, rather than refuse it.

    Returns:
        The layout, without images that are missing or cannot be listed.

    Raises:
        UserError: Something differs and is not allowed to, or a split is left without images.
    """
    paths = [image.path for images in layout.splits.values() for image in images]
    missing = find_missing(layout.images, paths)
    unlistable = [path for path in paths if "\n" in path]
    left_out = {*missing, *unlistable}
    splits = {
        split_name: [image for image in images if image.path not in left_out]
        for split_name, images in layout.splits.items()
    }
    faults = find_miscounts(layout, KNOWN.get(name))
    if missing:
        faults.append(f"{len(missing)} images are missing, {name_some(missing)}")
    if unlistable:
        faults.append(f"{len(unlistable)} file names have a line break, {name_some(unlistable)}")
    used = {image.label for images in splits.values() for image in images}
    if unused := [c for label, c in enumerate(layout.class_names) if label not in used]:
        faults.append(f"{len(unused)} classes have no images, {name_some(unused)}")
    origin = f" ({where_to_get(name)})" if name in KNOWN else ""
    judge(faults, f"{name} in {layout.images}", allow_partial, origin)
    if empty := [split_name for split_name, images in splits.items() if not images]:
        raise UserError(f"{name} in {layout.images}: no images for {' and '.join(empty)} are there")
    return replace(layout, splits=splits)


def find_miscounts(layout: Layout, expected: Sizes | None) -> list[str]:
    """What is wrong with the numbers of images and classes, and with the labels.

    Args:
        layout: The dataset.
        expected: What is known of it, None for nothing.
    """
    labels = {image.label for images in layout.splits.values() for image in images}
    sizes = Sizes(*(len(images) for images in layout.splits.values()), len(layout.class_names))
    faults = []
    if sizes != (expected or sizes):
        faults.append(f"found {sizes}, expected {expected}")
    if strange := sorted(labels - set(range(sizes.classes))):
        faults.append(f"labels are not 0 to {sizes.classes - 1}, {name_some(strange)}")
    return faults


def find_missing(root: Path, paths: Iterable[str]) -> list[str]:
    """The files that are not there, sorted. Each folder is listed once, which takes seconds."""
    names = defaultdict(set)
    for path in paths:
        folder, _, name = path.rpartition("/")
        names[folder].add(name)
    missing = []
    for folder, expected in show_progress(names.items(), "checking images", "folders"):
        try:
            lacking = expected.difference(os.listdir(root / folder))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            lacking = expected
        missing += [f"{folder}/{name}" if folder else name for name in lacking]
    return sorted(missing)
