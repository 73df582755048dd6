"""Writes one dataset of all classes of several datasets.

    python -m slim.datasets.union --dataset_names=ILSVRC2012,inat2017

writes `data/ILSVRC2012+inat2017/` with `train.txt`, `val.txt`, `classes.txt`, links to the images,
and `union.tsv`, which lists the origin of each class. The paper's networks for ImageNet and
iNaturalist were trained on such a union. Convert it like any dataset:

    python convert_dataset.py --dataset_name=ILSVRC2012+inat2017
"""

from functools import partial

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.datasets.derived.union import summarize_union, unite
from slim.datasets.derived.writing import define_output_flags, write_derived
from slim.datasets.listed import read_dataset
from slim.datasets.registry import conversion_command, new_dataset_folder


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.words("dataset_names", [], "Two or more datasets, folders in --dataset_dir.")
    define_output_flags(define, "the names of the datasets joined with +")


def main(values: flags.FlagValues) -> None:
    """Writes one dataset of all classes of several datasets."""
    names = values.dataset_names
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"--dataset_names={','.join(names)}: expected two or more different names")
    datasets = [read_dataset(name, values.dataset_dir) for name in names]
    name = values.output_name or "+".join(dataset.name for dataset in datasets)
    folder = new_dataset_folder(name, values.dataset_dir, "output_name")
    union = unite(datasets)
    write_derived(folder, union)

    print(f"{folder}: {len(union.class_names):,} classes\n")
    print(summarize_union(datasets))
    print(f"\nnext: {conversion_command(name, values.dataset_dir)}")


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
