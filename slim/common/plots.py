"""What figures have in common: colours, and accuracy against the size of classes."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of Okabe and Ito, but for the last: colour-blind people tell them apart too.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7f6b00"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
FIFTHS = 5
TICKS = 5
OPAQUE = 250  # classes; the points of more are paler


def draw_class_accuracy(
    axes: "Axes",
    class_sizes: np.ndarray,
    class_accuracy: np.ndarray,
    *,
    colours: tuple[str, str],
    labels: tuple[str, str],
) -> None:
    """Draws the accuracy of classes against their training images, and means of nearby sizes.

    Args:
        axes: Receives the points and a line.
        class_sizes: `[C]`, training images; classes without any are left out.
        class_accuracy: `[C]`, NaN for classes to leave out.
        colours: Of the points and of the line.
        labels: Theirs in the legend; those that begin with `_` are left out of it.
    """
    shown = np.isfinite(class_accuracy) & (class_sizes > 0)
    sizes, accuracy = class_sizes[shown], class_accuracy[shown]
    alpha = min(0.5, OPAQUE / max(1, len(sizes)))
    axes.scatter(sizes, accuracy, color=colours[0], alpha=alpha, label=labels[0], clip_on=False)
    if len(np.unique(sizes)) > 1:
        groups = np.array_split(np.argsort(sizes, kind="stable"), min(FIFTHS, len(sizes)))
        means = np.array([(sizes[group].mean(), accuracy[group].mean()) for group in groups])
        axes.plot(*means.T, color=colours[1], marker="s", label=labels[1])
        axes.set_xscale("log")
        ticks = np.unique(np.geomspace(sizes.min(), sizes.max(), TICKS).round().astype(int))
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xticks([], minor=True)
    axes.set(xlabel="training images of the class", ylabel="accuracy", ylim=(0, 1))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
