"""Feature extraction on the workers of a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from slim.checkpoints.freezing import FrozenNetwork
from slim.common import ray_cluster
from slim.common.compat import tf
from slim.common.cores import available_cores
from slim.common.errors import UserError
from slim.common.workers import WorkerError
from slim.features.extractor import Extractor, refuse_unreadable
from slim.features.files import Settings

BATCHES_PER_CALL = 4  # so that a worker prepares images while the network runs


class ClusterExtractor:
    """Extracts features in the workers of a Ray cluster; a context like `Extractor`.

    Args:
        address: The address of the cluster; see `ray_cluster.connected`.
        network: The result of `load_network`, which is sent to the workers.
        settings: The settings it was loaded with.
        batch_size: Images per batch.
        num_threads: Images preprocessed in parallel per worker. Default: one per core of the
            worker.
        xla: Whether to compile the network with XLA.

    Raises:
        UserError: The cluster cannot be reached.
    """

    def __init__(
        self,
        address: str | None,
        network: FrozenNetwork,
        settings: Settings,
        *,
        batch_size: int,
        num_threads: int | None = None,
        xla: bool = False,
    ) -> None:
        with tf.Graph().as_default():
            images = tf.placeholder(tf.float32, [None, settings.image_size, settings.image_size, 3])
            self.depth = int(network(images).shape[1])
        self._connection = ray_cluster.connected(address)
        self._make_work = partial(make_extraction, network, settings, batch_size, num_threads, xla)
        self._images_per_call = BATCHES_PER_CALL * batch_size

    def features(self, paths: Sequence[str]) -> Iterator[np.ndarray]:
        """Yields the features of image files in order, float32 `[any, depth]`.

        Raises:
            UserError: Images cannot be read, or workers were killed repeatedly.
        """
        paths = [str(Path(path).absolute()) for path in paths]
        size = self._images_per_call
        calls = [paths[start : start + size] for start in range(0, len(paths), size)]
        done = 0
        try:
            for rows in ray_cluster.map_in_order(self._pool, self._make_work, calls):
                yield rows
                done += len(rows)
        except UserError:
            refuse_unreadable(paths[done:], available_cores())
            raise
        except WorkerError as error:
            raise UserError(
                f"workers were killed repeatedly ({error}), often for lack of memory: run the same "
                "command to resume, with a smaller --batch_size to need less memory"
            ) from error

    def __enter__(self) -> "ClusterExtractor":
        self._pool = self._connection.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._connection.__exit__(*exception)


def make_extraction(
    network: FrozenNetwork, settings: Settings, *options: Any
) -> Callable[[Sequence[str]], np.ndarray]:
    """Returns the function of a worker, from image files to features, float32 `[images, depth]`."""
    extractor = Extractor(network, settings, *options)
    return lambda paths: np.concatenate(list(extractor.features(paths)))
