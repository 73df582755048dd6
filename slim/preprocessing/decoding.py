"""Decoding of images, whole or in part."""

from collections.abc import Callable

from slim.common.compat import tf


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG, GIF or BMP to uint8 `[height, width, 3]`."""
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def decode_crop(
    image: tf.Tensor, box: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
) -> tf.Tensor:
    """Decodes a crop of an image; of a JPEG, little more than the crop is decoded.

    The pixels are equal to those of `decode_image`, cropped.

    Args:
        image: An encoded image, string scalar, or a decoded one, uint8 `[height, width, 3]`.
        box: Returns the start and the size of the crop, each int32 `[2]` (rows, columns), given
            the shape of the image, int32 `[3]`.

    Returns:
        uint8 `[any, any, 3]`.
    """

    def from_pixels(pixels: tf.Tensor) -> tf.Tensor:
        begin, size = box(tf.shape(pixels))
        return tf.slice(pixels, tf.concat([begin, [0]], 0), tf.concat([size, [3]], 0))

    def from_jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(image)
        begin, size = box(shape)
        # Colours are stored at half the width and interpolated from both sides, so one more column
        # is decoded on each side.
        left = tf.minimum(begin[1], 1)
        right = tf.minimum(shape[1] - begin[1] - size[1], 1)
        window = [begin[0], begin[1] - left, size[0], size[1] + left + right]
        return tf.io.decode_and_crop_jpeg(image, window, channels=3)[:, left : left + size[1]]

    if image.dtype != tf.string:
        crop = from_pixels(image)
    else:
        crop = tf.cond(tf.io.is_jpeg(image), from_jpeg, lambda: from_pixels(decode_image(image)))
    return tf.ensure_shape(crop, [None, None, 3])
