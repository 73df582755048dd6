"""Batches of images for the clones of a network in training, and the weights of their classes."""

from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from slim.common.compat import tf
from slim.common.errors import UserError, count
from slim.datasets.input import (
    Dataset,
    InputSettings,
    images_per_class,
    next_batch,
    training_batches,
)
from slim.datasets.tfrecord import LISTS
from slim.preprocessing.preprocessing_factory import get_preprocessing
from slim.training.start import Run

NetworkFn = Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]]


class CloneOutputs(NamedTuple):
    """A network on a batch of its own."""

    labels: tf.Tensor  # integers `[batch]`
    logits: tf.Tensor  # `[batch, classes]`
    end_points: Mapping[str, tf.Tensor]  # those that a step computes, and the `images`, if any
    waited: tf.Tensor  # seconds that the step waited for its batch, float64


class ImageBatches:
    """Batches of preprocessed images from shards; `FeatureBatches` has the same methods."""

    session_options = tf.ConfigProto()  # in addition to those of all sessions

    def __init__(
        self, values: flags.FlagValues, dataset: Dataset, num_classes: int, run: Run
    ) -> None:
        name, cluster = values.preprocessing_name or values.model_name, run.cluster
        with tf.device("/device:CPU:0"):
            self._seed = None if values.seed is None else values.seed + cluster.task
            self._fed = None if values.seed is None else tf.placeholder(tf.int64, [])
            settings = InputSettings(
                image_size=values.train_image_size,
                batch_size=values.batch_size,
                num_classes=num_classes,
                labels_offset=values.labels_offset,
                num_threads=values.num_preprocessing_threads,
                num_readers=values.num_readers,
                seed=self._fed,
                num_clones=values.num_clones,
                num_workers=cluster.worker_replicas,
                worker=cluster.task,
            )
            preprocess = get_preprocessing(name, is_training=values.augment)
            batches = training_batches(dataset, preprocess, settings)
            self._iterator = tf.data.make_initializable_iterator(batches)

    def build(self, network_fn: NetworkFn) -> CloneOutputs:
        """Builds a network on the next batch."""
        images, labels, waited = next_batch(self._iterator)
        logits, end_points = network_fn(images)
        return CloneOutputs(labels, logits, {**end_points, "images": images}, waited)

    def begin(
        self, session: tf.Session, step: int, _: CloneOutputs
    ) -> Iterator[Mapping[tf.Tensor, np.ndarray]]:
        """Begins at a step, and returns the values to feed to each step."""
        # A resumed run does not repeat the images that it began with.
        seed = {} if self._fed is None else {self._fed: self._seed + step}
        session.run(self._iterator.initializer, seed)
        return repeat({})


def class_weights(
    values: flags.FlagValues, dataset: Dataset, num_classes: int
) -> np.ndarray | None:
    """Returns the weights of the classes in the loss, float32 `[classes]`, if they have any.

    Their mean over the classes with images is 1; others have a weight of 0. `effective` weights are
    (1 - beta) / (1 - beta^images), equation 2 of Cui, Jia, Lin, Song and Belongie, Class-Balanced
    Loss Based on Effective Number of Samples, CVPR 2019.
    """
    if values.class_weights == "none":
        return None
    folder, beta = Path(dataset.files[0]).parent, values.class_weights_beta
    images = images_per_class(folder, dataset.split_name, num_classes, values.labels_offset)
    found = 0 if images is None else images.sum()
    if found != dataset.num_samples:
        raise UserError(
            f"--class_weights={values.class_weights}: {folder / LISTS[dataset.split_name]} lists "
            f"{found} images of the network's classes, but the shards have {dataset.num_samples}; "
            "put the list of the shards there, or omit the flag"
        )
    there, weights = images > 0, np.zeros(num_classes, np.float32)
    some = images[there]
    inverse = 1 / some if values.class_weights == "balanced" else (1 - beta) / (1 - beta**some)
    weights[there] = inverse = inverse / inverse.mean()
    print(
        f"class weights: {inverse.max():.3g} for {count(some.min(), 'image')} to "
        f"{inverse.min():.3g} for {count(some.max(), 'image')}"
    )
    return weights
