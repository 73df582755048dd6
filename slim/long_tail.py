"""Compares the accuracy of classes with few and with many training images.

    python -m slim.long_tail BEFORE.npz AFTER.npz --group_bounds=20,100 --plot=long_tail.png

reads files that `python -m slim.eval_image_classifier --per_class --eval_dir=...` wrote for the
same images, for example before and after fine-tuning on a balanced subset. A folder stands for its
file of the highest step.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from slim.common.command_line import FlagSet, python_command, run_command
from slim.common.errors import UserError
from slim.common.figures import COLOURS, draw_class_accuracy, save_figure
from slim.common.tables import Table
from slim.evaluation.predictions import (
    GROUP_BOUNDS,
    Predictions,
    find_predictions,
    group_accuracy,
    load_predictions,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MANY = 3  # bars per group, from which the numbers above them are smaller, then upright


def define_flags(values: flags.FlagValues) -> None:
    define = FlagSet(values)
    define.words("files", [], "predictions-<step>.npz files or folders; the flag name is optional.")
    define.words(
        "group_bounds",
        [str(bound) for bound in GROUP_BOUNDS],
        "Classes of the tail have fewer training images than the first, of the head more than the "
        "second.",
    )
    define.words("names", [], "Column names, one per file. Default: before, after.")
    define.string(
        "plot", None, "The plot (PNG). Default: long_tail-<step>.png next to the last file."
    )


def main(values: flags.FlagValues) -> None:
    # 1. Check the flags.
    if not values.files:
        raise UserError(
            f"FILE is missing: {python_command()} -m slim.long_tail BEFORE.npz AFTER.npz, with "
            "files that evaluation with --per_class writes to --eval_dir, or such folders"
        )
    bounds = [int(word) for word in values.group_bounds if word.strip().isdecimal()]
    if not len(values.group_bounds) == len(bounds) == 2 or not 1 <= bounds[0] <= bounds[1]:
        raise UserError(
            f"--group_bounds={','.join(values.group_bounds)}: expected two numbers in ascending "
            f"order, such as {','.join(map(str, GROUP_BOUNDS))}: the tail has fewer training "
            "images than the first, the head more than the second"
        )
    number = len(values.files)
    names = values.names
    if not names:
        later = ["after"] if number == 2 else [f"after {index}" for index in range(1, number)]
        names = ["before", *later] if number > 1 else ["accuracy"]
    if len(names) != number:
        raise UserError(f"--names={','.join(names)}: expected {number} names, one per file")

    # 2. Load the predictions, which have to be for the same images.
    files = [find_predictions(path) for path in values.files]
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
            found, expected = (
                f"{len(each.labels):,} images, {each.num_classes:,} classes"
                for each in (other, first)
            )
            raise UserError(
                f"{file} ({found}) is not for the same images as {files[0]} ({expected}): "
                "compare evaluations of one split of one dataset"
            )
    # A class stays in its group when a network was fine-tuned on fewer images.
    predictions = [replace(each, class_sizes=first.class_sizes) for each in loaded]

    # 3. Compare them.
    bounds = (bounds[0], bounds[1])
    print(f"{group_table(predictions, names, bounds)}\n")
    plot = Path(values.plot or files[-1].with_name(f"long_tail-{predictions[-1].step}.png"))
    save_figure(plot_groups(predictions, names, bounds), plot)
    print(f"plot: {plot}")


def group_table(
    predictions: Sequence[Predictions], names: Sequence[str], bounds: tuple[int, int]
) -> str:
    """Returns a Markdown table of the groups, and a note on its accuracy."""
    # The difference is between the last and the first file.
    header = ["group", "classes", "training images", "validation images", *names]
    if len(names) > 1:
        header.append("difference (points)")
    rows = []
    groups = [group_accuracy(each, bounds) for each in predictions]
    for row in zip(*groups, strict=True):
        first, last = row[0], row[-1]
        counts = (first.classes, first.training_images, first.validation_images)
        cells = [f"{first}", *(f"{count:,}" for count in counts)]
        cells += [percent(group.accuracy) for group in row]
        if len(names) > 1:
            difference = 100 * (last.accuracy - first.accuracy)
            cells.append("-" if np.isnan(difference) else f"{difference:+.1f}")
        rows.append(cells)
    images = (
        f"{name} {percent(each.accuracy)}" for name, each in zip(names, predictions, strict=True)
    )
    return (
        f"{Table(header, rows, numeric=range(1, len(header)))}\n\n"
        "Accuracy is the mean over the classes of a group that have validation images. "
        f"Over all images: {', '.join(images)}."
    )


def plot_groups(
    predictions: Sequence[Predictions], names: Sequence[str], bounds: tuple[int, int]
) -> "Figure":
    """Plots the accuracy of the groups, and of the classes against their training images."""
    # Importing Matplotlib takes longer than everything else here.
    from matplotlib.figure import Figure

    figure = Figure((12, 4.5), layout="constrained")
    bars, points = figure.subplots(1, 2, width_ratios=[1.1, 1.2])
    groups = [group_accuracy(each, bounds) for each in predictions]
    # 1. On the left a bar per group, on the right a point per class, for each file.
    width = 0.8 / len(groups)
    for index, (name, each, found) in enumerate(zip(names, predictions, groups, strict=True)):
        colour = COLOURS[index % len(COLOURS)]
        places = np.arange(len(found)) + (index - (len(groups) - 1) / 2) * width
        heights = [group.accuracy for group in found]
        drawn = bars.bar(places, np.nan_to_num(heights), 0.94 * width, color=colour, label=name)
        text = {"fontsize": 8 if len(groups) < MANY else 7, "padding": 2}
        text["rotation"] = 90 if len(groups) > MANY else 0
        bars.bar_label(drawn, [percent(height) for height in heights], **text)
        style = {"colours": (colour, colour), "labels": ("_", "_")}
        draw_class_accuracy(points, each.class_sizes, each.class_accuracy, **style)
    # 2. Axes, and a legend for both.
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


def percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1%}"


command = partial(run_command, define_flags, main, description=__doc__, positional="files")

if __name__ == "__main__":
    command()
