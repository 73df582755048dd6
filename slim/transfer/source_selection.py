r"""Selects the source classes nearest to targets (section 4.2 of the paper).

    python -m slim.transfer.source_selection --feature_dir=feature/inception_v3_iNat_299 \
        --sources=ILSVRC2012,inat2017 --targets=cub_200,nabirds --top_k=400 --output_name=birds

writes `data/birds/` with `train.txt`, `val.txt`, `classes.txt`, links to the images of the sources,
and `selection.tsv`, which lists the origin of each class. Convert it like any dataset:

    python convert_dataset.py --dataset_name=birds
"""

from functools import partial

from absl import flags

from slim.common.command_line import FlagSet, check_names, run_command
from slim.common.errors import UserError
from slim.datasets.derived.writing import define_output_flags, write_derived
from slim.datasets.registry import conversion_command, new_dataset_folder
from slim.transfer import MIN_COUNT, NORMALIZE_FEATURES


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.string("feature_dir", None, "The features by one network: feature/<checkpoint>.")
    define.words("sources", [], "The datasets to select classes from.")
    define.words("targets", [], "The datasets that the classes should be near to.")
    define.words("top_k", ["200"], "The number of classes per target: one for all or one each.")
    define.integer("min_count", MIN_COUNT, "Training images that a source class must have.", 1)
    define.boolean("normalize_features", False, NORMALIZE_FEATURES)
    define.integer("seed", 0, "The seed of the random subsets in the comparison.", 0)
    define_output_flags(define)


def main(values: flags.FlagValues) -> None:
    """Writes a dataset of the source classes nearest to the targets."""
    from slim.transfer import prototypes, selection
    from slim.transfer.domain_similarity import large_classes

    for name in ("feature_dir", "sources", "targets", "output_name"):
        if not values[name].value:
            raise UserError(f"--{name} is missing: {values[name].help}")
    for name in ("sources", "targets"):
        check_names(name, values[name].value)
    features, data = values.feature_dir, values.dataset_dir
    load_source, load_prototypes = (
        partial(load, normalize=values.normalize_features)
        for load in (selection.load_source, prototypes.load_prototypes)
    )
    top_k = _counts_by_target(values.top_k, values.targets)
    folder = new_dataset_folder(values.output_name, data, "output_name")
    sources = {name: load_source(name, features, data) for name in values.sources}
    targets = {name: load_prototypes(features, name) for name in values.targets}
    source = prototypes.union([source.prototypes for source in sources.values()])
    source = large_classes(source, values.min_count)
    selected = selection.select_classes(source, targets, top_k)
    classes = source.subset(selected.indices)
    write_derived(folder, selection.derive_dataset(sources, classes, selected))

    few, total = len(classes.counts), len(source.counts)
    print(f"{folder}: {few} of {total} classes, listed in {folder / selection.SELECTION}\n")
    rows = selection.compare_selection(source, targets, selected.indices, seed=values.seed)
    print(selection.format_comparisons(rows, few, total))
    print(f"\nnext: {conversion_command(values.output_name, data)}")


def _counts_by_target(top_k: list[str], targets: list[str]) -> dict[str, int]:
    """Returns the number of classes to select for each target."""
    expected = f"expected one number, or {len(targets)}, one for each of --targets"
    if len(top_k) not in (1, len(targets)):
        raise UserError(f"--top_k has {len(top_k)} numbers: {expected}")
    if not all(number.isdecimal() for number in top_k):
        raise UserError(f"--top_k={','.join(top_k)}: {expected}")
    numbers = [int(number) for number in top_k]
    return dict(zip(targets, numbers * len(targets) if len(numbers) == 1 else numbers, strict=True))


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
