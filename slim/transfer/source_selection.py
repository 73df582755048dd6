"""Chooses source classes near a target, and makes a data set of them (section 4.2 of the paper).

    python -m slim.transfer.source_selection --feature_dir=feature/inception_v3_iNat_299 \
        --sources=ILSVRC2012,inat2017 --targets=cub_200,nabirds --top_k=400 --output_name=birds

writes `data/birds/` with `train.txt`, `val.txt`, `classes.txt`, links to the sources' images, and
`selection.tsv`, the list of classes with where they come from. Convert it as any data set:

    python convert_dataset.py --dataset_name=birds
"""

from collections.abc import Sequence
from functools import partial

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.datasets.derived.writing import output_folder
from slim.datasets.registry import conversion_command
from slim.transfer.domain_similarity import MIN_COUNT, large_classes
from slim.transfer.prototypes import load_prototypes, union
from slim.transfer.selection import SELECTION, compare, load_source, select_classes, write_dataset


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.string("feature_dir", None, "Features of all by one network: feature/<checkpoint>.")
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    define.words("sources", [], "Datasets to choose classes from.")
    define.words("targets", [], "Datasets to be near to.")
    define.words("top_k", ["200"], "Classes for each target: one number, or one each.")
    define.integer("min_count", MIN_COUNT, "Training images that a source class must have.", 1)
    define.string("output_name", None, "The dataset to make, a folder in --dataset_dir.")
    define.integer("seed", 0, "Of the random subsets compared with.")


def main(values: flags.FlagValues) -> None:
    """Makes a dataset of the source classes nearest to the targets."""
    for name in ("feature_dir", "sources", "targets", "output_name"):
        if not values[name].value:
            raise UserError(f"--{name} is missing: {values[name].help}")
    sources = {
        name: load_source(name, values.feature_dir, values.dataset_dir) for name in values.sources
    }
    targets = {name: load_prototypes(values.feature_dir, name) for name in values.targets}
    source = large_classes(union([s.prototypes for s in sources.values()]), values.min_count)
    selection = select_classes(source, targets, _counts_by_target(values.top_k, values.targets))
    chosen = source.subset(selection.indices)
    folder = output_folder(values.output_name, values.dataset_dir)
    write_dataset(folder, sources, chosen, selection)

    few, all_ = len(chosen.counts), len(source.counts)
    print(f"{folder}: {few} of {all_} classes, listed in {folder / SELECTION}\n")
    print(f"| EMD to | all {all_} | these {few} | {few} at random |")
    print("| --- | --- | --- | --- |")
    for row in compare(source, targets, selection.indices, values.seed):
        print(f"| {row.target} | {row.whole:.3f} | {row.selected:.3f} | {row.random:.3f} |")
    print(f"\nnext: {conversion_command(values.output_name, values.dataset_dir)}")


def _counts_by_target(top_k: Sequence[str], targets: Sequence[str]) -> dict[str, int]:
    """The number of classes to take for each target."""
    expected = f"expected a number, or {len(targets)}, one for each of --targets"
    if len(top_k) not in (1, len(targets)):
        raise UserError(f"--top_k has {len(top_k)} numbers: {expected}")
    if not all(number.isdecimal() for number in top_k):
        raise UserError(f"--top_k={','.join(top_k)}: {expected}")
    numbers = [int(number) for number in top_k]
    return dict(zip(targets, numbers * len(targets) if len(numbers) == 1 else numbers, strict=True))


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
