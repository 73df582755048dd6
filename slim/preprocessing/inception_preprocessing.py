"""Inception preprocessing: distortions for training, a central crop for evaluation.

Szegedy et al., Going Deeper with Convolutions, 2015, section 6, as published in TF-Slim. Input
images are encoded, in which case only the crop is decoded, or decoded. Output images are float32 in
[-1, 1].

Random choices are functions of a seed per image, so that a run is reproducible with any number of
threads.
"""

from functools import partial, reduce

from slim.common.compat import tf
from slim.preprocessing.decoding import decode_crop, decode_image, stack_views

CENTRAL_FRACTION = 0.875
MIN_OBJECT_COVERED = 0.1
ASPECT_RATIO_RANGE = (0.75, 1.33)
AREA_RANGE = (0.05, 1.0)
MAX_BRIGHTNESS_DELTA = 32 / 255
SATURATION_RANGE = (0.5, 1.5)
CONTRAST_RANGE = (0.5, 1.5)
MAX_HUE_DELTA = 0.2

# The published orders of the four colour distortions; one is drawn per image. fast_mode has
# brightness and saturation only.
_COLOR_ORDERS = (
    ("brightness", "saturation", "hue", "contrast"),
    ("saturation", "brightness", "contrast", "hue"),
    ("contrast", "hue", "brightness", "saturation"),
    ("hue", "saturation", "contrast", "brightness"),
)
_RESIZE_METHODS = (
    tf.image.ResizeMethod.BILINEAR,
    tf.image.ResizeMethod.NEAREST_NEIGHBOR,
    tf.image.ResizeMethod.BICUBIC,
    tf.image.ResizeMethod.AREA,
)


def preprocess_image(
    image: tf.Tensor,
    height: int,
    width: int,
    *,
    is_training: bool = False,
    seed: tf.Tensor | None = None,
    bbox: tf.Tensor | None = None,
    fast_mode: bool = True,
) -> tf.Tensor:
    """Preprocesses an image.

    Args:
        image: Encoded (JPEG, PNG, GIF or BMP), a string scalar, or decoded, uint8 `[any, any, 3]`.
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        is_training: Whether to distort the image; otherwise its centre is cropped.
        seed: Integers `[2]` that determine the distortions; required in training.
        bbox: Bounding boxes, float32 `[1, boxes, 4]`, (ymin, xmin, ymax, xmax) in [0, 1]. A
            training crop covers at least a tenth of one of them. Default: the whole image.
        fast_mode: Whether to use bilinear resizing, brightness and saturation only, as in published
            training.

    Returns:
        float32 `[height, width, 3]` in [-1, 1].
    """
    if is_training:
        return preprocess_for_train(image, height, width, seed=seed, bbox=bbox, fast_mode=fast_mode)
    return preprocess_for_eval(image, height, width)


def preprocess_for_train(
    image: tf.Tensor,
    height: int,
    width: int,
    *,
    seed: tf.Tensor,
    bbox: tf.Tensor | None = None,
    fast_mode: bool = True,
) -> tf.Tensor:
    """Crops, resizes, flips and recolours an image at random, as `preprocess_image` describes."""
    crop_seed, seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    crop = decode_crop(image, partial(_random_box, seed=crop_seed, bbox=bbox))
    if fast_mode:
        image = tf.ensure_shape(_resize(crop, height, width), [height, width, 3])
        return _flip_and_recolor(image, tf.random.stateless_uniform([3], seed))
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    image = _one_of(seeds[0], [partial(_resize, crop, height, width, m) for m in _RESIZE_METHODS])
    image = tf.where(_uniform(seeds[1], 0, 1) < 0.5, tf.reverse(image, [1]), image) / 255
    image = _one_of(seeds[2], [partial(distort_color, image, seeds[3], o) for o in _COLOR_ORDERS])
    image = tf.clip_by_value(image, 0, 1)
    return tf.ensure_shape(image * 2 - 1, [height, width, 3])


def preprocess_for_eval(
    image: tf.Tensor, height: int, width: int, central_fraction: float = CENTRAL_FRACTION
) -> tf.Tensor:
    """Crops the central part and resizes it to float32 `[height, width, 3]` in [-1, 1]."""
    crop = decode_crop(image, partial(_central_box, fraction=central_fraction))
    image = _resize(crop, height, width)
    return tf.ensure_shape(image * (2 / 255) - 1, [height, width, 3])


