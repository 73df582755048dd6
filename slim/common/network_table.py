"""The table of networks: a new network is a function in a file of `slim.nets` and a row here.

Nothing here needs TensorFlow, and preprocessing, which comes before the networks, reads it too.
"""

import re
from dataclasses import dataclass, replace

from slim.common.errors import UserError, did_you_mean

LARGEST_IMAGE_SIZE = 4096  # pixels
PREPROCESSING = ("inception", "vgg")


@dataclass(frozen=True)
class NetworkSpec:
    """A network and its properties; `build` and `arg_scope` are names of functions."""

    build: str
    arg_scope: str
    scope: str  # the variable scope: the first part of every variable name
    feature_endpoint: str  # its mean over positions is the feature of an image
    feature_depth: int  # dimensions of a feature
    has_aux_logits: bool  # whether `build` takes `create_aux_logits`
    default_image_size: int  # height and width that the network was designed for, in pixels
    smallest_image_size: int  # at which the last feature map has one position, in pixels
    preprocessing: str = "inception"  # one of PREPROCESSING
    depth_multiplier: float = 1.0


def _inception(name: str, *row: str | int) -> NetworkSpec:
    return NetworkSpec(name, f"{name}_arg_scope", *row, True, 299, 75)


def _resnet(name: str) -> NetworkSpec:
    # Images below 32 pixels build as well, thanks to padding, but one position of the last feature
    # map stands for 32 pixels. The released ResNets were trained with Inception's preprocessing.
    return NetworkSpec(name, "resnet_v2_arg_scope", name, "global_pool", 2048, False, 224, 32)


NETWORKS = {
    network.build: network
    for network in (
        _inception("inception_v3", "InceptionV3", "Mixed_7c", 2048),
        _inception("inception_v3_se", "InceptionV3SE", "Mixed_7c", 2048),
        _inception("inception_v4", "InceptionV4", "Mixed_7d", 1536),
        _inception("inception_v4_se", "InceptionV4SE", "Mixed_7d", 1536),
        _inception("inception_resnet_v2", "InceptionResnetV2", "Conv2d_7b_1x1", 1536),
        _inception("inception_resnet_v2_se", "InceptionResnetV2SE", "Conv2d_7b_1x1", 1536),
        _resnet("resnet_v2_50"),
        _resnet("resnet_v2_101"),
        _resnet("resnet_v2_152"),
        _resnet("resnet_v2_200"),
        _resnet("resnet_v2_50_se"),
        _resnet("resnet_v2_101_se"),
        _resnet("resnet_v2_152_se"),
    )
}
# A depth multiplier in hundredths after the name, as in TF-Slim's names of MobileNets.
_SCALED = re.compile(r"(inception_v3(?:_se)?)_(0[1-9]\d)")


def find_network(name: str) -> NetworkSpec | None:
    if not (scaled := _SCALED.fullmatch(name)):
        return NETWORKS.get(name)
    multiplier = int(scaled[2]) / 100
    # The branches of `Mixed_7c`, and the `min_depth` of `inception_v3`.
    depth = sum(max(int(branch * multiplier), 16) for branch in (320, 384, 384, 384, 384, 192))
    return replace(NETWORKS[scaled[1]], feature_depth=depth, depth_multiplier=multiplier)


def get_network(name: str) -> NetworkSpec:
    """Returns a network by name, a key of `NETWORKS`, or refuses an unknown one.

    `inception_v3` and `inception_v3_se` may be followed by a depth multiplier of 0.10 to 0.99:
    `inception_v3_035` has 0.35 times the channels.
    """
    if network := find_network(name):
        return network
    raise UserError(f"--model_name: unknown network '{name}'; {did_you_mean(name, list(NETWORKS))}")


def preprocessing_kind(name: str) -> str:
    """Returns `inception` or `vgg` for a name that `get_preprocessing` takes."""
    if name in PREPROCESSING:
        return name
    if network := find_network(name):
        return network.preprocessing
    raise UserError(
        f"--preprocessing_name: unknown preprocessing '{name}'; "
        f"{did_you_mean(name, [*PREPROCESSING, *NETWORKS])}"
    )


def check_image_size(name: str, height: int | None, width: int | None) -> None:
    """Refuses images too small for a network or too large for any machine; None is not checked."""
    sizes = [size for size in (height, width) if size is not None]
    smallest = get_network(name).smallest_image_size
    if max(sizes, default=0) > LARGEST_IMAGE_SIZE:
        raise UserError(
            f"image size {height}x{width} is too large, expected at most "
            f"{LARGEST_IMAGE_SIZE}x{LARGEST_IMAGE_SIZE}; most networks are trained at 299x299"
        )
    if min(sizes, default=smallest) < smallest:
        raise UserError(
            f"image size {height}x{width} is too small for {name}, which needs at least "
            f"{smallest}x{smallest}; pass a larger --train_image_size, --eval_image_size or "
            "--image_size"
        )
