"""Preprocessing by name."""

from collections.abc import Callable
from functools import partial

from slim.compat import tf
from slim.errors import UserError, did_you_mean
from slim.preprocessing import inception_preprocessing, vgg_preprocessing

# The released ResNets were trained and used with Inception's preprocessing too, so every network
# defaults to it; VGG's is there by its own name.
_NETWORKS = (
    "inception_v3",
    "inception_v3_se",
    "inception_v4",
    "inception_v4_se",
    "inception_resnet_v2",
    "inception_resnet_v2_se",
    "resnet_v2_50",
    "resnet_v2_101",
    "resnet_v2_152",
    "resnet_v2_200",
    "resnet_v2_50_se",
    "resnet_v2_101_se",
    "resnet_v2_152_se",
)
_PREPROCESSING = {
    "inception": inception_preprocessing.preprocess_image,
    "vgg": vgg_preprocessing.preprocess_image,
    **dict.fromkeys(_NETWORKS, inception_preprocessing.preprocess_image),
}


def get_preprocessing(name: str, is_training: bool = False) -> Callable[..., tf.Tensor]:
    """Looks up how a network's images are prepared.

    Args:
        name: `inception`, `vgg`, or a network's name for what that network was trained with.
        is_training: Distort images at random.

    Returns:
        `preprocess(image, height, width, seed=None)`, from an encoded image, a string scalar, or a
        decoded one, uint8 `[any, any, 3]`, to float32 `[height, width, 3]`; `seed`, integers
        `[2]`, is needed in training.

    Raises:
        UserError: There is none of that name.
    """
    if name not in _PREPROCESSING:
        raise UserError(
            f"--preprocessing_name: unknown preprocessing '{name}'; "
            f"{did_you_mean(name, list(_PREPROCESSING))}"
        )
    return partial(_PREPROCESSING[name], is_training=is_training)
