"""Unions of datasets."""

from collections import Counter
from collections.abc import Sequence

from slim.datasets.derived.writing import Listed


def unite_class_names(datasets: Sequence[Listed]) -> list[str]:
    """The names of all classes; one that several datasets have is preceded by the dataset's."""
    owners = Counter(name for dataset in datasets for name in set(dataset.class_names))
    return [
        f"{dataset.name} {name}" if owners[name] > 1 else name
        for dataset in datasets
        for name in dataset.class_names
    ]


def compose_table(datasets: Sequence[Listed], class_names: Sequence[str]) -> str:
    """The text of `union.tsv`."""
    origins = (
        (dataset.name, label) for dataset in datasets for label in range(dataset.num_classes)
    )
    lines = ["label\tname\tsource\tsource_label\n"]
    for i, (name, (source, label)) in enumerate(zip(class_names, origins, strict=True)):
        lines.append(f"{i}\t{name}\t{source}\t{label}\n")
    return "".join(lines)
