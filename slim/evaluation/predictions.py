"""Predictions of an evaluation per image: counts and accuracy per class, files, and a report."""

import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slim.common.errors import UserError
from slim.common.files import replacing, this_process, write_csv, write_whole
from slim.datasets.lists import Entry

TOP_K = 5
NOT_FINITE = -1  # in `top`, if logits are not finite
PAIRS = 20  # confused pairs in the report
RESULTS = "results.json"
# As in Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019.
GROUP_BOUNDS = (20, 100)
ALL = "all"

# Raised by NumPy for files that are damaged or of another kind.
_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError)
_DAMAGE += (zipfile.BadZipFile, zlib.error)


class ConfusedPair(NamedTuple):
    true: int
    predicted: int
    times: int


@dataclass(frozen=True)
class Predictions:
    """Predictions for the N images of a split of C classes."""

    step: int  # of the checkpoint
    labels: np.ndarray  # int64 [N]
    # The K = min(5, C) likeliest classes in descending order, int64 [N, K]; -1 for an image whose
    # logits are not finite, which counts as wrong.
    top: np.ndarray
    probabilities: np.ndarray  # of `top`, float32 [N, K]
    num_classes: int  # C
    class_names: tuple[str, ...] | None = None  # of all classes, if known
    class_sizes: np.ndarray | None = None  # training images per class, int64 [C], if known
    # Not in files: cross entropies, float32 [N], and ranks of the true classes from 1, int [N], NaN
    # and 0 if logits are not finite; the lines of the list, if known, of these images and others.
    losses: np.ndarray | None = None
    ranks: np.ndarray | None = None
    entries: Sequence[Entry] | None = None

    @property
    def correct(self) -> np.ndarray:
        """Whether the likeliest class is correct, bool `[N]`."""
        return self.top[:, 0] == self.labels

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def recall_5(self) -> float:
        """The fraction of images with the correct class among the five likeliest."""
        return float((self.top == self.labels[:, np.newaxis]).any(axis=1).mean())

    @property
    def loss(self) -> float:
        """The mean cross entropy over the images whose logits are finite, NaN without any."""
        finite = self.losses[~np.isnan(self.losses)]
        return float(finite.mean(dtype=np.float64)) if len(finite) else math.nan

    @property
    def num_not_finite(self) -> int:
        return int((self.top[:, 0] == NOT_FINITE).sum())

    @cached_property
    def class_totals(self) -> np.ndarray:
        """Images per class, int64 `[C]`."""
        return np.bincount(self.labels, minlength=self.num_classes)

    @cached_property
    def class_accuracy(self) -> np.ndarray:
        """The accuracy per class, float64 `[C]`, NaN without images."""
        right = np.bincount(self.labels[self.correct], minlength=self.num_classes)
        return share(right, self.class_totals)

    @property
    def mean_class_accuracy(self) -> float:
        return float(np.nanmean(self.class_accuracy))

    @cached_property
    def confusion(self) -> np.ndarray:
        """The number of images of class i (row) predicted as class j, int32 `[C, C]`."""
        finite = self.top[:, 0] != NOT_FINITE
        counts = np.zeros((self.num_classes, self.num_classes), np.int32)
        np.add.at(counts, (self.labels[finite], self.top[finite, 0]), 1)
        return counts

    def class_name(self, label: int) -> str:
        return self.class_names[label] if self.class_names else str(label)

    def figures(self, checkpoint: str, **more: object) -> str:
        """Returns the text of `results.json`."""
        figures = {
            "step": self.step,
            "checkpoint": checkpoint,
            "accuracy": self.accuracy,
            "recall_5": self.recall_5,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "num_images": len(self.labels),
        }
        return json.dumps(figures | more, indent=2) + "\n"

    def save(self, folder: str | Path) -> Path:
        """Writes `predictions-<step>.npz`, whose path it returns, a report and maybe a table."""
        path = Path(folder, f"predictions-{self.step}.npz")
        arrays = {
            "step": np.array(self.step),
            "labels": self.labels,
            "top": self.top,
            "probabilities": self.probabilities,
            "class_accuracy": self.class_accuracy,
            "confusion": self.confusion,
        }
        if self.class_names is not None:
            arrays["class_names"] = np.array(self.class_names)
        if self.class_sizes is not None:
            arrays["class_sizes"] = self.class_sizes
        path.parent.mkdir(parents=True, exist_ok=True)
        # Commands look for the .npz file, so it comes last.
        write_whole(path.with_suffix(".txt"), compose_report(self), this_process())
        if self.losses is not None:
            write_csv(path.with_suffix(".csv"), self._rows(), this_process())
        with replacing(path, this_process()) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        return path

    def _rows(self) -> Iterator[tuple[str | float, ...]]:
        """Yields a header and a row per image in the order of the list; unknown cells are empty."""
        yield "path", "true", "predicted", "true_probability", "predicted_probability", "rank"
        order, entries = range(len(self.labels)), self.entries
        order = sorted(order, key=lambda index: entries[index].line) if entries else order
        of_truth = np.where(self.correct, self.probabilities[:, 0], np.exp(-self.losses))
        for index in order:
            path = entries[index].path if entries else ""
            of_image, predicted = self.class_name(self.labels[index]), self.top[index, 0]
            figures = of_truth[index], self.probabilities[index, 0], int(self.ranks[index])
            known = (self.class_name(predicted), *figures) if predicted != NOT_FINITE else [""] * 4
            yield path, of_image, *known


