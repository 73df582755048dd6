"""Figures of features, classifiers and domains. Functions return figures and never show them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from slim.common.errors import UserError
from slim.common.plots import COLOURS, MARKERS, draw_class_accuracy
from slim.evaluation.predictions import confused_pairs
from slim.transfer.domain_similarity import SimilarityTable
from slim.transfer.features import Pictures
from slim.transfer.linear_classifier import Evaluation

RIGHT, WRONG, INK = "#1a7f4b", "#c0392b", "#333333"
THUMBNAIL = 200  # pixels; smaller figures stay small in a notebook
NAMED_CLASSES = 30  # more class names than this cannot be read on an axis


def plot_confusion(evaluation: Evaluation, class_names: Sequence[str]) -> Figure:
    """Plots the confusion matrix, each row normalized by the images of the class."""
    confusion = evaluation.confusion
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    named = len(shares) <= NAMED_CLASSES
    size = 3.5 + 0.3 * len(shares) if named else 6.5
    figure = Figure((size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    norm = PowerNorm(0.4, 0, 1)  # makes a single mistake among 30 images visible
    drawn = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    figure.colorbar(drawn, label="share of the true class", format=PercentFormatter(1), shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"{evaluation.accuracy:.1%} of {confusion.sum():,} images correct")
    if named:
        names = [_readable(name) for name in class_names]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        for row, column in zip(*np.nonzero(confusion), strict=True):
            colour = "white" if norm(shares[row, column]) > 0.6 else INK
            style = {"ha": "center", "va": "center", "fontsize": 8, "color": colour}
            axes.text(column, row, f"{confusion[row, column]}", **style)
    return figure


def plot_confused_pairs(
    evaluation: Evaluation, train: Pictures, val: Pictures, *, pairs: int = 4, examples: int = 3
) -> Figure:
    """Shows images of the most frequently confused pairs of classes, one row per pair.

    Args:
        evaluation: The evaluation on the validation images.
        train: Training images, shown as examples of the predicted class.
        val: Validation images, shown as the mistakes.
        pairs: Maximum number of rows.
        examples: Maximum number of images per class.

    Raises:
        UserError: There are no mistakes.
    """
    worst = confused_pairs(evaluation.confusion, pairs)
    if not worst:
        raise UserError("all predictions are correct: there are no confused pairs to show")
    figure, rows = _image_grid(len(worst), 2 * examples)
    for axes, pair in zip(rows, worst, strict=True):
        true, predicted = (_readable(val.class_names[label]) for label in pair[:2])
        mistaken = (val.labels == pair.true) & (evaluation.predictions == pair.predicted)
        for axis, index in zip(axes, np.flatnonzero(mistaken)[:examples], strict=False):
            _show(axis, val.paths[index], WRONG)
        others = np.flatnonzero(train.labels == pair.predicted)[:examples]
        for axis, index in zip(axes[examples:], others, strict=False):
            _show(axis, train.paths[index], None)
        axes[0].set_title(f"{true}, {pair.times} predicted as:", **_CAPTION | {"color": WRONG})
        axes[examples].set_title(predicted, **_CAPTION)
    return figure


def plot_retrieval(
    val: Pictures, queries: Sequence[int], train: Pictures, neighbours: np.ndarray
) -> Figure:
    """Shows queries and their neighbours in ascending distance, framed by correct or wrong class.

    Args:
        val: The images of the queries.
        queries: The indices of Q queries in `val`.
        train: The images of the neighbours.
        neighbours: `[Q, K]`, indices in `train`.
    """
    figure, rows = _image_grid(len(queries), 1 + neighbours.shape[1])
    for axes, query, found in zip(rows, queries, neighbours, strict=True):
        _show(axes[0], val.paths[query], None)
        name = _readable(val.class_names[val.labels[query]])
        axes[0].set_title(_shortened(f"query: {name}"), **_CAPTION)
        for axis, index in zip(axes[1:], found, strict=True):
            right = train.labels[index] == val.labels[query]
            colour = RIGHT if right else WRONG
            name = _readable(train.class_names[train.labels[index]])
            _show(axis, train.paths[index], colour)
            caption = "✓" if right else _shortened(f"✗ {name}")
            axis.set_title(caption, **_CAPTION | {"color": colour})
    return figure


def plot_similarity(table: SimilarityTable) -> Figure:
    """Plots domain similarity as a heat map of sources and targets, with the EMD in brackets."""
    size = (2.6 + 1.15 * len(table.targets), 1.5 + 0.6 * len(table.sources))
    figure = Figure(size, layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.imshow(table.similarity, cmap="YlGnBu", aspect="auto")
    figure.colorbar(drawn, label=r"similarity $e^{-\gamma\,\mathrm{EMD}}$")
    axes.set_xticks(range(len(table.targets)), table.targets, rotation=30, ha="right")
    axes.set_yticks(range(len(table.sources)), table.sources)
    axes.set(xlabel="target domain", ylabel="source domain")
    axes.set_title("Domain similarity (EMD in brackets; ★ the nearest source)", fontsize=10)
    middle = (table.similarity.min() + table.similarity.max()) / 2
    for (row, column), similarity in np.ndenumerate(table.similarity):
        star = "★ " if row == table.similarity[:, column].argmax() else ""
        text = f"{star}{similarity:.3f}\n({table.emd[row, column]:.2f})"
        colour = "white" if similarity > middle else INK
        style = {"ha": "center", "va": "center", "fontsize": 9, "color": colour}
        axes.text(column, row, text, **style)
    return figure


def plot_transfer(table: SimilarityTable, accuracy: Mapping[tuple[str, str], float]) -> Figure:
    """Plots transfer accuracy against domain similarity, as in figure 5 of the paper.

    Markers are sources, colours are targets. The correlation is given over all points, and, because
    targets differ in difficulty, over the differences from the mean of each target.

    Args:
        table: Similarities.
        accuracy: Accuracies by source and target, for at least two pairs.
    """
    return plot_transfers(table, {"transfer accuracy": accuracy})


def plot_transfers(
    table: SimilarityTable, accuracies: Mapping[str, Mapping[tuple[str, str], float]]
) -> Figure:
    """Plots `plot_transfer` for several ways of transfer, one panel each.

    Args:
        table: Similarities.
        accuracies: Accuracies by source and target, by name of the way.
    """
    figure = Figure((2 + 5 * len(accuracies), 4.5), layout="constrained")
    for axes, (name, accuracy) in zip(
        figure.subplots(1, len(accuracies), squeeze=False)[0], accuracies.items(), strict=True
    ):
        _draw_transfer(axes, table, accuracy)
        r = transfer_correlation(table, accuracy)
        text = f"r = {r.overall:+.2f}, within targets r = {r.within_targets:+.2f}"
        axes.set_title(text, fontsize=10)
        axes.set(xlabel=r"domain similarity $e^{-\gamma\,\mathrm{EMD}}$", ylabel=name)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(color="#eeeeee")
    figure.suptitle("Do nearer sources transfer better?", fontsize=10)
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    style = {"fontsize": 8, "frameon": False}
    figure.legend(handles.values(), handles, loc="outside right upper", **style)
    return figure


class Correlation(NamedTuple):
    """Correlation of similarity and accuracy, NaN if one of them is constant."""

    overall: float
    within_targets: float  # of the differences from each target's means


def transfer_correlation(
    table: SimilarityTable, accuracy: Mapping[tuple[str, str], float]
) -> Correlation:
    """Returns the correlation of domain similarity with transfer accuracy.

    Args:
        table: Similarities.
        accuracy: Accuracies by source and target; other pairs are left out.
    """
    targets = [_transfer_points(table, target, accuracy) for target in table.targets]
    points = [np.array([point[:2] for point in found]) for found in targets if found]
    if not points:
        return Correlation(float("nan"), float("nan"))
    differences = [place - place.mean(axis=0) for place in points]
    return Correlation(*(correlation(np.concatenate(parts)) for parts in (points, differences)))


def _transfer_points(
    table: SimilarityTable, target: str, accuracy: Mapping[tuple[str, str], float]
) -> list[tuple[float, float, str]]:
    """Returns similarity, accuracy and marker of each source with an accuracy for a target."""
    column = table.targets.index(target)
    return [
        (table.similarity[row, column], accuracy[source, target], MARKERS[row % len(MARKERS)])
        for row, source in enumerate(table.sources)
        if (source, target) in accuracy
    ]


def _draw_transfer(
    axes: Axes, table: SimilarityTable, accuracy: Mapping[tuple[str, str], float]
) -> None:
    """Draws the points of each target, connected in the order of similarity."""
    for column, target in enumerate(table.targets):
        here = _transfer_points(table, target, accuracy)
        if not here:
            continue
        colour = COLOURS[column % len(COLOURS)]
        place = np.array([point[:2] for point in sorted(here)])
        axes.plot(*place.T, color=colour, linewidth=1, label=target)
        for x, y, marker in here:
            axes.scatter(x, y, marker=marker, color=colour, s=60, zorder=3)
    for row, source in enumerate(table.sources):
        if any((source, target) in accuracy for target in table.targets):
            style = {"marker": MARKERS[row % len(MARKERS)], "linestyle": "", "color": INK}
            axes.plot([], [], label=f"from {source}", **style)


def plot_class_accuracy(evaluation: Evaluation) -> Figure:
    """Plots accuracy per class against training images per class, with means of similar sizes."""
    accuracy = evaluation.class_accuracy
    shown = accuracy[np.isfinite(accuracy) & (evaluation.class_sizes > 0)]
    figure = Figure((6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    style = {
        "colours": (COLOURS[0], COLOURS[4]),
        "labels": ("a class", "mean of a fifth of the classes"),
    }
    draw_class_accuracy(axes, evaluation.class_sizes, accuracy, **style)
    axes.set_title(f"{len(shown)} classes, mean accuracy {shown.mean():.1%}", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def correlation(points: np.ndarray) -> float:
    """Returns Pearson's correlation of `[N, 2]` points, NaN if a coordinate is constant."""
    x, y = (points - points.mean(axis=0)).T
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else float("nan")


_CAPTION = {"loc": "left", "fontsize": 7, "color": INK, "pad": 3}


def _image_grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    figure = Figure((1.6 * columns, 1.77 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _show(axis: Axes, path: Path, frame: str | None) -> None:
    """Shows the centre of an image, with a frame if a colour is given."""
    with Image.open(path) as image:
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        square = image.convert("RGB").crop((left, top, left + side, top + side))
    axis.imshow(square.resize((min(side, THUMBNAIL),) * 2))
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=3)


def _readable(name: str) -> str:
    """Returns a class name as text, `Yellow headed Blackbird` for `012.Yellow_headed_Blackbird`."""
    return name.lstrip("0123456789.").replace("_", " ").strip() or name


def _shortened(caption: str, most: int = 29) -> str:
    """Returns a caption that is not wider than its image."""
    return caption if len(caption) <= most else f"{caption[: most - 1]}…"
