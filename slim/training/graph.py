"""The graph of a training step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slim.common.compat import slim, tf
from slim.common.errors import UserError
from slim.datasets.input import next_batch
from slim.deployment.all_reduce import AllReduce
from slim.deployment.model_deploy import Clone
from slim.deployment.synchronous import SynchronousReplicas
from slim.nets.nets_factory import get_network
from slim.training.cached_features import feature_batches
from slim.training.loop import NOT_FINITE

AUX_LOSS_WEIGHT = 0.4
IMAGES_SHOWN = 4


@dataclass(frozen=True)
class CloneOutputs:
    """A network in training, its losses in the collection of losses.

    Attributes:
        inputs: Images `[batch, size, size, 3]`, or the features that its last layer begins with.
        labels: Integers `[batch]`.
        end_points: What it has computed by the way.
        waited: Seconds that the step waited for its batch, float64.
    """

    inputs: tf.Tensor
    labels: tf.Tensor
    end_points: Mapping[str, tf.Tensor]
    waited: tf.Tensor


NetworkFn = Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]]


def build_clone(
    network_fn: NetworkFn, iterator: tf.data.Iterator, num_classes: int, label_smoothing: float
) -> CloneOutputs:
    """A network on a batch of its own.

    Args:
        network_fn: As `nets_factory.get_network_fn` gives it.
        iterator: Yields images `[batch, size, size, 3]` and labels `[batch]`.
        num_classes: Number of classes.
        label_smoothing: Share of the label that is spread over all classes.
    """
    images, labels, waited = next_batch(iterator)
    logits, end_points = network_fn(images)
    one_hot = tf.one_hot(labels, num_classes)
    if "AuxLogits" in end_points:
        tf.losses.softmax_cross_entropy(
            one_hot,
            end_points["AuxLogits"],
            label_smoothing=label_smoothing,
            weights=AUX_LOSS_WEIGHT,
            scope="aux_loss",
        )
    tf.losses.softmax_cross_entropy(one_hot, logits, label_smoothing=label_smoothing)
    return CloneOutputs(images, labels, {**end_points, "images": images}, waited)


def build_last_layer(
    network_fn: NetworkFn, model_name: str, num_classes: int, label_smoothing: float
) -> CloneOutputs:
    """A network of which only what follows the features runs, on features that are fed.

    The auxiliary classifier has its variables, and no loss: it stands further down.

    Args:
        network_fn: As `nets_factory.get_network_fn` gives it.
        model_name: The network.
        num_classes: Number of classes.
        label_smoothing: Share of the label that is spread over all classes.
    """
    images = tf.placeholder(tf.float32, [None, None, None, 3])  # never fed
    logits, end_points = network_fn(images)
    features = end_points[get_network(model_name).feature_endpoint]
    labels = tf.placeholder(tf.int64, [None])
    tf.losses.softmax_cross_entropy(
        tf.one_hot(labels, num_classes), logits, label_smoothing=label_smoothing
    )
    return CloneOutputs(features, labels, {"features": features}, tf.constant(0, tf.float64))


def feed_features(
    model: CloneOutputs, features: np.ndarray, labels: np.ndarray, batch_size: int, seed: int | None
) -> Iterator[dict[tf.Tensor, np.ndarray]]:
    """Yields what to feed to a last layer, see `feature_batches`."""
    for rows, row_labels in feature_batches(features, labels, batch_size, seed):
        yield {model.inputs: rows[:, np.newaxis, np.newaxis], model.labels: row_labels}


def split_scopes(scopes: str | None) -> list[str]:
    """The parts of a comma-separated flag."""
    return [scope.strip() for scope in (scopes or "").split(",") if scope.strip()]


def variables_to_train(scopes: Sequence[str]) -> list[tf.Variable]:
    """The trainable variables whose name contains one of the scopes; all where there are none.

    Raises:
        UserError: No variable matches.
    """
    trainable = tf.trainable_variables()
    chosen = [v for v in trainable if not scopes or any(scope in v.op.name for scope in scopes)]
    if not chosen:
        known = sorted({"/".join(v.op.name.split("/")[:2]) for v in trainable})
        raise UserError(
            f"--trainable_scopes={','.join(scopes)} matches no variable; scopes of the network: "
            + ", ".join(known)
        )
    return chosen


def build_train_op(
    total_loss: tf.Tensor,
    gradients: Sequence[tuple[tf.Tensor, tf.Variable]],
    optimizer: tf.train.Optimizer,
    update_ops: Sequence[tf.Operation],
    moving_average_decay: float | None,
    global_step: tf.Variable,
    replicas: SynchronousReplicas | AllReduce | None = None,
    loss_scale: tf.mixed_precision.LossScale | None = None,
) -> tuple[dict[str, tf.Tensor], list[tuple[tf.Variable, tf.Variable]]]:
    """One step of training: gradients, batch norm's updates, moving averages, in that order.

    Args:
        total_loss: The loss.
        gradients: What to apply, unless it or the loss is not finite.
        optimizer: Applies them and adds 1 to `global_step`.
        update_ops: Batch norm's updates.
        moving_average_decay: Decay of the averages of the model's variables; None for none.
        global_step: The step.
        replicas: Makes a step of the gradients of several replicas; of an `AllReduce` there is
            also whether any is `stopping`. Default: each makes its own.
        loss_scale: That of the optimizer, which leaves out steps whose gradients overflow.

    Returns:
        The `loss` before the update and the `step` after it, scalars that carry out the step when
        run, and each model variable with its moving average. Run, they raise
        `tf.errors.InvalidArgumentError` with `NOT_FINITE` in its message, and leave the trained
        variables alone, if the loss or a gradient is not finite.
    """
    if isinstance(replicas, AllReduce):
        total_loss, gradients = replicas.means(total_loss, gradients)
    norm = tf.linalg.global_norm([gradient for gradient, _ in gradients])
    good = tf.math.is_finite(norm)
    if loss_scale:
        good |= loss_scale() > 1  # it can be made smaller
    finite = tf.Assert(
        tf.math.is_finite(total_loss) & good,
        [NOT_FINITE, "loss", total_loss, "gradient norm", norm],
    )
    with tf.control_dependencies([finite]):
        gradients = [(tf.identity(gradient), variable) for gradient, variable in gradients]
    average, averaged = None, []
    if moving_average_decay:
        average = tf.train.ExponentialMovingAverage(moving_average_decay, global_step)
        averaged = slim.get_model_variables()
    if isinstance(replicas, SynchronousReplicas):
        update = replicas.apply_gradients(optimizer, gradients, global_step, average, averaged)
    else:
        update = optimizer.apply_gradients(gradients, global_step)
    # One operation to wait for, not hundreds for each average.
    update = tf.group(update, *update_ops)
    with tf.control_dependencies([update]):
        if average and not isinstance(replicas, SynchronousReplicas):
            update = average.apply(averaged)
        averages = [(variable, average.average(variable)) for variable in averaged]
        with tf.control_dependencies([update]):
            step = {"loss": tf.identity(total_loss), "step": tf.identity(global_step.read_value())}
    if isinstance(replicas, AllReduce):
        step["stopping"] = replicas.stopping
    return step, averages


def build_summaries(
    clone: Clone,
    total_loss: tf.Tensor,
    learning_rate: tf.Tensor,
    epoch: tf.Tensor,
    histograms: bool,
) -> tf.Tensor:
    """What TensorBoard shows beside the images a second: a serialized summary, string scalar."""
    summaries = [
        tf.summary.scalar("total_loss", total_loss),
        tf.summary.scalar("learning_rate", learning_rate),
        tf.summary.scalar("epoch", epoch),
    ]
    if "images" in clone.outputs.end_points:
        images = as_shown(clone.outputs.inputs)
        summaries.append(tf.summary.image("augmented_images", images, IMAGES_SHOWN))
    for loss in tf.losses.get_losses(clone.scope or None):
        summaries.append(tf.summary.scalar(f"losses/{loss.op.name}", loss))
    regularization_loss = tf.losses.get_regularization_loss()
    summaries.append(tf.summary.scalar("losses/regularization_loss", regularization_loss))
    if histograms:
        for name, end_point in clone.outputs.end_points.items():
            summaries.append(tf.summary.histogram(f"activations/{name}", end_point))
            summaries.append(tf.summary.scalar(f"sparsity/{name}", tf.nn.zero_fraction(end_point)))
        for variable in slim.get_model_variables():
            summaries.append(tf.summary.histogram(variable.op.name, variable))
    return tf.summary.merge(summaries)


def as_shown(images: tf.Tensor) -> tf.Tensor:
    """Images of whatever range to uint8: the batch's darkest value is 0 and its brightest 255."""
    darkest, brightest = tf.reduce_min(images), tf.reduce_max(images)
    return tf.saturate_cast(255 * (images - darkest) / (brightest - darkest), tf.uint8)
