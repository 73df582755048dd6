"""A network and its checkpoints on a split: what it makes of every image, each exactly once."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from slim import checkpoints
from slim.compat import tf
from slim.datasets.input import explain_input_error
from slim.deployment.inference import Network, freeze
from slim.deployment.model_deploy import session_config
from slim.errors import UserError
from slim.predictions import NOT_FINITE, TOP_K


@dataclass(frozen=True)
class View:
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
        restored: Its variables by their names in a checkpoint.
        averaged: Whether these are moving averages.
        make_batches: Makes the batches of views `[batch, num_crops, ...]` and labels.
        num_images: Images to expect, for the progress bar.
        xla: Compile the network with XLA.
    """

    view: View
    network: Network
    restored: dict[str, tf.Variable]
    averaged: bool
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
        check_checkpoint(checkpoint, self.restored, self.averaged)
        frozen = freeze(self.network, checkpoints.read_values(checkpoint, self.restored))
        step = checkpoints.read_step(checkpoint)
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


def variables_to_restore(
    model_variables: Sequence[tf.Variable], moving_average_decay: float | None
) -> dict[str, tf.Variable]:
    """The model's variables by name in the checkpoint: their own, or their averages'."""
    if moving_average_decay:
        return checkpoints.averaged_variables(model_variables)
    return checkpoints.by_name(model_variables)


def check_checkpoint(checkpoint: str, restored: dict[str, tf.Variable], averaged: bool) -> None:
    """Checks that a checkpoint has what is to be restored.

    Raises:
        UserError: It does not.
    """
    missing_hint = (
        "it was written without averages: leave --moving_average_decay out"
        if averaged
        else "is it of --model_name?"
    )
    checkpoints.check_fits(
        checkpoint,
        restored,
        missing_hint,
        "is it of --model_name, and of --dataset_name's classes (see --labels_offset)?",
    )
