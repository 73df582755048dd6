"""What an evaluation predicted, image by image: kept in files, counted by class, drawn."""

import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from slim.common.errors import UserError
from slim.common.files import replacing, write_whole

TOP_K = 5
NOT_FINITE = -1  # in `top`, of an image whose logits are not finite
PAIRS = 20  # of confused classes in the text
PICTURE_SIDE = 1024  # pixels, at most
CELL_SIDES = (4, 64)  # pixels; more classes than the smallest leaves room for share cells
GRID = 8  # pixels; cells as large have a line between them
RIGHT, WRONG, BARE = (0, 70, 130), (190, 60, 0), 232  # blue, orange; the grey of no image
CONTRAST = 0.5  # the exponent that lifts small shares

# What NumPy raises for a file that is damaged or another one.
_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError)
_DAMAGE += (zipfile.BadZipFile, zlib.error)


class ConfusedPair(NamedTuple):
    """A class whose images were taken for another's."""

    true: int
    predicted: int
    times: int


@dataclass(frozen=True)
class Predictions:
    """What a network made of the N images of a split of C classes.

    Attributes:
        step: The checkpoint's step.
        labels: int64 `[N]`.
        top: int64 `[N, K]`, the min(5, C) likeliest classes, the likeliest first; -1 throughout
            for an image whose logits are not finite, which counts as wrong.
        probabilities: float32 `[N, K]`, theirs.
        num_classes: C.
        class_names: Of all classes, None where they are unknown.
        class_sizes: int64 `[C]`, training images; None where they are unknown.
    """

    step: int
    labels: np.ndarray
    top: np.ndarray
    probabilities: np.ndarray
    num_classes: int
    class_names: tuple[str, ...] | None = None
    class_sizes: np.ndarray | None = None

    @property
    def correct(self) -> np.ndarray:
        """Whether the likeliest class is right, bool `[N]`."""
        return self.top[:, 0] == self.labels

    @property
    def accuracy(self) -> float:
        """The share of all images whose likeliest class is right."""
        return float(self.correct.mean())

    @property
    def recall_5(self) -> float:
        """The share of all images with the right class among the five likeliest."""
        return float((self.top == self.labels[:, np.newaxis]).any(axis=1).mean())

    @property
    def num_not_finite(self) -> int:
        """How many images have logits that are not finite."""
        return int((self.top[:, 0] == NOT_FINITE).sum())

    @cached_property
    def class_totals(self) -> np.ndarray:
        """int64 `[C]`, the images of each class here."""
        return np.bincount(self.labels, minlength=self.num_classes)

    @cached_property
    def class_accuracy(self) -> np.ndarray:
        """float64 `[C]`, the share of each class's images, NaN for a class without any."""
        right = np.bincount(self.labels[self.correct], minlength=self.num_classes)
        return share(right, self.class_totals)

    @property
    def mean_class_accuracy(self) -> float:
        """The mean over the classes that have images here."""
        return float(np.nanmean(self.class_accuracy))

    @cached_property
    def confusion(self) -> np.ndarray:
        """int32 `[C, C]`, how many images of class i (row) were taken for class j (column).

        An image whose logits are not finite is in no column.
        """
        finite = self.top[:, 0] != NOT_FINITE
        counts = np.zeros((self.num_classes, self.num_classes), np.int32)
        np.add.at(counts, (self.labels[finite], self.top[finite, 0]), 1)
        return counts

    def class_name(self, label: int) -> str:
        """A class's name, or its label where names are unknown."""
        return self.class_names[label] if self.class_names else str(label)

    def save(self, folder: str | Path) -> Path:
        """Writes `predictions-<step>.npz` and the same for reading, `predictions-<step>.txt`.

        The arrays are `step`, `labels`, `top`, `probabilities`, `class_accuracy` and `confusion` as
        here, and `class_names` and `class_sizes` where they are known.

        Args:
            folder: Where; it is made.

        Returns:
            The .npz file.

        Raises:
            UserError: The folder cannot be written to.
        """
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
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path.with_suffix(".txt"), describe(self))
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror}; make room there or give another folder"
            ) from error
        return path


