r"""Selects the source classes nearest to targets (section 4.2 of the paper).

    python -m slim.transfer.source_selection --feature_dir=feature/inception_v3_iNat_299 \
        --sources=ILSVRC2012,inat2017 --targets=cub_200,nabirds --top_k=400 --output_name=birds

writes `data/birds/` with `train.txt`, `val.txt`, `classes.txt`, links to the images of the sources,
and `selection.tsv`, which lists the origin of each class. Convert it like any dataset:

    python convert_dataset.py --dataset_name=birds
"""

from functools import partial
from itertools import cycle

import numpy as np
from absl import flags

from slim.common.command_line import FlagSet, check_names, run_command
from slim.common.errors import UserError
from slim.common.tables import Table
from slim.datasets.listed import define_output_flags, print_next, read_dataset, write_derived
from slim.datasets.lists import compose_class_names
from slim.datasets.registry import new_dataset_folder
from slim.datasets.tfrecord import LISTS
from slim.transfer import MIN_COUNT, NORMALIZE_FEATURES


def define_flags(values: flags.FlagValues) -> None:
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
    from slim.transfer.domain_similarity import large_classes
    from slim.transfer.prototypes import load_prototypes, union
    from slim.transfer.selection import SELECTION, compare_selection, select_classes

    for name in ("feature_dir", "sources", "targets", "output_name"):
        if not values[name].value:
            raise UserError(f"--{name} is missing: {values[name].help}")
    for name in ("sources", "targets"):
        check_names(name, values[name].value)
    expected = f"expected one number, or {len(values.targets)}, one for each of --targets"
    if len(values.top_k) not in (1, len(values.targets)):
        raise UserError(f"--top_k has {len(values.top_k)} numbers: {expected}")
    if not all(number.isdecimal() for number in values.top_k):
        raise UserError(f"--top_k={','.join(values.top_k)}: {expected}")
    top_k = dict(zip(values.targets, cycle(map(int, values.top_k)), strict=False))
    folder = new_dataset_folder(values.output_name, values.dataset_dir, "output_name")

    # 1. The sources, as lists of images and as features of the same images, and the targets.
    load = partial(load_prototypes, values.feature_dir, normalize=values.normalize_features)
    lists = {name: read_dataset(name, values.dataset_dir) for name in values.sources}
    sources = {name: load(name) for name in values.sources}
    for name, listed in lists.items():
        counts = listed.count_images()["train"]
        found, labels = sources[name], np.flatnonzero(counts)
        if not (
            np.array_equal(found.labels, labels) and np.array_equal(found.counts, counts[labels])
        ):
            raise UserError(
                f"{listed.folder / LISTS['train']} lists {counts.sum()} images of {len(labels)} "
                f"classes, the features in {values.feature_dir} are of {found.counts.sum()} images "
                f"of {len(found.labels)} classes or of other images: extract {name} again"
            )
    targets = {name: load(name) for name in values.targets}

    # 2. The nearest of all source classes that are large enough.
    source = large_classes(union(list(sources.values())), values.min_count)
    selection = select_classes(source, targets, top_k)
    selected = source.subset(selection.indices)

    # 3. A dataset of their images.
    origins = list(zip(selected.datasets.tolist(), selected.labels.tolist(), strict=True))
    names = [lists[dataset].class_names[label] for dataset, label in origins]
    write_derived(
        folder,
        list(lists.values()),
        origins,
        names,
        kind="selection of classes",
        table=SELECTION,
        columns={
            "source": selected.datasets,
            "source_label": selected.labels,
            "images": selected.counts,
            "distance": [f"{distance:.4f}" for distance in selection.distances],
            "nearest_target": selection.targets,
        },
        classes=compose_class_names(names),
        copy=values.copy,
    )

    # 4. How much nearer they are than all classes, and than random ones.
    few, total = len(selected.counts), len(source.counts)
    print(f"{folder}: {few} of {total} classes, listed in {folder / SELECTION}\n")
    header = ["EMD to", f"all {total}", f"these {few}", f"{few} at random"]
    compared = compare_selection(source, targets, selection.indices, seed=values.seed)
    rows = [(name, *(f"{distance:.3f}" for distance in rest)) for name, *rest in compared]
    print(Table(header, rows))
    print_next(folder, list(lists.values()))


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
