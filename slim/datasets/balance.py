"""A subset of a dataset that has at most so many training images of each class.

    python -m slim.datasets.balance --dataset_name=inat2017 --max_per_class=50

writes `data/inat2017_balanced_50/` with `train.txt`, `val.txt`, `classes.txt`, a link to the
images, and `balance.tsv`, how many images each class had and has. On such a subset the paper
fine-tunes, with a small learning rate, what was trained on everything. Convert it as any dataset:

    python convert_dataset.py --dataset_name=inat2017_balanced_50
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.datasets.derived.balance import compose_table, count_by_class, take_images
from slim.datasets.derived.writing import output_folder, read_dataset, write_derived
from slim.datasets.lists import CLASSES, compose_list
from slim.datasets.prepare.statistics import summarize_counts
from slim.datasets.registry import conversion_command
from slim.datasets.tfrecord import LISTS

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
    classes = Path(values.dataset_dir, source.name, CLASSES)
    if classes.is_file():
        files[classes.name] = classes.read_bytes().decode("utf-8", "surrogateescape")
    for split_name, images in (("validation", source.splits["validation"]), ("train", taken)):
        files[LISTS[split_name]] = compose_list(
            (f"{source.name}/{i.path}", i.label) for i in images
        )
    write_derived(folder, "balanced subset", [source.name], files)

    print(f"{folder}: {len(taken):,} of {len(source.splits['train']):,} training images\n")
    print(summarize_counts("training images", {source.name: before, name: after}))
    print(f"\nnext: {conversion_command(name, values.dataset_dir)}")


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
