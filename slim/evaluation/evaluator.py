"""Evaluation of networks and their checkpoints on a split, with every image exactly once."""

import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from slim.checkpoints.freezing import (
    InferenceGraph,
    build_network,
    find_variables,
    freeze_checkpoint,
)
from slim.checkpoints.reading import choose_averages, read_step
from slim.common.compat import tf
from slim.common.devices import describe_run, session_config
from slim.common.errors import UserError
from slim.common.progress import progress
from slim.datasets.input import (
    EXPLAINED_ERRORS,
    InputSettings,
    evaluation_batches,
    explain_input_error,
)
from slim.datasets.registry import Dataset
from slim.evaluation.ensemble import EnsembleMember
from slim.evaluation.predictions import NOT_FINITE, TOP_K
from slim.nets.sizes import count_parameters
from slim.preprocessing.preprocessing_factory import get_views

ROWS = 4096  # images of an ensemble that are ranked at once


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Settings that all networks of an evaluation share.

    Attributes:
        num_classes: Number of classes of the networks.
        labels_offset: Subtracted from every label.
        batch_size: Views per batch.
        num_crops: Views per image: 1, 5, 10 or 12.
        num_threads: Images preprocessed in parallel. Default: one per core.
        max_num_batches: Batches to evaluate; None for all.
        moving_average_decay: See `choose_averages`.
        precision: The type the layers compute in.
        xla: Whether to compile the networks with XLA.
    """

    num_classes: int
    labels_offset: int = 0
    batch_size: int = 100
    num_crops: int = 1
    num_threads: int | None = None
    max_num_batches: int | None = None
    moving_average_decay: float | None = None
    precision: str = "float32"
    xla: bool = False


class Outputs(NamedTuple):
    """Outputs of a network for N images and C classes, in the order of the shards."""

    labels: np.ndarray  # int64 [N]
    top: np.ndarray  # int64 [N, K], the K <= 5 likeliest classes; -1 if logits are not finite
    of_top: np.ndarray  # float32 [N, K], their probabilities
    probabilities: np.ndarray | None  # float32 [N, C], on request


@dataclass(frozen=True)
class Evaluator:
    """Evaluates checkpoints of one network; see `make_evaluator`.

    Attributes:
        member: The network.
        settings: The settings.
        graph: The network from images to logits.
        make_batches: Makes the batches of views `[batch, num_crops, ...]` and labels.
        num_images: Number of images to evaluate.
    """

    member: EnsembleMember
    settings: EvaluationSettings
    graph: InferenceGraph
    make_batches: Callable[[], tf.data.Dataset]
    num_images: int

    def evaluate(self, checkpoint: str, keep_probabilities: bool = False) -> tuple[Outputs, int]:
        """Evaluates a checkpoint.

        Args:
            checkpoint: The prefix of the checkpoint.
            keep_probabilities: Whether to return the probabilities of all classes.

        Returns:
            The outputs, and the step of the checkpoint.

        Raises:
            UserError: The checkpoint does not match, or the split cannot be read.
        """
        frozen = freeze_checkpoint(self.graph, checkpoint, **self._choices(checkpoint))
        step = read_step(checkpoint)
        network = partial(frozen, xla=self.settings.xla)
        outputs = self._run(network, f"step {step}", keep_probabilities)
        # Graphs refer to themselves: without this the graphs of several checkpoints pile up.
        gc.collect()
        return outputs, step

    def check(self, checkpoint: str) -> None:
        """Checks that a checkpoint can be evaluated, without reading its values.

        Raises:
            UserError: It does not match.
        """
        find_variables(self.graph, checkpoint, **self._choices(checkpoint))

    def _choices(self, checkpoint: str) -> dict[str, Any]:
        """Returns the keyword arguments of `freeze_checkpoint`."""
        decay = self.settings.moving_average_decay
        return {
            "averages": choose_averages(checkpoint, decay, default=False),
            "hint": "does it match --model_name?",
            "shape_hint": "does it match --model_name, and the classes of --dataset_name (see "
            "--labels_offset)?",
        }

    def _run(
        self, network: Callable[[tf.Tensor], tf.Tensor], name: str, keep_probabilities: bool
    ) -> Outputs:
        with tf.Graph().as_default(), tf.Session(config=session_config()) as session:
            iterator = tf.data.make_initializable_iterator(self.make_batches())
            session.run(iterator.initializer)
            views, labels = iterator.get_next()
            logits = network(tf.reshape(views, [-1, *views.shape[2:]]))
            outputs = build_outputs(average_views(logits, views.shape[1]), labels)
            if not keep_probabilities:
                outputs = outputs._replace(probabilities=None)
            return run_batches(session, outputs, name, self.num_images)


def make_evaluator(
    member: EnsembleMember, dataset: Dataset, settings: EvaluationSettings
) -> Evaluator:
    """Builds the evaluator of a network on a split.

    Raises:
        UserError: The network or preprocessing is unknown.
    """
    preprocess = get_views(member.preprocessing_name, settings.num_crops, member.central_fraction)
    graph = build_network(
        member.model_name,
        settings.num_classes,
        member.image_size,
        outputs=lambda logits, _: logits,
        precision=settings.precision,
    )
    line = describe_run(
        member.model_name,
        member.image_size,
        count_parameters(graph.variables),
        precision=settings.precision,
        xla=settings.xla,
    )
    print(line, file=sys.stderr, flush=True)
    images_per_batch = max(1, settings.batch_size // settings.num_crops)
    input_settings = InputSettings(
        image_size=member.image_size,
        batch_size=images_per_batch,
        num_classes=settings.num_classes,
        labels_offset=settings.labels_offset,
        num_threads=settings.num_threads,
    )
    limit = settings.max_num_batches

    def make_batches() -> tf.data.Dataset:
        batches = evaluation_batches(dataset, preprocess, input_settings)
        return batches.take(limit) if limit else batches

    num_images = dataset.num_samples
    if limit:
        num_images = min(num_images, limit * images_per_batch)
    return Evaluator(member, settings, graph, make_batches, num_images)


def evaluate_ensemble(
    evaluators: Sequence[Evaluator],
    checkpoints: Sequence[str],
    report_member: Callable[[int, Outputs, int], None],
) -> tuple[Outputs, int]:
    """Evaluates several networks in turn, and then the mean of their probabilities.

    Args:
        evaluators: The networks, all on the same images.
        checkpoints: The prefix of a checkpoint for each.
        report_member: Receives the index, the outputs and the step of each network.

    Returns:
        The outputs of the ensemble, and the highest step.

    Raises:
        UserError: See `Evaluator.evaluate`.
    """
    for evaluator, checkpoint in zip(evaluators, checkpoints, strict=True):
        evaluator.check(checkpoint)
    mean, steps = 0, []
    for index, evaluator in enumerate(evaluators):
        outputs, step = evaluator.evaluate(checkpoints[index], keep_probabilities=True)
        report_member(index, outputs, step)
        mean += outputs.probabilities / len(evaluators)
        steps.append(step)
    with tf.Graph().as_default(), tf.Session() as session:
        rows = tf.placeholder(tf.float32, [None, mean.shape[1]])
        ranked = rank(rows)
        # All rows at once may be more than 2 GB, the limit of a tensor in a graph.
        parts = [
            session.run(ranked, {rows: mean[start : start + ROWS]})
            for start in range(0, len(mean), ROWS)
        ]
    top, of_top = map(np.concatenate, zip(*parts, strict=True))
    return Outputs(outputs.labels, top, of_top, mean), max(steps)


def average_views(logits: tf.Tensor, num_views: int) -> tf.Tensor:
    """Averages the probabilities of several views per image.

    Args:
        logits: float32 `[batch * num_views, classes]`.
        num_views: Number of successive rows per image.

    Returns:
        Logits of the mean probabilities, float32 `[batch, classes]`; with one view the given ones,
        so that their order is exact.
    """
    if num_views == 1:
        return logits
    shape = [-1, num_views, logits.shape[1]]
    return tf.reduce_logsumexp(tf.reshape(tf.nn.log_softmax(logits), shape), axis=1)


def rank(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the likeliest classes.

    Args:
        scores: float32 `[batch, classes]`.

    Returns:
        Classes, int64, and their scores, float32, each `[batch, min(5, classes)]`. For an image
        with a score that is not finite, all classes are -1 and all scores 0.
    """
    finite = tf.reduce_all(tf.math.is_finite(scores), axis=1, keepdims=True)
    values, top = tf.math.top_k(scores, min(TOP_K, scores.shape[1]))
    return tf.where_v2(finite, tf.cast(top, tf.int64), NOT_FINITE), tf.where_v2(finite, values, 0.0)


