"""Inception-V4: Szegedy et al., 2016.

Figures and tables are those of "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning". `se=True` adds squeeze-and-excitation.
"""

from functools import partial

from slim.common.compat import tf
from slim.common.network_table import NETWORKS
from slim.nets.inception_utils import (
    base_network,
    dense_network,
    inception_arg_scope,
    reduction_a,
)
from slim.nets.layers import Chain, Layer, avg_pool, branches, conv, excite, fork, max_pool

_SCOPES = ("InceptionV4", "InceptionV4SE")  # without and with squeeze-and-excitation

inception_v4_arg_scope = inception_v4_se_arg_scope = inception_arg_scope


def _stem() -> Chain:
    """Returns Figure 3; comments give sizes at 299."""
    return {
        "Conv2d_1a_3x3": conv(32, 3, 2, "VALID"),  # 149 x 149
        "Conv2d_2a_3x3": conv(32, 3, padding="VALID"),
        "Conv2d_2b_3x3": conv(64, 3),
        "Mixed_3a": branches(  # to 73 x 73
            {"MaxPool_0a_3x3": max_pool(3, 2, "VALID")}, {"Conv2d_0a_3x3": conv(96, 3, 2, "VALID")}
        ),
        "Mixed_4a": branches(  # to 71 x 71
            {"Conv2d_0a_1x1": conv(64, 1), "Conv2d_1a_3x3": conv(96, 3, padding="VALID")},
            {
                "Conv2d_0a_1x1": conv(64, 1),
                "Conv2d_0b_1x7": conv(64, (1, 7)),
                "Conv2d_0c_7x1": conv(64, (7, 1)),
                "Conv2d_1a_3x3": conv(96, 3, padding="VALID"),
            },
        ),
        "Mixed_5a": branches(  # to 35 x 35
            {"Conv2d_1a_3x3": conv(192, 3, 2, "VALID")}, {"MaxPool_1a_3x3": max_pool(3, 2, "VALID")}
        ),
    }


def _inception_a() -> Layer:
    """Returns Figure 4, at 35 x 35 positions."""
    return branches(
        {"Conv2d_0a_1x1": conv(96, 1)},
        {"Conv2d_0a_1x1": conv(64, 1), "Conv2d_0b_3x3": conv(96, 3)},
        {"Conv2d_0a_1x1": conv(64, 1), "Conv2d_0b_3x3": conv(96, 3), "Conv2d_0c_3x3": conv(96, 3)},
        {"AvgPool_0a_3x3": avg_pool(3), "Conv2d_0b_1x1": conv(96, 1)},
    )


def _inception_b() -> Layer:
    """Returns Figure 5, at 17 x 17 positions."""
    return branches(
        {"Conv2d_0a_1x1": conv(384, 1)},
        {
            "Conv2d_0a_1x1": conv(192, 1),
            "Conv2d_0b_1x7": conv(224, (1, 7)),
            "Conv2d_0c_7x1": conv(256, (7, 1)),
        },
        {
            "Conv2d_0a_1x1": conv(192, 1),
            "Conv2d_0b_7x1": conv(192, (7, 1)),
            "Conv2d_0c_1x7": conv(224, (1, 7)),
            "Conv2d_0d_7x1": conv(224, (7, 1)),
            "Conv2d_0e_1x7": conv(256, (1, 7)),
        },
        {"AvgPool_0a_3x3": avg_pool(3), "Conv2d_0b_1x1": conv(128, 1)},
    )


def _inception_c() -> Layer:
    """Returns Figure 6, at 8 x 8 positions."""
    return branches(
        {"Conv2d_0a_1x1": conv(256, 1)},
        {
            "Conv2d_0a_1x1": conv(384, 1),
            "1x3_3x1": fork(
                {"Conv2d_0b_1x3": conv(256, (1, 3)), "Conv2d_0c_3x1": conv(256, (3, 1))}
            ),
        },
        {
            "Conv2d_0a_1x1": conv(384, 1),
            "Conv2d_0b_3x1": conv(448, (3, 1)),
            "Conv2d_0c_1x3": conv(512, (1, 3)),
            "1x3_3x1": fork(
                {"Conv2d_0d_1x3": conv(256, (1, 3)), "Conv2d_0e_3x1": conv(256, (3, 1))}
            ),
        },
        {"AvgPool_0a_3x3": avg_pool(3), "Conv2d_0b_1x1": conv(256, 1)},
    )


def _layers(se: bool) -> Chain:
    """Returns Figure 9, from the image to `Mixed_7d`."""
    reduction_b = branches(  # Figure 8, to 8 x 8
        {"Conv2d_0a_1x1": conv(192, 1), "Conv2d_1a_3x3": conv(192, 3, 2, "VALID")},
        {
            "Conv2d_0a_1x1": conv(256, 1),
            "Conv2d_0b_1x7": conv(256, (1, 7)),
            "Conv2d_0c_7x1": conv(320, (7, 1)),
            "Conv2d_1a_3x3": conv(320, 3, 2, "VALID"),
        },
        {"MaxPool_1a_3x3": max_pool(3, 2, "VALID")},
    )
    blocks = {
        **{f"Mixed_5{letter}": _inception_a() for letter in "bcde"},
        "Mixed_6a": reduction_a(k=192, l=224, m=256, n=384),
        **{f"Mixed_6{letter}": _inception_b() for letter in "bcdefgh"},
        "Mixed_7a": reduction_b,
        **{f"Mixed_7{letter}": _inception_c() for letter in "bcd"},
    }
    return {**_stem(), **{scope: excite(block, se) for scope, block in blocks.items()}}


def inception_v4_base(
    inputs: tf.Tensor,
    final_endpoint: str = "Mixed_7d",
    scope: str | tf.VariableScope | None = None,
    *,
    reuse: bool | None = None,
    se: bool = False,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds Inception-V4 up to its last feature map, without pooling and classifier.

    The arguments and results are those of `inception_v3_base`; `Mixed_7d` has 1,536 channels.
    """
    return base_network(
        inputs, _layers(se), final_endpoint, scope=scope or _SCOPES[se], reuse=reuse
    )


def inception_v4(
    inputs: tf.Tensor,
    num_classes: int | None = 1001,
    is_training: bool = True,
    dropout_keep_prob: float = 0.8,
    reuse: bool | None = None,
    scope: str | None = None,
    create_aux_logits: bool = True,
    *,
    spatial_squeeze: bool = True,
    se: bool = False,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds Inception-V4 with its classifiers.

    The arguments and results are those of `inception_v3`; `Mixed_7d` gives 1,536 features, and the
    end points include `PreLogitsFlatten` and always `global_pool`.
    """
    return dense_network(
        inputs,
        partial(inception_v4_base, se=se),
        scope=scope or _SCOPES[se],
        aux_endpoint="Mixed_6h",
        aux_scopes=("Conv2d_2a", "Aux_logits"),
        num_classes=num_classes,
        is_training=is_training,
        dropout_keep_prob=dropout_keep_prob,
        reuse=reuse,
        create_aux_logits=create_aux_logits,
        spatial_squeeze=spatial_squeeze,
    )


inception_v4_se_base = partial(inception_v4_base, se=True)
inception_v4_se = partial(inception_v4, se=True)
for _network in (inception_v4, inception_v4_se):
    _network.default_image_size = NETWORKS["inception_v4"].default_image_size
