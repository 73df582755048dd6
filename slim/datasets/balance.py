"""Writes a subset of a dataset with a limited number of training images per class.

    python -m slim.datasets.balance --dataset_name=inat2017 --max_per_class=50

writes `data/inat2017_balanced_50/` with `train.txt`, `val.txt`, `classes.txt`, a link to the
images, and `balance.tsv`, which lists the number of images of each class before and after. The
paper fine-tunes networks on such a subset, with a small learning rate, after training on all
images. Convert it like any dataset:

    python convert_dataset.py --dataset_name=inat2017_balanced_50
"""

from functools import partial

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.datasets.derived.balance import balance
from slim.datasets.derived.writing import define_output_flags, write_derived
from slim.datasets.listed import read_dataset
from slim.datasets.prepare.statistics import summarize_counts
from slim.datasets.registry import conversion_command, new_dataset_folder


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.string("dataset_name", None, "The dataset: a folder in --dataset_dir.")
    define.integer("max_per_class", None, "The most training images to take per class.", 1)
    define.integer("seed", 0, "The seed of the choice of images.")
    define_output_flags(define, "<dataset_name>_balanced_<max_per_class>")


def main(values: flags.FlagValues) -> None:
    """Writes a subset with at most --max_per_class training images per class."""
    if values.max_per_class is None:
        raise UserError("--max_per_class is missing: give the most training images per class")
    source = read_dataset(values.dataset_name, values.dataset_dir)
    name = values.output_name or f"{source.name}_balanced_{values.max_per_class}"
    folder = new_dataset_folder(name, values.dataset_dir, "output_name")
    subset = balance(source, values.max_per_class, values.seed)
    write_derived(folder, subset)

    before, after = subset.columns.values()
    print(f"{folder}: {after.sum():,} of {before.sum():,} training images\n")
    print(summarize_counts("training images", {source.name: before, name: after}))
    print(f"\nnext: {conversion_command(name, values.dataset_dir)}")


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