def load_predictions(path: str | Path) -> Predictions:
    """Reads a file that `Predictions.save` wrote."""
    try:
        arrays = np.load(path)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("not an .npz file")
        # An array that is missing, or of another shape or type, is damage as well.
        with arrays:
            names = arrays.get("class_names")
            predictions = Predictions(
                int(arrays["step"]),
                arrays["labels"],
                arrays["top"],
                arrays["probabilities"],
                len(arrays["class_accuracy"]),
                class_names=None if names is None else tuple(names.tolist()),
                class_sizes=arrays.get("class_sizes"),
            )
        _check(predictions)
    except FileNotFoundError:
        raise UserError(
            f"no file {path}: evaluate with --per_class and --eval_dir to write such files"
        ) from None
    except _DAMAGE as error:
        raise UserError(
            f"{path} is damaged, or not a file of evaluation with --per_class ({error}): "
            "evaluate the checkpoint again"
        ) from None
    return predictions


def _check(predictions: Predictions) -> None:
    # A ValueError becomes part of the message of load_predictions.
    labels, top, num_classes = predictions.labels, predictions.top, predictions.num_classes
    images, classes = (len(labels),), (num_classes,)
    sizes, names = predictions.class_sizes, predictions.class_names
    if labels.shape != images or labels.dtype.kind != "i" or not len(labels):
        raise ValueError("labels are not int64 [images]")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels are not in 0 to {num_classes - 1}")
    if top.shape != (*images, min(TOP_K, num_classes)) or top.dtype.kind != "i":
        raise ValueError("top is not int64 [images, 5]")
    if top.min() < NOT_FINITE or top.max() >= num_classes:
        raise ValueError(f"top is not in 0 to {num_classes - 1}")
    if predictions.probabilities.shape != top.shape:
        raise ValueError("probabilities do not have the shape of top")
    if (sizes is not None and sizes.shape != classes) or (names and len(names) != num_classes):
        raise ValueError(f"class_sizes or class_names do not have {num_classes} entries")


