"""Datasets as lists of images, and datasets derived from them, whose images stay where they are.

A line of such a dataset, as `inat2017/images/0001.jpg: 0`, begins with the name of a source. A link
of that name in the folder of the dataset leads to `../inat2017`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slim.common.command_line import FlagSet
from slim.common.errors import UserError, warn
from slim.common.files import write_whole, writing_to
from slim.datasets.lists import CLASSES, Entry, count_classes
from slim.datasets.registry import (
    Sizes,
    dataset_folder,
    read_class_names,
    read_converted_list,
    read_dataset_description,
)
from slim.datasets.tfrecord import LISTS


@dataclass(frozen=True)
class ListedDataset:
    """The images, labels and class names of a dataset."""

    folder: Path  # the base of the relative image paths
    splits: Mapping[str, Sequence[Entry]]  # "train" and "validation"
    class_names: Sequence[str]  # in the order of the labels

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def sizes(self) -> Sizes:
        return Sizes(len(self.splits["train"]), len(self.splits["validation"]), self.num_classes)

    @property
    def images(self) -> list[Entry]:
        """The images of both splits."""
        return [*self.splits["train"], *self.splits["validation"]]

    def count_images(self) -> dict[str, np.ndarray]:
        """Returns the number of images of each class, `[num_classes]`, by split."""
        return {
            split_name: np.bincount([image.label for image in images], minlength=self.num_classes)
            for split_name, images in self.splits.items()
        }


def read_dataset(name: str, dataset_dir: str | Path) -> ListedDataset:
    """Reads the lists of a dataset, without the lines that its conversion has skipped.

    Classes without names are called `<dataset>_<label>`.
    """
    folder = dataset_folder(name, dataset_dir)
    lists = {split_name: read_converted_list(folder, file) for split_name, file in LISTS.items()}
    splits = {split_name: list_.entries for split_name, list_ in lists.items()}
    num_classes = count_classes(splits)
    if any(list_.skipped_lines for list_ in lists.values()):  # the only ones of a class, perhaps
        num_classes = max(num_classes, read_dataset_description(folder).classes)
    names = read_class_names(folder / CLASSES, num_classes)
    return ListedDataset(
        folder,
        splits,
        names or [f"{folder.name}_{label}" for label in range(num_classes)],
    )


def compose_files(
    splits: Mapping[str, Iterable[tuple[str, int]]], classes: str | None
) -> dict[str, str]:
    """Returns the text of `classes.txt`, if any, and of the lists by name, in order of writing."""
    lists = {
        LISTS[name]: "".join(f"{path}: {label}\n" for path, label in splits[name])
        for name in ("validation", "train")
    }
    return ({} if classes is None else {CLASSES: classes}) | lists


def define_output_flags(define: FlagSet, default_name: str | None = None) -> None:
    """Adds the flags that name the dataset to write."""
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    default = f" Default: {default_name}." if default_name else ""
    define.string("output_name", None, f"The dataset to write, a folder in --dataset_dir.{default}")


def write_derived(
    folder: Path,
    sources: Sequence[ListedDataset],
    origins: Sequence[tuple[str, int]],
    class_names: Sequence[str],
    *,
    kind: str,
    table: str,
    columns: Mapping[str, Sequence],
    classes: str | None,
) -> None:
    """Writes a dataset to a folder next to the folders of its sources; replaces an earlier one.

    Args:
        folder: The folder. It is an error if it holds something else.
        sources: The sources. Images of other classes than the origins are omitted.
        origins: The source and the label there of each class.
        class_names: The name of each class.
        kind: The kind of the dataset, for errors.
        table: The name of the file that lists the classes. Only datasets of this kind have it.
        columns: The columns of that file after label and name, with a value per class.
        classes: The text of `classes.txt`; None for no such file.
    """
    # 1. Compose the files, in the order of writing.
    header = ("label", "name", *columns)
    labels = range(len(class_names))
    rows = [header, *zip(labels, class_names, *columns.values(), strict=True)]
    label_of = {origin: label for label, origin in enumerate(origins)}
    splits = {
        split_name: [
            (f"{source.name}/{image.path}", label_of[source.name, image.label])
            for source in sources
            for image in source.splits[split_name]
            if (source.name, image.label) in label_of
        ]
        for split_name in LISTS
    }
    files = {table: "".join("\t".join(map(str, row)) + "\n" for row in rows)}
    files |= compose_files(splits, classes)

    def refuse_others() -> None:
        # A run that was killed before its first file leaves a lock or a temporary file.
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        used = any(not name.startswith(".") and not name.endswith(".tmp") for name in names)
        if folder.name in [source.name for source in sources] or (used and table not in names):
            raise UserError(f"{folder} exists but is not a {kind}: set another --output_name")

    # 2. Write them unless the folder holds something else, perhaps since a moment ago.
    refuse_others()
    with writing_to(folder, "output_name"):
        refuse_others()
        train = folder / LISTS["train"]
        changed = any(
            not (folder / name).exists()
            or (folder / name).read_bytes() != text.encode("utf-8", "surrogateescape")
            for name, text in files.items()
        )
        if train.exists() and changed:
            warn(f"replacing another {kind} in {folder}")
            train.unlink()  # there is no dataset until all lists are replaced
        for name, text in files.items():
            write_whole(folder / name, text)

        # 3. Link to the sources.
        for source in sources:
            link, target = folder / source.name, Path("..", source.name)
            if not (link.is_symlink() and link.readlink() == target):
                link.unlink(missing_ok=True)
                link.symlink_to(target, target_is_directory=True)
