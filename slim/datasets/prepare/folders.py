"""Images of one's own: one folder per class."""

import os
import re
from collections import defaultdict
from pathlib import Path
from random import Random

from slim.common.errors import UserError, count, count_some, warn
from slim.datasets.image_files import find_image_files, is_hidden, subfolders
from slim.datasets.listed import ListedDataset
from slim.datasets.lists import Entry
from slim.datasets.prepare.prepared import report_faults

Classes = dict[str, list[str]]  # the paths of the images of each class

# Folders of splits as Keras, torchvision, Hugging Face, Kaggle, Roboflow and others name them, such
# as valid, Training, test_set, seg_train or val2017.
_SPLIT = re.compile(
    r"(?:seg|data|images?|imgs?)?[\W\d_]*"
    r"(?:(?P<train>train(?:ing|val)?|trn)|(?P<validation>val(?:id(?:ation|ate)?)?|dev)"
    r"|(?P<test>test(?:ing)?|tst|eval(?:uation)?|holdout))"
    r"[\W\d_]*(?:set|data(?:set)?|images?|imgs?|split|folder)?[\W\d_]*",
    re.IGNORECASE,
)


def read_folders(
    root: Path, val_fraction: float, seed: int, *, class_depth: int, allow_partial: bool
) -> ListedDataset:
    """Reads a folder with one subfolder per class, or with a folder of such subfolders per split.

    `class_depth` is the depth of the folders of classes; images may be nested deeper. Labels are
    the ranks of the class names. Hidden files are ignored. Without a folder to validate on, a
    random fraction of each class is.
    """
    if not root.is_dir():
        raise UserError(f"--from_folders={root}: no such folder; expected one subfolder per class")
    ignored, merged, one_sided = [], set(), []

    # 1. Split as the folders are, or at random. As in TFDS, the test split validates if no other
    #    one does and it has classes.
    folders = _find_splits(root)
    test = folders.pop("test", None)
    if test and "validation" not in folders and subfolders(root / test):
        folders["validation"], test = test, None
    found = {
        split_name: _find_classes(root / folder, root, class_depth, ignored, merged)
        for split_name, folder in (folders or {"train": ""}).items()
    }
    if folders:
        used = {folder.partition("/")[0] for folder in (*folders.values(), test or "")}
        ignored += [name for name in _visible(root) if name not in used]
        on = folders.get("validation", f"a random part of {folders['train']}")
        left_out = f", {test} is left out" if test else ""
        print(f"note: {root}: {folders['train']} is to train on, {on} to validate on{left_out}")
    if "validation" in found:
        one_sided = sorted(found["train"].keys() ^ found["validation"].keys())
    else:
        most = max(map(len, found["train"].values()), default=0)
        if most > 1 and round(val_fraction * most) == most:
            raise UserError(
                f"--val_fraction={val_fraction} leaves no image to train on, the largest class "
                f"has {most}: set a smaller fraction"
            )
        found = split_classes(found["train"], val_fraction, seed)

    # 2. Report what was passed over, what is missing, and what may not be meant.
    if ignored:
        print(f"note: {root}: {count_some('ignored files and folders', ignored)}")
    keys = sorted(found["train"].keys() | found["validation"].keys())
    deeper = f"--class_depth={class_depth + 1} if the classes are one level deeper"
    if len(keys) == 1:
        raise UserError(
            f"--from_folders={root}: '{keys[0]}' is the only class, expected two or more: set "
            f"{deeper}"
        )
    required = found if val_fraction or folders else ["train"]
    if empty := [split_name for split_name in required if not found[split_name]]:
        raise UserError(
            f"--from_folders={root}: no images for {empty[0]}; expected one subfolder per class "
            "with several images each (.jpg, .png and others), or train/ and val/ with such folders"
        )
    if merged:
        classes = {tuple(path.split("/")[:class_depth]) for path in merged}
        what = f"subfolders merged into {count(len(classes), 'class', 'classes')}"
        warn(f"{root}: {count_some(what, sorted(merged))}; set {deeper}")
    faults = [count_some("classes in only one of the splits", one_sided)] if one_sided else []
    report_faults(faults, f"the folders in {root}", allow_partial)

    # 3. Number the classes of both splits. Those with a folder's name in common, such as a/other
    #    and b/other, keep their paths.
    names = [key.rpartition("/")[2] for key in keys]
    if len(set(names)) < len(names):
        names = keys
    ranked = sorted(zip(names, keys, strict=True))
    splits = {
        split_name: [
            Entry(path, label)
            for label, (_, key) in enumerate(ranked)
            for path in classes.get(key, [])
        ]
        for split_name, classes in found.items()
    }
    return ListedDataset(root, splits, [name for name, _ in ranked])


