"""VGG's preprocessing: resize the smaller side, crop, subtract the mean colour.

Simonyan and Zisserman, Very Deep Convolutional Networks, 2015, sections 3.1 and 3.2, as TF-Slim
publishes it. Images come encoded or decoded, and leave as float32 with the mean of ImageNet's
training images subtracted, roughly in [-124, 151].
"""

import math

from slim.common.compat import tf
from slim.datasets.input import decode_image
from slim.preprocessing.views import stack_views

MEANS_RGB = (123.68, 116.78, 103.94)
RESIZE_SIDE_MIN = 256
RESIZE_SIDE_MAX = 512
_DESIGN_SIZE = 224


def preprocess_image(
    image: tf.Tensor,
    height: int,
    width: int,
    is_training: bool = False,
    seed: tf.Tensor | None = None,
    resize_side_min: int = RESIZE_SIDE_MIN,
    resize_side_max: int = RESIZE_SIDE_MAX,
) -> tf.Tensor:
    """One image to the network's input.

    Where the result is larger than 224 pixels the sides to resize to grow with it, so that the
    crop, which failed as published, keeps the share of the image that it has at 224.

    Args:
        image: Encoded, a string scalar, or decoded, uint8 `[height, width, 3]`.
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        is_training: Random side, crop and flip; else the least side and the central crop.
        seed: Integers `[2]` that the random choices depend on; needed in training.
        resize_side_min: The least that the image's smaller side is resized to, in pixels.
        resize_side_max: The most in training, in pixels.

    Returns:
        float32 `[height, width, 3]`, the mean colour subtracted.
    """
    scale = max(1.0, max(height, width) / _DESIGN_SIZE)
    side_min = math.ceil(resize_side_min * scale)
    side_max = math.ceil(resize_side_max * scale)
    if image.dtype == tf.string:
        image = decode_image(image)
    if is_training:
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        side = tf.random.stateless_uniform([], seeds[0], side_min, side_max + 1, dtype=tf.int32)
        image = _aspect_preserving_resize(image, side)
        image = tf.compat.v2.image.stateless_random_crop(image, [height, width, 3], seeds[1])
        image = tf.compat.v2.image.stateless_random_flip_left_right(image, seeds[2])
    else:
        image = _aspect_preserving_resize(image, tf.constant(side_min))
        image = tf.image.resize_with_crop_or_pad(image, height, width)
    return tf.ensure_shape(image - tf.constant(MEANS_RGB), [height, width, 3])


def preprocess_views(
    image: tf.Tensor,
    height: int,
    width: int,
    num_crops: int = 1,
    central_fraction: float | None = None,
) -> tf.Tensor:
    """Several views of an image, see `views`.

    Args:
        image: As `preprocess_image` takes it.
        height: Height of the views in pixels.
        width: Width of the views in pixels.
        num_crops: One of `views.NUM_CROPS`.
        central_fraction: The part of the smaller side that a crop has, in (0, 1]. Default: as
            `preprocess_image` has it, 87.5% at 224 pixels.

    Returns:
        float32 `[num_crops, height, width, 3]`, the mean colour subtracted.
    """
    scale = max(1.0, max(height, width) / _DESIGN_SIZE)
    side = math.ceil(RESIZE_SIDE_MIN * scale)
    if central_fraction is not None:
        side = math.ceil(max(height, width) / central_fraction)
    pixels = decode_image(image) if image.dtype == tf.string else image
    pixels = _aspect_preserving_resize(pixels, tf.constant(side))
    size = tf.constant([height, width])
    views = stack_views(
        pixels,
        (tf.shape(pixels)[:2] - size) // 2,
        size,
        num_crops,
        lambda crop: tf.image.resize_images(crop, [height, width]),
    )
    return tf.ensure_shape(views - tf.constant(MEANS_RGB), [num_crops, height, width, 3])


def _aspect_preserving_resize(image: tf.Tensor, smaller_side: tf.Tensor) -> tf.Tensor:
    """Resizes the smaller side to `smaller_side` pixels and the other in proportion."""
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = tf.cast(smaller_side, tf.float32) / tf.reduce_min(sides)
    # Floats are resized faster than bytes, the conversion included, and to equal results.
    image = tf.cast(image, tf.float32)
    return tf.image.resize_images(image, tf.cast(tf.round(sides * scale), tf.int32))
