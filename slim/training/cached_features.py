"""Training the last layer on features that are computed once, rather than in every epoch.

Where images are not distorted and nothing below the last layer is trained, an image's features are
the same in every epoch. They are what feature extraction gives, batch norm with the checkpoint's
averages; training that computes them anew normalizes by each batch instead.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.files import make_folder
from slim.datasets.registry import Dataset
from slim.datasets.tfrecord import LISTS
from slim.features.extractor import Extractor, load_network
from slim.features.files import Settings, find_split, hash_checkpoint, is_done
from slim.features.splits import extract_split
from slim.nets.nets_factory import get_network


def cache_features(
    folder: Path,
    dataset: Dataset,
    dataset_dir: str,
    model_name: str,
    checkpoint: str,
    image_size: int,
    batch_size: int,
    precision: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the features of a dataset's images, or takes those of an earlier run.

    Args:
        folder: Where they are kept.
        dataset: The split; its images are read by its list, not from the shards.
        dataset_dir: The folder that holds the datasets.
        model_name: The network.
        checkpoint: The prefix of the checkpoint to compute them from.
        image_size: Height and width in pixels.
        batch_size: Images a batch.
        precision: What the layers compute in.

    Returns:
        Features, float32 `[images, depth]`, not held in memory, and labels, int32 `[images]`.

    Raises:
        UserError: The checkpoint does not fit, or an image or the list cannot be read.
    """
    endpoint = get_network(model_name).feature_endpoint
    settings = Settings(
        model_name, hash_checkpoint(checkpoint), False, endpoint, image_size, precision
    )
    split = find_split(dataset.name, Path(LISTS[dataset.split_name]).stem, dataset_dir, folder)
    make_folder(folder, "train_dir")
    if not is_done(split, settings):
        with Extractor(load_network(settings, checkpoint), settings, batch_size) as extractor:
            extract_split(split, settings, extractor)
    return np.load(split.feature_path, mmap_mode="r"), np.load(split.label_path)


def feature_batches(
    features: np.ndarray, labels: np.ndarray, batch_size: int, seed: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields endless batches of shuffled epochs, each of which has every image once.

    An epoch's last batch is filled up from the next epoch.

    Args:
        features: float32 `[images, depth]`.
        labels: Integers `[images]`.
        batch_size: Images a batch.
        seed: The order depends on it. Default: another one in every run.

    Returns:
        Features, float32 `[batch_size, depth]`, and labels `[batch_size]`.
    """
    random = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    while True:
        while len(order) < batch_size:
            order = np.concatenate([order, random.permutation(len(labels))])
        chosen, order = order[:batch_size], order[batch_size:]
        yield features[chosen], labels[chosen]


def check_trained_above(features: tf.Tensor, variables: Sequence[tf.Variable]) -> None:
    """Refuses to train what the features depend on.

    Args:
        features: What is cached.
        variables: What is to be trained.

    Raises:
        UserError: Naming one of them.
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
            f"--cache_features: {len(below)} variables below the last layer are to be trained, "
            f"such as {below[0]}; give --trainable_scopes=Logits (ResNet: logits), or leave "
            "--cache_features out"
        )