def load_predictions(path: str | Path) -> Predictions:
    """Reads what `Predictions.save` wrote.

    Raises:
        UserError: The file is missing or damaged, or is another one.
    """
    try:
        arrays = np.load(path)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("not an .npz file")
        with arrays:
            known = {
                name: arrays[name] for name in ("class_names", "class_sizes") if name in arrays
            }
            names = known.get("class_names")
            predictions = Predictions(
                int(arrays["step"]),
                arrays["labels"],
                arrays["top"],
                arrays["probabilities"],
                len(arrays["class_accuracy"]),
                None if names is None else tuple(names.tolist()),
                known.get("class_sizes"),
            )
        _check(predictions)
    except FileNotFoundError:
        raise UserError(
            f"no file {path}: evaluation with --per_class and --eval_dir writes such files"
        ) from None
    except _DAMAGE as error:
        raise UserError(
            f"{path} is not what evaluation with --per_class writes, or is damaged ({error}): "
            "evaluate the checkpoint again"
        ) from None
    return predictions


def find_predictions(path: str | Path) -> Path:
    """A file itself, or the `predictions-<step>.npz` of the highest step in a folder.

    Raises:
        UserError: The folder has none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    steps = {}
    for file in path.iterdir():
        if match := re.fullmatch(r"predictions-(\d+)\.npz", file.name):
            steps[int(match[1])] = file
    if not steps:
        raise UserError(
            f"no predictions-<step>.npz in {path}: evaluation with --per_class --eval_dir={path} "
            "writes such files"
        )
    return steps[max(steps)]


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """float64 `part / whole`, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def confused_pairs(confusion: np.ndarray, count: int | None = None) -> list[ConfusedPair]:
    """The pairs of classes confused most often, the worst first.

    Args:
        confusion: `[C, C]`, how many images of class i (row) were taken for class j (column).
        count: At most so many. Default: all.
    """
    true, predicted = np.nonzero(confusion)
    mistakes = true != predicted
    true, predicted = true[mistakes], predicted[mistakes]
    times = confusion[true, predicted]
    worst = np.argsort(-times, kind="stable")[:count]
    return [ConfusedPair(int(true[i]), int(predicted[i]), int(times[i])) for i in worst]


def describe(predictions: Predictions) -> str:
    """A text for reading: the totals, the pairs of classes confused most often, every class."""
    totals, accuracy = predictions.class_totals, predictions.class_accuracy
    right, images = int(predictions.correct.sum()), len(predictions.labels)
    seen = int((totals > 0).sum())
    pairs = confused_pairs(predictions.confusion)
    lines = [
        f"step {predictions.step}",
        f"{images:,} images, {predictions.num_classes:,} classes, {seen:,} of them with images",
        "",
        f"accuracy             {predictions.accuracy:7.2%}  {right:,} images right",
        f"recall at 5          {predictions.recall_5:7.2%}",
        f"mean class accuracy  {predictions.mean_class_accuracy:7.2%}",
        f"classes all right    {(accuracy == 1).sum():7,}",
        f"classes all wrong    {(accuracy == 0).sum():7,}",
    ]
    if predictions.num_not_finite:
        lines.append(f"logits not finite    {predictions.num_not_finite:7,}  images, all wrong")
    lines += ["", "Classes confused most often", ""]
    lines += _pair_table(predictions, pairs[:PAIRS]) if pairs else ["none"]
    lines += ["", "Classes, the least accurate first", ""]
    lines += _class_table(predictions, pairs)
    return "\n".join(lines) + "\n"