def find_predictions(path: str | Path) -> Path:
    """Returns a file itself, or the `predictions-<step>.npz` of the highest step in a folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    steps = {}
    for file in path.iterdir():
        if match := re.fullmatch(r"predictions-(\d+)\.npz", file.name):
            steps[int(match[1])] = file
    if not steps:
        others = sorted({str(file.parent) for file in path.glob("eval_*/predictions-*.npz")})
        raise UserError(
            f"no predictions-<step>.npz in {path}: evaluate with --per_class --eval_dir={path} "
            f"to write such files{' or pass ' * bool(others)}{' or '.join(others)}"
        )
    return steps[max(steps)]


@dataclass(frozen=True)
class GroupAccuracy:
    name: str  # tail, middle, head or all
    sizes: str  # the range of training images per class, in words; empty for all classes
    classes: int
    training_images: int
    validation_images: int
    accuracy: float  # mean of the class accuracies in [0, 1]; NaN if no class has images

    def __str__(self) -> str:
        return f"{self.name} ({self.sizes})" if self.sizes else self.name


def group_accuracy(
    predictions: Predictions, bounds: tuple[int, int] = GROUP_BOUNDS
) -> list[GroupAccuracy]:
    """Returns the accuracy of the tail, the middle, the head, and all classes.

    Classes of the tail have fewer training images than the first bound, classes of the head more
    than the second. The predictions must have `class_sizes`.
    """
    sizes, (low, high) = predictions.class_sizes, bounds
    between = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    groups = {
        ("tail", f"fewer than {low:,}"): sizes < low,
        ("middle", between): (sizes >= low) & (sizes <= high),
        ("head", f"more than {high:,}"): sizes > high,
        (ALL, ""): np.full(len(sizes), True),
    }
    # Class accuracies have equal weights. Classes without validation images have none.
    found = []
    for words, inside in groups.items():
        known = predictions.class_accuracy[inside & (predictions.class_totals > 0)]
        group = GroupAccuracy(
            *words,
            classes=int(inside.sum()),
            training_images=int(sizes[inside].sum()),
            validation_images=int(predictions.class_totals[inside].sum()),
            accuracy=float(known.mean()) if len(known) else float("nan"),
        )
        found.append(group)
    return found


def read_results(folder: str | Path) -> dict[str, Any]:
    """Reads the figures of the latest evaluation, which evaluation writes to its `--eval_dir`."""
    path = Path(folder, RESULTS)
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); evaluate with --eval_dir={folder}"
        ) from None


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns `part / whole` as float64, NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def confused_pairs(confusion: np.ndarray, count: int | None = None) -> list[ConfusedPair]:
    """Returns the most frequently confused pairs of classes in descending order."""
    true, predicted = np.nonzero(confusion)
    mistakes = true != predicted
    true, predicted = true[mistakes], predicted[mistakes]
    times = confusion[true, predicted]
    worst = np.argsort(-times, kind="stable")[:count]
    return [ConfusedPair(int(true[i]), int(predicted[i]), int(times[i])) for i in worst]


def compose_report(predictions: Predictions) -> str:
    # 1. Totals.
    totals, accuracy = predictions.class_totals, predictions.class_accuracy
    name = predictions.class_name
    lines = [
        f"step {predictions.step}",
        f"{len(predictions.labels):,} images, {predictions.num_classes:,} classes, "
        f"{(totals > 0).sum():,} of them with images",
        "",
        f"accuracy             {predictions.accuracy:7.2%}  "
        f"{predictions.correct.sum():,} images right",
        f"recall at 5          {predictions.recall_5:7.2%}",
        f"mean class accuracy  {predictions.mean_class_accuracy:7.2%}",
        f"classes all right    {(accuracy == 1).sum():7,}",
        f"classes all wrong    {(accuracy == 0).sum():7,}",
    ]
    if predictions.num_not_finite:
        lines.append(f"logits not finite    {predictions.num_not_finite:7,}  images, all wrong")

    # 2. The most frequently confused pairs.
    pairs = confused_pairs(predictions.confusion)
    rows = [("times", "of", "class", "taken for")]
    for true, predicted, times in pairs[:PAIRS]:
        rows.append((f"{times:,}", f"{totals[true]:,}", name(true), name(predicted)))
    lines += ["", "Classes confused most often", ""]
    lines += _aligned(rows, right=2) if pairs else ["none"]

    # 3. Every class.
    worst = {pair.true: pair for pair in reversed(pairs)}  # the most frequent pair of a class
    rows = [("accuracy", "images", "training images", "label", "class", "most often taken for")]
    for label in np.lexsort((-totals, accuracy)).tolist():  # NaN comes last
        mistake, sizes = worst.get(label), predictions.class_sizes
        cells = (
            f"{accuracy[label]:.1%}" if totals[label] else "-",
            f"{totals[label]:,}",
            "-" if sizes is None else f"{sizes[label]:,}",
            str(label),
            name(label),
            f"{name(mistake.predicted)} ({mistake.times:,})" if mistake else "-",
        )
        rows.append(cells)
    lines += ["", "Classes, the least accurate first", "", *_aligned(rows, right=4)]
    return "\n".join(lines) + "\n"


def _aligned(rows: Sequence[Sequence[str]], right: int) -> list[str]:
    """Returns lines with aligned columns, the first `right` columns to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column < right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
