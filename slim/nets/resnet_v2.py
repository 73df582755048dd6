"""ResNet-V2: He et al., Identity Mappings in Deep Residual Networks, 2016.

Figures and tables are those of that paper, or of "ResNet": He et al., Deep Residual Learning for
Image Recognition, 2015. `se=True` adds squeeze-and-excitation. As published for TF-Slim, the last
unit of a block halves the feature map, not the first.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from slim.common.compat import slim, tf
from slim.common.network_table import NETWORKS
from slim.nets.layers import (
    LINEAR,
    Layer,
    batch_norm,
    conv,
    conv_arg_scope,
    squeeze_and_excite,
    through,
)

_ROOT_STRIDE = 4

# The published defaults.
resnet_arg_scope = resnet_v2_arg_scope = partial(
    conv_arg_scope,
    weight_decay=1e-4,
    batch_norm_decay=0.997,
    batch_norm_epsilon=1e-5,
    batch_norm_scale=True,
)


def _conv_same(depth: int, kernel: int, stride: int, **options: Any) -> Layer:
    """Returns a convolution whose windows are centred on the same pixels at every image size."""
    # The SAME padding of TensorFlow shifts strided windows by a pixel between odd and even sizes.
    if stride == 1:
        return conv(depth, kernel, **options)
    before = (kernel - 1) // 2
    after = kernel - 1 - before
    strided = conv(depth, kernel, stride, padding="VALID", **options)
    return lambda net, scope: strided(
        tf.pad(net, [[0, 0], [before, after], [before, after], [0, 0]]), scope
    )


def _bottleneck(
    net: tf.Tensor,
    depth: int,
    *,
    stride: int,
    rate: int,
    se: bool,
    end_points: dict[str, tf.Tensor],
) -> tf.Tensor:
    """Builds a unit with full pre-activation, Figure 4(e): 1x1, 3x3, 1x1 (ResNet, Figure 5, right).

    `depth` is the number of inner channels, a quarter of the output channels. With `rate` above 1
    the 3x3 convolution is atrous, and `stride` is 1. Squeeze-and-excitation scales the residual.
    """
    layers = {
        "conv1": conv(depth, 1),
        "conv2": _conv_same(depth, 3, stride, rate=rate),
        "conv3": conv(4 * depth, 1, **LINEAR),
    }
    points: dict[str, tf.Tensor] = {}
    with tf.variable_scope("bottleneck_v2") as scope:
        activated = batch_norm(net, activation_fn=tf.nn.relu, scope="preact")
        if net.shape.as_list()[3] != 4 * depth:
            net = through(activated, {"shortcut": conv(4 * depth, 1, stride, **LINEAR)}, points)
        elif stride > 1:
            net = slim.max_pool2d(net, 1, stride=stride, scope="shortcut")
        residual = through(activated, layers, points)
        if se:
            residual = squeeze_and_excite(residual)
        net += residual
    end_points.update({f"{scope.name}/{name}": point for name, point in points.items()})
    end_points[scope.name] = net
    return net


def _stages(
    net: tf.Tensor,
    units: tuple[int, ...],
    *,
    stride: int,
    output_stride: int | None,
    se: bool,
    end_points: dict[str, tf.Tensor],
) -> tf.Tensor:
    """Builds rows conv2_x to conv5_x of ResNet's Table 1, here `block1` to `block4`.

    Starting from `stride`, the stride of `net`, units halve the map up to `output_stride`, and are
    atrous beyond it.
    """
    rate = 1
    for block, count in enumerate(units, start=1):
        with tf.variable_scope(f"block{block}") as scope:
            for unit in range(1, count + 1):
                halves = unit == count and block < len(units)
                unit_stride = 2 if halves and stride != output_stride else 1
                with tf.variable_scope(f"unit_{unit}"):
                    net = _bottleneck(
                        net,
                        32 * 2**block,
                        stride=unit_stride,
                        rate=rate,
                        se=se,
                        end_points=end_points,
                    )
                stride *= unit_stride
                if halves and unit_stride == 1:
                    rate *= 2
        end_points[scope.name] = net
    return net


def resnet_v2(
    inputs: tf.Tensor,
    num_classes: int | None = None,
    is_training: bool = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    spatial_squeeze: bool = True,
    reuse: bool | None = None,
    scope: str = "resnet_v2",
    *,
    units: tuple[int, ...],
    include_root_block: bool = True,
    se: bool = False,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds a ResNet-V2 with its classifier; `resnet_v2_50` and its siblings set `units`.

    Args:
        inputs: Images, float32 `[batch, height, width, 3]` in [-1, 1]; without the root block a
            feature map of any depth.
        num_classes: Number of classes; 0 or None for the features before the classifier.
        is_training: Whether batch norm uses the statistics of the batch.
        global_pool: Whether to average the last feature map. Without it logits keep their
            positions, as in a fully convolutional network, and `spatial_squeeze` must be False.
        output_stride: Pixels between two positions of the last feature map, a power of two. Below
            the default of 32, units are atrous, and common positions have the same features (with
            `se` approximately, because its means are taken over more positions).
        spatial_squeeze: Whether logits are `[batch, classes]`, not `[batch, height', width',
            classes]`.
        reuse: Whether to reuse the variables of the scope.
        scope: The variable scope.
        units: Number of units of each block.
        include_root_block: Whether to begin with the 7x7 convolution and max pooling of total
            stride 4.
        se: Whether to scale the channels of every residual by squeeze-and-excitation.

    Returns:
        Logits, float32 `[batch, num_classes]` (features `[batch, 1, 1, 2048]` without
        `num_classes`), and the end points: every convolution, unit and block, `logits` and
        `spatial_squeeze` under the scope; `global_pool` and `predictions`.

    Raises:
        ValueError: `output_stride` does not occur in the network, or `spatial_squeeze` meets
            several positions.
    """
    root_stride = _ROOT_STRIDE if include_root_block else 1
    strides = [root_stride * 2**index for index in range(len(units))]
    if output_stride not in (None, *strides):
        raise ValueError(f"output_stride must be one of {strides}, not {output_stride}")
    end_points: dict[str, tf.Tensor] = {}
    with (
        tf.variable_scope(scope, reuse=reuse) as variable_scope,
        slim.arg_scope([slim.batch_norm], is_training=is_training),
    ):
        scope = variable_scope.name
        net = inputs
        if include_root_block:
            net = _conv_same(64, 7, stride=2, **LINEAR)(net, "conv1")
            end_points[f"{scope}/conv1"] = net
            net = slim.max_pool2d(net, 3, stride=2, padding="SAME", scope="pool1")
        net = _stages(
            net,
            units,
            stride=root_stride,
            output_stride=output_stride,
            se=se,
            end_points=end_points,
        )
        net = batch_norm(net, activation_fn=tf.nn.relu, scope="postnorm")
        if global_pool:
            net = tf.reduce_mean(net, [1, 2], keepdims=True, name="pool5")
            end_points["global_pool"] = net
        if not num_classes:
            return net, end_points
        net = conv(num_classes, 1, **LINEAR)(net, "logits")
        end_points[f"{scope}/logits"] = net
        if spatial_squeeze:
            net = tf.squeeze(net, [1, 2], name="SpatialSqueeze")
            end_points[f"{scope}/spatial_squeeze"] = net
        end_points["predictions"] = slim.softmax(net, scope="predictions")
    return net, end_points


def _published(scope: str, units: tuple[int, ...], se: bool = False) -> Callable:
    network = partial(resnet_v2, units=units, scope=scope, se=se)
    network.default_image_size = NETWORKS[scope].default_image_size
    return network


# ResNet's Table 1, and Table 5 for 200 layers.
resnet_v2_50 = _published("resnet_v2_50", (3, 4, 6, 3))
resnet_v2_101 = _published("resnet_v2_101", (3, 4, 23, 3))
resnet_v2_152 = _published("resnet_v2_152", (3, 8, 36, 3))
resnet_v2_200 = _published("resnet_v2_200", (3, 24, 36, 3))
resnet_v2_50_se = _published("resnet_v2_50_se", (3, 4, 6, 3), se=True)
resnet_v2_101_se = _published("resnet_v2_101_se", (3, 4, 23, 3), se=True)
resnet_v2_152_se = _published("resnet_v2_152_se", (3, 8, 36, 3), se=True)
