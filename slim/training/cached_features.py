"""Training the last layer on features that are computed once rather than in every epoch.

If images are not distorted and only the last layer is trained, the features of an image are the
same in every epoch. The features are those of feature extraction, where batch norm uses the
averages of the checkpoint; training on images normalizes by each batch instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slim.checkpoints.finding import latest_checkpoint
from slim.checkpoints.reading import by_name, changed_variables
from slim.common.compat import slim, tf
from slim.common.errors import UserError, count
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
    Feeds,
    NetworkFn,
    NetworkSettings,
    TrainingNetwork,
    classifier_scope,
    split_scopes,
    training_network_fn,
    variables_to_train,
)


@dataclass(frozen=True, kw_only=True)
class FeatureSource:
    """The images whose features are cached, and the checkpoint that computes them.

    Attributes:
        dataset: The split. The images are read from its list, not from its shards.
        dataset_dir: The folder that holds the datasets.
        checkpoint: The prefix of the checkpoint.
        excluded: Parts of the names of variables that are not restored from it.
        train_dir: The folder of the run; the features are in its subfolder `features`.
    """

    dataset: Dataset
    dataset_dir: str
    checkpoint: str
    excluded: Sequence[str]
    train_dir: Path


def build_on_features(
    config: DeploymentConfig,
    settings: NetworkSettings,
    data: InputSettings,
    *,
    source: FeatureSource,
) -> TrainingNetwork:
    """Builds a network whose last layer is trained on cached features.

    Raises:
        UserError: The features would not be those of the network, or cannot be computed.
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
    check_feature_variables(inputs.inputs, trained, source)
    features, labels = cache_features(settings, data, source)

    def begin_input(_: tf.Session, step: int) -> Feeds:
        seed = None if data.seed is None else data.seed + step
        for rows, row_labels in feature_batches(features, labels, data.batch_size, seed):
            yield {inputs.inputs: rows[:, np.newaxis, np.newaxis], inputs.labels: row_labels}

    # The meta optimizer would rewrite the neighbourhood of the fed tensor and require images.
    options = tf.ConfigProto()
    options.graph_options.rewrite_options.disable_meta_optimizer = True
    return TrainingNetwork(
        clones=clones,
        trained=trained,
        update_ops=[],
        begin_input=begin_input,
        dtype=tf.float32,
        session_options=options,
    )


def cache_features(
    settings: NetworkSettings, data: InputSettings, source: FeatureSource
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the features of a split, or loads those of an earlier run.

    Returns:
        Memory-mapped features, float32 `[images, depth]`, and labels, int32 `[images]`.

    Raises:
        UserError: A label is out of range, an image cannot be read, the checkpoint does not match,
            or another process writes the features.
    """
    feature_settings = Settings(
        model_name=settings.model_name,
        checkpoint_hash=hash_checkpoint(source.checkpoint),
        averages=False,
        endpoint=get_network(settings.model_name).feature_endpoint,
        image_size=data.image_size,
        precision=settings.precision,
    )
    dataset, folder = source.dataset, source.train_dir / "features"
    list_name = LISTS[dataset.split_name]
    split = find_split(dataset.name, Path(list_name).stem, source.dataset_dir, folder)
    for entry in split.image_list.entries:
        if not 0 <= entry.label - data.labels_offset < data.num_classes:
            raise UserError(
                f"{split.folder / list_name} line {entry.line}: label {entry.label} is out of "
                f"range with --labels_offset={data.labels_offset}, the network has "
                f"{data.num_classes} classes (0 to {data.num_classes - 1}); correct the offset"
            )
    with writing_to(folder, "train_dir"):
        extract_missing(
            [split],
            feature_settings,
            lambda: Extractor(
                load_network(feature_settings, source.checkpoint), feature_settings, data.batch_size
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
    waited = tf.constant(0, tf.float64)
    return CloneOutputs(features, labels, logits, {"features": features}, waited)


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


def check_feature_variables(
    features: tf.Tensor, trained: Sequence[tf.Variable], source: FeatureSource
) -> None:
    """Checks that cached features are, and stay, the features of the trained network.

    Raises:
        UserError: Variables below the last layer are to be trained, are not restored from the
            checkpoint, or have other values in the checkpoint that the run resumes from.
    """
    found, to_visit = set(), [features.op]
    while to_visit:
        operation = to_visit.pop()
        if operation not in found:
            found.add(operation)
            to_visit += [tensor.op for tensor in operation.inputs]
    if below := [variable.op.name for variable in trained if variable.op in found]:
        raise UserError(
            f"--cache_features: --trainable_scopes selects {count(len(below), 'variable')} below "
            f"the last layer, such as {below[0]}; give --trainable_scopes={classifier_scope()}, or "
            "leave --cache_features out"
        )
    kept = by_name([v for v in slim.get_model_variables() if v not in trained])
    excluded = [name for name in kept if any(scope in name for scope in source.excluded)]
    if below := [name for name in excluded if kept[name].op in found]:
        raise UserError(
            "--cache_features: --checkpoint_exclude_scopes selects "
            f"{count(len(below), 'variable')} below the last layer, such as {below[0]}; "
            "give the scopes of the last layer only"
        )
    if latest := latest_checkpoint(source.train_dir):
        names = [name for name in kept if name not in excluded]
        if different := changed_variables(source.checkpoint, latest, names):
            raise UserError(
                f"--cache_features: {source.train_dir} has a run that did not start from "
                f"--checkpoint_path={source.checkpoint}: {count(len(different), 'variable')} "
                f"changed, such as {different[0]}; give the checkpoint that it started "
                "from, or another --train_dir"
            )
