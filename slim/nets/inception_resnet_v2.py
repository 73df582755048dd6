"""Inception-ResNet-V2: Szegedy et al., 2016.

Figures and tables are those of "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning". `se=True` adds squeeze-and-excitation. The released network differs from
the printed one: it has the stem of Inception-V3, feature maps of 320, 1,088 and 2,080 channels, and
a final 1x1 convolution to 1,536 channels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from slim.common.compat import slim, tf
from slim.common.network_table import NETWORKS
from slim.nets.inception_utils import (
    base_network,
    dense_network,
    inception_arg_scope,
    reduction_a,
    v3_stem,
)
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

_Activation = Callable[[tf.Tensor], tf.Tensor]

_SCOPES = ("InceptionResnetV2", "InceptionResnetV2SE")  # without and with squeeze-and-excitation
_PRE_AUX, _LAST = "PreAuxLogits", "Conv2d_7b_1x1"  # end points


def inception_resnet_v2_arg_scope(weight_decay: float = 4e-5, **options: Any) -> dict:
    """Returns the arg scope of Inception with L2 loss on biases and Glorot initialization."""
    with (
        slim.arg_scope(inception_arg_scope(weight_decay, **options)),
        slim.arg_scope(
            [slim.conv2d, slim.fully_connected],
            weights_initializer=slim.xavier_initializer(),
            biases_regularizer=l2_of_stored(weight_decay),
        ) as scope,
    ):
        return scope


inception_resnet_v2_se_arg_scope = inception_resnet_v2_arg_scope


def _residual(mix: Layer, se: bool, activation_fn: _Activation | None, scale: float = 1) -> Layer:
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
            return activation_fn(net) if activation_fn else net

    return block


def _repeat(scope: str, count: int, name: str, layer: Layer, rate: int = 1) -> Layer:
    """Returns `count` successive blocks, `name_1` to `name_<count>`, in the scope `scope`.

    With `rate` above 1, the convolutions are atrous.
    """

    def blocks(net: tf.Tensor, _: str) -> tf.Tensor:
        with tf.variable_scope(scope), slim.arg_scope([slim.conv2d], rate=rate):
            return through(net, {f"{name}_{index + 1}": layer for index in range(count)})

    return blocks


def _layers(se: bool, *, atrous: bool, padding: str, activation_fn: _Activation | None) -> Chain:
    """Returns Figure 15, from the image to `Conv2d_7b_1x1`; comments give sizes at 299."""
    residual = partial(_residual, se=se, activation_fn=activation_fn)
    stride, rate = (1, 2) if atrous else (2, 1)
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
        {"Conv2d_0a_1x1": conv(256, 1), "Conv2d_1a_3x3": conv(384, 3, 2, padding)},
        {"Conv2d_0a_1x1": conv(256, 1), "Conv2d_1a_3x3": conv(288, 3, 2, padding)},
        {
            "Conv2d_0a_1x1": conv(256, 1),
            "Conv2d_0b_3x3": conv(288, 3),
            "Conv2d_1a_3x3": conv(320, 3, 2, padding),
        },
        {"MaxPool_1a_3x3": max_pool(3, 2, padding)},
    )
    mixed_6a = reduction_a(k=256, l=256, m=384, n=384, stride=stride, padding=padding)
    return {
        **v3_stem(padding=padding),
        "Mixed_5b": excite(first_mix, se),
        "Repeat": _repeat("Repeat", 10, "block35", residual(inception_resnet_a, scale=0.17)),
        "Mixed_6a": excite(mixed_6a, se),
        _PRE_AUX: _repeat("Repeat_1", 20, "block17", residual(inception_resnet_b, scale=0.1), rate),
        "Mixed_7a": excite(reduction_b, se),
        "Repeat_2": _repeat("Repeat_2", 9, "block8", residual(inception_resnet_c, scale=0.2)),
        "Block8": _residual(inception_resnet_c, se, activation_fn=None),
        _LAST: conv(1536, 1),
    }


def inception_resnet_v2_base(
    inputs: tf.Tensor,
    final_endpoint: str = _LAST,
    output_stride: int = 16,
    align_feature_maps: bool = False,
    scope: str | tf.VariableScope | None = None,
    activation_fn: _Activation | None = tf.nn.relu,
    *,
    reuse: bool | None = None,
    se: bool = False,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds Inception-ResNet-V2 up to its last feature map, without pooling and classifier.

    Args:
        inputs: Images, float32 `[batch, height, width, 3]` in [-1, 1], at least 75 x 75.
        final_endpoint: The last end point, from `Conv2d_1a_3x3` to `Conv2d_7b_1x1`.
        output_stride: Pixels between two positions of `PreAuxLogits`. With 8 instead of 16, the
            convolutions after `Mixed_6a` are atrous, and `final_endpoint` must not be a later one
            than `PreAuxLogits`.
        align_feature_maps: Whether all layers pad, so that positions of different feature maps are
            aligned.
        scope: The variable scope.
        activation_fn: The activation after each sum of a residual; None for none.
        reuse: Whether to reuse the variables of the scope.
        se: Whether to add squeeze-and-excitation to every block after the stem.

    Returns:
        The feature map at `final_endpoint` (1,536 channels at `Conv2d_7b_1x1`), and the feature
        maps by name. As published, the last of repeated blocks are not among them, except
        `PreAuxLogits`.

    Raises:
        ValueError: `final_endpoint` or `output_stride` is unknown, or they do not match.
    """
    if output_stride not in (8, 16):
        raise ValueError(f"output_stride must be 8 or 16, not {output_stride}")
    layers = _layers(
        se,
        atrous=output_stride == 8,
        padding="SAME" if align_feature_maps else "VALID",
        activation_fn=activation_fn,
    )
    names = list(layers)
    if output_stride == 8 and final_endpoint in names[names.index(_PRE_AUX) + 1 :]:
        raise ValueError(
            f"output_stride 8 ends at {_PRE_AUX}: pass final_endpoint={_PRE_AUX!r} or an earlier "
            f"one, not {final_endpoint!r}"
        )
    net, end_points = base_network(
        inputs, layers, final_endpoint, scope=scope or _SCOPES[se], reuse=reuse
    )
    unpublished = ("Repeat", "Repeat_2", "Block8")
    return net, {name: point for name, point in end_points.items() if name not in unpublished}


