"""Inception-V3: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015.

Figures and tables are those of that paper. `se=True` adds squeeze-and-excitation. Scopes, and so
variable names, are the published ones, including their inconsistencies (two 1x1 and 5x5 scopes in
`Mixed_5c`, 3x3 kernels under `1x1` names).
"""

from collections.abc import Callable
from functools import partial

from slim.common.compat import slim, tf
from slim.common.network_table import NETWORKS
from slim.nets.inception_utils import (
    Depth,
    aux_features,
    average_pool,
    base_network,
    inception_arg_scope,
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
    fork,
    max_pool,
)

_SCOPES = ("InceptionV3", "InceptionV3SE")  # without and with squeeze-and-excitation

inception_v3_arg_scope = inception_v3_se_arg_scope = inception_arg_scope


def _figure_5(
    depth: Depth, pool: int, names: tuple[str, str] = ("Conv2d_0a_1x1", "Conv2d_0b_5x5")
) -> Layer:
    """Returns a block at 35 x 35 positions: 1x1, 5x5, two successive 3x3, and pooling."""
    return branches(
        {"Conv2d_0a_1x1": conv(depth(64), 1)},
        {names[0]: conv(depth(48), 1), names[1]: conv(depth(64), 5)},
        {
            "Conv2d_0a_1x1": conv(depth(64), 1),
            "Conv2d_0b_3x3": conv(depth(96), 3),
            "Conv2d_0c_3x3": conv(depth(96), 3),
        },
        {"AvgPool_0a_3x3": avg_pool(3), "Conv2d_0b_1x1": conv(depth(pool), 1)},
    )


def _figure_6(depth: Depth, inner: int) -> Layer:
    """Returns a block at 17 x 17 positions, with 7x7 convolutions as pairs of 1x7 and 7x1."""
    return branches(
        {"Conv2d_0a_1x1": conv(depth(192), 1)},
        {
            "Conv2d_0a_1x1": conv(depth(inner), 1),
            "Conv2d_0b_1x7": conv(depth(inner), (1, 7)),
            "Conv2d_0c_7x1": conv(depth(192), (7, 1)),
        },
        {
            "Conv2d_0a_1x1": conv(depth(inner), 1),
            "Conv2d_0b_7x1": conv(depth(inner), (7, 1)),
            "Conv2d_0c_1x7": conv(depth(inner), (1, 7)),
            "Conv2d_0d_7x1": conv(depth(inner), (7, 1)),
            "Conv2d_0e_1x7": conv(depth(192), (1, 7)),
        },
        {"AvgPool_0a_3x3": avg_pool(3), "Conv2d_0b_1x1": conv(depth(192), 1)},
    )


def _figure_7(depth: Depth, second_3x1: str) -> Layer:
    """Returns a block at 8 x 8 positions, whose branches end in parallel 1x3 and 3x1."""
    return branches(
        {"Conv2d_0a_1x1": conv(depth(320), 1)},
        {
            "Conv2d_0a_1x1": conv(depth(384), 1),
            "1x3_3x1": fork(
                {"Conv2d_0b_1x3": conv(depth(384), (1, 3)), second_3x1: conv(depth(384), (3, 1))}
            ),
        },
        {
            "Conv2d_0a_1x1": conv(depth(448), 1),
            "Conv2d_0b_3x3": conv(depth(384), 3),
            "1x3_3x1": fork(
                {
                    "Conv2d_0c_1x3": conv(depth(384), (1, 3)),
                    "Conv2d_0d_3x1": conv(depth(384), (3, 1)),
                }
            ),
        },
        {"AvgPool_0a_3x3": avg_pool(3), "Conv2d_0b_1x1": conv(depth(192), 1)},
    )


