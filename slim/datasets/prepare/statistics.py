"""Numbers of images per class of a prepared dataset: the long tail."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slim.common.figures import save_figure
from slim.common.tables import Table
from slim.datasets.listed import read_dataset

PLOT = "statistics.png"
SMALL = (10, 50, 100)  # images; classes with fewer are counted
NAMED = 3  # number of largest and of smallest classes to name

Counts = Mapping[str, np.ndarray]  # [C] images per class, by split


def report_statistics(folder: Path) -> None:
    """Prints and plots the numbers of images per class of a dataset."""
    dataset = read_dataset(folder.name, folder.parent)
    counts = dataset.count_images()
    print(f"\n{summarize_counts(dataset.name, counts)}\n")
    train = counts["train"]
    order = np.argsort(-train, kind="stable")
    for kind, labels in (("largest", order[:NAMED]), ("smallest", order[::-1][:NAMED])):
        named = (f"{dataset.class_names[label]} ({train[label]:,})" for label in labels)
        print(f"{kind} training classes: {', '.join(named)}")
    _plot_counts(dataset.name, counts, folder / PLOT)
    print(f"plot: {folder / PLOT}")


def gini(counts: np.ndarray) -> float:
    """Computes the Gini coefficient of counts `[C]`.

    It is half the mean absolute difference between two classes divided by the mean count: 0 for
    equal counts, near 1 if one class has all images.
    """
    ascending, number = np.sort(counts), len(counts)
    weights = 2 * np.arange(1, number + 1) - number - 1
    return float(weights @ ascending / (number * ascending.sum()))


def summarize_counts(name: str, counts: Counts) -> str:
    """Returns a Markdown table with one column per split."""
    statistics = {
        "images": lambda column: f"{column.sum():,}",
        "classes with images": lambda column: f"{(column > 0).sum():,}",
        "least in a class": lambda column: f"{column.min():,}",
        "median": lambda column: f"{np.median(column):,.1f}",
        "mean": lambda column: f"{column.mean():,.1f}",
        "most in a class": lambda column: f"{column.max():,}",
        "part of the largest tenth of classes": lambda column: (
            f"{np.sort(column)[-max(1, round(len(column) / 10)) :].sum() / column.sum():.1%}"
        ),
        "Gini coefficient": lambda column: f"{gini(column):.2f}",
    }
    for bound in SMALL:
        statistics[f"classes with fewer than {bound}"] = lambda column, bound=bound: (
            f"{(column < bound).sum():,}"
        )
    rows = [[row, *map(compute, counts.values())] for row, compute in statistics.items()]
    return str(Table([name, *counts], rows, numeric=range(1, 1 + len(counts))))


def _plot_counts(name: str, counts: Counts, path: Path) -> None:
    """Plots the images per class on a logarithmic scale, the largest training classes first."""
    # Importing Matplotlib takes longer than preparing most datasets.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    figure = Figure((7, 4), layout="constrained")
    axes = figure.add_subplot()
    order = np.argsort(-counts["train"], kind="stable")
    ranks = np.arange(1, len(order) + 1)
    if (held_out := counts.get("validation")) is not None:
        axes.plot(ranks, held_out[order], ".", ms=3, color="#e69f00", label="validation")
    axes.step(ranks, counts["train"][order], where="mid", color="#0072b2", label="train")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_formatter("")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="class, by its training images", ylabel="images", xlim=(0.5, len(order) + 0.5))
    axes.set_ylim(0.8, 1.3 * max(column.max() for column in counts.values()))
    axes.set_title(f"{name}: {counts['train'].sum():,} training images, {len(order):,} classes")
    axes.legend()
    save_figure(figure, path)
