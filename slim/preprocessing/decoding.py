"""Images from their bytes: whole, one crop, or the views whose probabilities evaluation averages.

The views are those of Szegedy et al., Going Deeper with Convolutions, 2015, section 7: 1 is the
centre, 5 the centre and the corners, 10 these and their mirror images, and 12 adds the whole image
and its mirror image.
"""

from collections.abc import Callable

from slim.common.compat import tf

NUM_CROPS = (1, 5, 10, 12)


def decode_image(image: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG, GIF or BMP to uint8 `[height, width, 3]`; pixels remain as they are."""
    if image.dtype != tf.string:
        return image
    return tf.io.decode_image(image, channels=3, expand_animations=False)


def decode_crop(
    image: tf.Tensor, box: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
) -> tf.Tensor:
    """Decodes a crop of an image to uint8 `[any, any, 3]`; of a JPEG, little more than the crop.

    The pixels are equal to those of `decode_image`, cropped. `box` maps the shape of the image,
    int32 `[3]`, to the start and the size of the crop, each int32 `[2]` (rows, columns).
    """

    def from_pixels() -> tf.Tensor:
        pixels = decode_image(image)
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
        crop = from_pixels()
    else:
        crop = tf.cond(tf.io.is_jpeg(image), from_jpeg, from_pixels)
    return tf.ensure_shape(crop, [None, None, 3])


def stack_views(
    image: tf.Tensor,
    begin: tf.Tensor,
    size: tf.Tensor,
    num_crops: int,
    resize: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """Returns the views of an image `[any, any, 3]`, float32 `[num_crops, height, width, 3]`.

    `begin` is that of the central crop, and `size` that of every crop except the whole image, both
    int32 `[2]` (rows, columns). `resize` resizes a part of the image to the size of the views.
    """
    bottom, right = tf.unstack(tf.shape(image)[:2] - size)
    begins = [begin]
    if num_crops > 1:
        begins += [[0, 0], [0, right], [bottom, 0], [bottom, right]]
    size = tf.concat([size, [3]], 0)
    crops = [tf.slice(image, tf.concat([place, [0]], 0), size) for place in begins]
    if num_crops == 12:
        crops.append(image)
    views = tf.stack([resize(crop) for crop in crops])
    return tf.concat([views, tf.reverse(views, [2])], 0) if num_crops >= 10 else views