def preprocess_views(
    image: tf.Tensor,
    height: int,
    width: int,
    num_crops: int = 1,
    central_fraction: float = CENTRAL_FRACTION,
) -> tf.Tensor:
    """Returns several views of an image, float32 `[num_crops, height, width, 3]` in [-1, 1].

    The first is that of `preprocess_for_eval`.
    """
    if num_crops == 1:
        return preprocess_for_eval(image, height, width, central_fraction)[tf.newaxis]
    pixels = decode_image(image)
    views = stack_views(
        pixels,
        *_central_box(tf.shape(pixels), central_fraction),
        num_crops,
        partial(_resize, height=height, width=width),
    )
    return tf.ensure_shape(views * (2 / 255) - 1, [num_crops, height, width, 3])


def _central_box(shape: tf.Tensor, fraction: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns begin and size of the central part, rounded as in `tf.image.central_crop`."""
    sides = tf.cast(shape[:2], tf.float64)
    begin = tf.cast((sides - sides * fraction) / 2, tf.int32)
    return begin, shape[:2] - 2 * begin


def _random_box(
    shape: tf.Tensor, seed: tf.Tensor, bbox: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns begin and size of a random crop."""
    if bbox is None:
        bbox = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])
    begin, size, _ = tf.compat.v2.image.stateless_sample_distorted_bounding_box(
        shape,
        bbox,
        seed,
        min_object_covered=MIN_OBJECT_COVERED,
        aspect_ratio_range=ASPECT_RATIO_RANGE,
        area_range=AREA_RANGE,
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return begin[:2], size[:2]


@tf.function(jit_compile=True)
def _flip_and_recolor(image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Flips and recolours a resized image in [0, 255] by three random numbers in [0, 1)."""
    # Compiled, this is one pass over the pixels; separate operations take 20 times as long. To
    # choose per pixel whether to flip would keep the pass from working on several pixels at once.
    flip, brightness, saturation = tf.unstack(draws)
    brightness = _between(-MAX_BRIGHTNESS_DELTA, MAX_BRIGHTNESS_DELTA, brightness)
    saturation = _between(*SATURATION_RANGE, saturation)

    def recolor(image: tf.Tensor) -> tf.Tensor:
        image = adjust_saturation(image / 255 + brightness, saturation)
        return tf.clip_by_value(image, 0, 1) * 2 - 1

    return tf.cond(flip < 0.5, lambda: recolor(tf.reverse(image, [1])), lambda: recolor(image))


def adjust_saturation(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Computes `tf.image.adjust_saturation` of a float32 image for a scalar factor >= 0."""
    # Without converting to hue, saturation and value: the value, which is the largest channel, and
    # the hue are unchanged when the distances of all channels from the largest are scaled by one
    # number. The saturation is the largest distance divided by the value, and is at most 1.
    channels = tf.split(image, 3, axis=-1)
    value = reduce(tf.maximum, channels)
    distance = value - reduce(tf.minimum, channels)
    # If all channels are equal, the result does not depend on this number.
    most = tf.maximum(value, 0) / tf.maximum(distance, 1e-9)
    return value - (value - image) * tf.minimum(factor, most)


def distort_color(image: tf.Tensor, seed: tf.Tensor, order: tuple[str, ...]) -> tf.Tensor:
    """Changes brightness, saturation, hue and contrast of an image in [0, 1] in the given order."""
    distortions = {
        "brightness": (tf.add, -MAX_BRIGHTNESS_DELTA, MAX_BRIGHTNESS_DELTA),
        "saturation": (adjust_saturation, *SATURATION_RANGE),
        "hue": (tf.image.adjust_hue, -MAX_HUE_DELTA, MAX_HUE_DELTA),
        "contrast": (tf.image.adjust_contrast, *CONTRAST_RANGE),
    }
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    seeds = dict(zip(distortions, seeds, strict=True))
    for name in order:
        distort, low, high = distortions[name]
        image = distort(image, _uniform(seeds[name], low, high))
    return image


def _uniform(seed: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return tf.random.stateless_uniform([], seed, low, high)


def _between(low: float, high: float, share: tf.Tensor) -> tf.Tensor:
    return low + (high - low) * share


def _one_of(seed: tf.Tensor, functions: list) -> tf.Tensor:
    index = tf.random.stateless_uniform([], seed, 0, len(functions), dtype=tf.int32)
    return tf.switch_case(index, functions)


def _resize(
    image: tf.Tensor, height: int, width: int, method: str = tf.image.ResizeMethod.BILINEAR
) -> tf.Tensor:
    # Version 1 of the operation has the corners and pixel centres of the published networks.
    # Floats are resized faster than bytes, conversion included, with equal results.
    return tf.image.resize_images(tf.cast(image, tf.float32), [height, width], method)
