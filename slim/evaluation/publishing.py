"""The results of an evaluation: a line, event files for TensorBoard, and files."""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.figures import INK, RIGHT, WRONG, fit_font
from slim.common.files import make_folder, remove_stale, this_process, write_whole
from slim.common.summaries import image, scalar
from slim.datasets.input import Dataset
from slim.datasets.tfrecord import read_records
from slim.evaluation.candidates import Candidate
from slim.evaluation.confusion import confusion_picture
from slim.evaluation.predictions import (
    ALL,
    NOT_FINITE,
    RESULTS,
    Predictions,
    group_accuracy,
)

RUN = "eval"  # the prefix of the folders of event files, and of tags

# The picture of the worst mistakes.
COLUMNS, ROWS = 4, 4
SIDE, MARGIN, FONT = 192, 8, 13  # pixels
LINE = FONT + 4


def run_name(
    sizes: Sequence[int], trained_size: int, split_name: str, other: Sequence[str] = ()
) -> str:
    """Returns the folder of results in `--eval_dir`: `.` as published, otherwise `eval_448` etc."""
    # Evaluations of a step at several sizes or on several splits have the same tags and file names.
    # In folders of their own, none replaces another, and TensorBoard shows them as runs.
    parts = [] if split_name == "validation" else [split_name]
    if len(sizes) > 1:
        parts.append("+".join(map(str, sizes)) if len(set(sizes)) == len(sizes) else "mean")
    elif sizes[0] != trained_size:
        parts.append(str(sizes[0]))
    parts += other
    return "_".join([RUN, *parts]) if parts else "."


class Publisher:
    """Prints the results of evaluations and writes them to a folder, if there is one."""

    def __init__(self, eval_dir: str | None, dataset: Dataset, *, per_class: bool) -> None:
        self._folder, self._dataset, self._per_class = eval_dir, dataset, per_class
        self._writers: dict[str, tf.summary.FileWriter] = {}
        if eval_dir:  # made now, so that an evaluation does not end without a place for results
            make_folder(Path(eval_dir), "eval_dir")
            for run, name in product(("", f"{RUN}_*/"), (RESULTS, "predictions-*")):
                remove_stale(Path(eval_dir), f"{run}{name}.*.tmp")

    def report(self, predictions: Predictions, name: str, run: str | None) -> None:
        """Prints a line, a second one if some logits were not finite, and writes the event file."""
        print(
            f"step {predictions.step}: eval/Accuracy {predictions.accuracy:.4f}, "
            f"eval/Recall_5 {predictions.recall_5:.4f}, eval/Loss {predictions.loss:.4f}, "
            f"{len(predictions.labels)} images, {name}",
            flush=True,
        )
        if predictions.num_not_finite:
            print(
                f"{predictions.num_not_finite} images have logits that are not finite and count "
                "as wrong, but not in the loss",
                flush=True,
            )
        if not (self._folder and run):
            return
        with self._explained():
            if run not in self._writers:
                # By default, the name of an event file is made of the second and the host. Training
                # and other evaluations may begin a file in the same folder in the same second.
                folder, suffix = str(Path(self._folder, run)), f".{os.getpid()}.eval"
                with tf.Graph().as_default():  # the writer refuses eager execution
                    writer = tf.summary.FileWriter(folder, filename_suffix=suffix)
                self._writers[run] = writer
            self._writers[run].add_summary(self._summarize(predictions), predictions.step)
            self._writers[run].flush()

    def save(
        self, predictions: Predictions, name: str, run: str, candidate: Candidate | None = None
    ) -> None:
        """Writes `results.json`, the predictions, and the candidate if it is the best so far."""
        if self._folder:
            with self._explained():
                folder = Path(self._folder, run)
                if self._per_class:
                    predictions.save(folder)
                write_whole(folder / RESULTS, predictions.figures(name), this_process())
                if run != ".":
                    print(f"note: results are in {folder}", file=sys.stderr, flush=True)
                if candidate:
                    candidate.keep_if_best(folder, predictions)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            raise UserError(
                f"--eval_dir={self._folder}: cannot write there ({error}); free some space or "
                "pass another folder"
            ) from error

    def _summarize(self, predictions: Predictions) -> tf.Summary:
        # 1. Figures of all images.
        of_all = (
            (
                "Accuracy",
                predictions.accuracy,
                "The share of images whose likeliest class is right.",
            ),
            (
                "Recall_5",
                predictions.recall_5,
                "The share with the right class among the likeliest 5.",
            ),
            ("Loss", predictions.loss, "Cross entropy without regularization and label smoothing."),
        )
        values = [scalar(f"{RUN}/{name}", figure, text) for name, figure, text in of_all]
        if not self._per_class:
            return tf.Summary(value=values)
        # 2. Per class: the mean over classes, confusion, the long tail, and the worst mistakes.
        values += [
            scalar(
                f"{RUN}/Mean_class_accuracy",
                predictions.mean_class_accuracy,
                "The mean accuracy over the classes that have images.",
            ),
            image(
                f"{RUN}/confusion",
                confusion_picture(predictions.confusion),
                "The confusion matrix: rows are true classes, columns are predicted classes, "
                "correct predictions are blue, mistakes orange.",
            ),
        ]
        groups = [] if predictions.class_sizes is None else group_accuracy(predictions)
        values += [
            scalar(
                f"{RUN}/{group.name.capitalize()}_accuracy",
                group.accuracy,
                f"The mean accuracy over the classes with {group.sizes} training images.",
            )
            for group in groups
            if group.name != ALL and not np.isnan(group.accuracy)
        ]
        if picture := mistakes_picture(predictions, self._dataset):
            description = (
                "The images with the highest probability of a wrong class: the predicted class "
                "and its probability (orange), the true class (blue), the name of the file."
            )
            values.append(image(f"{RUN}/mistakes", picture, description))
        return tf.Summary(value=values)


