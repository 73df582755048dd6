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


def rank(scores: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns `top`, their scores as `probabilities`, and `ranks` of scores `[images, classes]`."""
    finite = tf.reduce_all(tf.math.is_finite(scores), axis=1, keepdims=True)
    values, top = tf.math.top_k(scores, min(TOP_K, scores.shape[1]))
    # Of equal scores, that of the lower label comes first, as in `top_k`.
    truth = labels[:, tf.newaxis]
    of_truth = tf.gather(scores, truth, batch_dims=1)
    first = tf.range(scores.shape[1], dtype=truth.dtype) <= truth
    ahead = (scores > of_truth) | (tf.equal(scores, of_truth) & first)
    return {
        "top": tf.where_v2(finite, tf.cast(top, tf.int64), NOT_FINITE),
        "probabilities": tf.where_v2(finite, values, 0.0),
        "ranks": tf.reduce_sum(tf.cast(ahead & finite, tf.int32), axis=1),
    }


def rank_batch(
    logits: tf.Tensor, labels: tf.Tensor, *, all_classes: bool = False
) -> dict[str, tf.Tensor]:
    """Returns arrays of `Predictions` for a batch, and on request the probabilities of `all`."""
    ranked = rank(logits, labels)
    finite = tf.not_equal(ranked["top"][:, :1], NOT_FINITE)
    logits = tf.where_v2(finite, logits, np.nan)
    shares = tf.nn.softmax(logits)
    of_top = tf.gather(shares, tf.maximum(ranked["top"], 0), batch_dims=1)
    return {
        **ranked,
        "labels": labels,
        "probabilities": tf.where_v2(finite, of_top, 0.0),
        "losses": tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits),
        **({"all": shares} if all_classes else {}),
    }


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
