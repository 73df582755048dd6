"""A session for graphs that are run once, and networks that are built in less time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

from slim.common.compat import tf
from slim.nets import inception_resnet_v2, inception_v4

# The inputs of the auxiliary and of the last classifier, with their channels.
MAPS = {
    "inception_v3": {"Mixed_6e": 768, "Mixed_7c": 2048},
    "inception_v4": {"Mixed_6h": 1024, "Mixed_7d": 1536},
    "inception_resnet_v2": {"PreAuxLogits": 1088, "Conv2d_7b_1x1": 1536},
}


def plain_session() -> tf.Session:
    """Returns a session that runs graphs as they are: optimizing one takes longer than a run."""
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.Session(config=config)


@contextmanager
def feature_maps(name: str, *sizes: Sequence[int | None], batch: int | None) -> Iterator[tf.Tensor]:
    """Replaces the layers of an Inception network, which take seconds to build, by placeholders.

    Args:
        name: The network.
        sizes: The height and width of each of its `MAPS`.
        batch: The number of images.

    Yields:
        The last feature map.
    """
    family = name.removesuffix("_se")
    maps = {
        endpoint: tf.placeholder(tf.float32, [batch, *size, channels])
        for (endpoint, channels), size in zip(MAPS[family].items(), sizes, strict=True)
    }
    *_, last = maps.values()
    with mock.patch(f"slim.nets.{family}.{family}_base", lambda *_, **__: (last, dict(maps))):
        yield last


# Blocks of Inception-V4 that repeat the one before, with the same channels.
REPEATED = [f"Mixed_{block}" for block in ("5c", "5d", "5e", "6c", "6d", "6e", "6f", "6g", "7c")]


@contextmanager
def few_repeats() -> Iterator[None]:
    """Repeats each block of the two large Inceptions twice at most: all take seconds to build."""
    layers, repeat = inception_v4._layers, inception_resnet_v2._repeat

    def few_layers(se: bool) -> dict[str, object]:
        return {name: layer for name, layer in layers(se).items() if name not in REPEATED}

    def repeat_twice(scope: str, count: int, *rest: object) -> object:
        return repeat(scope, 2, *rest)

    with (
        mock.patch.object(inception_v4, "_layers", few_layers),
        mock.patch.object(inception_resnet_v2, "_repeat", repeat_twice),
    ):
        yield
