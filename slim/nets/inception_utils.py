"""Parts that the Inception networks share: arg scope, stem, reduction, classifiers."""

from collections.abc import Callable
from typing import Any

from slim.common.compat import slim, tf
from slim.nets.layers import Chain, Layer, branches, conv, conv_arg_scope, max_pool, through, window

inception_arg_scope = conv_arg_scope

Depth = Callable[[int], int]


def v3_stem(depth: Depth = int, padding: str = "VALID") -> Chain:
    """Returns the first rows of Table 1 of the Inception-V3 paper; comments give sizes at 299."""
    return {
        "Conv2d_1a_3x3": conv(depth(32), 3, 2, padding),  # 149 x 149
        "Conv2d_2a_3x3": conv(depth(32), 3, padding=padding),
        "Conv2d_2b_3x3": conv(depth(64), 3),
        "MaxPool_3a_3x3": max_pool(3, 2, padding),  # 73 x 73
        "Conv2d_3b_1x1": conv(depth(80), 1, padding=padding),
        "Conv2d_4a_3x3": conv(depth(192), 3, padding=padding),
        "MaxPool_5a_3x3": max_pool(3, 2, padding),  # 35 x 35
    }


def reduction_a(
    *,
    k: int,
    l: int,  # noqa: E741 (the paper's letters)
    m: int,
    n: int,
    stride: int = 2,
    padding: str = "VALID",
) -> Layer:
    """Returns the reduction from 35 x 35 to 17 x 17 positions.

    Figure 7 of the Inception-V4 paper, with the numbers of its Table 1.
    """
    return branches(
        {"Conv2d_1a_3x3": conv(n, 3, stride, padding)},
        {
            "Conv2d_0a_1x1": conv(k, 1),
            "Conv2d_0b_3x3": conv(l, 3),
            "Conv2d_1a_3x3": conv(m, 3, stride, padding),
        },
        {"MaxPool_1a_3x3": max_pool(3, stride, padding)},
    )


def base_network(
    inputs: tf.Tensor,
    layers: Chain,
    final_endpoint: str,
    *,
    scope: str | tf.VariableScope,
    reuse: bool | None,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds the layers of a network up to an end point; returns its map, and all maps by name."""
    end_points: dict[str, tf.Tensor] = {}
    with tf.variable_scope(scope, reuse=reuse):
        net = through(inputs, layers, end_points, final_endpoint)
    return net, end_points


def aux_features(net: tf.Tensor, scope: str, depth: Depth = int, **options: Any) -> tf.Tensor:
    """Builds the auxiliary classifier, Figure 8 of the Inception-V3 paper, up to its last features.

    `[batch, height, width, channels]`, 17 x 17 positions at 299, becomes `[batch, height', width',
    depth(768)]`, one position at 299. `scope`, that of the last convolution, has two `{}` for the
    height and width of the kernel.
    """
    # The last kernel is 5 x 5, the size of the map at 299. Above 299 it stays 5 x 5, so that a
    # checkpoint fits at every size, and several positions remain; below 299 it shrinks to the map.
    net = slim.avg_pool2d(net, window(net, 5), stride=3, padding="VALID")
    net = slim.conv2d(net, depth(128), 1, scope="Conv2d_1b_1x1")
    kernel = window(net, 5)
    return slim.conv2d(
        net, depth(768), kernel, padding="VALID", scope=scope.format(*kernel), **options
    )


def average_pool(net: tf.Tensor, spatial_squeeze: bool) -> tf.Tensor:
    """Averages the last feature map over all positions, `[batch, 1, 1, channels]`.

    Without `spatial_squeeze`, the published windows of 8 x 8 positions with stride 2 are averaged,
    `[batch, height', width', channels]`. At 299 pixels both are the same.
    """
    if spatial_squeeze:
        return tf.reduce_mean(net, [1, 2], keepdims=True, name="AvgPool_1a")
    return slim.avg_pool2d(net, window(net, 8), padding="VALID", scope="AvgPool_1a_8x8")


def dense_network(
    inputs: tf.Tensor,
    base: Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]],
    *,
    scope: str,
    aux_endpoint: str,
    aux_scopes: tuple[str, str],
    num_classes: int | None,
    is_training: bool,
    dropout_keep_prob: float,
    reuse: bool | None,
    create_aux_logits: bool,
    spatial_squeeze: bool,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds Inception-V4 or Inception-ResNet-V2, whose classifiers are fully connected.

    `base` builds the last feature map and the end points. `aux_endpoint` is the input of the
    auxiliary classifier, `aux_scopes` are those of its last convolution and its fully connected
    layer. The other arguments are those of `inception_v3`.
    """
    with (
        tf.variable_scope(scope, reuse=reuse) as variable_scope,
        slim.arg_scope([slim.batch_norm, slim.dropout], is_training=is_training),
        slim.arg_scope([slim.fully_connected], activation_fn=None),
    ):
        net, end_points = base(inputs, scope=variable_scope)
        if create_aux_logits and num_classes:
            with tf.variable_scope("AuxLogits"):
                aux = aux_features(end_points[aux_endpoint], aux_scopes[0])
                if spatial_squeeze:
                    aux = tf.reduce_mean(aux, [1, 2])
                aux = slim.fully_connected(aux, num_classes, scope=aux_scopes[1])
            end_points["AuxLogits"] = aux
        with tf.variable_scope("Logits"):
            net = end_points["global_pool"] = average_pool(net, spatial_squeeze)
            if not num_classes:
                return net, end_points
            if spatial_squeeze:
                net = tf.squeeze(net, [1, 2])
            net = slim.dropout(net, keep_prob=dropout_keep_prob, scope="Dropout_1b")
            end_points["PreLogitsFlatten"] = net
            logits = end_points["Logits"] = slim.fully_connected(net, num_classes, scope="Logits")
            end_points["Predictions"] = tf.nn.softmax(logits, name="Predictions")
    return logits, end_points
