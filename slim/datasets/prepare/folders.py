"""Images of one's own, a folder a class, in the same form as the archives of the nine datasets."""

import os
from pathlib import Path
from random import Random
from typing import NamedTuple

from slim.common.errors import UserError
from slim.datasets.images import ENDINGS
from slim.datasets.prepare.layouts import Image, Layout

SPLITS = {"train": "train", "validation": "val"}  # from a split's name to that of its folder

Classes = dict[str, list[str]]  # from a class to the paths of its images


class Folders(NamedTuple):
    """What was found in folders of classes."""

    layout: Layout
    ignored: list[str]  # files that are no images by their ending, folders without any
    one_sided: list[str]  # classes that one of `train` and `val` lacks


def read_folders(root: Path, val_fraction: float, seed: int) -> Folders:
    """Reads a folder of classes, or the folders `train` and `val` of them.

    A class is a folder at the top, and the images of folders in it are its, too. Labels are the
    ranks of the classes' names. What begins with a dot is passed over.

    Args:
        root: The folder.
        val_fraction: The part of each class that is validated on, where `train` and `val` are not
            both there.
        seed: Of the choice of that part.

    Raises:
        UserError: There is no such folder, or a split has no images.
    """
    if not root.is_dir():
        raise UserError(f"--from_folders={root}: no such folder; expected one that has one a class")
    found: dict[str, Classes]
    one_sided = []
    if all((root / folder).is_dir() for folder in SPLITS.values()):
        found, ignored = {}, []
        for split_name, folder in SPLITS.items():
            found[split_name], left_out = _find_images(root, folder)
            ignored += left_out
        ignored += [
            path.name
            for path in sorted(root.iterdir())
            if path.name not in SPLITS.values() and not path.name.startswith(".")
        ]
        one_sided = sorted(found["train"].keys() ^ found["validation"].keys())
    else:
        classes, ignored = _find_images(root, "")
        found = split_classes(classes, val_fraction, seed)
    names = sorted(found["train"].keys() | found["validation"].keys())
    splits = {
        split_name: [
            Image(path, label) for label, name in enumerate(names) for path in classes.get(name, [])
        ]
        for split_name, classes in found.items()
    }
    for split_name, images in splits.items():
        if not images:
            raise UserError(
                f"--from_folders={root}: no images for {split_name}; expected a folder a class, "
                f"each with several images ({' '.join(ENDINGS)}), or train/ and val/ of such"
            )
    return Folders(Layout(root, splits, names), ignored, one_sided)


def _find_images(root: Path, below: str) -> tuple[Classes, list[str]]:
    """The images of each class in a folder below the root, and what is left out."""
    classes, ignored = {}, []
    for top in sorted((root / below).iterdir()):
        if top.name.startswith("."):
            continue
        images = []
        for folder, subfolders, files in os.walk(top):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for name in files:
                if not name.startswith("."):
                    path = Path(folder, name)
                    is_image = path.suffix.lower() in ENDINGS
                    (images if is_image else ignored).append(path.relative_to(root).as_posix())
        if images:
            classes[top.name] = sorted(images)
        else:
            ignored.append(top.relative_to(root).as_posix())
    return classes, sorted(ignored)


def split_classes(classes: Classes, val_fraction: float, seed: int) -> dict[str, Classes]:
    """Splits each class by chance, in the same way whatever other classes there are.

    Args:
        classes: From a class to the paths of its images, sorted.
        val_fraction: The part to validate on, to the nearest image; one at least, and one at least
            is left for training, which comes first.
        seed: Of the choice.

    Returns:
        The classes of each split, without those that have no images in it.
    """
    train, validation = {}, {}
    for name, paths in classes.items():
        count = min(max(round(val_fraction * len(paths)), 1), len(paths) - 1)
        chosen = set(Random(f"{seed} {name}").sample(paths, count))
        train[name] = [path for path in paths if path not in chosen]
        if chosen:
            validation[name] = [path for path in paths if path in chosen]
    return {"train": train, "validation": validation}
