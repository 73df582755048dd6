"""A subset of a dataset that has at most so many training images of each class.

    python -m slim.datasets.balance --dataset_name=inat2017 --max_per_class=50

writes `data/inat2017_balanced_50/` with `train.txt`, `val.txt`, `classes.txt`, a link to the
images, and `balance.tsv`, how many images each class had and has. On such a subset the paper
fine-tunes, with a small learning rate, what was trained on everything. Convert it as any dataset:

    python convert_dataset.py --dataset_name=inat2017_balanced_50
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from heapq import nsmallest
from pathlib import Path

import numpy as np
from absl import flags

from slim.datasets.derived import (
    compose_list,
    output_folder,
    read_dataset,
    write_derived,
)
from slim.datasets.lists import Entry
from slim.datasets.registry import conversion_command
from slim.datasets.statistics import summarize_counts
from slim.datasets.tfrecord import LISTS
from slim.errors import UserError, run_command
from slim.flags import FlagSet

TABLE = "balance.tsv"


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.string("dataset_name", None, "The dataset: a folder in --dataset_dir.")
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    define.integer("max_per_class", None, "Training images of a class to take at most.", 1)
    define.string(
        "output_name",
        None,
        "The dataset to make. Default: <dataset_name>_balanced_<max_per_class>.",
    )
    define.integer("seed", 0, "Of the choice of images.")


def main(values: flags.FlagValues) -> None:
    """Makes a dataset of at most --max_per_class training images of each class of another."""
    if values.max_per_class is None:
        raise UserError("--max_per_class is missing: how many training images to take of a class")
    source = read_dataset(values.dataset_name, values.dataset_dir)
    name = values.output_name or f"{source.name}_balanced_{values.max_per_class}"
    folder = output_folder(name, values.dataset_dir)
    taken = take_images(source.splits["train"], values.max_per_class, values.seed)
    before = count_by_class(source.splits["train"], source.num_classes)
    after = count_by_class(taken, source.num_classes)

    files = {TABLE: compose_table(source.class_names, before, after)}
    classes = Path(values.dataset_dir, source.name, "classes.txt")
    if classes.is_file():
        files[classes.name] = classes.read_bytes().decode("utf-8", "surrogateescape")
    for split_name, images in (("validation", source.splits["validation"]), ("train", taken)):
        files[LISTS[split_name]] = compose_list((source.name, i.path, i.label) for i in images)
    write_derived(folder, "balanced subset", [source.name], files)

    print(f"{folder}: {len(taken):,} of {len(source.splits['train']):,} training images\n")
    print(summarize_counts("training images", {source.name: before, name: after}))
    print(f"\nnext: {conversion_command(name, values.dataset_dir)}")


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


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
