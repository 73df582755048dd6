"""Networks by name, as TF-Slim builds them."""

from collections.abc import Callable
from typing import Any

from slim.common.compat import compared_by_identity, slim, tf
from slim.common.network_table import NETWORKS, check_image_size, get_network
from slim.nets import inception, resnet_v2
from slim.nets.layers import batch_norm, stored_in_float32

# TF-Slim's names.
_functions = vars(inception) | vars(resnet_v2)
networks_map = {name: _functions[network.build] for name, network in NETWORKS.items()}
arg_scopes_map = {name: _functions[network.arg_scope] for name, network in NETWORKS.items()}


def get_network_fn(
    name: str,
    num_classes: int | None,
    weight_decay: float = 0.0,
    is_training: bool = False,
    *,
    batch_norm_decay: float | None = None,
    dtype: tf.DType = tf.float32,
    is_frozen: Callable[[str], bool] | None = None,
) -> Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]]:
    """Returns a function that builds a network, `logits, end_points = network_fn(images)`.

    Args:
        name: The name, as for `get_network`.
        num_classes: Number of classes; None for features.
        weight_decay: Coefficient of the L2 loss on the weights.
        is_training: Whether to build for training.
        batch_norm_decay: Decay of the moving mean and variance. Default: that of the network.
        dtype: The type the layers compute in: float32, bfloat16 or float16. Variables, losses on
            variables, logits and end points are always float32.
        is_frozen: Whether a variable is not trained, by name. Batch norm of such variables uses its
            moving averages and keeps them. Default: in training, it uses the batch everywhere.

    Returns:
        The function. It takes float32 `[batch, height, width, 3]` and further arguments of the
        network by name, refuses images that are too small, and has the attribute
        `default_image_size`.
    """
    network = get_network(name)
    options = {} if batch_norm_decay is None else {"batch_norm_decay": batch_norm_decay}

    def network_fn(images: tf.Tensor, **kwargs: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        check_image_size(name, *images.shape.as_list()[1:3])
        if not network.has_aux_logits:
            kwargs.pop("create_aux_logits", None)
        if network.depth_multiplier != 1:
            kwargs.setdefault("depth_multiplier", network.depth_multiplier)
        with (
            slim.arg_scope(arg_scopes_map[network.build](weight_decay=weight_decay, **options)),
            slim.arg_scope([batch_norm], is_frozen=is_frozen),
            compared_by_identity(),
            tf.variable_scope(
                tf.get_variable_scope(),
                custom_getter=stored_in_float32,
                auxiliary_name_scope=False,
            ),
        ):
            logits, end_points = networks_map[network.build](
                tf.cast(images, dtype), num_classes=num_classes, is_training=is_training, **kwargs
            )
        in_float32 = {name: tf.cast(point, tf.float32) for name, point in end_points.items()}
        return tf.cast(logits, tf.float32), in_float32

    network_fn.default_image_size = network.default_image_size
    return network_fn