def confusion_picture(confusion: np.ndarray) -> bytes:
    """Draws a confusion matrix as a PNG: true classes down, predicted classes across.

    A row is shares of the class's predictions: right ones on the diagonal in blue, wrong ones in
    orange, darker for more; it is grey where there are none. Of more than 256 classes neighbours
    share a cell: the diagonal is then their mean accuracy, and elsewhere the largest share is
    shown, so that no confused pair is lost but those within a cell of the diagonal.

    Args:
        confusion: `[C, C]`, how many images of class i (row) were taken for class j (column).

    Returns:
        The file's content, 1,024 pixels wide at most.
    """
    num_classes = len(confusion)
    together = -(-num_classes // (PICTURE_SIDE // CELL_SIDES[0]))
    cells = -(-num_classes // together)
    true, predicted = np.nonzero(confusion)
    counts = confusion[true, predicted]
    totals = np.bincount(true, weights=counts, minlength=num_classes)
    right = share(confusion.diagonal(), totals)
    places = np.arange(num_classes) // together

    wrong = np.zeros((cells, cells))
    np.maximum.at(wrong, (places[true], places[predicted]), counts / totals[true])
    pixels = _shade(wrong, WRONG)
    counted = np.bincount(places, weights=totals > 0, minlength=cells)
    pixels[counted == 0] = BARE
    mean = share(np.bincount(places, weights=np.nan_to_num(right), minlength=cells), counted)
    known = np.flatnonzero(counted)
    pixels[known, known] = _shade(mean[known], RIGHT)

    side = min(CELL_SIDES[1], PICTURE_SIDE // cells)
    pixels = pixels.repeat(side, axis=0).repeat(side, axis=1)
    if side >= GRID:
        pixels[side - 1 :: side] = pixels[:, side - 1 :: side] = BARE
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    return content.getvalue()


def _shade(shares: np.ndarray, colour: Sequence[int]) -> np.ndarray:
    """From white for 0 to a colour for 1, uint8 with a last axis of three."""
    depth = np.asarray(shares)[..., np.newaxis] ** CONTRAST
    return np.round(255 - depth * (255 - np.array(colour))).astype(np.uint8)


def _pair_table(predictions: Predictions, pairs: Sequence[ConfusedPair]) -> list[str]:
    rows = [("times", "of", "class", "taken for")]
    for pair in pairs:
        true, predicted = map(predictions.class_name, pair[:2])
        rows.append(
            (f"{pair.times:,}", f"{predictions.class_totals[pair.true]:,}", true, predicted)
        )
    return _aligned(rows, right=2)


def _class_table(predictions: Predictions, pairs: Sequence[ConfusedPair]) -> list[str]:
    totals, accuracy = predictions.class_totals, predictions.class_accuracy
    worst: dict[int, ConfusedPair] = {}
    for pair in pairs:
        worst.setdefault(pair.true, pair)
    rows = [("accuracy", "images", "training images", "label", "class", "most often taken for")]
    for label in np.lexsort((-totals, accuracy)).tolist():  # where NaN comes last
        mistake = worst.get(label)
        rows.append(
            (
                f"{accuracy[label]:.1%}" if totals[label] else "-",
                f"{totals[label]:,}",
                "-" if predictions.class_sizes is None else f"{predictions.class_sizes[label]:,}",
                str(label),
                predictions.class_name(label),
                f"{predictions.class_name(mistake.predicted)} ({mistake.times:,})"
                if mistake
                else "-",
            )
        )
    return _aligned(rows, right=4)


def _aligned(rows: Sequence[Sequence[str]], right: int) -> list[str]:
    """Lines with the cells of a column below each other, the first few to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column < right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _check(predictions: Predictions) -> None:
    """Refuses arrays that do not belong together.

    Raises:
        ValueError: Saying which.
    """
    labels, top, num_classes = predictions.labels, predictions.top, predictions.num_classes
    images, classes = (len(labels),), (num_classes,)
    sizes, names = predictions.class_sizes, predictions.class_names
    if labels.shape != images or labels.dtype.kind != "i" or not len(labels):
        raise ValueError("labels are not int64 [images]")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels are not of 0 to {num_classes - 1}")
    if top.shape != (*images, min(TOP_K, num_classes)) or top.dtype.kind != "i":
        raise ValueError("top is not int64 [images, 5]")
    if top.min() < NOT_FINITE or top.max() >= num_classes:
        raise ValueError(f"top is not of 0 to {num_classes - 1}")
    if predictions.probabilities.shape != top.shape:
        raise ValueError("probabilities are not of top's shape")
    if (sizes is not None and sizes.shape != classes) or (names and len(names) != num_classes):
        raise ValueError(f"class_sizes or class_names are not of {num_classes} classes")
