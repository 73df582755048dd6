"""Layers as values: a network is a table of layers by scope, in the order of the forward pass.

A layer is a function of a feature map and its scope, made by `conv`, `max_pool`, `avg_pool`, `fork`
or `branches`. Feature maps are `[batch, height, width, channels]`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from slim.common.compat import slim, tf

Layer = Callable[[tf.Tensor, str], tf.Tensor]
Chain = Mapping[str, Layer]

# Options of a convolution that is only that.
LINEAR = {"activation_fn": None, "normalizer_fn": None}

_SE_REDUCTION = 16


def conv_arg_scope(
    weight_decay: float = 4e-5,
    *,
    use_batch_norm: bool = True,
    batch_norm_decay: float = 0.9997,
    batch_norm_epsilon: float = 1e-3,
    activation_fn: Callable[[tf.Tensor], tf.Tensor] | None = tf.nn.relu,
    batch_norm_updates_collections: str | None = tf.GraphKeys.UPDATE_OPS,
    batch_norm_scale: bool = False,
) -> dict:
    """Returns an arg scope of convolutions with L2 loss, He initialization, batch norm and ReLU.

    The defaults are those of Inception.

    Args:
        weight_decay: Coefficient of the L2 loss on the weights, fully connected layers included.
        use_batch_norm: Whether convolutions have batch norm instead of biases.
        batch_norm_decay: Decay of the moving mean and variance. Training from random weights for
            fewer than about 10,000 steps needs a smaller value, such as 0.99.
        batch_norm_epsilon: Added to the variance.
        activation_fn: The activation after a convolution.
        batch_norm_updates_collections: The collection that receives the updates of the moving mean
            and variance; None to update them in place.
        batch_norm_scale: Whether batch norm has a gamma.
    """
    with (
        slim.arg_scope(
            [slim.conv2d, slim.fully_connected],
            weights_regularizer=l2_of_stored(weight_decay),
        ),
        slim.arg_scope(
            [slim.conv2d],
            weights_initializer=slim.variance_scaling_initializer(),
            activation_fn=activation_fn,
            normalizer_fn=batch_norm if use_batch_norm else None,
        ),
        slim.arg_scope(
            [slim.batch_norm],
            decay=batch_norm_decay,
            epsilon=batch_norm_epsilon,
            scale=batch_norm_scale,
            updates_collections=batch_norm_updates_collections,
        ) as scope,
    ):
        return scope


@slim.add_arg_scope
def batch_norm(
    inputs: tf.Tensor,
    scope: str | None = None,
    is_frozen: Callable[[str], bool] | None = None,
    **options: Any,
) -> tf.Tensor:
    """Applies `slim.batch_norm`, with fixed averages if its beta or gamma `is_frozen` by name."""
    # An argument takes precedence over the `is_training` of the arg scopes of networks.
    name = f"{tf.get_variable_scope().name}/{scope or 'BatchNorm'}"
    if is_frozen and is_frozen(f"{name}/beta") and is_frozen(f"{name}/gamma"):
        options["is_training"] = False
    return slim.batch_norm(inputs, scope=scope, **options)


def stored_in_float32(
    getter: Callable[..., tf.Variable],
    name: str,
    shape: Any = None,
    dtype: tf.DType = tf.float32,
    *args: Any,
    **kwargs: Any,
) -> tf.Variable | tf.Tensor:
    """Keeps variables in float32 while layers compute in 16 bits: a custom getter."""
    # Checkpoints, averages and small updates keep their precision. A layer with a 16-bit input gets
    # a cast of its weights, through which gradients flow back. Batch norm asks for float32 itself
    # and computes its statistics in it.
    variable = getter(name, shape, tf.float32, *args, **kwargs)
    return variable if dtype == tf.float32 else tf.cast(variable, dtype)


def l2_of_stored(weight_decay: float) -> Callable[[tf.Variable | tf.Tensor], tf.Tensor | None]:
    """Returns the L2 loss on the float32 variable behind weights or biases."""
    l2 = slim.l2_regularizer(weight_decay)
    return lambda weights: l2(weights.op.inputs[0] if weights.op.type == "Cast" else weights)


def conv(
    depth: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    padding: str = "SAME",
    **options: Any,
) -> Layer:
    """Returns a convolution with `depth` output channels; `options` are those of `slim.conv2d`."""
    return lambda net, scope: slim.conv2d(
        net, depth, kernel, stride=stride, padding=padding, scope=scope, **options
    )


def max_pool(kernel: int, stride: int = 1, padding: str = "SAME") -> Layer:
    """Returns max pooling over `kernel` x `kernel` positions."""
    return lambda net, scope: slim.max_pool2d(
        net, kernel, stride=stride, padding=padding, scope=scope
    )


def avg_pool(kernel: int, stride: int = 1, padding: str = "SAME") -> Layer:
    """Returns average pooling over `kernel` x `kernel` positions."""
    return lambda net, scope: slim.avg_pool2d(
        net, kernel, stride=stride, padding=padding, scope=scope
    )


def fork(ends: Chain) -> Layer:
    """Returns parallel layers in the enclosing scope, concatenated."""
    return lambda net, _: tf.concat([layer(net, scope) for scope, layer in ends.items()], axis=3)


def branches(*chains: Chain) -> Layer:
    """Returns an Inception block: parallel chains `Branch_0`, `Branch_1`, ..., concatenated."""

    def block(net: tf.Tensor, scope: str) -> tf.Tensor:
        with tf.variable_scope(scope):
            outputs = []
            for index, chain in enumerate(chains):
                with tf.variable_scope(f"Branch_{index}"):
                    outputs.append(through(net, chain))
            return tf.concat(outputs, axis=3)

    return block


def excite(block: Layer, se: bool) -> Layer:
    """Returns a block, followed by squeeze-and-excitation in its scope with `se`."""

    def excited(net: tf.Tensor, scope: str) -> tf.Tensor:
        net = block(net, scope)
        with tf.variable_scope(scope):
            return squeeze_and_excite(net)

    return excited if se else block


def squeeze_and_excite(net: tf.Tensor) -> tf.Tensor:
    """Scales each channel by a gate in (0, 1) computed from the means of all channels.

    Hu et al., Squeeze-and-Excitation Networks, 2018, Figures 2 and 3, with reduction ratio 16.
    """
    channels = net.shape.as_list()[3]
    gate = {
        "Conv": conv(channels // _SE_REDUCTION, 1, activation_fn=tf.nn.relu, normalizer_fn=None),
        "Conv_1": conv(channels, 1, activation_fn=tf.sigmoid, normalizer_fn=None),
    }
    with tf.variable_scope("SE_block"):
        return net * through(tf.reduce_mean(net, [1, 2], keepdims=True), gate)


def through(
    net: tf.Tensor,
    chain: Chain,
    end_points: dict[str, tf.Tensor] | None = None,
    final_endpoint: str | None = None,
) -> tf.Tensor:
    """Applies layers to a feature map, in order, up to the scope `final_endpoint`.

    `end_points`, if passed, receives the output of each layer under its scope.
    """
    if final_endpoint is not None and final_endpoint not in chain:
        raise ValueError(f"unknown final_endpoint {final_endpoint!r}; known: {', '.join(chain)}")
    for scope, layer in chain.items():
        net = layer(net, scope)
        if end_points is not None:
            end_points[scope] = net
        if scope == final_endpoint:
            break
    return net


def window(net: tf.Tensor, size: int) -> list[int]:
    """Returns the smaller of a window of `size` x `size` positions and the feature map."""
    height, width = net.shape.as_list()[1:3]
    return [min(size, height or size), min(size, width or size)]
