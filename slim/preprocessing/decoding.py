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

    def cut(pixels: tf.Tensor, begin: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        return tf.slice(pixels, tf.concat([begin, [0]], 0), tf.concat([size, [3]], 0))

    def from_pixels() -> tf.Tensor:
        pixels = decode_image(image)
        return cut(pixels, *box(tf.shape(pixels)))

    def from_jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(image)
        begin, size = box(shape)
        # Colours are stored at half the width and interpolated from both sides, so one more column
        # is decoded on each side.
        before = tf.minimum(begin, [0, 1])
        after = tf.minimum(shape[:2] - begin - size, [0, 1])
        window = tf.concat([begin - before, size + before + after], 0)
        return cut(tf.io.decode_and_crop_jpeg(image, window, channels=3), before, size)

    if image.dtype != tf.string:
        crop = from_pixels()
    else:
        crop = tf.cond(tf.io.is_jpeg(image), from_jpeg, from_pixels)
    return tf.ensure_shape(crop, [None, None, 3])


def store_image(image: tf.Tensor, apply_orientation: bool) -> tf.Tensor:
    """Converts a JPEG, PNG, GIF or BMP as `slim.datasets.images.load_image` does, in the graph.

    What training decodes from the results is equal, pixel by pixel, except that transparent GIFs
    are composed with black. BMPs with a palette are refused.
    """
    orientation = _read_orientation(image) if apply_orientation else tf.constant(1)

    def encode(pixels: tf.Tensor) -> tf.Tensor:
        pixels = _turn(pixels, orientation) if apply_orientation else pixels
        return tf.io.encode_jpeg(pixels, quality=95, chroma_downsampling=False)

    def from_jpeg() -> tf.Tensor:
        def again() -> tf.Tensor:  # decoded like Pillow does, not in the faster way of training
            return encode(tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE"))

        is_plain = tf.io.extract_jpeg_shape(image)[2] < 4
        is_upright = (orientation < 2) | (orientation > 8)
        return tf.cond(is_plain & is_upright, lambda: image, again)

    def from_png() -> tf.Tensor:
        # Grey values of 16 bits are rounded. Of other colours, all decoders take the high byte.
        is_grey16 = tf.equal(tf.strings.substr(image, 24, 2), b"\x10\x00")
        return encode(tf.cast(tf.cond(is_grey16, from_grey16, from_colours), tf.uint8))

    def from_grey16() -> tf.Tensor:
        values = tf.cast(tf.io.decode_png(image, channels=1, dtype=tf.uint16), tf.int32)
        return tf.tile((values + 128) // 257, [1, 1, 3])

    def from_colours() -> tf.Tensor:
        colours, alpha = tf.split(tf.cast(tf.io.decode_png(image, channels=4), tf.int32), [3, 1], 2)
        # Opaque pixels of less than 8 bits get an alpha of less than 255.
        has_alpha = has(tf.strings.split([image], "IDAT").values[0], "tRNS")
        alpha = tf.where(has_alpha | (number(24) >= 8), alpha, 255 * tf.ones_like(alpha))
        return (colours * alpha + 255 * (255 - alpha) + 127) // 255

    def from_others() -> tf.Tensor:
        is_palette = has(tf.strings.substr(image, 0, 2), "BM") & (number(28) < 24)
        message = "a BMP has a palette: convert it to PNG"
        with tf.control_dependencies([tf.debugging.Assert(~is_palette, [message])]):
            return encode(decode_image(image))

    def number(position: int) -> tf.Tensor:
        return tf.io.decode_raw(tf.strings.substr(image, position, 1), tf.uint8)[0]

    def has(part: tf.Tensor, word: str) -> tf.Tensor:
        return tf.size(tf.strings.split([part], word).values) > 1

    is_png = tf.equal(tf.strings.substr(image, 0, 4), b"\x89PNG")
    return tf.case(
        [(tf.io.is_jpeg(image), from_jpeg), (is_png, from_png)],
        default=from_others,
    )


def _read_orientation(image: tf.Tensor) -> tf.Tensor:
    """Returns the orientation in the EXIF of a JPEG or a PNG, int32; 1 without one."""
    head = tf.strings.substr(image, 0, 2**16)
    words = b"Exif\0\0", b"eXIf"  # in a JPEG and in a PNG
    found = [tf.strings.split([head], word).values[1:2] for word in words]
    content = tf.concat([*found, [b""]], 0)[0] + 16 * b"\0"
    exif = tf.cast(tf.io.decode_raw(content, tf.uint8), tf.int32)
    # The byte order, the start of a directory, and its entries: each has a tag, a type, a number of
    # values, and a value.
    big = tf.equal(exif[0], ord("M"))
    order = tf.where(big, [256, 1], [1, 256])

    def number(two_bytes: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(two_bytes * order, -1)

    start = tf.minimum(number(tf.where(big, exif[6:8], exif[4:6])), tf.size(exif) - 2)
    entries = exif[start + 2 :][: 12 * number(exif[start : start + 2])]
    entries = tf.reshape(entries[: tf.size(entries) // 12 * 12], [-1, 12])
    found = tf.boolean_mask(number(entries[:, 8:10]), tf.equal(number(entries[:, :2]), 0x0112))
    return tf.concat([found, [1]], 0)[0]


def _turn(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Makes an image with an orientation of EXIF upright."""

    def change(where: tuple[int, ...], change: Callable, pixels: tf.Tensor) -> tf.Tensor:
        applies = tf.reduce_any(tf.equal(orientation, where))
        return tf.cond(applies, lambda: change(pixels), lambda: pixels)

    pixels = change((5, 6, 7, 8), lambda pixels: tf.transpose(pixels, [1, 0, 2]), pixels)
    pixels = change((2, 3, 6, 7), lambda pixels: tf.reverse(pixels, [1]), pixels)
    return change((3, 4, 7, 8), lambda pixels: tf.reverse(pixels, [0]), pixels)


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