def worst_mistakes(predictions: Predictions, count: int = COLUMNS * ROWS) -> np.ndarray:
    """Returns the indices of the images with the highest probability of a wrong class."""
    wrong = ~predictions.correct & (predictions.top[:, 0] != NOT_FINITE)
    order = np.argsort(-predictions.probabilities[:, 0], kind="stable")
    return order[wrong[order]][:count]


def mistakes_picture(predictions: Predictions, dataset: Dataset) -> bytes | None:
    """Draws the worst mistakes, each with its classes and its file, as PNG; None without any."""
    indices = worst_mistakes(predictions).tolist()
    records = read_records(dataset.files, indices) if indices else {}
    indices = [index for index in indices if index in records]  # all, unless the shards are gone
    if not indices:
        return None

    # 1. An empty picture of the size of the grid.
    lines = 3 if predictions.entries else 2
    width, height = SIDE + MARGIN, SIDE + lines * LINE + MARGIN
    columns = min(COLUMNS, len(indices))
    size = (columns * width + MARGIN, -(-len(indices) // columns) * height + MARGIN)
    picture = Image.new("RGB", size, "white")
    draw, default_font = ImageDraw.Draw(picture), ImageFont.load_default(FONT)

    # 2. Each image, with the lines below it.
    for place, index in enumerate(indices):
        left, top = MARGIN + place % columns * width, MARGIN + place // columns * height
        features = tf.train.Example.FromString(records[index]).features.feature
        encoded = features["image/encoded"].bytes_list.value[0]
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        picture.paste(ImageOps.pad(image, (SIDE, SIDE), color="white"), (left, top))
        predicted = predictions.class_name(predictions.top[index, 0])
        captions = [
            (f"{predicted} {predictions.probabilities[index, 0]:.0%}", WRONG),
            (predictions.class_name(predictions.labels[index]), RIGHT),
        ]
        if predictions.entries:
            captions.append((Path(predictions.entries[index].path).name, INK))
        for line, (text, colour) in enumerate(captions):
            fitting, text = fit_font(text)
            font = ImageFont.truetype(fitting.fname, FONT) if fitting else default_font
            while draw.textlength(text, font) > SIDE:  # a long name keeps its end
                text = f"…{text[2:]}"
            draw.text((left, top + SIDE + line * LINE), text, fill=colour, font=font)
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()
