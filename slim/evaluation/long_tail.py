"""Accuracy by groups of classes with few and many training images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slim.common.errors import UserError
from slim.common.figures import COLOURS, draw_class_accuracy
from slim.common.tables import Table
from slim.evaluation.predictions import Predictions, find_predictions, load_predictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# As in Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019.
GROUP_BOUNDS = (20, 100)
ALL = "all"
MANY = 3  # bars per group, from which the numbers above them are smaller, then upright


@dataclass(frozen=True)
class GroupAccuracy:
    """The accuracy of a group of classes.

    Attributes:
        name: `tail`, `middle`, `head` or `all`.
        sizes: The range of training images per class, in words; empty for `all`.
        classes: Number of classes.
        training_images: Number of training images.
        validation_images: Number of evaluated images.
        accuracy: Mean of the class accuracies in [0, 1]; NaN if no class has images.
    """

    name: str
    sizes: str
    classes: int
    training_images: int
    validation_images: int
    accuracy: float

    def __str__(self) -> str:
        """Returns `tail (fewer than 20)`, for example."""
        return f"{self.name} ({self.sizes})" if self.sizes else self.name


def group_accuracy(
    predictions: Predictions, bounds: tuple[int, int] = GROUP_BOUNDS
) -> list[GroupAccuracy]:
    """Returns the accuracy of the tail, the middle, the head, and all classes.

    Args:
        predictions: Predictions with `class_sizes`.
        bounds: Classes of the tail have fewer training images than the first bound, classes of the
            head more than the second.
    """
    sizes, (low, high) = predictions.class_sizes, bounds
    between = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    groups = {
        ("tail", f"fewer than {low:,}"): sizes < low,
        ("middle", between): (sizes >= low) & (sizes <= high),
        ("head", f"more than {high:,}"): sizes > high,
        (ALL, ""): np.full(len(sizes), True),
    }
    return [
        GroupAccuracy(
            *words,
            classes=int(inside.sum()),
            training_images=int(sizes[inside].sum()),
            validation_images=int(predictions.class_totals[inside].sum()),
            accuracy=_mean(predictions.class_accuracy[inside & (predictions.class_totals > 0)]),
        )
        for words, inside in groups.items()
    ]


def group_table(
    predictions: Sequence[Predictions],
    names: Sequence[str] = ("accuracy",),
    bounds: tuple[int, int] = GROUP_BOUNDS,
) -> str:
    """Returns a Markdown table of the groups, and a note on its accuracy.

    Args:
        predictions: Predictions for the same images, with the same `class_sizes`.
        names: The columns' names. The difference is between the last and the first.
        bounds: See `group_accuracy`.
    """
    header = ["group", "classes", "training images", "validation images", *names]
    if len(names) > 1:
        header.append("difference (points)")
    rows = []
    groups = [group_accuracy(each, bounds) for each in predictions]
    for row in zip(*groups, strict=True):
        first, last = row[0], row[-1]
        counts = (first.classes, first.training_images, first.validation_images)
        cells = [f"{first}", *(f"{count:,}" for count in counts)]
        cells += [_percent(group.accuracy) for group in row]
        if len(names) > 1:
            difference = 100 * (last.accuracy - first.accuracy)
            cells.append("-" if np.isnan(difference) else f"{difference:+.1f}")
        rows.append(cells)
    images = (
        f"{name} {_percent(each.accuracy)}" for name, each in zip(names, predictions, strict=True)
    )
    return (
        f"{Table(header, rows, numeric=range(1, len(header)))}\n\n"
        "Accuracy is the mean over the classes of a group that have validation images. "
        f"Over all images: {', '.join(images)}."
    )


def plot_groups(
    predictions: Sequence[Predictions],
    names: Sequence[str],
    bounds: tuple[int, int] = GROUP_BOUNDS,
) -> "Figure":
    """Plots the accuracy of the groups as bars, and of the classes against their training images.

    Args:
        predictions: Predictions for the same images, with the same `class_sizes`.
        names: The names in the legend.
        bounds: See `group_accuracy`.
    """
    # Importing Matplotlib takes longer than everything else here.
    from matplotlib.figure import Figure

    figure = Figure((12, 4.5), layout="constrained")
    bars, points = figure.subplots(1, 2, width_ratios=[1.1, 1.2])
    groups = [group_accuracy(each, bounds) for each in predictions]
    width = 0.8 / len(groups)
    for index, (name, each, found) in enumerate(zip(names, predictions, groups, strict=True)):
        colour = COLOURS[index % len(COLOURS)]
        places = np.arange(len(found)) + (index - (len(groups) - 1) / 2) * width
        heights = [group.accuracy for group in found]
        drawn = bars.bar(places, np.nan_to_num(heights), 0.94 * width, color=colour, label=name)
        text = {"fontsize": 8 if len(groups) < MANY else 7, "padding": 2}
        text["rotation"] = 90 if len(groups) > MANY else 0
        bars.bar_label(drawn, [_percent(height) for height in heights], **text)
        style = {"colours": (colour, colour), "labels": ("_", "_")}
        draw_class_accuracy(points, each.class_sizes, each.class_accuracy, **style)
    words = [
        f"{group.name}\n{group.sizes or 'any number'}\n{group.classes:,} classes"
        for group in groups[0]
    ]
    bars.set_xticks(range(len(words)), words)
    bars.set(xlabel="training images of the class", ylabel="mean class accuracy", ylim=(0, 1.1))
    bars.yaxis.set_major_formatter("{x:.0%}")
    style = {"color": "#777777", "linestyle": ":", "linewidth": 1.5}
    points.axvline(bounds[0] - 0.5, label="bounds of the groups", **style)
    points.axvline(bounds[1] + 0.5, **style)
    points.plot([], [], "s-", color="#777777", label="mean of a fifth of the classes")
    points.scatter([], [], color="#777777", alpha=0.5, label="a class")
    figure.legend(loc="outside upper center", ncols=6, fontsize=9, frameon=False)
    return figure


def load_comparable(paths: Sequence[str]) -> tuple[list[Path], list[Predictions]]:
    """Loads predictions for the same images.

    All get the class sizes of the first, so that a class stays in its group when a network was
    fine-tuned on fewer images.

    Args:
        paths: Files, or folders of files.

    Returns:
        The files, and the predictions.

    Raises:
        UserError: A file is missing or damaged, is for other images, or has no class sizes.
    """
    files = [find_predictions(path) for path in paths]
    first, *others = loaded = [load_predictions(file) for file in files]
    if first.class_sizes is None:
        raise UserError(
            f"{files[0]} has no training images per class: evaluate again with train.txt in the "
            "folder of the dataset"
        )
    for file, other in zip(files[1:], others, strict=True):
        same_names = None in (first.class_names, other.class_names) or (
            first.class_names == other.class_names
        )
        if not (np.array_equal(first.class_totals, other.class_totals) and same_names):
            raise UserError(
                f"{file} ({_size(other)}) is not for the same images as {files[0]} "
                f"({_size(first)}): compare evaluations of one split of one dataset"
            )
    return files, [replace(each, class_sizes=first.class_sizes) for each in loaded]


def parse_bounds(words: Sequence[str]) -> tuple[int, int]:
    """Parses `--group_bounds`.

    Raises:
        UserError: The value is not two numbers in ascending order.
    """
    numbers = [int(word) for word in words if word.strip().isdecimal()]
    if len(words) != 2 or len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        raise UserError(
            f"--group_bounds={','.join(words)}: expected two numbers in ascending order, such as "
            f"{','.join(map(str, GROUP_BOUNDS))}: the tail has fewer training images than the "
            "first, the head more than the second"
        )
    return numbers[0], numbers[1]


def column_names(given: Sequence[str], count: int) -> list[str]:
    """Returns the given names, else `accuracy` for one file, `before` and `after` for several.

    Raises:
        UserError: The number of names is not that of files.
    """
    if not given:
        after = ["after"] if count == 2 else [f"after {index}" for index in range(1, count)]
        return ["before", *after] if count > 1 else ["accuracy"]
    if len(given) != count:
        raise UserError(f"--names={','.join(given)}: expected {count} names, one per file")
    return list(given)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1%}"


def _size(predictions: Predictions) -> str:
    return f"{len(predictions.labels):,} images, {predictions.num_classes:,} classes"
