"""Inception's preprocessing: distortions for training, a central crop for evaluation.

Szegedy et al., Going Deeper with Convolutions, 2015, section 6, as TF-Slim publishes it. Images
come decoded, uint8 `[height, width, 3]`, and leave as float32 in [-1, 1].

Random choices are functions of a seed that the caller gives with each image, so that a run can be
repeated whatever the number of threads.
"""

from slim.compat import tf

CENTRAL_FRACTION = 0.875
MIN_OBJECT_COVERED = 0.1
ASPECT_RATIO_RANGE = (0.75, 1.33)
AREA_RANGE = (0.05, 1.0)
MAX_BRIGHTNESS_DELTA = 32 / 255
SATURATION_RANGE = (0.5, 1.5)
CONTRAST_RANGE = (0.5, 1.5)
MAX_HUE_DELTA = 0.2

# The published orders of the four colour distortions; without fast_mode one is drawn an image.
_COLOR_ORDERS = (
    ("brightness", "saturation", "hue", "contrast"),
    ("saturation", "brightness", "contrast", "hue"),
    ("contrast", "hue", "brightness", "saturation"),
    ("hue", "saturation", "contrast", "brightness"),
)
_FAST_COLOR_ORDER = ("brightness", "saturation")
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
    is_training: bool = False,
    seed: tf.Tensor | None = None,
    bbox: tf.Tensor | None = None,
    fast_mode: bool = True,
) -> tf.Tensor:
    """One decoded image to the network's input.

    Args:
        image: uint8 `[height, width, 3]`.
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        is_training: Distort the image; else crop its centre.
        seed: Integers `[2]` that the distortions depend on; needed in training.
        bbox: Boxes around objects, float32 `[1, boxes, 4]`, (ymin, xmin, ymax, xmax) in [0, 1]; a
            training crop covers at least a tenth of one. Default: the whole image.
        fast_mode: Bilinear resizing, brightness and saturation only, as published in training.

    Returns:
        float32 `[height, width, 3]` in [-1, 1].
    """
    if is_training:
        return preprocess_for_train(image, height, width, seed, bbox, fast_mode)
    return preprocess_for_eval(image, height, width)


def preprocess_for_train(
    image: tf.Tensor,
    height: int,
    width: int,
    seed: tf.Tensor,
    bbox: tf.Tensor | None = None,
    fast_mode: bool = True,
) -> tf.Tensor:
    """A random crop of random area and aspect, resized, flipped and recoloured; see above."""
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 5))
    image = distorted_bounding_box_crop(image, seeds[0], bbox)
    # The resize works on uint8 and yields float32 of the same scale, 0 to 255.
    if fast_mode:
        image = _resize(image, height, width, tf.image.ResizeMethod.BILINEAR)
    else:
        image = _one_of(
            seeds[1], [lambda m=m: _resize(image, height, width, m) for m in _RESIZE_METHODS]
        )
    image = image / 255
    image = tf.cond(_uniform(seeds[2], 0, 1) < 0.5, lambda: image[:, ::-1], lambda: image)
    if fast_mode:
        image = distort_color(image, seeds[3], _FAST_COLOR_ORDER)
    else:
        image = _one_of(
            seeds[4], [lambda o=o: distort_color(image, seeds[3], o) for o in _COLOR_ORDERS]
        )
    image = tf.clip_by_value(image, 0, 1)
    return tf.ensure_shape(image * 2 - 1, [height, width, 3])


def preprocess_for_eval(
    image: tf.Tensor, height: int, width: int, central_fraction: float = CENTRAL_FRACTION
) -> tf.Tensor:
    """The central 87.5% of each side, resized to float32 `[height, width, 3]` in [-1, 1]."""
    image = tf.image.central_crop(image, central_fraction)
    image = _resize(image, height, width, tf.image.ResizeMethod.BILINEAR)
    return tf.ensure_shape(image / 255 * 2 - 1, [height, width, 3])


def distorted_bounding_box_crop(
    image: tf.Tensor, seed: tf.Tensor, bbox: tf.Tensor | None = None
) -> tf.Tensor:
    """A random crop: 5% to 100% of the area, aspect (width / height) from 0.75 to 1.33.

    Args:
        image: `[height, width, channels]`.
        seed: Integers `[2]`.
        bbox: Boxes as in `preprocess_image`.

    Returns:
        The crop, of the image's type.
    """
    if bbox is None:
        bbox = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])
    begin, size, _ = tf.compat.v2.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        bbox,
        seed,
        min_object_covered=MIN_OBJECT_COVERED,
        aspect_ratio_range=ASPECT_RATIO_RANGE,
        area_range=AREA_RANGE,
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    crop = tf.slice(image, begin, size)
    crop.set_shape([None, None, image.shape[-1]])
    return crop


def distort_color(image: tf.Tensor, seed: tf.Tensor, order: tuple[str, ...]) -> tf.Tensor:
    """Changes brightness, saturation, hue and contrast of an image in [0, 1], in that order."""
    seeds = dict(
        zip(
            ("brightness", "saturation", "hue", "contrast"),
            tf.unstack(tf.random.experimental.stateless_split(seed, 4)),
            strict=True,
        )
    )
    distortions = {
        "brightness": lambda image, seed: (
            image + _uniform(seed, -MAX_BRIGHTNESS_DELTA, MAX_BRIGHTNESS_DELTA)
        ),
        "saturation": lambda image, seed: tf.image.adjust_saturation(
            image, _uniform(seed, *SATURATION_RANGE)
        ),
        "hue": lambda image, seed: tf.image.adjust_hue(
            image, _uniform(seed, -MAX_HUE_DELTA, MAX_HUE_DELTA)
        ),
        "contrast": lambda image, seed: tf.image.adjust_contrast(
            image, _uniform(seed, *CONTRAST_RANGE)
        ),
    }
    for name in order:
        image = distortions[name](image, seeds[name])
    return image


def _uniform(seed: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return tf.random.stateless_uniform([], seed, low, high)


def _one_of(seed: tf.Tensor, functions: list) -> tf.Tensor:
    index = tf.random.stateless_uniform([], seed, 0, len(functions), dtype=tf.int32)
    return tf.switch_case(index, functions)


def _resize(image: tf.Tensor, height: int, width: int, method: str) -> tf.Tensor:
    # Version 1 of the operation: corners and pixel centres as the published networks saw them.
    return tf.cast(tf.image.resize_images(image, [height, width], method), tf.float32)
