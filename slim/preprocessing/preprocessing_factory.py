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
    """Returns a preprocessing function, `preprocess(image, height, width, seed=None)`.

    It maps an encoded image, a string scalar, or a decoded one, uint8 `[any, any, 3]`, to float32
    `[height, width, 3]`. Training distorts images at random and requires `seed`, integers `[2]`.
    `name` is `inception`, `vgg`, or a network, for the preprocessing that it was trained with.
    """
    module = _PREPROCESSING[preprocessing_kind(name)]
    return partial(module.preprocess_image, is_training=is_training)


def get_views(
    name: str, num_crops: int = 1, central_fraction: float | None = None
) -> Callable[[tf.Tensor, int, int], tf.Tensor]:
    """Returns a function that makes several views of an image, `preprocess(image, height, width)`.

    It maps an image, as for `get_preprocessing`, to float32 `[num_crops, height, width, 3]`; see
    `decoding` for the views. A crop covers `central_fraction`, in (0, 1], of each side, by default
    0.875.
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
