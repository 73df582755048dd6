"""Networks by name."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from slim.common.compat import compared_by_identity, slim, tf
from slim.common.errors import UserError, did_you_mean
from slim.nets import inception, inception_utils, resnet_v2
from slim.nets.inception_v3 import feature_depth
from slim.nets.layers import stored_in_float32

LARGEST_IMAGE_SIZE = 4096  # pixels


@dataclass(frozen=True)
class NetworkSpec:
    """A network and its properties.

    Attributes:
        build: The function from images to logits and end points, such as `inception_v3`.
        scope: The variable scope: the first part of every variable name.
        feature_endpoint: The end point whose mean over positions is the feature of an image.
        feature_depth: Dimensions of a feature.
        arg_scope: The function that returns the arg scope with the network's defaults.
        has_aux_logits: Whether `build` takes `create_aux_logits`.
        smallest_image_size: Height and width at which the last feature map has one position, in
            pixels.
    """

    build: Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]]
    scope: str
    feature_endpoint: str
    feature_depth: int
    arg_scope: Callable[..., dict]
    has_aux_logits: bool
    smallest_image_size: int

    @property
    def default_image_size(self) -> int:
        """Height and width that the network was designed for, in pixels."""
        return self.build.default_image_size


def _inception(
    build: Callable, scope: str, feature_endpoint: str, feature_depth: int, **options: Any
) -> NetworkSpec:
    return NetworkSpec(
        build,
        scope,
        feature_endpoint,
        feature_depth,
        **{"arg_scope": inception_utils.inception_arg_scope, **options},
        has_aux_logits=True,
        smallest_image_size=inception_utils.SMALLEST_IMAGE_SIZE,
    )


def _resnet(build: Callable) -> NetworkSpec:
    return NetworkSpec(
        build,
        build.keywords["scope"],
        "global_pool",
        2048,
        resnet_v2.resnet_v2_arg_scope,
        has_aux_logits=False,
        smallest_image_size=resnet_v2.SMALLEST_IMAGE_SIZE,
    )


_v3 = ("Mixed_7c", 2048)
_v4 = ("Mixed_7d", 1536)
_inception_resnet = partial(
    _inception,
    feature_endpoint="Conv2d_7b_1x1",
    feature_depth=1536,
    arg_scope=inception.inception_resnet_v2_arg_scope,
)

NETWORKS = {
    "inception_v3": _inception(inception.inception_v3, "InceptionV3", *_v3),
    "inception_v3_se": _inception(inception.inception_v3_se, "InceptionV3SE", *_v3),
    "inception_v4": _inception(inception.inception_v4, "InceptionV4", *_v4),
    "inception_v4_se": _inception(inception.inception_v4_se, "InceptionV4SE", *_v4),
    "inception_resnet_v2": _inception_resnet(inception.inception_resnet_v2, "InceptionResnetV2"),
    "inception_resnet_v2_se": _inception_resnet(
        inception.inception_resnet_v2_se, "InceptionResnetV2SE"
    ),
    "resnet_v2_50": _resnet(resnet_v2.resnet_v2_50),
    "resnet_v2_101": _resnet(resnet_v2.resnet_v2_101),
    "resnet_v2_152": _resnet(resnet_v2.resnet_v2_152),
    "resnet_v2_200": _resnet(resnet_v2.resnet_v2_200),
    "resnet_v2_50_se": _resnet(resnet_v2.resnet_v2_50_se),
    "resnet_v2_101_se": _resnet(resnet_v2.resnet_v2_101_se),
    "resnet_v2_152_se": _resnet(resnet_v2.resnet_v2_152_se),
}
# TF-Slim's names.
networks_map = {name: network.build for name, network in NETWORKS.items()}
arg_scopes_map = {name: network.arg_scope for name, network in NETWORKS.items()}

# A depth multiplier in hundredths after the name, as in TF-Slim's names of MobileNets.
_SCALED = re.compile(r"(inception_v3(?:_se)?)_(0[1-9]\d)")
_OF_KERAS = re.compile(r"(resnet_v2_(?:50|101|152))_keras")


def get_network(name: str) -> NetworkSpec:
    """Returns a network by name.

    Args:
        name: A key of `NETWORKS`. `inception_v3` and `inception_v3_se` may be followed by a depth
            multiplier of 0.10 to 0.99: `inception_v3_035` has 0.35 times the channels. The three
            ResNets of Keras Applications, whose `pool1` pads in another way, end in `_keras`.

    Raises:
        UserError: The name is unknown.
    """
    if scaled := _SCALED.fullmatch(name):
        network, multiplier = NETWORKS[scaled[1]], int(scaled[2]) / 100
        build = _variant(network, depth_multiplier=multiplier)
        return replace(network, build=build, feature_depth=feature_depth(multiplier))
    if of_keras := _OF_KERAS.fullmatch(name):
        network = NETWORKS[of_keras[1]]
        return replace(network, build=_variant(network, keras_pool=True))
    if name not in NETWORKS:
        raise UserError(
            f"--model_name: unknown network '{name}'; {did_you_mean(name, list(NETWORKS))}"
        )
    return NETWORKS[name]


def _variant(network: NetworkSpec, **options: Any) -> Callable:
    build = partial(network.build, **options)
    build.default_image_size = network.default_image_size
    return build


def get_network_fn(
    name: str,
    num_classes: int | None,
    weight_decay: float = 0.0,
    is_training: bool = False,
    *,
    batch_norm_decay: float | None = None,
    dtype: tf.DType = tf.float32,
) -> Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]]:
    """Returns a function that builds a network, `logits, end_points = network_fn(images)`.

    Args:
        name: See `get_network`.
        num_classes: Number of classes; None for features.
        weight_decay: Coefficient of the L2 loss on the weights.
        is_training: Whether to build for training.
        batch_norm_decay: Decay of the moving mean and variance. Default: that of the network.
        dtype: The type the layers compute in: float32, bfloat16 or float16. Variables, losses on
            variables, logits and end points are always float32.

    Returns:
        The function. It takes float32 `[batch, height, width, 3]` and further arguments of the
        network by name, and has the attribute `default_image_size`. It raises `UserError` if images
        are too small.

    Raises:
        UserError: The name is unknown.
    """
    network = get_network(name)
    options = {} if batch_norm_decay is None else {"batch_norm_decay": batch_norm_decay}

    def network_fn(images: tf.Tensor, **kwargs: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        check_image_size(name, *images.shape.as_list()[1:3])
        if not network.has_aux_logits:
            kwargs.pop("create_aux_logits", None)
        arg_scope = network.arg_scope(weight_decay=weight_decay, **options)
        with (
            slim.arg_scope(arg_scope),
            compared_by_identity(),
            tf.variable_scope(
                tf.get_variable_scope(),
                custom_getter=stored_in_float32,
                auxiliary_name_scope=False,
            ),
        ):
            logits, end_points = network.build(
                tf.cast(images, dtype), num_classes=num_classes, is_training=is_training, **kwargs
            )
        in_float32 = {name: tf.cast(point, tf.float32) for name, point in end_points.items()}
        return tf.cast(logits, tf.float32), in_float32

    network_fn.default_image_size = network.default_image_size
    return network_fn


def check_image_size(name: str, height: int | None, width: int | None) -> None:
    """Checks that images are neither too small for a network nor too large for any machine.

    Args:
        name: See `get_network`.
        height: Height in pixels; None if unknown.
        width: Width in pixels; None if unknown.

    Raises:
        UserError: The height or width is below the smallest of the network or above the largest.
    """
    if any(size is not None and size > LARGEST_IMAGE_SIZE for size in (height, width)):
        raise UserError(
            f"image size {height}x{width} is too large, expected at most "
            f"{LARGEST_IMAGE_SIZE}x{LARGEST_IMAGE_SIZE}; most networks are trained at 299x299"
        )
    smallest = get_network(name).smallest_image_size
    if any(size is not None and size < smallest for size in (height, width)):
        raise UserError(
            f"image size {height}x{width} is too small for {name}, which needs at least "
            f"{smallest}x{smallest}; give a larger --train_image_size, --eval_image_size or "
            "--image_size"
        )
