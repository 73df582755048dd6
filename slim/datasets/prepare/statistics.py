"""How many images the classes of a prepared dataset have: the long tail."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slim.common.files import replacing
from slim.datasets.lists import CLASSES, count_classes, read_valid_list
from slim.datasets.registry import read_class_names
from slim.datasets.tfrecord import LISTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT = "statistics.png"
SMALL = (10, 50, 100)  # images; the classes with fewer are counted
NAMED = 3  # classes at either end

Counts = Mapping[str, np.ndarray]  # [C] images of each class, by split


def report_statistics(folder: Path) -> None:
    """Prints how many images the classes of a dataset have, and plots that to a file beside.

    Raises:
        UserError: A list is missing, or has lines that are none.
    """
    counts = count_images(folder)
    num_classes = len(counts["train"])
    class_names = read_class_names(folder / CLASSES, num_classes)
    print(f"\n{summarize_counts(folder.name, counts)}\n")
    print(name_extremes(counts["train"], class_names or list(map(str, range(num_classes)))))
    with replacing(folder / PLOT) as temporary:
        plot_counts(folder.name, counts).savefig(temporary, format="png", dpi=120)
    print(f"plot: {folder / PLOT}")


def count_images(folder: Path) -> Counts:
    """Counts the images of each class from the lists of a dataset.

    Returns:
        `[C]` counts by split, where C is the largest label of both plus one.

    Raises:
        UserError: A list is missing, or has lines that are none.
    """
    lists = {split_name: read_valid_list(folder / name) for split_name, name in LISTS.items()}
    num_classes = count_classes(lists)
    return {
        split_name: np.bincount([entry.label for entry in list_.entries], minlength=num_classes)
        for split_name, list_ in lists.items()
    }


def gini(counts: np.ndarray) -> float:
    """The Gini coefficient of counts `[C]`: 0 where all are equal, near 1 where one has all.

    Half the mean difference between two classes, in parts of the mean count.
    """
    ascending, number = np.sort(counts), len(counts)
    weights = 2 * np.arange(1, number + 1) - number - 1
    return float(weights @ ascending / (number * ascending.sum()))


def summarize_counts(name: str, counts: Counts) -> str:
    """A table with a column a split."""
    rows = {
        "images": [f"{column.sum():,}" for column in counts.values()],
        "classes with images": [f"{(column > 0).sum():,}" for column in counts.values()],
        "least in a class": [f"{column.min():,}" for column in counts.values()],
        "median": [f"{np.median(column):,.1f}" for column in counts.values()],
        "mean": [f"{column.mean():,.1f}" for column in counts.values()],
        "most in a class": [f"{column.max():,}" for column in counts.values()],
        "part of the largest tenth of classes": [
            f"{np.sort(column)[-max(1, round(len(column) / 10)) :].sum() / column.sum():.1%}"
            for column in counts.values()
        ],
        "Gini coefficient": [f"{gini(column):.2f}" for column in counts.values()],
    }
    for bound in SMALL:
        below = [f"{(column < bound).sum():,}" for column in counts.values()]
        rows[f"classes with fewer than {bound}"] = below
    lines = [f"| {name} | {' | '.join(counts)} |", f"| --- |{' ---: |' * len(counts)}"]
    return "\n".join([*lines, *(f"| {row} | {' | '.join(rows[row])} |" for row in rows)])


def name_extremes(counts: np.ndarray, class_names: Sequence[str]) -> str:
    """The classes with the most and the fewest images."""
    order = np.argsort(-counts, kind="stable")
    lines = []
    for kind, chosen in (("largest", order[:NAMED]), ("smallest", order[::-1][:NAMED])):
        named = ", ".join(f"{class_names[label]} ({counts[label]:,})" for label in chosen)
        lines.append(f"{kind} training classes: {named}")
    return "\n".join(lines)


def plot_counts(name: str, counts: Counts) -> "Figure":
    """The classes by their training images, the largest first, on a logarithmic scale."""
    # It takes longer to import than most datasets to prepare.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    figure = Figure((7, 4), layout="constrained")
    axes = figure.add_subplot()
    order = np.argsort(-counts["train"], kind="stable")
    ranks = np.arange(1, len(order) + 1)
    axes.plot(ranks, counts["validation"][order], ".", ms=3, color="#e69f00", label="validation")
    axes.step(ranks, counts["train"][order], where="mid", color="#0072b2", label="train")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_formatter("")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="class, by its training images", ylabel="images", xlim=(0.5, len(order) + 0.5))
    axes.set_ylim(0.8, 1.3 * max(column.max() for column in counts.values()))
    axes.set_title(f"{name}: {counts['train'].sum():,} training images, {len(order):,} classes")
    axes.legend()
    return figure
