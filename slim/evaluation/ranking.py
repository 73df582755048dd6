"""From logits to ranked classes, for all batches of a split."""

from collections.abc import Mapping

import numpy as np

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.progress import progress
from slim.datasets.input import EXPLAINED_ERRORS, explain_input_error
from slim.evaluation.predictions import NOT_FINITE, TOP_K


def average_views(logits: tf.Tensor, num_views: int) -> tf.Tensor:
    """Returns logits of the mean probabilities of `num_views` successive rows."""
    if num_views == 1:
        return logits  # their order is exact
    shape = [-1, num_views, logits.shape[1]]
    return tf.reduce_logsumexp(tf.reshape(tf.nn.log_softmax(logits), shape), axis=1)


def rank(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the likeliest classes, int64, and their scores, each `[batch, min(5, classes)]`.

    For an image with a score that is not finite, all classes are -1 and all scores 0.
    """
    finite = tf.reduce_all(tf.math.is_finite(scores), axis=1, keepdims=True)
    values, top = tf.math.top_k(scores, min(TOP_K, scores.shape[1]))
    return tf.where_v2(finite, tf.cast(top, tf.int64), NOT_FINITE), tf.where_v2(finite, values, 0.0)


def rank_batch(logits: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the `labels`, `top` and `probabilities` of `Predictions` for a batch."""
    top, _ = rank(logits)
    of_top = tf.gather(tf.nn.softmax(logits), tf.maximum(top, 0), batch_dims=1)
    of_top = tf.where_v2(tf.equal(top, NOT_FINITE), 0.0, of_top)
    return {"labels": labels, "top": top, "probabilities": of_top}


def run_batches(
    session: tf.Session, outputs: Mapping[str, tf.Tensor], name: str, num_images: int
) -> dict[str, np.ndarray]:
    """Runs all batches and concatenates their outputs, one of which is `labels`."""
    batches = []
    with progress(name, num_images, " images") as shown:
        while True:
            try:
                batches.append(session.run(outputs))
            except tf.errors.OutOfRangeError:
                break
            except EXPLAINED_ERRORS as error:
                raise explain_input_error(error) from error
            shown.update(len(batches[-1]["labels"]))
    if not batches:
        raise UserError("the shards of this split are empty; convert the dataset again")
    return {key: np.concatenate([batch[key] for batch in batches]) for key in outputs}
