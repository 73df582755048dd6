"""Subsets with a limited number of training images per class."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from heapq import nsmallest

from slim.datasets.derived.writing import DerivedDataset
from slim.datasets.listed import ListedDataset
from slim.datasets.lists import CLASSES, Entry


def balance(source: ListedDataset, max_per_class: int, seed: int) -> DerivedDataset:
    """Returns a dataset with at most `max_per_class` training images per class."""
    taken = take_images(source.splits["train"], max_per_class, seed)
    subset = replace(source, splits={**source.splits, "train": taken})
    classes = source.folder / CLASSES
    columns = {"images": source.count_images()["train"], "taken": subset.count_images()["train"]}
    return DerivedDataset(
        kind="balanced subset",
        table="balance.tsv",
        sources=[subset],
        origins=[(source.name, label) for label in range(source.num_classes)],
        class_names=source.class_names,
        columns=columns,
        classes=classes.read_bytes().decode() if classes.is_file() else None,
    )


def take_images(images: Sequence[Entry], max_per_class: int, seed: int) -> list[Entry]:
    """Returns at most `max_per_class` random images of each class, in the same order.

    The choice in a class depends only on the seed and the paths of its images. The images taken
    for a smaller number are a subset of those for a larger number.
    """

    def draw(image: Entry) -> bytes:
        text = f"{seed} {image.path}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    classes = defaultdict(list)
    for image in images:
        classes[image.label].append(image)
    taken = {
        image for members in classes.values() for image in nsmallest(max_per_class, members, draw)
    }
    return [image for image in images if image in taken]
