"""The clones of a network in training, with their losses and their input."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.input import InputSettings, Preprocess, next_batch, training_batches
from slim.datasets.registry import Dataset
from slim.deployment.model_deploy import Clone, DeploymentConfig, create_clones
from slim.nets.nets_factory import get_network_fn

AUX_LOSS_WEIGHT = 0.4

Feeds = Iterator[Mapping[tf.Tensor, np.ndarray]]
NetworkFn = Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]]


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The flags of the same names."""

    model_name: str
    weight_decay: float
    batch_norm_decay: float | None
    label_smoothing: float
    precision: str
    trainable_scopes: str | None


@dataclass(frozen=True)
class CloneOutputs:
    """A clone, whose losses are in the collection of losses."""

    inputs: tf.Tensor  # images `[batch, size, size, 3]`, or the features below the last layer
    labels: tf.Tensor  # integers `[batch]`
    logits: tf.Tensor  # `[batch, classes]`
    end_points: Mapping[str, tf.Tensor]
    waited: tf.Tensor  # seconds that the step waited for its batch, float64


@dataclass(frozen=True, kw_only=True)
class TrainingNetwork:
    """The clones of a network and all that depends on the kind of their input."""

    clones: Sequence[Clone]  # their outputs are `CloneOutputs`
    trained: Sequence[tf.Variable]
    update_ops: Sequence[tf.Operation]  # the updates of batch norm
    # Begins the input at a step, so that a resumed run does not repeat the images that it began
    # with. Returns the values to feed to each step.
    begin_input: Callable[[tf.Session, int], Feeds]
    dtype: tf.DType  # the type that the layers compute in
    session_options: tf.ConfigProto | None = None  # in addition to those of all sessions


def build_on_images(
    config: DeploymentConfig,
    settings: NetworkSettings,
    data: InputSettings,
    *,
    dataset: Dataset,
    preprocess: Preprocess,
) -> TrainingNetwork:
    """Builds the clones of a network on batches of images."""
    with tf.device(config.inputs_device()):
        seed = None if data.seed is None else tf.placeholder(tf.int64, [])
        batches = training_batches(dataset, preprocess, replace(data, seed=seed))
        iterator = tf.data.make_initializable_iterator(batches)

    def begin_input(session: tf.Session, step: int) -> Feeds:
        session.run(iterator.initializer, {} if seed is None else {seed: data.seed + step})
        return repeat({})

    dtype = tf.as_dtype(settings.precision)
    clones = create_clones(
        config,
        build_clone,
        training_network_fn(settings, data.num_classes, dtype),
        iterator,
        data.num_classes,
        settings.label_smoothing,
    )
    return TrainingNetwork(
        clones=clones,
        trained=variables_to_train(split_scopes(settings.trainable_scopes)),
        # The first clone's, as published.
        update_ops=tf.get_collection(tf.GraphKeys.UPDATE_OPS, clones[0].scope or None),
        begin_input=begin_input,
        dtype=dtype,
    )


def build_clone(
    network_fn: NetworkFn,
    iterator: tf.data.Iterator,
    num_classes: int,
    label_smoothing: float,
) -> CloneOutputs:
    """Builds a clone on the images and labels that an iterator yields."""
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
    return CloneOutputs(images, labels, logits, {**end_points, "images": images}, waited)


def training_network_fn(settings: NetworkSettings, num_classes: int, dtype: tf.DType) -> NetworkFn:
    """Returns the function that builds the network, see `get_network_fn`."""
    return get_network_fn(
        settings.model_name,
        num_classes,
        weight_decay=settings.weight_decay,
        is_training=True,
        batch_norm_decay=settings.batch_norm_decay,
        dtype=dtype,
    )


def split_scopes(scopes: str | None) -> list[str]:
    """Returns the parts of a comma-separated flag."""
    return [scope.strip() for scope in (scopes or "").split(",") if scope.strip()]


def classifier_scope() -> str:
    """Returns the scope that is only in the variable names of the classifier of the graph."""
    names = [variable.op.name for variable in tf.trainable_variables()]
    return "logits" if any("/logits/" in name for name in names) else "Logits"  # ResNets


def variables_to_train(scopes: Sequence[str]) -> list[tf.Variable]:
    """Returns the trainable variables whose name contains a scope, or all if there are no scopes.

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
