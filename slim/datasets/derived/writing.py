"""Datasets made of the lists of others, whose images stay where they are.

Lines of such a dataset begin with the name of the dataset that an image is of, and a link of that
name leads to it: `inat2017/images/0001.jpg: 0`, where `inat2017` is a link to `../inat2017`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slim.common.errors import UserError
from slim.common.files import exclusive, write_whole
from slim.datasets.lists import CLASSES, Entry, count_classes, read_valid_list
from slim.datasets.registry import dataset_folder, read_class_names
from slim.datasets.tfrecord import LISTS


@dataclass(frozen=True)
class Listed:
    """What the lists of a dataset say.

    Attributes:
        name: The dataset.
        splits: The images of each split.
        num_classes: The largest label of both, plus one.
        class_names: Of all classes; `<dataset>_<label>` where `classes.txt` does not tell.
    """

    name: str
    splits: Mapping[str, Sequence[Entry]]
    num_classes: int
    class_names: Sequence[str]


def read_dataset(name: str, dataset_dir: str | Path) -> Listed:
    """Reads the lists and class names of a dataset.

    Raises:
        UserError: There is no such dataset, or a list is missing or has lines that are none.
    """
    folder = dataset_folder(name, dataset_dir)
    lists = {split_name: read_valid_list(folder / file) for split_name, file in LISTS.items()}
    num_classes = count_classes(lists)
    names = read_class_names(folder / CLASSES, num_classes)
    return Listed(
        folder.name,
        {split_name: list_.entries for split_name, list_ in lists.items()},
        num_classes,
        names or [f"{folder.name}_{label}" for label in range(num_classes)],
    )


def output_folder(name: str, dataset_dir: str | Path) -> Path:
    """The folder of a dataset that is to be made.

    Raises:
        UserError: The name is none that a folder beside the other datasets can have.
    """
    if name == ".." or PurePosixPath(name).name != name:
        raise UserError(f"--output_name={name}: expected the name of a folder, without '/'")
    return Path(dataset_dir, name)


def write_derived(
    folder: Path, kind: str, sources: Sequence[str], files: Mapping[str, str]
) -> None:
    """Writes a dataset whose images are those of others, ready for `convert_dataset.py`.

    Args:
        folder: Where; beside the folders of the sources.
        kind: What it is, for the error.
        sources: The datasets whose images it lists.
        files: The text of each file, in the order of writing; the first is one that only such a
            dataset has, and says whose folder this is.

    Raises:
        UserError: The folder holds something else, or cannot be written.
    """
    mark = next(iter(files))
    if folder.name in sources or (_is_used(folder) and not (folder / mark).exists()):
        raise UserError(f"{folder} is there and is no {kind}: choose another --output_name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder):
            for file, text in files.items():
                write_whole(folder / file, text)
            for name in sources:
                _link(folder / name, os.path.join("..", name))  # noqa: PTH118
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or folder}: {error.strerror}; make room there or choose "
            "another --output_name, then run this again"
        ) from error


def _is_used(folder: Path) -> bool:
    """Whether a folder holds more than what a killed run may have left before its first file."""
    if not folder.is_dir():
        return False
    names = [path.name for path in folder.iterdir()]
    return any(not name.startswith(".") and not name.endswith(".tmp") for name in names)


def _link(link: Path, target: str) -> None:
    """Links to a folder; a link that is there and right is left alone."""
    if link.is_symlink() and os.readlink(link) == target:  # noqa: PTH115
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target, target_is_directory=True)
