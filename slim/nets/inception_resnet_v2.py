"""Inception-ResNet-V2: Szegedy et al., 2016.

Figures and tables are those of "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning". `se=True` adds squeeze-and-excitation. The released network differs from
the printed one: it has the stem of Inception-V3, feature maps of 320, 1,088 and 2,080 channels, and
a final 1x1 convolution to 1,536 channels.
"""

from typing import Any

from slim.common.compat import slim, tf
from slim.nets.inception_utils import dense_network, inception_arg_scope, reduction_a, v3_stem
from slim.nets.layers import (
    LINEAR,
    Chain,
    Layer,
    avg_pool,
    branches,
    conv,
    excite,
    l2_of_stored,
    max_pool,
    squeeze_and_excite,
    through,
)


def inception_resnet_v2_arg_scope(weight_decay: float = 4e-5, **batch_norm: float) -> dict:
    """Returns the arg scope of Inception with L2 loss on biases and Glorot initialization.

    Args:
        weight_decay: Coefficient of the L2 loss on weights and biases.
        **batch_norm: Further arguments of `layers.conv_arg_scope`.
    """
    with (
        slim.arg_scope(inception_arg_scope(weight_decay, **batch_norm)),
        slim.arg_scope(
            [slim.conv2d, slim.fully_connected],
            weights_initializer=slim.xavier_initializer(),
            biases_regularizer=l2_of_stored(weight_decay),
        ) as scope,
    ):
        return scope


def _residual(mix: Layer, se: bool, scale: float = 1.0, relu: bool = True) -> Layer:
    """Returns a block that adds its scaled mix of branches to the feature map (Figure 20).

    As published, squeeze-and-excitation applies to the scaled residual.
    """

    def block(net: tf.Tensor, scope: str) -> tf.Tensor:
        with tf.variable_scope(scope) as block_scope:
            # The branches share the scope of the block with the convolution after them.
            residual = mix(net, block_scope)
            residual = scale * conv(net.shape.as_list()[3], 1, **LINEAR)(residual, "Conv2d_1x1")
            if se:
                residual = squeeze_and_excite(residual)
            net += residual
            return tf.nn.relu(net) if relu else net

    return block


def _repeat(scope: str, count: int, name: str, layer: Layer) -> Layer:
    """Returns `count` successive blocks, `name_1` to `name_<count>`, in the scope `scope`."""

    def blocks(net: tf.Tensor, _: str) -> tf.Tensor:
        with tf.variable_scope(scope):
            return through(net, {f"{name}_{index + 1}": layer for index in range(count)})

    return blocks


def _layers(se: bool) -> Chain:
    """Returns Figure 15, from the image to `Conv2d_7b_1x1`; comments give sizes at 299."""
    inception_resnet_a = branches(  # Figure 16, at 35 x 35
        {"Conv2d_1x1": conv(32, 1)},
        {"Conv2d_0a_1x1": conv(32, 1), "Conv2d_0b_3x3": conv(32, 3)},
        {"Conv2d_0a_1x1": conv(32, 1), "Conv2d_0b_3x3": conv(48, 3), "Conv2d_0c_3x3": conv(64, 3)},
    )
    inception_resnet_b = branches(  # Figure 17, at 17 x 17
        {"Conv2d_1x1": conv(192, 1)},
        {
            "Conv2d_0a_1x1": conv(128, 1),
            "Conv2d_0b_1x7": conv(160, (1, 7)),
            "Conv2d_0c_7x1": conv(192, (7, 1)),
        },
    )
    inception_resnet_c = branches(  # Figure 19, at 8 x 8
        {"Conv2d_1x1": conv(192, 1)},
        {
            "Conv2d_0a_1x1": conv(192, 1),
            "Conv2d_0b_1x3": conv(224, (1, 3)),
            "Conv2d_0c_3x1": conv(256, (3, 1)),
        },
    )
    first_mix = branches(  # Figure 5 of the Inception-V3 paper with other depths, at 35 x 35
        {"Conv2d_1x1": conv(96, 1)},
        {"Conv2d_0a_1x1": conv(48, 1), "Conv2d_0b_5x5": conv(64, 5)},
        {"Conv2d_0a_1x1": conv(64, 1), "Conv2d_0b_3x3": conv(96, 3), "Conv2d_0c_3x3": conv(96, 3)},
        {"AvgPool_0a_3x3": avg_pool(3), "Conv2d_0b_1x1": conv(64, 1)},
    )
    reduction_b = branches(  # Figure 18, to 8 x 8
        {"Conv2d_0a_1x1": conv(256, 1), "Conv2d_1a_3x3": conv(384, 3, 2, "VALID")},
        {"Conv2d_0a_1x1": conv(256, 1), "Conv2d_1a_3x3": conv(288, 3, 2, "VALID")},
        {
            "Conv2d_0a_1x1": conv(256, 1),
            "Conv2d_0b_3x3": conv(288, 3),
            "Conv2d_1a_3x3": conv(320, 3, 2, "VALID"),
        },
        {"MaxPool_1a_3x3": max_pool(3, 2, "VALID")},
    )
    return {
        **v3_stem(),
        "Mixed_5b": excite(first_mix, se),
        "Repeat": _repeat("Repeat", 10, "block35", _residual(inception_resnet_a, se, 0.17)),
        "Mixed_6a": excite(reduction_a(k=256, l=256, m=384, n=384), se),
        "PreAuxLogits": _repeat("Repeat_1", 20, "block17", _residual(inception_resnet_b, se, 0.1)),
        "Mixed_7a": excite(reduction_b, se),
        "Repeat_2": _repeat("Repeat_2", 9, "block8", _residual(inception_resnet_c, se, 0.2)),
        "Block8": _residual(inception_resnet_c, se, relu=False),
        "Conv2d_7b_1x1": conv(1536, 1),
    }


def inception_resnet_v2(
    inputs: tf.Tensor,
    num_classes: int | None = 1000,
    is_training: bool = True,
    scope: str | None = None,
    se: bool = False,
    **options: Any,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds Inception-ResNet-V2 with its classifiers; see `inception_v4` for the arguments.

    The default scope is `InceptionResnetV2`, or `InceptionResnetV2SE` with `se`.

    Returns:
        Logits and end points; see `inception_utils.dense_network`. As published, the last of
        repeated blocks are not among the end points, nor, with `se`, is `global_pool`.
    """
    logits, end_points = dense_network(
        inputs,
        _layers(se),
        scope=scope or ("InceptionResnetV2SE" if se else "InceptionResnetV2"),
        aux_endpoint="PreAuxLogits",
        aux_scopes=("Conv2d_2a_5x5", "Logits"),
        num_classes=num_classes,
        is_training=is_training,
        **options,
    )
    unpublished = {"Repeat", "Repeat_2", "Block8"} | ({"global_pool"} if se else set())
    return logits, {name: net for name, net in end_points.items() if name not in unpublished}
