"""Checkpoints to evaluate, and the results of an evaluation: a line, event files, JSON."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from slim.checkpoints.choosing import trained_size
from slim.checkpoints.finding import find_checkpoint, latest_checkpoint, new_checkpoints
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.files import make_folder, remove_stale, this_process, write_whole
from slim.common.summaries import image, scalar
from slim.datasets.registry import Dataset, dataset_folder, read_converted_list
from slim.datasets.tfrecord import LISTS
from slim.evaluation.confusion import confusion_picture
from slim.evaluation.ensemble import EnsembleMember
from slim.evaluation.evaluator import Outputs
from slim.evaluation.long_tail import ALL, group_accuracy
from slim.evaluation.mistakes import mistakes_picture
from slim.evaluation.predictions import RESULTS, Predictions

RUN = "eval"  # the prefix of the folders of event files, and of tags


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


def run_name(members: Sequence[EnsembleMember], checkpoint: str, split_name: str) -> str:
    """Returns the folder within `--eval_dir` for the event files of an evaluation.

    Evaluations of a step at several sizes or on several splits have the same tags, and therefore
    need folders of their own, which TensorBoard shows as runs.

    Args:
        members: The network with its image size, or the networks of an ensemble.
        checkpoint: The prefix of a checkpoint.
        split_name: The split.

    Returns:
        `.` for validation images at the size of training, else `eval_448` or `eval_train_448`, for
        example; for an ensemble `eval_299+448` if its sizes differ, else `eval_mean`.
    """
    sizes = [str(member.image_size) for member in members]
    parts = [] if split_name == "validation" else [split_name]
    if len(members) > 1:
        parts.append("+".join(sizes) if have_own_runs(members) else "mean")
    elif members[0].image_size != trained_size(checkpoint):
        parts += sizes
    return "_".join([RUN, *parts]) if parts else "."


def have_own_runs(members: Sequence[EnsembleMember]) -> bool:
    """Returns whether the networks of an ensemble have different names by `run_name`."""
    return len({member.image_size for member in members}) == len(members)


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Prints the results of evaluations and writes them to a folder.

    Attributes:
        dataset: The evaluated split.
        num_classes: Number of classes.
        class_names: Names of the classes, if known.
        class_sizes: Training images per class, int64 `[classes]`, if known.
        eval_dir: The folder; None to print only.
        per_class: Whether to write predictions, and more figures and pictures for TensorBoard.
    """

    dataset: Dataset
    num_classes: int
    class_names: tuple[str, ...] | None
    class_sizes: np.ndarray | None
    eval_dir: str | None
    per_class: bool
    _writers: dict[str, tf.summary.FileWriter] = field(default_factory=dict, init=False)

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

    def report(self, outputs: Outputs, step: int, name: str, run: str | None) -> Predictions:
        """Prints a line, and a second one if some logits were not finite; writes the event file.

        Args:
            outputs: The outputs of a network.
            step: The step of its checkpoint.
            name: What was evaluated.
            run: The folder of the event file, see `run_name`; None for no event file.

        Raises:
            UserError: The folder cannot be written to.
        """
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
        if self.eval_dir and run:
            with self._explained():
                writer = self._writer(run)
                writer.add_summary(self._summarize(predictions), step)
                writer.flush()
        return predictions

    def publish(self, outputs: Outputs, step: int, name: str, run: str = ".") -> None:
        """Prints the results and writes them to the folder; see `report`."""
        predictions = self.report(outputs, step, name, run)
        if not self.eval_dir:
            return
        folder = Path(self.eval_dir)
        with self._explained():
            if self.per_class:
                predictions.save(folder)
            figures = json.dumps(_figures(predictions, name), indent=2) + "\n"
            write_whole(folder / RESULTS, figures, this_process())

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            raise UserError(
                f"--eval_dir={self.eval_dir}: cannot write there ({error}); free some space or "
                "give another folder"
            ) from error

    def _writer(self, run: str) -> tf.summary.FileWriter:
        """Returns the writer of the event file of a run.

        By default, the name of an event file is made of the second and the host. Training and other
        evaluations may write to the same folder, and begin a file in the same second.
        """
        if run not in self._writers:
            folder = str(Path(self.eval_dir, run))
            with tf.Graph().as_default():  # the writer refuses eager execution
                writer = tf.summary.FileWriter(folder, filename_suffix=f".{os.getpid()}.eval")
            self._writers[run] = writer
        return self._writers[run]

    def _summarize(self, predictions: Predictions) -> tf.Summary:
        values = [
            scalar(
                f"{RUN}/Accuracy",
                predictions.accuracy,
                "The fraction of images whose likeliest class is correct.",
            ),
            scalar(
                f"{RUN}/Recall_5",
                predictions.recall_5,
                "The fraction of images with the correct class among the five likeliest.",
            ),
        ]
        return tf.Summary(value=values + (self._per_class(predictions) if self.per_class else []))

    def _per_class(self, predictions: Predictions) -> list[tf.Summary.Value]:
        """Returns the accuracies over classes, the confusion matrix and the worst mistakes."""
        values = [
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
        groups = [] if self.class_sizes is None else group_accuracy(predictions)
        for group in groups:
            if group.name != ALL and not np.isnan(group.accuracy):
                description = (
                    f"The mean accuracy over the classes with {group.sizes} training images."
                )
                tag = f"{RUN}/{group.name.capitalize()}_accuracy"
                values.append(scalar(tag, group.accuracy, description))
        if picture := mistakes_picture(predictions, self.dataset):
            description = (
                "The images with the highest probability of a wrong class: the predicted class "
                "and its probability (orange), the true class (blue)."
            )
            values.append(image(f"{RUN}/mistakes", picture, description))
        return values


def _figures(predictions: Predictions, checkpoint: str) -> dict[str, object]:
    return {
        "step": predictions.step,
        "checkpoint": checkpoint,
        "accuracy": predictions.accuracy,
        "recall_5": predictions.recall_5,
        "num_images": len(predictions.labels),
    }
