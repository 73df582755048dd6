"""Evaluates an image classifier: `python -m slim.eval_image_classifier --checkpoint_path=...`.

The flags, and what they mean, are those of the published script, except that every image counts
exactly once; `--max_number_of_evaluations`, `--precision` and `--xla` are new.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from absl import flags
from tqdm import tqdm

from slim import checkpoints
from slim.compat import tf
from slim.datasets.input import evaluation_batches, explain_input_error
from slim.datasets.registry import get_dataset
from slim.deployment.inference import build_network, freeze
from slim.deployment.model_deploy import session_config
from slim.errors import UserError, run_command
from slim.flags import (
    FlagSet,
    define_shared_flags,
    define_speed_flags,
    number_of_classes,
)
from slim.nets.nets_factory import check_image_size, get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing

TOP_K = 5


@dataclass(frozen=True)
class Result:
    """What an evaluation counted.

    Attributes:
        step: The checkpoint's step.
        num_images: Images evaluated.
        accuracy: Share of images whose likeliest class is right, in [0, 1].
        recall_5: Share of images with the right class among the five likeliest, in [0, 1].
        num_not_finite: Images whose logits are not finite; they count as wrong.
    """

    step: int
    num_images: int
    accuracy: float
    recall_5: float
    num_not_finite: int


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags, the published ones with their published defaults."""
    define = FlagSet(values)
    define_shared_flags(define, split="validation", batch_size=100)
    define.string("checkpoint_path", None, "A checkpoint, or a folder to watch for new ones.")
    define.string("eval_dir", None, "Where event files are written. Default: nowhere.")
    define.integer("eval_image_size", 299, "Height and width of the images in pixels.", 1)
    define.integer("max_num_batches", None, "Batches to evaluate. Default: all.", 1)
    define.integer("eval_interval_secs", 60, "Seconds between two evaluations.", 0)
    define.integer(
        "max_number_of_evaluations", None, "Evaluations to end after. Default: go on watching.", 1
    )
    define.boolean("quantize", False, "Evaluate a quantized network.")
    define_speed_flags(define)


def main(values: flags.FlagValues) -> None:
    """Evaluates a checkpoint, or each new checkpoint of a folder."""
    check_flags(values)
    dataset = get_dataset(values.dataset_name, values.dataset_split_name, values.dataset_dir)
    num_classes = number_of_classes(dataset.num_classes, values.labels_offset)
    found = checkpoints_to_evaluate(
        values.checkpoint_path, values.eval_interval_secs, values.max_number_of_evaluations
    )
    network_fn = get_network_fn(values.model_name, num_classes, dtype=tf.as_dtype(values.precision))
    # Without the auxiliary classifier: its variables need not be in the checkpoint.
    network = build_network(
        lambda images: network_fn(images, create_aux_logits=False)[0], values.eval_image_size
    )
    restored = variables_to_restore(network.variables, values.moving_average_decay)

    def make_batches() -> tf.data.Dataset:
        batches = evaluation_batches(
            dataset,
            get_preprocessing(values.preprocessing_name or values.model_name),
            values.eval_image_size,
            values.batch_size,
            num_classes,
            values.labels_offset,
            values.num_preprocessing_threads,
        )
        return batches.take(values.max_num_batches) if values.max_num_batches else batches

    total = dataset.num_samples
    if values.max_num_batches:
        total = min(total, values.max_num_batches * values.batch_size)
    for checkpoint in found:
        check_checkpoint(checkpoint, restored, values.moving_average_decay)
        frozen = freeze(network, checkpoints.read_values(checkpoint, restored))
        step = checkpoints.read_step(checkpoint)
        result = evaluate_network(partial(frozen, xla=values.xla), make_batches, step, total)
        report(result, checkpoint)
        if values.eval_dir:
            write_summaries(values.eval_dir, result)
        # A graph refers to itself: without this those of several checkpoints are held at a time.
        gc.collect()


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
    check_image_size(values.model_name, values.eval_image_size, values.eval_image_size)