def _visible(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if not is_hidden(entry.name))


def _split_of(name: str) -> str | None:
    """Returns the split that a folder is named after, if any."""
    return match.lastgroup if (match := _SPLIT.fullmatch(name)) else None


def _find_splits(root: Path) -> dict[str, str]:
    """Returns the folder of each split; none if the folders are not named after splits."""
    named, names = defaultdict(list), subfolders(root)
    for name in names:
        named[_split_of(name)].append(name)
    others = named.pop(None, [])
    is_pair = "train" in named and len(named) > 1
    if not named or (others and not is_pair):
        return {}
    if not is_pair or any(len(some) > 1 for some in named.values()):
        raise UserError(
            f"--from_folders={root}: {', '.join(n for n in names if n not in others)} are names of "
            "splits, not of classes; expected one folder to train on and one to validate on, such "
            f"as train and val: rename or move the others, or set --from_folders={root / names[0]} "
            "if its subfolders are the classes"
        )
    # Some archives repeat the folder, such as seg_train/seg_train.
    folders = {}
    for split_name, (name,) in named.items():
        below = subfolders(root / name)
        is_repeated = len(below) == 1 and _split_of(below[0]) == split_name
        folders[split_name] = f"{name}/{below[0]}" if is_repeated else name
    return folders


def _find_classes(
    folder: Path, root: Path, depth: int, ignored: list[str], merged: set[str]
) -> Classes:
    """Returns the images of each class in a folder; adds to ignored paths and merged subfolders."""
    tops, classes, others, empty = [folder], {}, [], []
    for _ in range(depth):
        children = [top / name for top in tops for name in _visible(top)]
        tops = [path for path in children if path.is_dir()]
        others += [path for path in children if not path.is_dir()]
    for top in tops:
        key, (images, rest) = top.relative_to(folder).as_posix(), find_image_files(top)
        if images:
            classes[key] = sorted(path.relative_to(root).as_posix() for path in images)
            merged |= {path.parent.relative_to(folder).as_posix() for path in images} - {key}
            others += rest
        else:
            such_as = f", such as {rest[0].name}" if rest else ""
            empty.append(f"{key} ({count(len(rest), 'other file')}{such_as})")
    ignored += [path.relative_to(root).as_posix() for path in others]
    if empty:
        warn(f"{folder}: {count_some('subfolders without images, which are no classes', empty)}")
    return classes


def split_classes(classes: Classes, val_fraction: float, seed: int) -> dict[str, Classes]:
    """Splits the sorted paths of each class at random, independently of the other classes.

    The fraction is rounded to whole images: at least one of a class is for training, then at least
    one for validation unless the fraction is 0. The result has no entries for classes without
    images in a split.
    """
    train, validation = {}, {}
    for name, paths in classes.items():
        number = min(max(round(val_fraction * len(paths)), val_fraction > 0), len(paths) - 1)
        chosen = set(Random(f"{seed} {name}").sample(paths, number))
        train[name] = [path for path in paths if path not in chosen]
        if chosen:
            validation[name] = [path for path in paths if path in chosen]
    return {"train": train, "validation": validation}
