"""Images of one's own: one folder per class."""

import os
from pathlib import Path
from random import Random

from slim.common.errors import UserError
from slim.datasets.images import ENDINGS
from slim.datasets.listed import ListedDataset
from slim.datasets.lists import Entry
from slim.datasets.prepare.prepared import count_some, report_faults

SPLITS = {"train": "train", "validation": "val"}  # the folder of each split

Classes = dict[str, list[str]]  # the paths of the images of each class


def read_folders(
    root: Path, val_fraction: float, seed: int, *, allow_partial: bool = False
) -> ListedDataset:
    """Reads a folder with one subfolder per class, or folders `train` and `val` of such subfolders.

    Images may be nested deeper. Labels are the ranks of the class names. Hidden files are ignored.
    Without `train` and `val`, a random fraction of each class is to validate on.
    """
    if not root.is_dir():
        raise UserError(f"--from_folders={root}: no such folder; expected one subfolder per class")
    ignored, one_sided = [], []

    # 1. Split as the folders are, or at random.
    if all((root / folder).is_dir() for folder in SPLITS.values()):
        found = {name: _find_images(root, folder, ignored) for name, folder in SPLITS.items()}
        others = (path.name for path in sorted(root.iterdir()) if path.name[0] != ".")
        ignored += [name for name in others if name not in SPLITS.values()]
        one_sided = sorted(found["train"].keys() ^ found["validation"].keys())
    else:
        classes = _find_images(root, "", ignored)
        most = max(map(len, classes.values()), default=0)
        if most > 1 and round(val_fraction * most) == most:
            raise UserError(
                f"--val_fraction={val_fraction} leaves no image to train on, the largest class "
                f"has {most}: set a smaller fraction"
            )
        found = split_classes(classes, val_fraction, seed)

    # 2. Number the classes of both splits.
    names = sorted(found["train"].keys() | found["validation"].keys())
    splits = {
        split_name: [
            Entry(path, label) for label, name in enumerate(names) for path in classes.get(name, [])
        ]
        for split_name, classes in found.items()
    }

    # 3. Report what is missing and what was passed over.
    if empty := [split_name for split_name, images in splits.items() if not images]:
        raise UserError(
            f"--from_folders={root}: no images for {empty[0]}; expected one subfolder per class "
            f"with several images each ({' '.join(ENDINGS)}), or train/ and val/ with such folders"
        )
    if ignored:
        print(f"note: {root}: {count_some('ignored files and folders', ignored)}")
    faults = [count_some("classes in only one of train and val", one_sided)] if one_sided else []
    report_faults(faults, f"the folders in {root}", allow_partial)
    return ListedDataset(root, splits, names)


def _find_images(root: Path, below: str, ignored: list[str]) -> Classes:
    """Returns the images of each class in a folder below the root; adds to the ignored paths."""
    classes, others = {}, []
    for top in sorted((root / below).iterdir()):
        if top.name.startswith("."):
            continue
        # Images may be anywhere below the folder of their class; other files are reported.
        images = []
        for folder, subfolders, files in os.walk(top):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for path in (Path(folder, name) for name in files if not name.startswith(".")):
                is_image = path.suffix.lower() in ENDINGS
                (images if is_image else others).append(path.relative_to(root).as_posix())
        if images:
            classes[top.name] = sorted(images)
        else:
            others.append(top.relative_to(root).as_posix())
    ignored += sorted(others)
    return classes


def split_classes(classes: Classes, val_fraction: float, seed: int) -> dict[str, Classes]:
    """Splits the sorted paths of each class at random, independently of the other classes.

    The fraction is rounded to whole images: at least one of a class is for training, then at least
    one for validation. The result has no entries for classes without images in a split.
    """
    train, validation = {}, {}
    for name, paths in classes.items():
        count = min(max(round(val_fraction * len(paths)), 1), len(paths) - 1)
        chosen = set(Random(f"{seed} {name}").sample(paths, count))
        train[name] = [path for path in paths if path not in chosen]
        if chosen:
            validation[name] = [path for path in paths if path in chosen]
    return {"train": train, "validation": validation}
