"""Parts that the Inception networks share: arg scope, stem, reduction, classifiers."""

from collections.abc import Callable
from typing import Any

from slim.common.compat import slim, tf
from slim.nets.layers import Chain, Layer, branches, conv, conv_arg_scope, max_pool, through, window

DEFAULT_IMAGE_SIZE = 299
SMALLEST_IMAGE_SIZE = 75

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
    """Builds the layers of a network up to an end point.

    Args:
        inputs: Images, float32 `[batch, height, width, 3]`.
        layers: All layers of the network.
        final_endpoint: The scope of the last layer to build.
        scope: The variable scope.
        reuse: Whether to reuse the variables of the scope.

    Returns:
        The feature map at `final_endpoint`, and all feature maps by name.

    Raises:
        ValueError: `final_endpoint` is unknown.
    """
    end_points: dict[str, tf.Tensor] = {}
    with tf.variable_scope(scope, reuse=reuse):
        net = through(inputs, layers, end_points, final_endpoint)
    return net, end_points


def aux_features(net: tf.Tensor, scope: str, depth: Depth = int, **options: Any) -> tf.Tensor:
    """Builds the auxiliary classifier, Figure 8 of the Inception-V3 paper, up to its last features.

    The last kernel is 5 x 5, the size of the map at 299. Above 299 it stays 5 x 5, so that a
    checkpoint fits at every size, and several positions remain; below 299 it shrinks to the map.

    Args:
        net: A feature map of the network, 17 x 17 positions at 299.
        scope: The scope of the last convolution, with two `{}` for the height and width of its
            kernel.
        depth: The function from the published number of channels to the actual one.
        **options: Options of the last `slim.conv2d`.

    Returns:
        `[batch, height', width', depth(768)]`, one position at 299.
    """
    net = slim.avg_pool2d(net, window(net, 5), stride=3, padding="VALID")
    net = slim.conv2d(net, depth(128), 1, scope="Conv2d_1b_1x1")
    kernel = window(net, 5)
    return slim.conv2d(
        net, depth(768), kernel, padding="VALID", scope=scope.format(*kernel), **options
    )


def average_pool(net: tf.Tensor, spatial_squeeze: bool) -> tf.Tensor:
    """Averages the last feature map, `[batch, height, width, channels]`.

    Args:
        net: The feature map.
        spatial_squeeze: Whether to average over all positions, whatever the image size. At 299 this
            is the published 8 x 8 window. Otherwise averages over windows of 8 x 8 with stride 2,
            as published.

    Returns:
        `[batch, 1, 1, channels]`, or `[batch, height', width', channels]` without
        `spatial_squeeze`.
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

    Args:
        inputs: Images, float32 `[batch, height, width, 3]` in [-1, 1], at least 75 x 75.
        base: The function from images and `scope` to the last feature map, with 1,536 channels, and
            the end points.
        scope: The variable scope.
        aux_endpoint: The end point that is the input of the auxiliary classifier.
        aux_scopes: The scopes of its last convolution and of its fully connected layer.
        num_classes: Number of classes; 0 or None for the features before the classifier.
        is_training: Whether batch norm uses the statistics of the batch, and dropout is active.
        dropout_keep_prob: Fraction of the features that dropout keeps.
        reuse: Whether to reuse the variables of the scope.
        create_aux_logits: Whether to add the auxiliary classifier, end point `AuxLogits`.
        spatial_squeeze: Whether to average over all positions (see `average_pool`).

    Returns:
        Logits, float32 `[batch, num_classes]` (features `[batch, 1, 1, 1536]` without
        `num_classes`), and the end points: the feature map of every layer, `AuxLogits`,
        `global_pool`, `PreLogitsFlatten`, `Logits`, `Predictions`.
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