def _layers(depth: Depth, se: bool) -> Chain:
    """Returns Table 1, from the image to `Mixed_7c`; comments give sizes at 299."""
    blocks = {
        "Mixed_5b": _figure_5(depth, pool=32),
        "Mixed_5c": _figure_5(depth, pool=64, names=("Conv2d_0b_1x1", "Conv_1_0c_5x5")),
        "Mixed_5d": _figure_5(depth, pool=64),
        "Mixed_6a": branches(  # Figure 10, to 17 x 17
            {"Conv2d_1a_1x1": conv(depth(384), 3, 2, "VALID")},
            {
                "Conv2d_0a_1x1": conv(depth(64), 1),
                "Conv2d_0b_3x3": conv(depth(96), 3),
                "Conv2d_1a_1x1": conv(depth(96), 3, 2, "VALID"),
            },
            {"MaxPool_1a_3x3": max_pool(3, 2, "VALID")},
        ),
        "Mixed_6b": _figure_6(depth, inner=128),
        "Mixed_6c": _figure_6(depth, inner=160),
        "Mixed_6d": _figure_6(depth, inner=160),
        "Mixed_6e": _figure_6(depth, inner=192),
        "Mixed_7a": branches(  # Figure 10, to 8 x 8
            {
                "Conv2d_0a_1x1": conv(depth(192), 1),
                "Conv2d_1a_3x3": conv(depth(320), 3, 2, "VALID"),
            },
            {
                "Conv2d_0a_1x1": conv(depth(192), 1),
                "Conv2d_0b_1x7": conv(depth(192), (1, 7)),
                "Conv2d_0c_7x1": conv(depth(192), (7, 1)),
                "Conv2d_1a_3x3": conv(depth(192), 3, 2, "VALID"),
            },
            {"MaxPool_1a_3x3": max_pool(3, 2, "VALID")},
        ),
        "Mixed_7b": _figure_7(depth, second_3x1="Conv2d_0b_3x1"),
        "Mixed_7c": _figure_7(depth, second_3x1="Conv2d_0c_3x1"),
    }
    excited = {scope: excite(block, se) for scope, block in blocks.items()}
    return {**v3_stem(depth), **excited}


def _depth(depth_multiplier: float, min_depth: int) -> Depth:
    return lambda channels: max(int(channels * depth_multiplier), min_depth)


