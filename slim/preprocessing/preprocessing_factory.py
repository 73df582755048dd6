"""Preprocessing by name."""

from collections.abc import Callable
from functools import partial

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.network_table import preprocessing_kind
from slim.preprocessing import inception_preprocessing, vgg_preprocessing
from slim.preprocessing.decoding import NUM_CROPS

_PREPROCESSING = {"inception": inception_preprocessing, "vgg": vgg_preprocessing}


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
    module = _PREPROCESSING[preprocessing_kind(name)]
    return partial(module.preprocess_image, is_training=is_training)


def get_views(
    name: str, num_crops: int = 1, central_fraction: float | None = None
) -> Callable[[tf.Tensor, int, int], tf.Tensor]:
    """Returns the function that makes several views of an image for evaluation.

    Args:
        name: The name, as for `get_preprocessing`.
        num_crops: 1, 5, 10 or 12, as for `stack_views`.
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
    module = _PREPROCESSING[preprocessing_kind(name)]
    return partial(module.preprocess_views, num_crops=num_crops, **options)
