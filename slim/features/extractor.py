"""Features of image files from a frozen network."""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from slim.checkpoints.description import choose_input, read_model_description
from slim.checkpoints.freezing import (
    FrozenNetwork,
    build_network,
    freeze_checkpoint,
    pool_features,
)
from slim.checkpoints.reading import choose_averages
from slim.common.command_line import PRECISIONS, available_cores
from slim.common.compat import tf
from slim.common.devices import describe_run, session_config
from slim.common.errors import UserError, count, show_problems
from slim.common.network_table import preprocessing_kind
from slim.datasets.images import ImageError, load_image
from slim.datasets.input import prefetch
from slim.features.feature_files import Settings, hash_checkpoint
from slim.nets.nets_factory import get_network
from slim.preprocessing.preprocessing_factory import get_preprocessing

PUBLISHED_NAMES = {
    "InceptionV3": "inception_v3",
    "InceptionV3SE": "inception_v3_se",
    "InceptionV4": "inception_v4",
    "InceptionResnetV2": "inception_resnet_v2",
    "InceptionResnetV2SE": "inception_resnet_v2_se",
    "ResNet50": "resnet_v2_50",
    "ResNet101": "resnet_v2_101",
    "ResNet152": "resnet_v2_152",
}


def choose_settings(
    checkpoint: str,
    *,
    model_name: str | None = None,
    image_size: int | None = None,
    preprocessing_name: str | None = None,
    moving_average_decay: float | None = None,
    endpoint: str | None = None,
    precision: str = PRECISIONS[0],
) -> Settings:
    """Returns the settings of features: as passed, otherwise of training, or of the network.

    The arguments are those of `choose_input` and `choose_averages`; `model_name` may also be one of
    `PUBLISHED_NAMES`.
    """
    name = PUBLISHED_NAMES.get(model_name, model_name)
    chosen = choose_input(checkpoint, name, image_size, preprocessing_name)
    trained = read_model_description(Path(checkpoint).parent)
    return Settings(
        chosen.model_name,
        hash_checkpoint(checkpoint),
        choose_averages(checkpoint, moving_average_decay),
        endpoint or get_network(chosen.model_name).feature_endpoint,
        chosen.image_size,
        precision,
        preprocessing_kind(chosen.preprocessing_name),
        trained is not None and trained.apply_orientation,
    )


def load_network(settings: Settings, checkpoint: str) -> FrozenNetwork:
    """Loads the network from images to features, float32 `[batch, depth]`."""
    network = build_network(
        settings.model_name,
        None,
        settings.image_size,
        outputs=lambda _, end_points: pool_features(end_points, settings.endpoint),
        precision=settings.precision,
    )
    hint = f"does it match --model_name={settings.model_name}?"
    return freeze_checkpoint(network, checkpoint, averages=settings.averages, hint=hint)


class Extractor:
    """Extracts features of image files with the network of `load_network`; a context.

    Features do not depend on `batch_size`. `num_threads` images are preprocessed in parallel, by
    default one per core.
    """

    def __init__(
        self,
        network: FrozenNetwork,
        settings: Settings,
        batch_size: int,
        num_threads: int | None = None,
        xla: bool = False,
    ) -> None:
        self._batch_size = batch_size
        self._num_threads = num_threads or available_cores()
        name, size = settings.model_name, settings.image_size
        line = describe_run(name, size, network.parameters, precision=settings.precision, xla=xla)
        print(line, file=sys.stderr, flush=True)
        preprocess = get_preprocessing(settings.preprocessing)

        def load(path: bytes, apply_orientation: bool) -> bytes:
            return load_image(Path(os.fsdecode(path)), False, apply_orientation).jpeg

        def prepare(path: tf.Tensor) -> tf.Tensor:
            encoded = tf.numpy_function(load, [path, self._apply_orientation], tf.string)
            encoded.set_shape([])
            return preprocess(encoded, size, size)

        # Threads read and preprocess the next images while the network computes.
        with tf.Graph().as_default():
            self._session = tf.Session(config=session_config())
            self._paths = tf.placeholder(tf.string, [None])
            self._apply_orientation = tf.placeholder(tf.bool, [])
            images = tf.data.Dataset.from_tensor_slices(self._paths)
            images = images.map(prepare, num_parallel_calls=self._num_threads)
            batches = prefetch(images.batch(batch_size))  # the last one may be smaller
            self._iterator = tf.data.make_initializable_iterator(batches)
            self._features = network(self._iterator.get_next(), xla)
        self.depth = int(self._features.shape[1])

    def features(
        self, paths: Sequence[str], apply_orientation: bool = False
    ) -> Iterator[np.ndarray]:
        """Yields the features of image files in order, float32 `[batch, depth]`.

        Images may be of any kind that conversion accepts; all that cannot be read are refused.
        `apply_orientation` turns them as their EXIF says.
        """
        encoded = [os.fsencode(path) for path in paths]
        feed = {self._paths: encoded, self._apply_orientation: apply_orientation}
        self._session.run(self._iterator.initializer, feed)
        done = 0
        while done < len(paths):
            try:
                rows = self._session.run(self._features)
            except tf.errors.ResourceExhaustedError as error:
                raise UserError(
                    f"--batch_size={self._batch_size}: not enough memory; pass a smaller one, the "
                    "features so far are kept"
                ) from error
            except tf.errors.OpError:
                refuse_unreadable(paths[done:], self._num_threads)
                raise
            yield rows
            done += len(rows)

    def __enter__(self) -> "Extractor":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()


def refuse_unreadable(paths: Sequence[str], num_threads: int) -> None:
    """Refuses all images that cannot be read, after one of them has stopped the extraction."""

    def problem(path: str) -> str | None:
        try:
            load_image(Path(path), verify=True)
        except ImageError as error:
            return f"{path}: {error}"
        return None

    with ThreadPoolExecutor(num_threads) as pool:
        problems = [text for text in pool.map(problem, paths) if text]
    if not problems:
        return
    show_problems(problems)
    raise UserError(
        f"{count(len(problems), 'image')} cannot be read, the first is {problems[0]}; fix them and "
        "run the command again, which keeps the features so far; or move the dataset's shards, "
        "if any, away and convert it with --on_error=skip: extraction skips the same images"
    ) from None
