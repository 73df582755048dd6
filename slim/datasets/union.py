"""One dataset of all classes of several, such as ImageNet and iNaturalist side by side.

    python -m slim.datasets.union --dataset_names=ILSVRC2012,inat2017

writes `data/ILSVRC2012+inat2017/` with `train.txt`, `val.txt`, `classes.txt`, links to the images,
and `union.tsv`, where each class comes from. The paper's networks that were trained on ImageNet and
iNaturalist have the classes of such a union. Convert it as any dataset:

    python convert_dataset.py --dataset_name=ILSVRC2012+inat2017
"""

from functools import partial
from itertools import accumulate

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.datasets.derived.union import compose_table, unite_class_names
from slim.datasets.derived.writing import (
    output_folder,
    read_dataset,
    write_derived,
)
from slim.datasets.lists import CLASSES, compose_class_names, compose_list
from slim.datasets.registry import conversion_command
from slim.datasets.tfrecord import LISTS

TABLE = "union.tsv"


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.words("dataset_names", [], "Two datasets or more, folders in --dataset_dir.")
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    define.string("output_name", None, "The dataset to make. Default: their names, + between them.")


def main(values: flags.FlagValues) -> None:
    """Makes one dataset of all classes of several."""
    names = values.dataset_names
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(
            f"--dataset_names={','.join(names)}: expected two datasets or more, each once"
        )
    datasets = [read_dataset(name, values.dataset_dir) for name in names]
    output_name = values.output_name or "+".join(dataset.name for dataset in datasets)
    folder = output_folder(output_name, values.dataset_dir)
    first_labels = list(accumulate((d.num_classes for d in datasets), initial=0))
    class_names = unite_class_names(datasets)
    files = {
        TABLE: compose_table(datasets, class_names),
        CLASSES: compose_class_names(class_names),
    }
    for split_name in ("validation", "train"):
        files[LISTS[split_name]] = compose_list(
            (f"{dataset.name}/{image.path}", first_label + image.label)
            for dataset, first_label in zip(datasets, first_labels, strict=False)
            for image in dataset.splits[split_name]
        )
    write_derived(folder, "union of datasets", [dataset.name for dataset in datasets], files)

    print(f"{folder}: {len(class_names):,} classes\n")
    print("| dataset | labels | training images | validation images |\n| --- | --- | ---: | ---: |")
    for dataset, first_label in zip(datasets, first_labels, strict=False):
        last_label = first_label + dataset.num_classes - 1
        counts = [f"{len(images):,}" for images in dataset.splits.values()]
        print(f"| {dataset.name} | {first_label} to {last_label} | {' | '.join(counts)} |")
    print(f"\nnext: {conversion_command(output_name, values.dataset_dir)}")


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