def inception_v3_base(
    inputs: tf.Tensor,
    final_endpoint: str = "Mixed_7c",
    min_depth: int = 16,
    depth_multiplier: float = 1.0,
    scope: str | tf.VariableScope | None = None,
    *,
    reuse: bool | None = None,
    se: bool = False,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds Inception-V3 up to its last feature map, without pooling and classifier.

    Args:
        inputs: Images, float32 `[batch, height, width, 3]` in [-1, 1], at least 75 x 75.
        final_endpoint: The last end point, from `Conv2d_1a_3x3` to `Mixed_7c`.
        min_depth: Minimum number of channels of a convolution when `depth_multiplier` is below 1.
        depth_multiplier: Scales the number of channels of every convolution.
        scope: The variable scope. Default: `InceptionV3`, or `InceptionV3SE` with `se`.
        reuse: Whether to reuse the variables of the scope.
        se: Whether to add squeeze-and-excitation to every block after the stem.

    Returns:
        The feature map at `final_endpoint`, `[batch, height', width', depth]` (2,048 channels at
        `Mixed_7c`), and all feature maps by name.

    Raises:
        ValueError: `final_endpoint` is unknown, or `depth_multiplier` is not positive.
    """
    if depth_multiplier <= 0:
        raise ValueError(f"depth_multiplier must be positive, not {depth_multiplier}")
    layers = _layers(_depth(depth_multiplier, min_depth), se)
    return base_network(inputs, layers, final_endpoint, scope=scope or _SCOPES[se], reuse=reuse)


def _aux_logits(net: tf.Tensor, num_classes: int, depth: Depth, spatial_squeeze: bool) -> tf.Tensor:
    """Builds the auxiliary classifier on `Mixed_6e` (Figure 8)."""
    with tf.variable_scope("AuxLogits"):
        initializer = tf.truncated_normal_initializer(stddev=0.01)
        net = aux_features(net, "Conv2d_2a_{}x{}", depth, weights_initializer=initializer)
        initializer = tf.truncated_normal_initializer(stddev=0.001)
        classifier = conv(num_classes, 1, weights_initializer=initializer, **LINEAR)
        net = classifier(net, "Conv2d_2b_1x1")
        # Above 299 several positions remain, for which the published squeeze fails.
        return tf.reduce_mean(net, [1, 2], name="SpatialSqueeze") if spatial_squeeze else net


def inception_v3(
    inputs: tf.Tensor,
    num_classes: int | None = 1000,
    is_training: bool = True,
    dropout_keep_prob: float = 0.8,
    min_depth: int = 16,
    depth_multiplier: float = 1.0,
    prediction_fn: Callable[..., tf.Tensor] = slim.softmax,
    spatial_squeeze: bool = True,
    reuse: bool | None = None,
    create_aux_logits: bool = True,
    scope: str | None = None,
    global_pool: bool = False,
    *,
    se: bool = False,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds Inception-V3 with its classifiers.

    Args:
        inputs: Images, float32 `[batch, height, width, 3]` in [-1, 1], at least 75 x 75.
        num_classes: Number of classes; 0 or None for the features before the classifier.
        is_training: Whether batch norm uses the statistics of the batch, and dropout is active.
        dropout_keep_prob: Fraction of the features that dropout keeps.
        min_depth: Minimum number of channels of a convolution when `depth_multiplier` is below 1.
        depth_multiplier: Scales the number of channels of every convolution.
        prediction_fn: The function from logits to predictions.
        spatial_squeeze: Whether to average over all positions (see `inception_utils.average_pool`).
            Without it logits are `[batch, height', width', classes]`, as in a fully convolutional
            network.
        reuse: Whether to reuse the variables of the scope.
        create_aux_logits: Whether to add the auxiliary classifier, end point `AuxLogits`.
        scope: The variable scope. Default: `InceptionV3`, or `InceptionV3SE` with `se`.
        global_pool: Whether to average over all positions with `spatial_squeeze=False`, too; the
            average is the end point `global_pool`.
        se: Whether to add squeeze-and-excitation to every block after the stem.

    Returns:
        Logits, float32 `[batch, num_classes]` (features `[batch, 1, 1, 2048]` without
        `num_classes`), and the end points: every feature map, `AuxLogits`, `AvgPool_1a` (without
        `se`, as published) or `global_pool`, `PreLogits`, `Logits`, `Predictions`.

    Raises:
        ValueError: `depth_multiplier` is not positive.
    """
    with (
        tf.variable_scope(scope or _SCOPES[se], reuse=reuse) as variable_scope,
        slim.arg_scope([slim.batch_norm, slim.dropout], is_training=is_training),
    ):
        net, end_points = inception_v3_base(
            inputs,
            min_depth=min_depth,
            depth_multiplier=depth_multiplier,
            scope=variable_scope,
            se=se,
        )
        if create_aux_logits and num_classes:
            end_points["AuxLogits"] = _aux_logits(
                end_points["Mixed_6e"],
                num_classes,
                _depth(depth_multiplier, min_depth),
                spatial_squeeze,
            )
        with tf.variable_scope("Logits"):
            net = average_pool(net, spatial_squeeze or global_pool)
            if global_pool:
                end_points["global_pool"] = net
            elif not se:
                end_points["AvgPool_1a"] = net
            if not num_classes:
                return net, end_points
            # On a GPU, TensorFlow's layout optimizer fails on a dropout of four dimensions.
            rows = tf.reshape(net, [-1, net.shape[-1]])
            rows = slim.dropout(rows, keep_prob=dropout_keep_prob, scope="Dropout_1b")
            net = end_points["PreLogits"] = tf.ensure_shape(
                tf.reshape(rows, tf.shape(net)), net.shape
            )
            logits = conv(num_classes, 1, **LINEAR)(net, "Conv2d_1c_1x1")
            if spatial_squeeze:
                logits = tf.squeeze(logits, [1, 2], name="SpatialSqueeze")
        end_points["Logits"] = logits
        end_points["Predictions"] = prediction_fn(logits, scope="Predictions")
    return logits, end_points


inception_v3_se_base = partial(inception_v3_base, se=True)
inception_v3_se = partial(inception_v3, se=True)
for _network in (inception_v3, inception_v3_se):
    _network.default_image_size = NETWORKS["inception_v3"].default_image_size
