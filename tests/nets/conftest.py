"""A session for graphs that are run once, and networks that are built in less time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest import mock

from slim.common.compat import tf
from slim.nets import inception_resnet_v2, inception_v3, inception_v4
from slim.nets.layers import Chain

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


# Blocks that are like the one after or before them.
REPEATED = {
    inception_v3: "5c 5d 6b 6c 6d 7b",
    inception_v4: "5c 5d 5e 6b 6c 6d 6e 6f 6g 7b 7c",
}


@contextmanager
def few_repeats() -> Iterator[None]:
    """Builds Inceptions with one or two of each kind of block, because all take seconds to build.

    Names are as published; those of Inception-V3 have other shapes.
    """

    def few(layers: Callable[..., Chain], repeated: str) -> Callable[..., Chain]:
        omitted = [f"Mixed_{block}" for block in repeated.split()]
        return lambda *args: {k: v for k, v in layers(*args).items() if k not in omitted}

    repeat = inception_resnet_v2._repeat
    with ExitStack() as patches:
        for module, repeated in REPEATED.items():
            layers = few(module._layers, repeated)
            patches.enter_context(mock.patch.object(module, "_layers", layers))
        twice = mock.patch.object(
            inception_resnet_v2, "_repeat", lambda scope, _, *rest: repeat(scope, 2, *rest)
        )
        patches.enter_context(twice)
        yield