def inception_resnet_v2(
    inputs: tf.Tensor,
    num_classes: int | None = 1001,
    is_training: bool = True,
    dropout_keep_prob: float = 0.8,
    reuse: bool | None = None,
    scope: str | None = None,
    create_aux_logits: bool = True,
    activation_fn: _Activation | None = tf.nn.relu,
    *,
    spatial_squeeze: bool = True,
    se: bool = False,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds Inception-ResNet-V2 with its classifiers.

    The arguments and results are those of `inception_v3`, and the `activation_fn` after each sum of
    a residual; there are 1,536 features, and the end points include `PreLogitsFlatten` and, without
    `se`, as published, `global_pool`.
    """
    logits, end_points = dense_network(
        inputs,
        partial(inception_resnet_v2_base, activation_fn=activation_fn, se=se),
        scope=scope or _SCOPES[se],
        aux_endpoint=_PRE_AUX,
        aux_scopes=("Conv2d_2a_5x5", "Logits"),
        num_classes=num_classes,
        is_training=is_training,
        dropout_keep_prob=dropout_keep_prob,
        reuse=reuse,
        create_aux_logits=create_aux_logits,
        spatial_squeeze=spatial_squeeze,
    )
    if se:
        del end_points["global_pool"]
    return logits, end_points


inception_resnet_v2_se_base = partial(inception_resnet_v2_base, se=True)
inception_resnet_v2_se = partial(inception_resnet_v2, se=True)
for _network in (inception_resnet_v2, inception_resnet_v2_se):
    _network.default_image_size = NETWORKS["inception_resnet_v2"].default_image_size
