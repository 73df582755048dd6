"""Writes one dataset of all classes of several datasets.

    python -m slim.datasets.union --dataset_names=ILSVRC2012,inat2017

writes `data/ILSVRC2012+inat2017/` with `train.txt`, `val.txt`, `classes.txt`, links to the images,
and `union.tsv`, which lists the origin of each class. The paper's networks for ImageNet and
iNaturalist were trained on such a union. Convert it like any dataset:

    python convert_dataset.py --dataset_name=ILSVRC2012+inat2017
"""

from collections import Counter
from functools import partial

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.common.tables import Table
from slim.datasets.listed import define_output_flags, print_next, read_dataset, write_derived
from slim.datasets.lists import compose_class_names
from slim.datasets.registry import new_dataset_folder


def define_flags(values: flags.FlagValues) -> None:
    define = FlagSet(values)
    define.words("dataset_names", [], "Two or more datasets, folders in --dataset_dir.")
    define_output_flags(define, "the names of the datasets joined with +")


def main(values: flags.FlagValues) -> None:
    # 1. Read the lists of the datasets.
    names = values.dataset_names
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"--dataset_names={','.join(names)}: expected two or more different names")
    datasets = [read_dataset(name, values.dataset_dir) for name in names]
    name = values.output_name or "+".join(dataset.name for dataset in datasets)
    folder = new_dataset_folder(name, values.dataset_dir, "output_name")

    # 2. Number their classes one after the other. Where several datasets have a class of the same
    # name, the name of the dataset precedes it.
    origins = [
        (dataset.name, label) for dataset in datasets for label in range(dataset.num_classes)
    ]
    owners = Counter(name for dataset in datasets for name in set(dataset.class_names))
    class_names = [
        f"{dataset.name} {name}" if owners[name] > 1 else name
        for dataset in datasets
        for name in dataset.class_names
    ]
    sources, labels = zip(*origins, strict=True)
    write_derived(
        folder,
        datasets,
        origins,
        class_names,
        kind="union of datasets",
        table="union.tsv",
        columns={"source": sources, "source_label": labels},
        classes=compose_class_names(class_names),
        copy=values.copy,
    )

    # 3. Show which labels each dataset has got.
    rows, first = [], 0
    for dataset in datasets:
        after = first + dataset.num_classes
        sizes = dataset.sizes
        counts = (f"{sizes.train:,}", f"{sizes.validation:,}")
        rows.append([dataset.name, f"{first} to {after - 1}", *counts])
        first = after
    header = ["dataset", "labels", "training images", "validation images"]
    print(f"{folder}: {len(class_names):,} classes\n")
    print(Table(header, rows, numeric=[2, 3]))
    print_next(folder, datasets)


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
