"""A network and its checkpoints on a split: what it makes of every image, each exactly once."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from absl import flags
from tqdm import tqdm

from slim.checkpoints.loading import choose_averages, freeze_checkpoint
from slim.checkpoints.reading import (
    find_checkpoint,
    read_step,
)
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.input import InputSettings, evaluation_batches, explain_input_error
from slim.datasets.registry import Dataset, number_of_classes
from slim.deployment.model_deploy import session_config
from slim.evaluation.predictions import NOT_FINITE, TOP_K, Predictions
from slim.nets.frozen import InferenceGraph, build_network
from slim.nets.nets_factory import get_network_fn
from slim.preprocessing.preprocessing_factory import get_views


@dataclass(frozen=True)
class EnsembleMember:
    """A network, and how it looks at the images.

    Attributes:
        checkpoint_path: A checkpoint, or a folder of them.
        model_name: The network.
        preprocessing_name: How images are prepared.
        image_size: Height and width of the images in pixels.
        central_fraction: The part of each side that a crop has; None for the preprocessing's.
    """

    checkpoint_path: str
    model_name: str
    preprocessing_name: str
    image_size: int
    central_fraction: float | None

    def __str__(self) -> str:
        """What tells it from others, for a line of the report."""
        fraction = "" if self.central_fraction is None else f", central {self.central_fraction:g}"
        return f"{self.image_size} pixels{fraction}"


class Outputs(NamedTuple):
    """What a network makes of N images of C classes, in the order of the shards."""

    labels: np.ndarray  # int64 [N]
    top: np.ndarray  # int64 [N, K], the K <= 5 likeliest classes; -1 where logits are not finite
    of_top: np.ndarray  # float32 [N, K], their probabilities
    probabilities: np.ndarray | None  # float32 [N, C], where they are asked for


@dataclass(frozen=True)
class Evaluator:
    """Evaluates checkpoints of one network; see `make_evaluator`.

    Attributes:
        view: The network, and how it looks at the images.
        network: From images to logits.
        moving_average_decay: The value of `--moving_average_decay`.
        make_batches: Makes the batches of views `[batch, num_crops, ...]` and labels.
        num_images: Images to expect, for the progress bar.
        xla: Compile the network with XLA.
    """

    view: EnsembleMember
    network: InferenceGraph
    moving_average_decay: float | None
    make_batches: Callable[[], tf.data.Dataset]
    num_images: int
    xla: bool

    def evaluate(self, checkpoint: str, keep_probabilities: bool = False) -> tuple[Outputs, int]:
        """Runs the network, with a checkpoint's values, on every image once.

        Args:
            checkpoint: The checkpoint's prefix.
            keep_probabilities: Whether to return those of all classes.

        Returns:
            What comes out, and the checkpoint's step.

        Raises:
            UserError: The checkpoint does not fit, or as `run_through` raises it.
        """
        frozen = freeze_checkpoint(
            self.network,
            checkpoint,
            averages=choose_averages(checkpoint, self.moving_average_decay, default=False),
            hint="does it match --model_name?",
            shape_hint="does it match --model_name, and the classes of --dataset_name (see "
            "--labels_offset)?",
        )
        step = read_step(checkpoint)
        outputs = self._run(partial(frozen, xla=self.xla), step, keep_probabilities)
        # A graph refers to itself: without this those of several checkpoints are held at a time.
        gc.collect()
        return outputs, step

    def _run(
        self, network: Callable[[tf.Tensor], tf.Tensor], step: int, keep_probabilities: bool
    ) -> Outputs:
        with tf.Graph().as_default(), tf.Session(config=session_config()) as session:
            iterator = tf.data.make_initializable_iterator(self.make_batches())
            session.run(iterator.initializer)
            views, labels = iterator.get_next()
            logits = network(tf.reshape(views, [-1, *views.shape[2:]]))
            outputs = build_outputs(average_views(logits, views.shape[1]), labels)
            if not keep_probabilities:
                outputs = outputs._replace(probabilities=None)
            return run_through(session, outputs, f"step {step}", self.num_images)


def average_views(logits: tf.Tensor, num_views: int) -> tf.Tensor:
    """The mean of the probabilities that several views of an image give.

    Args:
        logits: float32 `[batch * num_views, classes]`.
        num_views: Views of each image, which follow one another.

    Returns:
        float32 `[batch, classes]`, logits again: their softmax are the probabilities. Those of a
        single view are left as they are, so that their order is exactly theirs.
    """
    if num_views == 1:
        return logits
    shape = [-1, num_views, logits.shape[1]]
    return tf.reduce_logsumexp(tf.reshape(tf.nn.log_softmax(logits), shape), axis=1)


def rank(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The likeliest classes.

    Args:
        scores: float32 `[batch, classes]`.

    Returns:
        Classes, int64, and their scores, float32, each `[batch, K]` with K = 5, or the number of
        classes where that is less. Where a score of an image is not finite, all its classes are -1
        and all its scores 0.
    """
    finite = tf.reduce_all(tf.math.is_finite(scores), axis=1, keepdims=True)
    values, top = tf.math.top_k(scores, min(TOP_K, scores.shape[1]))
    return tf.where_v2(finite, tf.cast(top, tf.int64), NOT_FINITE), tf.where_v2(finite, values, 0.0)


def build_outputs(logits: tf.Tensor, labels: tf.Tensor) -> Outputs:
    """What is wanted of a batch.

    Args:
        logits: float32 `[batch, classes]`.
        labels: int64 `[batch]`.

    Returns:
        Tensors.
    """
    top, _ = rank(logits)
    probabilities = tf.nn.softmax(logits)
    of_top = tf.gather(probabilities, tf.maximum(top, 0), batch_dims=1)
    return Outputs(labels, top, tf.where_v2(tf.equal(top, NOT_FINITE), 0.0, of_top), probabilities)


def run_through(session: tf.Session, outputs: Outputs, name: str, num_images: int) -> Outputs:
    """Runs batches until there are no more, and puts together what comes out.

    Args:
        session: Of the graph of the outputs.
        outputs: As `build_outputs` gives them.
        name: Stands before the progress bar.
        num_images: Images to expect, for the progress bar.

    Returns:
        Arrays.

    Raises:
        UserError: A shard or an image cannot be read, a label is beyond the classes, or there is
            no image.
    """
    wanted = {key: tensor for key, tensor in outputs._asdict().items() if tensor is not None}
    batches = []
    with tqdm(total=num_images, desc=name, unit="images", disable=None) as progress:
        while True:
            try:
                batches.append(session.run(wanted))
            except tf.errors.OutOfRangeError:
                break
            except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
                raise explain_input_error(error) from error
            progress.update(len(batches[-1]["labels"]))
    if not batches:
        raise UserError("the shards of this split hold no image; convert the dataset again")
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in wanted}
    return outputs._replace(**joined)


def make_evaluator(view: EnsembleMember, dataset: Dataset, values: flags.FlagValues) -> Evaluator:
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
        settings = InputSettings(
            image_size=view.image_size,
            batch_size=batch_size,
            num_classes=num_classes,
            labels_offset=values.labels_offset,
            num_threads=values.num_preprocessing_threads,
        )
        batches = evaluation_batches(dataset, preprocess, settings)
        return batches.take(values.max_num_batches) if values.max_num_batches else batches

    num_images = dataset.num_samples
    if values.max_num_batches:
        num_images = min(num_images, values.max_num_batches * batch_size)
    return Evaluator(
        view,
        network,
        values.moving_average_decay,
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
    found = [find_checkpoint(evaluator.view.checkpoint_path) for evaluator in evaluators]
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