def build_outputs(logits: tf.Tensor, labels: tf.Tensor) -> Outputs:
    """Returns the outputs of a batch as tensors.

    Args:
        logits: float32 `[batch, classes]`.
        labels: int64 `[batch]`.
    """
    top, _ = rank(logits)
    probabilities = tf.nn.softmax(logits)
    of_top = tf.gather(probabilities, tf.maximum(top, 0), batch_dims=1)
    return Outputs(labels, top, tf.where_v2(tf.equal(top, NOT_FINITE), 0.0, of_top), probabilities)


def run_batches(session: tf.Session, outputs: Outputs, name: str, num_images: int) -> Outputs:
    """Runs all batches and concatenates their outputs.

    Args:
        session: The session of the graph.
        outputs: The result of `build_outputs`.
        name: The description of the progress bar.
        num_images: The total of the progress bar.

    Returns:
        The outputs as arrays.

    Raises:
        UserError: A shard or an image cannot be read, a label is out of range, or there is no
            image.
    """
    wanted = {key: tensor for key, tensor in outputs._asdict().items() if tensor is not None}
    batches = []
    with progress(name, num_images, " images") as shown:
        while True:
            try:
                batches.append(session.run(wanted))
            except tf.errors.OutOfRangeError:
                break
            except EXPLAINED_ERRORS as error:
                raise explain_input_error(error) from error
            shown.update(len(batches[-1]["labels"]))
    if not batches:
        raise UserError("the shards of this split are empty; convert the dataset again")
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in wanted}
    return outputs._replace(**joined)
