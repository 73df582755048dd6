"""Evaluates an image classifier: `python -m slim.eval_image_classifier --checkpoint_path=...`.

The flags, and what they mean, are those of the published script, except that every image counts
exactly once. New are `--max_number_of_evaluations`, `--num_crops`, `--central_fraction`,
`--per_class`, `--precision`, `--xla`, and several checkpoints, networks or sizes with commas
between them, whose probabilities are averaged.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from slim import checkpoints
from slim.compat import tf
from slim.datasets.input import evaluation_batches
from slim.datasets.lists import read_list
from slim.datasets.registry import Dataset, dataset_folder, get_dataset
from slim.datasets.tfrecord import LISTS
from slim.deployment.inference import build_network
from slim.errors import UserError, run_command
from slim.evaluator import Evaluator, Outputs, View, rank, variables_to_restore
from slim.flags import (
    FlagSet,
    define_shared_flags,
    define_speed_flags,
    number_of_classes,
)
from slim.nets.nets_factory import check_image_size, get_network_fn
from slim.predictions import Predictions, confusion_picture
from slim.preprocessing.preprocessing_factory import get_views


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags, the published ones with their published defaults."""
    define = FlagSet(values)
    define_shared_flags(define, split="validation", batch_size=100)
    define.string(
        "checkpoint_path",
        None,
        "A checkpoint, or a folder to watch for new ones. Where this, --model_name, "
        "--eval_image_size or --central_fraction has several, with commas between them, each is "
        "evaluated once, and then the mean of their probabilities.",
    )
    define.string("eval_dir", None, "Where event files are written. Default: nowhere.")
    define.words("eval_image_size", ["299"], "Height and width of the images in pixels.")
    define.words("central_fraction", [], "The part of each side that a crop has. Default: 0.875.")
    define.integer("num_crops", 1, "Crops of an image to average over: 1, 5, 10 or 12.")
    define.boolean(
        "per_class",
        False,
        "Write predictions, accuracies by class and the confusion matrix to --eval_dir, too.",
    )
    define.integer("max_num_batches", None, "Batches to evaluate. Default: all.", 1)
    define.integer("eval_interval_secs", 60, "Seconds between two evaluations.", 0)
    define.integer(
        "max_number_of_evaluations", None, "Evaluations to end after. Default: go on watching.", 1
    )
    define.boolean("quantize", False, "Evaluate a quantized network.")
    define_speed_flags(define)


def main(values: flags.FlagValues) -> None:
    """Evaluates a checkpoint, each new checkpoint of a folder, or several checkpoints together."""
    check_flags(values)
    views = find_views(values)
    dataset = get_dataset(values.dataset_name, values.dataset_split_name, values.dataset_dir)
    evaluators = [make_evaluator(view, dataset, values) for view in views]
    describe = partial(
        Predictions,
        num_classes=number_of_classes(dataset.num_classes, values.labels_offset),
        class_names=dataset.class_names and dataset.class_names[values.labels_offset :],
        class_sizes=count_training_images(dataset, values.dataset_dir, values.labels_offset),
    )

    def publish(outputs: Outputs, step: int, what: str) -> None:
        predictions = describe(step, outputs.labels, outputs.top, outputs.of_top)
        report(predictions, what)
        if values.eval_dir:
            write_results(values.eval_dir, predictions, values.per_class)

    if len(views) > 1:
        outputs, step = evaluate_together(evaluators, describe)
        publish(outputs, step, f"mean of {len(views)}")
        return
    for checkpoint in checkpoints_to_evaluate(
        views[0].checkpoint_path, values.eval_interval_secs, values.max_number_of_evaluations
    ):
        publish(*evaluators[0].evaluate(checkpoint), checkpoint)


def check_flags(values: flags.FlagValues) -> None:
    """Refuses what cannot work before anything is built.

    Raises:
        UserError: Naming the flag.
    """
    if values.master:
        raise UserError(
            f"--master={values.master}: evaluation runs on one machine; leave the flag out"
        )
    if values.quantize:
        raise UserError("--quantize: TensorFlow 2 has no contrib quantizer; leave the flag out")
    if not values.checkpoint_path:
        raise UserError(
            "--checkpoint_path is missing: a checkpoint, or the folder that training writes them "
            "to, such as --checkpoint_path=./checkpoints/cub_200"
        )
    if values.per_class and not values.eval_dir:
        raise UserError("--per_class: --eval_dir is missing, the folder that it writes to")


