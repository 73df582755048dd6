"""Preprocessing by name."""

import re
from collections.abc import Callable
from functools import partial
from types import ModuleType

from slim.common.compat import tf
from slim.common.errors import UserError, did_you_mean
from slim.preprocessing import inception_preprocessing, vgg_preprocessing
from slim.preprocessing.views import NUM_CROPS

# The released ResNets were trained with the preprocessing of Inception too, so every network
# defaults to it.
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
_VARIANT = re.compile(  # see `get_network`
    r"(inception_v3(?:_se)?)_0[1-9]\d|(resnet_v2_(?:50|101|152))_keras"
)
_PREPROCESSING = {
    "inception": inception_preprocessing,
    "vgg": vgg_preprocessing,
    **dict.fromkeys(_NETWORKS, inception_preprocessing),
}


def preprocessing_kind(name: str) -> str:
    """Returns `inception` or `vgg` for a name that `get_preprocessing` takes.

    Raises:
        UserError: The name is unknown.
    """
    return "vgg" if _find(name) is vgg_preprocessing else "inception"


def get_preprocessing(name: str, is_training: bool = False) -> Callable[..., tf.Tensor]:
    """Returns the preprocessing function of a network.

    Args:
        name: `inception`, `vgg`, or the name of a network for the preprocessing it was trained
            with.
        is_training: Whether to distort images at random.

    Returns:
        `preprocess(image, height, width, seed=None)`, from an encoded image, a string scalar, or a
        decoded image, uint8 `[any, any, 3]`, to float32 `[height, width, 3]`. `seed`, integers
        `[2]`, is required in training.

    Raises:
        UserError: The name is unknown.
    """
    return partial(_find(name).preprocess_image, is_training=is_training)


def get_views(
    name: str, num_crops: int = 1, central_fraction: float | None = None
) -> Callable[[tf.Tensor, int, int], tf.Tensor]:
    """Returns the function that makes several views of an image for evaluation.

    Args:
        name: See `get_preprocessing`.
        num_crops: 1, 5, 10 or 12; see `views`.
        central_fraction: Fraction of each side that a crop covers, in (0, 1]. Default: 0.875.

    Returns:
        `preprocess(image, height, width)`, from an encoded image, a string scalar, or a decoded
        image, uint8 `[any, any, 3]`, to float32 `[num_crops, height, width, 3]`.

    Raises:
        UserError: The name, `num_crops` or `central_fraction` is invalid.
    """
    if num_crops not in NUM_CROPS:
        raise UserError(
            f"--num_crops={num_crops}: expected {', '.join(map(str, NUM_CROPS[:-1]))} or "
            f"{NUM_CROPS[-1]}"
        )
    if central_fraction is not None and not 0 < central_fraction <= 1:
        raise UserError(
            f"--central_fraction={central_fraction}: expected a fraction of each side, more than 0 "
            "and at most 1"
        )
    options = {} if central_fraction is None else {"central_fraction": central_fraction}
    return partial(_find(name).preprocess_views, num_crops=num_crops, **options)


def _find(name: str) -> ModuleType:
    if variant := _VARIANT.fullmatch(name):
        name = variant[1] or variant[2]
    if name not in _PREPROCESSING:
        raise UserError(
            f"--preprocessing_name: unknown preprocessing '{name}'; "
            f"{did_you_mean(name, list(_PREPROCESSING))}"
        )
    return _PREPROCESSING[name]
