"""Figures of features, classifiers and domains. Functions return figures and never show them."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from slim.common.figures import COLOURS, INK, MARKERS, draw_class_accuracy, legible
from slim.evaluation.confusion import confusion_colours
from slim.transfer.comparison import Accuracies, transfer_correlation
from slim.transfer.domain_similarity import Flow, SimilarityTable
from slim.transfer.linear_classifier import Evaluation
from slim.transfer.prototypes import Prototypes

NAMED_CLASSES = 30  # more class names than this cannot be read on an axis


def plot_confusion(evaluation: Evaluation, class_names: Sequence[str]) -> Figure:
    """Plots the confusion matrix, each row normalized by the images of the class.

    Correct predictions are blue and wrong ones orange, as TensorBoard shows them. Up to 30 classes
    are named, with the number of images in each cell.
    """
    confusion = evaluation.confusion
    named = len(confusion) <= NAMED_CLASSES
    size = 3.5 + 0.3 * len(confusion) if named else 6.5
    figure = Figure((size, size), layout="constrained")
    axes = figure.add_subplot()
    # The colours are normalized by row; the numbers in the cells are images.
    colours = confusion_colours(confusion)
    end = len(confusion) - 0.5
    axes.imshow(colours, extent=(-0.5, end, end, -0.5), interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"{evaluation.accuracy:.1%} of {confusion.sum():,} images correct")
    if named:
        names = [readable(name) for name in class_names[: len(confusion)]]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        for row, column in zip(*np.nonzero(confusion), strict=True):
            ink = "white" if colours[row, column].mean() < 150 else INK
            style = {"ha": "center", "va": "center", "fontsize": 8, "color": ink}
            axes.text(column, row, f"{confusion[row, column]}", **style)
    return legible(figure)


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
    # White text on dark cells.
    middle = (table.similarity.min() + table.similarity.max()) / 2
    for (row, column), similarity in np.ndenumerate(table.similarity):
        nearest = table.nearest_first(table.targets[column])[0]
        star = "★ " if table.sources[row] == nearest else ""
        text = f"{star}{similarity:.3f}\n({table.emd[row, column]:.2f})"
        colour = "white" if similarity > middle else INK
        style = {"ha": "center", "va": "center", "fontsize": 9, "color": colour}
        axes.text(column, row, text, **style)
    return legible(figure)


def plot_flows(flows: Mapping[str, Flow], source: Prototypes) -> Figure:
    """Plots how much mass moves how far, by target and source dataset; the mean is the EMD."""
    columns = min(len(flows), 4)
    rows = -(-len(flows) // columns)
    figure = Figure((0.6 + 3.2 * columns, 0.6 + 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    colours = dataset_colours(source)
    bins = np.linspace(0, max(flow.distances.max() for flow in flows.values()), 31)
    # A panel per target, in which the bars of the source datasets are stacked.
    for axes, (target, flow) in zip(grid.flat, flows.items(), strict=False):
        parts = [source.datasets == dataset for dataset in colours]
        axes.hist(
            [flow.distances[part].ravel() for part in parts],
            bins,
            weights=[flow.mass[part].ravel() for part in parts],
            color=list(colours.values()),
            stacked=True,
        )
        mean = (flow.mass * flow.distances).sum()
        axes.axvline(mean, color=INK, linestyle=":", linewidth=1.5)
        axes.set_title(f"to {target}: EMD {mean:.3f}", fontsize=10)
        axes.set_xlim(0)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in grid.flat[len(flows) :]:
        axes.set_axis_off()
    figure.supxlabel("distance that the mass moves", fontsize=10)
    figure.supylabel("share of the mass", fontsize=10)
    handles = [Patch(color=colour, label=f"from {name}") for name, colour in colours.items()]
    style = {"ncols": len(handles), "fontsize": 9, "frameon": False}
    figure.legend(handles=handles, loc="outside upper center", **style)
    return legible(figure)


def dataset_colours(domain: Prototypes) -> dict[str, str]:
    names = dict.fromkeys(domain.datasets)
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}


def plot_transfers(table: SimilarityTable, accuracies: Mapping[str, Accuracies]) -> Figure:
    """Plots transfer accuracy against domain similarity, as in figure 5 of the paper.

    Args:
        table: Similarities.
        accuracies: For each way of transfer, by name, accuracies by source and target of at least
            two pairs. Each way has a panel.
    """
    figure = Figure((2 + 5 * len(accuracies), 4.5), layout="constrained")
    panels = figure.subplots(1, len(accuracies), squeeze=False)[0]
    markers = dict(zip(table.sources, cycle(MARKERS), strict=False))
    for axes, (name, accuracy) in zip(panels, accuracies.items(), strict=True):
        # 1. Each target is a line through its points, in ascending similarity. Markers are sources,
        #    colours are targets.
        for column, target in enumerate(table.targets):
            colour = COLOURS[column % len(COLOURS)]
            here = [
                (similarity, accuracy[source, target], markers[source])
                for source, similarity in zip(
                    table.sources, table.similarity[:, column], strict=True
                )
                if (source, target) in accuracy
            ]
            if here:
                x, y, _ = zip(*sorted(here), strict=True)
                axes.plot(x, y, color=colour, linewidth=1, label=target)
            for x, y, marker in here:
                axes.scatter(x, y, marker=marker, color=colour, s=60, zorder=3)
        for source in table.sources:
            if any((source, target) in accuracy for target in table.targets):
                style = {"marker": markers[source], "linestyle": "", "color": INK}
                axes.plot([], [], label=f"from {source}", **style)
        r = transfer_correlation(table, accuracy)
        text = f"r = {r.overall:+.2f}, within targets r = {r.within_targets:+.2f}"
        axes.set_title(text, fontsize=10)
        axes.set(xlabel=r"domain similarity $e^{-\gamma\,\mathrm{EMD}}$", ylabel=name)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(color="#eeeeee")
    # 2. One legend for all panels, with each name once.
    figure.suptitle("Do nearer sources transfer better?", fontsize=10)
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    style = {"fontsize": 8, "frameon": False}
    figure.legend(handles.values(), handles, loc="outside right upper", **style)
    return legible(figure)


def plot_class_accuracy(evaluation: Evaluation) -> Figure:
    """Plots accuracy per class against training images per class, with means of similar sizes."""
    accuracy, sizes = evaluation.class_accuracy, evaluation.class_sizes
    shown = accuracy[np.isfinite(accuracy) & (sizes > 0)]
    figure = Figure((6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    colours, labels = (COLOURS[0], COLOURS[4]), ("a class", "mean of a fifth of the classes")
    draw_class_accuracy(axes, sizes, accuracy, colours=colours, labels=labels)
    axes.set_title(f"{len(shown)} classes, mean accuracy {shown.mean():.1%}", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    return legible(figure)


def readable(name: str) -> str:
    # `Yellow headed Blackbird` for `012.Yellow_headed_Blackbird`
    return name.lstrip("0123456789.").replace("_", " ").strip() or name
