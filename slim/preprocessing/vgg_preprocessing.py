"""VGG preprocessing: resizes the smaller side, crops, subtracts the mean colour.

Simonyan and Zisserman, Very Deep Convolutional Networks, 2015, sections 3.1 and 3.2, as published
in TF-Slim. Output images are float32, roughly in [-124, 151].
"""

import math

from slim.common.compat import tf
from slim.preprocessing.decoding import decode_image, stack_views

MEANS_RGB = (123.68, 116.78, 103.94)
RESIZE_SIDE_MIN = 256
RESIZE_SIDE_MAX = 512
_DESIGN_SIZE = 224


def preprocess_image(
    image: tf.Tensor,
    height: int,
    width: int,
    *,
    is_training: bool = False,
    seed: tf.Tensor | None = None,
    resize_side_min: int = RESIZE_SIDE_MIN,
    resize_side_max: int = RESIZE_SIDE_MAX,
) -> tf.Tensor:
    """Preprocesses an image.

    For results larger than 224 pixels the resized sides grow in proportion, so that the crop covers
    the same fraction of the image as at 224. The published code fails there.

    Args:
        image: Encoded, a string scalar, or decoded, uint8 `[any, any, 3]`.
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        is_training: Whether side, crop and flip are random; otherwise the smallest side and the
            central crop are taken.
        seed: Integers `[2]` that determine the random choices; required in training.
        resize_side_min: Minimum of the resized smaller side in pixels.
        resize_side_max: Maximum of the resized smaller side in training, in pixels.

    Returns:
        float32 `[height, width, 3]`, with the mean colour subtracted.
    """
    scale = max(1.0, max(height, width) / _DESIGN_SIZE)
    side_min = math.ceil(resize_side_min * scale)
    side_max = math.ceil(resize_side_max * scale)
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
    """Returns several views of an image, like `inception_preprocessing.preprocess_views`.

    A crop covers `central_fraction` of the smaller side, by default as much as that of
    `preprocess_image`: 0.875 at 224 pixels.
    """
    scale = max(1.0, max(height, width) / _DESIGN_SIZE)
    side = math.ceil(RESIZE_SIDE_MIN * scale)
    if central_fraction is not None:
        side = math.ceil(max(height, width) / central_fraction)
    pixels = _aspect_preserving_resize(decode_image(image), tf.constant(side))
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
    # Floats are resized faster than bytes, conversion included, with equal results.
    image = tf.cast(image, tf.float32)
    return tf.image.resize_images(image, tf.cast(tf.round(sides * scale), tf.int32))
