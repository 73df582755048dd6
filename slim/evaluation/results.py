"""Checkpoints to evaluate, and the results of an evaluation: a line, event files, JSON."""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from slim.checkpoints.reading import find_checkpoint, latest_checkpoint, new_checkpoints
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.files import make_folder, remove_stale, this_process, write_whole
from slim.datasets.registry import Dataset, dataset_folder, read_converted_list
from slim.datasets.tfrecord import LISTS
from slim.evaluation.confusion import confusion_picture
from slim.evaluation.evaluator import Outputs
from slim.evaluation.predictions import RESULTS, Predictions


def checkpoints_to_evaluate(
    path: str, interval_secs: int, max_number_of_evaluations: int | None
) -> Iterator[str]:
    """Returns a checkpoint, or the newest one of a folder and then each new one, as published.

    Args:
        path: A checkpoint, or a folder.
        interval_secs: Minimum time between two evaluations.
        max_number_of_evaluations: Number of checkpoints; None to watch the folder until stopped.

    Returns:
        The prefixes of checkpoints as they appear.

    Raises:
        UserError: There is no checkpoint. A folder that is empty or does not exist yet is watched,
            unless the number of evaluations is given.
    """
    folder = Path(path)
    to_come = not (folder.exists() or ".ckpt" in folder.name or max_number_of_evaluations)
    if not (folder.is_dir() or to_come):
        return iter([find_checkpoint(path)])
    if latest_checkpoint(path) is None:
        if max_number_of_evaluations:
            find_checkpoint(path)
        missing = ", which does not exist yet" if to_come else ""
        print(f"waiting for a first checkpoint in {path}{missing}", flush=True)
    newest = new_checkpoints(path, interval_secs)
    # Training may have deleted a checkpoint while the previous one was evaluated.
    existing = filter(tf.train.checkpoint_exists, newest)
    return islice(existing, max_number_of_evaluations)


def count_training_images(
    dataset: Dataset, dataset_dir: str, labels_offset: int
) -> np.ndarray | None:
    """Returns the training images per class, int64 `[classes]`; None without a training list."""
    folder, list_name = dataset_folder(dataset.name, dataset_dir), LISTS["train"]
    if not (folder / list_name).is_file():
        return None
    entries = read_converted_list(folder, list_name, strict=False).entries
    labels = [entry.label for entry in entries]
    return np.bincount(labels, minlength=dataset.num_classes)[labels_offset:]


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Prints the results of evaluations and writes them to a folder.

    Attributes:
        num_classes: Number of classes.
        class_names: Names of the classes, if known.
        class_sizes: Training images per class, int64 `[classes]`, if known.
        eval_dir: The folder; None to print only.
        per_class: Whether to write predictions, and the confusion matrix for TensorBoard.
    """

    num_classes: int
    class_names: tuple[str, ...] | None
    class_sizes: np.ndarray | None
    eval_dir: str | None
    per_class: bool

    def make_folder(self) -> None:
        """Makes the folder, so that an evaluation does not end without a place for its results.

        Raises:
            UserError: The folder cannot be made or written to.
        """
        if self.eval_dir:
            folder = Path(self.eval_dir)
            make_folder(folder, "eval_dir")
            for name in (RESULTS, "predictions-*"):
                remove_stale(folder, f"{name}.*.tmp")

    @cached_property
    def _writer(self) -> tf.summary.FileWriter:
        """The writer of a new event file.

        By default, the name of an event file is made of the second and the host. Training and other
        evaluations may write to the same folder, and begin a file in the same second.
        """
        with tf.Graph().as_default():  # required by the writer
            return tf.summary.FileWriter(self.eval_dir, filename_suffix=f".{os.getpid()}.eval")

    def report(self, outputs: Outputs, step: int, name: str) -> Predictions:
        """Prints a line, and a second one if some logits were not finite."""
        predictions = Predictions(
            step,
            outputs.labels,
            outputs.top,
            outputs.of_top,
            num_classes=self.num_classes,
            class_names=self.class_names,
            class_sizes=self.class_sizes,
        )
        print(
            f"step {step}: eval/Accuracy {predictions.accuracy:.4f}, "
            f"eval/Recall_5 {predictions.recall_5:.4f}, {len(predictions.labels)} images, {name}",
            flush=True,
        )
        if predictions.num_not_finite:
            print(
                f"{predictions.num_not_finite} images have logits that are not finite and count "
                "as wrong",
                flush=True,
            )
        return predictions

    def publish(self, outputs: Outputs, step: int, name: str) -> None:
        """Prints the results and writes them to the folder.

        Raises:
            UserError: The folder cannot be written to.
        """
        predictions = self.report(outputs, step, name)
        if not self.eval_dir:
            return
        folder = Path(self.eval_dir)
        try:
            if self.per_class:
                predictions.save(folder)
            self._writer.add_summary(_summarize(predictions, self.per_class), step)
            self._writer.flush()
            figures = json.dumps(_figures(predictions, name), indent=2) + "\n"
            write_whole(folder / RESULTS, figures, this_process())
        except (OSError, tf.errors.OpError) as error:
            raise UserError(
                f"--eval_dir={folder}: cannot write there ({error}); free some space or give "
                "another folder"
            ) from error


def _figures(predictions: Predictions, checkpoint: str) -> dict[str, object]:
    return {
        "step": predictions.step,
        "checkpoint": checkpoint,
        "accuracy": predictions.accuracy,
        "recall_5": predictions.recall_5,
        "num_images": len(predictions.labels),
    }


def _summarize(predictions: Predictions, with_confusion: bool) -> tf.Summary:
    scalars = {"eval/Accuracy": predictions.accuracy, "eval/Recall_5": predictions.recall_5}
    summary = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    if with_confusion:
        picture = confusion_picture(predictions.confusion)
        width, height = Image.open(io.BytesIO(picture)).size
        image = tf.Summary.Image(encoded_image_string=picture, width=width, height=height)
        summary.append(tf.Summary.Value(tag="eval/confusion", image=image))
    return tf.Summary(value=summary)
