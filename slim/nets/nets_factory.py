"""The networks by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slim.compat import slim, tf
from slim.errors import UserError, did_you_mean
from slim.nets import inception_v3


@dataclass(frozen=True)
class Network:
    """What the factory knows of a network.

    Attributes:
        build: From images to logits and end points, as `inception_v3.inception_v3`.
        arg_scope: The network's defaults, as `inception_utils.inception_arg_scope`.
        default_image_size: Height and width that the network was designed for, in pixels.
        smallest_image_size: Height and width below which a feature map would vanish, in pixels.
        has_aux_logits: Whether `build` takes `create_aux_logits`.
    """

    build: Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]]
    arg_scope: Callable[..., dict]
    default_image_size: int
    smallest_image_size: int
    has_aux_logits: bool


NETWORKS = {
    "inception_v3": Network(
        inception_v3.inception_v3,
        inception_v3.inception_v3_arg_scope,
        inception_v3.DEFAULT_IMAGE_SIZE,
        inception_v3.SMALLEST_IMAGE_SIZE,
        has_aux_logits=True,
    ),
}


def get_network(name: str) -> Network:
    """Looks a network up.

    Raises:
        UserError: There is none of that name.
    """
    if name not in NETWORKS:
        raise UserError(
            f"--model_name: unknown network '{name}'; {did_you_mean(name, list(NETWORKS))}"
        )
    return NETWORKS[name]


def get_network_fn(
    name: str,
    num_classes: int | None,
    weight_decay: float = 0.0,
    is_training: bool = False,
    batch_norm_decay: float | None = None,
) -> Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]]:
    """A function that builds a network, `logits, end_points = network_fn(images)`.

    Args:
        name: A key of `NETWORKS`.
        num_classes: Number of classes; None for features.
        weight_decay: Coefficient of the L2 loss on the weights.
        is_training: Build for training.
        batch_norm_decay: Decay of the moving mean and variance. Default: the network's.

    Returns:
        The function; it has the attribute `default_image_size`, takes float32
        `[batch, height, width, 3]` and the network's other arguments by name.

    Raises:
        UserError: There is no network of that name; from the function: images are too small.
    """
    network = get_network(name)
    options = {} if batch_norm_decay is None else {"batch_norm_decay": batch_norm_decay}

    def network_fn(images: tf.Tensor, **kwargs: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        check_image_size(name, *images.shape.as_list()[1:3])
        if not network.has_aux_logits:
            kwargs.pop("create_aux_logits", None)
        with slim.arg_scope(network.arg_scope(weight_decay=weight_decay, **options)):
            return network.build(images, num_classes=num_classes, is_training=is_training, **kwargs)

    network_fn.default_image_size = network.default_image_size
    return network_fn


def check_image_size(name: str, height: int | None, width: int | None) -> None:
    """Refuses images that a network would shrink to nothing; sizes are in pixels, None unknown.

    Raises:
        UserError: Height or width is below the network's smallest.
    """
    smallest = get_network(name).smallest_image_size
    if any(size is not None and size < smallest for size in (height, width)):
        raise UserError(
            f"image size {height}x{width} is too small for {name}, which needs at least "
            f"{smallest}x{smallest}; give a larger --train_image_size or --eval_image_size"
        )
