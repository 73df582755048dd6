"""Checkpoints to evaluate, and the files that an evaluation writes."""

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from slim.checkpoints.reading import find_checkpoint
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.lists import read_list
from slim.datasets.registry import Dataset, dataset_folder
from slim.datasets.tfrecord import LISTS
from slim.evaluation.predictions import Predictions, confusion_picture


def checkpoints_to_evaluate(
    path: str, interval_secs: int, max_number_of_evaluations: int | None
) -> Iterator[str]:
    """A checkpoint once, or a folder's newest one and then each new one, as published.

    Args:
        path: A checkpoint, or a folder.
        interval_secs: The least time between two evaluations.
        max_number_of_evaluations: Checkpoints to end after; None to go on watching.

    Returns:
        Checkpoints' prefixes, as they come.

    Raises:
        UserError: There is none (a folder without one is watched, unless evaluations are counted).
    """
    if not Path(path).is_dir():
        return iter([find_checkpoint(path)])
    if tf.train.latest_checkpoint(path) is None:
        if max_number_of_evaluations:
            find_checkpoint(path)
        print(f"waiting for a first checkpoint in {path}", flush=True)
    newest = tf.train.checkpoints_iterator(path, min_interval_secs=interval_secs)
    # Training may have deleted a checkpoint by the time that the one before it is evaluated.
    existing = filter(tf.train.checkpoint_exists, newest)
    return islice(existing, max_number_of_evaluations)


def count_training_images(
    dataset: Dataset, dataset_dir: str, labels_offset: int
) -> np.ndarray | None:
    """How many training images each class has, int64 `[classes]`; None without a training list."""
    path = dataset_folder(dataset.name, dataset_dir) / LISTS["train"]
    if not path.is_file():
        return None
    labels = [entry.label for entry in read_list(path).entries]
    return np.bincount(labels, minlength=dataset.num_classes)[labels_offset:]


def write_results(eval_dir: str, predictions: Predictions, per_class: bool) -> None:
    """Writes `eval/Accuracy` and `eval/Recall_5` for TensorBoard, and what lies behind them.

    Args:
        eval_dir: The folder.
        predictions: The results.
        per_class: Write all of them, and the confusion matrix as an image for TensorBoard.

    Raises:
        UserError: The folder cannot be written to.
    """
    scalars = {"eval/Accuracy": predictions.accuracy, "eval/Recall_5": predictions.recall_5}
    summary = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    if per_class:
        picture = confusion_picture(predictions.confusion)
        width, height = Image.open(io.BytesIO(picture)).size
        image = tf.Summary.Image(encoded_image_string=picture, width=width, height=height)
        summary.append(tf.Summary.Value(tag="eval/confusion", image=image))
    try:
        Path(eval_dir).mkdir(parents=True, exist_ok=True)
        if per_class:
            predictions.save(Path(eval_dir))
        with tf.Graph().as_default():  # which the writer asks for
            writer = tf.summary.FileWriterCache.get(eval_dir)
        writer.add_summary(tf.Summary(value=summary), predictions.step)
        writer.flush()
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"--eval_dir={eval_dir}: cannot write there ({error}); give another folder"
        ) from error
