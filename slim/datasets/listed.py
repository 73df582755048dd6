"""Datasets as lists of images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slim.datasets.lists import CLASSES, Entry, compose_list, count_classes
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
    lists = {LISTS[name]: compose_list(splits[name]) for name in ("validation", "train")}
    return ({} if classes is None else {CLASSES: classes}) | lists
