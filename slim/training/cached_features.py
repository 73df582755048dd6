"""Training the last layer on features that are computed once rather than in every epoch.

If images are not distorted and only the last layer is trained, the features of an image are the
same in every epoch. The features are those of feature extraction, where batch norm uses the
averages of the checkpoint; training on images normalizes by each batch instead.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.files import writing_to
from slim.datasets.input import InputSettings
from slim.datasets.registry import Dataset
from slim.datasets.tfrecord import LISTS
from slim.deployment.model_deploy import DeploymentConfig, create_clones
from slim.features.extractor import Extractor, load_network
from slim.features.files import Settings, find_split, hash_checkpoint
from slim.features.splits import extract_missing
from slim.nets.nets_factory import get_network
from slim.training.networks import (
    CloneOutputs,
    NetworkFn,
    NetworkSettings,
    TrainingNetwork,
    classifier_scope,
    split_scopes,
    training_network_fn,
    variables_to_train,
)


def build_on_features(
    config: DeploymentConfig,
    settings: NetworkSettings,
    data: InputSettings,
    *,
    features: np.ndarray,
    labels: np.ndarray,
) -> TrainingNetwork:
    """Builds a network whose last layer is trained on the result of `cache_features`.

    Raises:
        UserError: A variable below the last layer is to be trained.
    """
    clones = create_clones(
        config,
        build_last_layer,
        training_network_fn(settings, data.num_classes, tf.float32),
        get_network(settings.model_name).feature_endpoint,
        data.num_classes,
        settings.label_smoothing,
    )
    inputs = clones[0].outputs
    trained = variables_to_train(split_scopes(settings.trainable_scopes))
    check_trained_above(inputs.inputs, trained)
    # The meta optimizer would rewrite the neighbourhood of the fed tensor and require images.
    options = tf.ConfigProto()
    options.graph_options.rewrite_options.disable_meta_optimizer = True
    return TrainingNetwork(
        clones=clones,
        trained=trained,
        update_ops=[],
        feeds=(
            {inputs.inputs: rows[:, np.newaxis, np.newaxis], inputs.labels: row_labels}
            for rows, row_labels in feature_batches(features, labels, data.batch_size, data.seed)
        ),
        dtype=tf.float32,
        session_options=options,
    )


def cache_features(
    dataset: Dataset,
    settings: NetworkSettings,
    data: InputSettings,
    *,
    dataset_dir: str,
    checkpoint: str,
    folder: Path,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the features of a split, or loads those of an earlier run.

    The images are read from the list of the dataset, not from its shards.

    Args:
        dataset: The split.
        settings: Settings of the network; its precision is that of the features.
        data: Settings of the batches.
        dataset_dir: The folder that holds the datasets.
        checkpoint: Prefix of the checkpoint that the features are computed from.
        folder: The folder for the features.

    Returns:
        Memory-mapped features, float32 `[images, depth]`, and labels, int32 `[images]`.
    """
    feature_settings = Settings(
        model_name=settings.model_name,
        checkpoint_hash=hash_checkpoint(checkpoint),
        averages=False,
        endpoint=get_network(settings.model_name).feature_endpoint,
        image_size=data.image_size,
        precision=settings.precision,
    )
    split = find_split(dataset.name, Path(LISTS[dataset.split_name]).stem, dataset_dir, folder)
    with writing_to(folder, "train_dir"):
        extract_missing(
            [split],
            feature_settings,
            lambda: Extractor(
                load_network(feature_settings, checkpoint), feature_settings, data.batch_size
            ),
        )
    features = np.load(split.feature_path, mmap_mode="r")
    return features, np.load(split.label_path) - data.labels_offset


def build_last_layer(
    network_fn: NetworkFn, endpoint: str, num_classes: int, label_smoothing: float
) -> CloneOutputs:
    """Builds a clone of which only the layers above an end point run.

    The auxiliary classifier is below: it has its variables but no loss.
    """
    images = tf.placeholder(tf.float32, [None, None, None, 3])  # never fed
    logits, end_points = network_fn(images)
    features = end_points[endpoint]
    labels = tf.placeholder(tf.int64, [None])
    tf.losses.softmax_cross_entropy(
        tf.one_hot(labels, num_classes), logits, label_smoothing=label_smoothing
    )
    return CloneOutputs(features, labels, {"features": features}, tf.constant(0, tf.float64))


def feature_batches(
    features: np.ndarray, labels: np.ndarray, batch_size: int, seed: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields endless batches of shuffled epochs, each with every image once.

    The last batch of an epoch is completed from the next epoch.

    Args:
        features: float32 `[images, depth]`.
        labels: Integers `[images]`.
        batch_size: Images per batch.
        seed: Determines the order. Default: different in every run.
    """
    random = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    while True:
        while len(order) < batch_size:
            order = np.concatenate([order, random.permutation(len(labels))])
        chosen, order = order[:batch_size], order[batch_size:]
        yield features[chosen], labels[chosen]


def check_trained_above(features: tf.Tensor, variables: Sequence[tf.Variable]) -> None:
    """Checks that cached features do not depend on the variables to train.

    Raises:
        UserError: They do; names one of the variables.
    """
    found, to_visit = set(), [features.op]
    while to_visit:
        operation = to_visit.pop()
        if operation not in found:
            found.add(operation)
            to_visit += [tensor.op for tensor in operation.inputs]
    below = [variable.op.name for variable in variables if variable.op in found]
    if below:
        raise UserError(
            f"--cache_features: --trainable_scopes selects {len(below)} variables below the last "
            f"layer, such as {below[0]}; give --trainable_scopes={classifier_scope()}, or "
            "leave --cache_features out"
        )
