"""Figures of images and their classes. Functions return figures and never show them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from slim.common.errors import UserError
from slim.common.figures import INK, legible
from slim.datasets.images import load_thumbnail
from slim.evaluation.predictions import confused_pairs
from slim.transfer.domain_similarity import Flow
from slim.transfer.features import Pictures
from slim.transfer.linear_classifier import Evaluation
from slim.transfer.plots import NAMED_CLASSES, dataset_colours, readable
from slim.transfer.prototypes import Prototypes

RIGHT, WRONG = "#1a7f4b", "#c0392b"
CONFUSED_PAIRS = 4  # rows
TARGET_CLASSES = 12  # next to their nearest source classes
THUMBNAIL = 200  # pixels; smaller figures stay small in a notebook
MAP_THUMBNAIL = 0.05  # of the width of a map


def plot_confused_pairs(
    evaluation: Evaluation, train: Pictures, val: Pictures, *, examples: int = 3
) -> Figure:
    """Shows images of the most frequently confused pairs of classes, one row per pair.

    On the left of a row are mistakes, validation images; on the right are training images of the
    class that they were taken for. It is an error if there are no mistakes.
    """
    worst = confused_pairs(evaluation.confusion, CONFUSED_PAIRS)
    if not worst:
        raise UserError("all predictions are correct: there are no confused pairs to show")
    figure, rows = _image_grid(len(worst), 2 * examples)
    for axes, pair in zip(rows, worst, strict=True):
        true, predicted = (readable(val.class_names[label]) for label in pair[:2])
        # Mistakes on the left, images of the predicted class on the right.
        mistaken = (val.labels == pair.true) & (evaluation.predictions == pair.predicted)
        for axis, index in zip(axes, np.flatnonzero(mistaken)[:examples], strict=False):
            _show(axis, val.paths[index], WRONG)
        others = np.flatnonzero(train.labels == pair.predicted)[:examples]
        for axis, index in zip(axes[examples:], others, strict=False):
            _show(axis, train.paths[index], None)
        axes[0].set_title(f"{true}, {pair.times} predicted as:", **_CAPTION | {"color": WRONG})
        axes[examples].set_title(predicted, **_CAPTION)
    return legible(figure)


def plot_retrieval(
    val: Pictures, queries: Sequence[int], train: Pictures, neighbours: np.ndarray
) -> Figure:
    """Shows queries and their neighbours in ascending distance, with frames for right and wrong.

    Args:
        val: The images of the queries.
        queries: The indices of Q queries in `val`.
        train: The images of the neighbours.
        neighbours: `[Q, K]`, indices in `train`.
    """
    figure, rows = _image_grid(len(queries), 1 + neighbours.shape[1])
    for axes, query, found in zip(rows, queries, neighbours, strict=True):
        _show(axes[0], val.paths[query], None)
        name = readable(val.class_names[val.labels[query]])
        axes[0].set_title(_shortened(f"query: {name}"), **_CAPTION)
        for axis, index in zip(axes[1:], found, strict=True):
            right = train.labels[index] == val.labels[query]
            colour = RIGHT if right else WRONG
            name = readable(train.class_names[train.labels[index]])
            _show(axis, train.paths[index], colour)
            caption = "✓" if right else _shortened(f"✗ {name}")
            axis.set_title(caption, **_CAPTION | {"color": colour})
    return legible(figure)


def plot_feature_map(
    places: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    paths: Sequence[Path] | None = None,
) -> Figure:
    """Plots a map of images, with thumbnails where there is room and dots elsewhere, by class.

    Args:
        places: `[N, 2]`, such as the result of `linear_classifier.map_features`.
        labels: `[N]`.
        class_names: The name of each class.
        paths: The files of the images. Default: no thumbnails.
    """
    figure = Figure((11, 8.5), layout="constrained")
    axes = figure.add_subplot(aspect="equal", xticks=[], yticks=[])
    # 1. A dot for each image, on a map whose longer side is 1.
    low = places.min(axis=0)
    places = (places - low) / np.maximum(np.ptp(places, axis=0).max(), 1e-9)
    classes = np.unique(labels)
    palette = colormaps["tab20" if len(classes) <= 20 else "hsv"]
    colours = palette(np.arange(len(classes)) / max(20, len(classes)))
    index = np.searchsorted(classes, labels)
    axes.scatter(*places.T, s=14, c=colours[index], linewidths=0)
    # 2. Thumbnails, which do not overlap, of images in random order.
    shown: list[int] = []
    for image in np.random.default_rng(0).permutation(len(places)) if paths else ():
        if (np.abs(places[shown] - places[image]).max(axis=1) <= 1.1 * MAP_THUMBNAIL).any():
            continue
        shown.append(image)
        corner = places[image] - MAP_THUMBNAIL / 2
        left, bottom, right, top = *corner, *(corner + MAP_THUMBNAIL)
        axes.imshow(load_thumbnail(paths[image], 64), extent=(left, right, bottom, top), zorder=2)
        frame = {"facecolor": "none", "edgecolor": colours[index[image]], "linewidth": 2.5}
        axes.add_patch(Rectangle(corner, MAP_THUMBNAIL, MAP_THUMBNAIL, zorder=3, **frame))
    # 3. Room for the thumbnails at the border, and the names of the classes.
    margin = MAP_THUMBNAIL / 1.5
    axes.set(xlim=(-margin, places[:, 0].max() + margin))
    axes.set(ylim=(-margin, places[:, 1].max() + margin))
    if len(classes) <= NAMED_CLASSES:
        handles = [Patch(color=colour) for colour in colours]
        names = [readable(class_names[label]) for label in classes]
        figure.legend(handles, names, loc="outside right upper", fontsize=9, frameon=False)
    return legible(figure)


def plot_nearest_classes(
    flow: Flow,
    source: Prototypes,
    target: Prototypes,
    pictures: Mapping[str, Pictures],
    *,
    neighbours: int = 4,
) -> Figure:
    """Shows an image of each target class, 12 at most, next to its nearest source classes.

    Below a source class are its distance and the share of the target class's mass that the optimal
    flow takes from it.

    Args:
        flow: The flow from the source to the target.
        source: m classes; frames are coloured by their datasets.
        target: n classes.
        pictures: Training images by dataset.
        neighbours: Source classes per target class.
    """
    # 1. A grid of two blocks of rows. The target classes are evenly chosen.
    shown = np.linspace(0, len(target.labels) - 1, TARGET_CLASSES).round().astype(int)
    shown = np.unique(shown)
    neighbours = min(neighbours, len(source.labels))
    width, blocks = neighbours + 1, 2 if len(shown) > 1 else 1
    rows = -(-len(shown) // blocks)
    ratios = ([1] * width + [0.25]) * blocks
    figure = Figure((1.05 * sum(ratios), 1.62 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, len(ratios), squeeze=False, width_ratios=ratios)
    for axis in grid.flat:
        axis.set_axis_off()

    # 2. In each row a target class, and source classes in ascending distance.
    colours = dataset_colours(source)
    shares = flow.mass / flow.mass.sum(axis=0)
    for place, column in enumerate(shown):
        block, row = divmod(place, rows)
        axes = grid[row, block * (width + 1) :][:width]
        _show_class(axes[0], target, column, pictures, frame=INK)
        order = np.argsort(flow.distances[:, column], kind="stable")
        for axis, near in zip(axes[1:], order, strict=False):
            _show_class(axis, source, near, pictures, frame=colours[source.datasets[near]])
            share = f", {shares[near, column]:.0%}" if shares[near, column] >= 0.005 else ""
            text = f"{flow.distances[near, column]:.2f}{share}"
            axis.set_xlabel(text, fontsize=8, color=INK, labelpad=3)
    handles = [Patch(color=INK), *(Patch(color=colour) for colour in colours.values())]
    names = [f"class of {target.name}", *(f"class of {name}" for name in colours)]
    style = {"loc": "outside upper center", "ncols": len(names), "fontsize": 9, "frameon": False}
    figure.legend(handles, names, **style)
    return legible(figure)


# What the figures share.
_CAPTION = {"loc": "left", "fontsize": 7, "color": INK, "pad": 3}


def _image_grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    figure = Figure((1.6 * columns, 1.77 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _show(axis: Axes, path: Path, frame: str | None) -> None:
    """Shows the centre of an image, with a frame if there is a colour."""
    axis.imshow(load_thumbnail(path, THUMBNAIL))
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=3)


def _show_class(
    axis: Axes, domain: Prototypes, index: int, pictures: Mapping[str, Pictures], *, frame: str
) -> None:
    label, found = domain.labels[index], pictures[domain.datasets[index]]
    _show(axis, found.paths[int(np.argmax(found.labels == label))], frame)
    lines = wrap(readable(found.class_names[label]), 17)
    lines = lines if len(lines) <= 2 else [lines[0], f"{lines[1][:16]}…"]
    axis.set_title("\n".join(lines), **_CAPTION)


def _shortened(caption: str) -> str:
    """Returns a caption that is not wider than its image."""
    return caption if len(caption) <= 29 else f"{caption[:28]}…"
