"""Writes a subset of a dataset with a limited number of training images per class.

    python -m slim.datasets.balance --dataset_name=inat2017 --max_per_class=50

writes `data/inat2017_balanced_50/` with `train.txt`, `val.txt`, `classes.txt`, a link to the
images, and `balance.tsv`, which lists the number of images of each class before and after. The
paper fine-tunes networks on such a subset, with a small learning rate, after training on all
images. Convert it like any dataset:

    python convert_dataset.py --dataset_name=inat2017_balanced_50
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from heapq import nsmallest

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.datasets.listed import define_output_flags, print_next, read_dataset, write_derived
from slim.datasets.lists import CLASSES, Entry
from slim.datasets.prepare.statistics import summarize_counts
from slim.datasets.registry import new_dataset_folder


def define_flags(values: flags.FlagValues) -> None:
    define = FlagSet(values)
    define.string("dataset_name", None, "The dataset: a folder in --dataset_dir.")
    define.integer("max_per_class", None, "The most training images to take per class.", 1)
    define.integer("seed", 0, "The seed of the choice of images.")
    define_output_flags(define, "<dataset_name>_balanced_<max_per_class>")


def main(values: flags.FlagValues) -> None:
    # 1. Read the lists of the dataset.
    if values.max_per_class is None:
        raise UserError("--max_per_class is missing: set the maximum of training images per class")
    source = read_dataset(values.dataset_name, values.dataset_dir)
    name = values.output_name or f"{source.name}_balanced_{values.max_per_class}"
    folder = new_dataset_folder(name, values.dataset_dir, "output_name")

    # 2. Take some training images of each class, all validation images, and the class names as
    # they are.
    taken = take_images(source.splits["train"], values.max_per_class, values.seed)
    subset = replace(source, splits={**source.splits, "train": taken})
    before, after = (dataset.count_images()["train"] for dataset in (source, subset))
    classes = source.folder / CLASSES
    write_derived(
        folder,
        [subset],
        [(source.name, label) for label in range(source.num_classes)],
        source.class_names,
        kind="balanced subset",
        table="balance.tsv",
        columns={"images": before, "taken": after},
        classes=classes.read_bytes().decode() if classes.is_file() else None,
        copy=values.copy,
    )

    # 3. Compare the long tail before and after.
    print(f"{folder}: {after.sum():,} of {before.sum():,} training images\n")
    print(summarize_counts("training images", {source.name: before, name: after}))
    print_next(folder, [source])


def take_images(images: Sequence[Entry], max_per_class: int, seed: int) -> list[Entry]:
    """Returns at most `max_per_class` random images of each class, in the same order.

    The choice in a class depends only on the seed and the paths of its images. The images taken
    for a smaller number are a subset of those for a larger number.
    """

    def draw(image: Entry) -> bytes:
        text = f"{seed} {image.path}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    # Hashes of the paths order a class at random, whatever other images it has.
    classes = defaultdict(list)
    for image in images:
        classes[image.label].append(image)
    taken = {
        image for members in classes.values() for image in nsmallest(max_per_class, members, draw)
    }
    return [image for image in images if image in taken]


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
