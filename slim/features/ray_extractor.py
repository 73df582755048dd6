"""Feature extraction on the workers of a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
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

BATCHES_PER_CALL = 4  # so that a worker prepares images while its network runs


class ClusterExtractor:
    """Extracts features in the workers of a Ray cluster, to which the network is sent.

    Its arguments after the address, and its methods, are those of `Extractor`.
    """

    def __init__(
        self,
        address: str | None,
        network: FrozenNetwork,
        settings: Settings,
        batch_size: int,
        **options: Any,
    ) -> None:
        with tf.Graph().as_default():
            images = tf.placeholder(tf.float32, [None, settings.image_size, settings.image_size, 3])
            self.depth = int(network(images).shape[1])
        self._connection = ray_cluster.connected(address)
        self._images_per_call = BATCHES_PER_CALL * batch_size

        def make_work() -> Callable[[Sequence[str]], np.ndarray]:
            extractor = Extractor(network, settings, batch_size, **options)
            return lambda paths: np.concatenate(list(extractor.features(paths)))

        self._make_work = make_work

    def features(self, paths: Sequence[str]) -> Iterator[np.ndarray]:
        paths = [str(Path(path).absolute()) for path in paths]
        size = self._images_per_call
        calls = [paths[start : start + size] for start in range(0, len(paths), size)]
        done = 0
        try:
            for rows in ray_cluster.map_items(self._pool, self._make_work, calls, ordered=True):
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

    def __exit__(self, *exception: object) -> None:
        self._connection.__exit__(*exception)