def build_counts(logits: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
    """Counts of a batch, int64 scalars.

    Args:
        logits: float32 `[batch, classes]`.
        labels: int64 `[batch]`.

    Returns:
        `images`, `right` (the likeliest class), `right_5` (among the five likeliest) and
        `not_finite`.
    """
    finite = tf.reduce_all(tf.math.is_finite(logits), axis=1)
    _, top = tf.math.top_k(logits, min(TOP_K, logits.shape[1]))
    hits = tf.equal(tf.cast(top, tf.int64), labels[:, tf.newaxis]) & finite[:, tf.newaxis]
    return {
        "images": tf.size(labels, out_type=tf.int64),
        "right": tf.math.count_nonzero(hits[:, 0]),
        "right_5": tf.math.count_nonzero(hits),
        "not_finite": tf.math.count_nonzero(~finite),
    }


def variables_to_restore(
    model_variables: Sequence[tf.Variable], moving_average_decay: float | None
) -> dict[str, tf.Variable]:
    """The model's variables by name in the checkpoint: their own, or their averages'."""
    if moving_average_decay:
        return checkpoints.averaged_variables(model_variables)
    return checkpoints.by_name(model_variables)


def check_checkpoint(
    checkpoint: str, restored: dict[str, tf.Variable], moving_average_decay: float | None
) -> None:
    """Checks that a checkpoint has what is to be restored.

    Raises:
        UserError: It does not.
    """
    missing_hint = (
        "it was written without averages: leave --moving_average_decay out"
        if moving_average_decay
        else "is it of --model_name?"
    )
    checkpoints.check_fits(
        checkpoint,
        restored,
        missing_hint,
        "is it of --model_name, and of --dataset_name's classes (see --labels_offset)?",
    )


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


def evaluate_network(
    network: Callable[[tf.Tensor], tf.Tensor],
    make_batches: Callable[[], tf.data.Dataset],
    step: int,
    num_images: int,
) -> Result:
    """Evaluates a network, in a graph of its own.

    Args:
        network: From images, float32 `[batch, height, width, 3]`, to logits.
        make_batches: Makes the batches of images and labels.
        step: The checkpoint's step.
        num_images: Images to expect, for the progress bar.

    Returns:
        The result.

    Raises:
        UserError: As `evaluate` does.
    """
    with tf.Graph().as_default(), tf.Session(config=session_config()) as session:
        iterator = tf.data.make_initializable_iterator(make_batches())
        session.run(iterator.initializer)
        images, labels = iterator.get_next()
        counts = build_counts(network(images), labels)
        return evaluate(session, counts, step, num_images)


def evaluate(
    session: tf.Session, counts: dict[str, tf.Tensor], step: int, num_images: int
) -> Result:
    """Adds up the counts of every batch.

    Args:
        session: Of the graph of the counts.
        counts: As `build_counts` gives.
        step: The checkpoint's step.
        num_images: Images to expect, for the progress bar.

    Returns:
        The result.

    Raises:
        UserError: A shard or an image cannot be read, a label is beyond the classes, or there is
            no image.
    """
    totals = dict.fromkeys(counts, 0)
    with tqdm(total=num_images, desc=f"step {step}", unit="images", disable=None) as progress:
        while True:
            try:
                batch = session.run(counts)
            except tf.errors.OutOfRangeError:
                break
            except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
                raise explain_input_error(error) from error
            totals = {name: total + int(batch[name]) for name, total in totals.items()}
            progress.update(int(batch["images"]))
    if not totals["images"]:
        raise UserError("the shards of this split hold no image; convert the dataset again")
    return Result(
        step,
        totals["images"],
        totals["right"] / totals["images"],
        totals["right_5"] / totals["images"],
        totals["not_finite"],
    )


def report(result: Result, checkpoint: str) -> None:
    """Prints one line, and a second one where logits were not finite."""
    print(
        f"step {result.step}: eval/Accuracy {result.accuracy:.4f}, "
        f"eval/Recall_5 {result.recall_5:.4f}, {result.num_images} images, {checkpoint}",
        flush=True,
    )
    if result.num_not_finite:
        print(
            f"{result.num_not_finite} images gave logits that are not finite, and count as wrong",
            flush=True,
        )


def write_summaries(eval_dir: str, result: Result) -> None:
    """Writes `eval/Accuracy` and `eval/Recall_5` for TensorBoard.

    Raises:
        UserError: The folder cannot be written to.
    """
    values = {"eval/Accuracy": result.accuracy, "eval/Recall_5": result.recall_5}
    summary = tf.Summary(
        value=[tf.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    )
    try:
        Path(eval_dir).mkdir(parents=True, exist_ok=True)
        with tf.Graph().as_default():  # which the writer asks for
            writer = tf.summary.FileWriterCache.get(eval_dir)
        writer.add_summary(summary, result.step)
        writer.flush()
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"--eval_dir={eval_dir}: cannot write there ({error}); give another folder"
        ) from error


if __name__ == "__main__":
    run_command(define_flags, main, description=__doc__)