def find_views(values: flags.FlagValues) -> list[View]:
    """The networks to evaluate: flags with one value hold for all.

    Raises:
        UserError: A flag has neither one value nor as many as there are networks, or a bad one.
    """
    given = {
        "checkpoint_path": values.checkpoint_path.split(","),
        "model_name": values.model_name.split(","),
        "preprocessing_name": (values.preprocessing_name or values.model_name).split(","),
        "eval_image_size": _numbers("eval_image_size", values.eval_image_size, int, "pixels"),
        "central_fraction": _numbers(
            "central_fraction", values.central_fraction, float, "0.875, a part of each side"
        )
        or [None],
    }
    longest = max(given, key=lambda flag: len(given[flag]))
    count = len(given[longest])
    for flag, found in given.items():
        if len(found) not in (1, count):
            raise UserError(
                f"--{flag} has {len(found)} values and --{longest} has {count}: expected one, or "
                "one each"
            )
    views = [View(*(v[i % len(v)] for v in given.values())) for i in range(count)]
    for view in views:
        check_image_size(view.model_name, view.image_size, view.image_size)
    return views


def _numbers(flag: str, words: Sequence[str], kind: type, expected: str) -> list:
    try:
        return [kind(word) for word in words]
    except ValueError:
        raise UserError(f"--{flag}={','.join(words)}: expected {expected}") from None


def make_evaluator(view: View, dataset: Dataset, values: flags.FlagValues) -> Evaluator:
    """Builds a network and says which images it is to see.

    Args:
        view: The network, and how it looks at the images.
        dataset: The split to evaluate.
        values: The command's flags.

    Raises:
        UserError: There is no such network or preprocessing.
    """
    num_classes = number_of_classes(dataset.num_classes, values.labels_offset)
    preprocess = get_views(view.preprocessing_name, values.num_crops, view.central_fraction)
    network_fn = get_network_fn(view.model_name, num_classes, dtype=tf.as_dtype(values.precision))
    # Without the auxiliary classifier: its variables need not be in the checkpoint.
    network = build_network(
        lambda images: network_fn(images, create_aux_logits=False)[0], view.image_size
    )
    batch_size = max(1, values.batch_size // values.num_crops)  # as many views as images else

    def make_batches() -> tf.data.Dataset:
        batches = evaluation_batches(
            dataset,
            preprocess,
            view.image_size,
            batch_size,
            num_classes,
            values.labels_offset,
            values.num_preprocessing_threads,
        )
        return batches.take(values.max_num_batches) if values.max_num_batches else batches

    num_images = dataset.num_samples
    if values.max_num_batches:
        num_images = min(num_images, values.max_num_batches * batch_size)
    return Evaluator(
        view,
        network,
        variables_to_restore(network.variables, values.moving_average_decay),
        bool(values.moving_average_decay),
        make_batches,
        num_images,
        values.xla,
    )


def evaluate_together(
    evaluators: Sequence[Evaluator], describe: Callable[..., Predictions]
) -> tuple[Outputs, int]:
    """Evaluates several networks, one after the other, and the mean of their probabilities.

    Args:
        evaluators: The networks, all on the same images.
        describe: Makes predictions of step, labels, and the likeliest classes.

    Returns:
        What comes out of all together, and the latest step.

    Raises:
        UserError: As `Evaluator.evaluate` does.
    """
    found = [
        checkpoints.find_checkpoint(evaluator.view.checkpoint_path) for evaluator in evaluators
    ]
    mean, steps = 0, []
    for evaluator, checkpoint in zip(evaluators, found, strict=True):
        outputs, step = evaluator.evaluate(checkpoint, keep_probabilities=True)
        report(
            describe(step, outputs.labels, outputs.top, outputs.of_top),
            f"{checkpoint}, {evaluator.view}",
        )
        mean = mean + outputs.probabilities / len(evaluators)
        steps.append(step)
    with tf.Graph().as_default(), tf.Session() as session:
        top, of_top = session.run(rank(tf.placeholder_with_default(mean, mean.shape)))
    return Outputs(outputs.labels, top, of_top, mean), max(steps)


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
        return iter([checkpoints.find_checkpoint(path)])
    if tf.train.latest_checkpoint(path) is None:
        if max_number_of_evaluations:
            checkpoints.find_checkpoint(path)
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


def report(predictions: Predictions, what: str) -> None:
    """Prints one line, and a second one where logits were not finite."""
    print(
        f"step {predictions.step}: eval/Accuracy {predictions.accuracy:.4f}, "
        f"eval/Recall_5 {predictions.recall_5:.4f}, {len(predictions.labels)} images, {what}",
        flush=True,
    )
    if predictions.num_not_finite:
        print(
            f"{predictions.num_not_finite} images gave logits that are not finite, and count as "
            "wrong",
            flush=True,
        )


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


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
