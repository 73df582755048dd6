"""Parts that several figures share: colours, accuracy against class size, and saving."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slim.common.errors import UserError
from slim.common.files import replacing, this_process

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All but the last are from Okabe and Ito: colour-blind people can tell them apart.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7f6b00"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
INK = "#333333"  # text
RIGHT, WRONG = "#004682", "#be3c00"  # blue and orange, dark enough for text
FIFTHS = 5
TICKS = 5
OPAQUE = 250  # with more classes than this, points become more transparent


def draw_class_accuracy(
    axes: "Axes",
    class_sizes: np.ndarray,
    class_accuracy: np.ndarray,
    *,
    colours: tuple[str, str],
    labels: tuple[str, str],
) -> None:
    """Draws the accuracy of each class against its size, and the mean of each fifth of the classes.

    `class_sizes` are training images per class, `class_accuracy` is NaN without images, both `[C]`.
    `colours` and `labels` are those of the points and of the line.
    """
    # 1. A point for each class that has training and validation images.
    shown = np.isfinite(class_accuracy) & (class_sizes > 0)
    sizes, accuracy = class_sizes[shown], class_accuracy[shown]
    alpha = min(0.5, OPAQUE / max(1, len(sizes)))
    axes.scatter(sizes, accuracy, color=colours[0], alpha=alpha, label=labels[0], clip_on=False)
    # 2. The means of fifths of the classes by size, on a logarithmic axis.
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


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure as PNG, whole or not at all."""
    try:
        with replacing(path, this_process()) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; free some space or choose another path"
        ) from error
