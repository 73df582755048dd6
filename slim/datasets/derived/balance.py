"""Subsets with at most a number of images per class."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from heapq import nsmallest

import numpy as np

from slim.datasets.lists import Entry


def take_images(images: Sequence[Entry], max_per_class: int, seed: int) -> list[Entry]:
    """Takes some images of each class by chance, all where there are no more.

    Whether an image is taken depends on the seed and on the images of its class alone, and what is
    taken is taken of a larger number, too.

    Args:
        images: Of all classes.
        max_per_class: How many to take of a class at most.
        seed: Of the choice.

    Returns:
        Those that are taken, in the same order.
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


def count_by_class(images: Sequence[Entry], num_classes: int) -> np.ndarray:
    """How many images each class has, `[num_classes]`."""
    return np.bincount([image.label for image in images], minlength=num_classes)


def compose_table(names: Sequence[str], before: np.ndarray, after: np.ndarray) -> str:
    """The text of `balance.tsv`."""
    rows = [("label", "name", "images", "taken")]
    rows += [(label, *row) for label, row in enumerate(zip(names, before, after, strict=True))]
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)
