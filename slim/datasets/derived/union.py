"""Unions of datasets."""

from collections import Counter
from collections.abc import Sequence

from slim.common.tables import Table
from slim.datasets.derived.writing import DerivedDataset
from slim.datasets.listed import ListedDataset
from slim.datasets.lists import compose_class_names


def unite(datasets: Sequence[ListedDataset]) -> DerivedDataset:
    """Returns a dataset of all classes of several datasets.

    The name of the dataset precedes the names of classes that several datasets have.
    """
    owners = Counter(name for dataset in datasets for name in set(dataset.class_names))
    names = [
        f"{dataset.name} {name}" if owners[name] > 1 else name
        for dataset in datasets
        for name in dataset.class_names
    ]
    origins = [
        (dataset.name, label) for dataset in datasets for label in range(dataset.num_classes)
    ]
    sources, labels = zip(*origins, strict=True)
    return DerivedDataset(
        kind="union of datasets",
        table="union.tsv",
        sources=datasets,
        origins=origins,
        class_names=names,
        columns={"source": sources, "source_label": labels},
        classes=compose_class_names(names),
    )


def summarize_union(datasets: Sequence[ListedDataset]) -> str:
    """Returns a table of the labels and numbers of images of the united datasets."""
    rows, first = [], 0
    for dataset in datasets:
        after = first + dataset.num_classes
        train, validation = (len(dataset.splits[name]) for name in ("train", "validation"))
        rows.append([dataset.name, f"{first} to {after - 1}", f"{train:,}", f"{validation:,}"])
        first = after
    header = ["dataset", "labels", "training images", "validation images"]
    return str(Table(header, rows, numeric=[2, 3]))
