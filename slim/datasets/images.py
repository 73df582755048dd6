"""Conversion of image files to JPEGs, which training decodes to RGB.

Pillow is imported only when an image needs it: reading a header is faster without it, and loading
Pillow takes longer than converting a small dataset.
"""

import re
import stat
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

# Formats that Pillow decodes by itself and knows by their first bytes. EPS, for example, would
# start Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")
FORMATS += ("DIB", "PCX", "QOI", "SGI", "SUN")

_JPEG_START = b"\xff\xd8\xff"
# Markers that begin a segment. Stuffed bytes, fill bytes and restart markers are part of the
# entropy-coded data.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_END_OF_IMAGE = 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # all kinds of JPEG
_PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: every decoder reads these
_PLAIN_COMPONENTS = (b"\x01", b"\x03")  # grayscale, which decoders expand to RGB, and colour
_MAX_SAMPLES = 2**29 - 1  # height x width x 3; TensorFlow does not decode larger images
_MAX_BYTES = 2**31 - 1  # of a file; larger records cannot be parsed


class ImageError(Exception):
    """A file cannot be used as an image."""


def load_image(path: Path, verify: bool) -> tuple[bytes, int, int]:
    """Reads an image file of any format, regardless of its extension, as a JPEG.

    The bytes of a plain JPEG (one or three components of 8 bits) are returned unchanged. Other
    images are decoded, composed with a white background if they are transparent, and encoded as
    RGB. Like `tf.io.decode_jpeg`, this ignores the orientation in EXIF. `verify` decodes a plain
    JPEG to check that training can; otherwise only its header is read.

    Returns:
        The encoded image, and its height and width in pixels.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a named pipe or a device may never end
            raise ImageError("not a regular file")
        if status.st_size > _MAX_BYTES:
            raise ImageError(f"too large: {status.st_size} bytes")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ImageError("missing") from None
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None
    return convert_image(content, verify)


def load_thumbnail(path: Path, most: int):
    """Returns the centre of an image file as a square Pillow image in RGB, `most` pixels wide.

    Smaller images keep their size. The file may have any format that `load_image` reads.
    """
    from PIL import Image, ImageOps

    content = load_image(path, verify=False)[0]
    try:
        with Image.open(BytesIO(content)) as image:
            image.draft("RGB", (2 * most, 2 * most))  # decodes at a fraction of the size
            return ImageOps.fit(image.convert("RGB"), (min(*image.size, most),) * 2)
    except OSError as error:
        raise ImageError(f"cannot be decoded ({error})") from error


def convert_image(content: bytes, verify: bool) -> tuple[bytes, int, int]:
    """Converts the content of an image file to a JPEG as `load_image` does."""
    if not content:
        raise ImageError("empty file")
    if content.startswith(_JPEG_START) and (size := _plain_jpeg_size(content)):
        _check_size(*size)
        if verify:
            _check_jpeg(content)
    else:
        content, size = _encode(content)
    return content, *size


def _check_size(height: int, width: int) -> None:
    """Checks the size in the header of an image before it is decoded."""
    if height * width * 3 > _MAX_SAMPLES:
        raise ImageError(f"too large to train on: {width}x{height} pixels")


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yields the marker and the start of the payload of each segment, up to the end of image."""
    position = 2
    while match := _MARKER.search(content, position):
        marker, position = content[match.end() - 1], match.end()
        yield marker, position
        if marker == _END_OF_IMAGE:
            return
        position += int.from_bytes(content[position : position + 2], "big")
    raise ImageError("truncated: the end is missing")


def _plain_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Returns the height and width of a plain JPEG, or None for other kinds of JPEG."""
    for marker, start in _segments(content):
        if marker in _FRAMES:
            # Two bytes of length, the precision, the height, the width, the number of components.
            precision = content[start + 2 : start + 3]
            height = int.from_bytes(content[start + 3 : start + 5], "big")
            width = int.from_bytes(content[start + 5 : start + 7], "big")
            components = content[start + 7 : start + 8]
            if not (height and width and components):
                raise ImageError("damaged: the header has no size")
            plain = marker in _PLAIN_FRAMES and components in _PLAIN_COMPONENTS
            return (height, width) if plain and precision == b"\x08" else None
    raise ImageError("damaged: it has no image")


def _check_jpeg(content: bytes) -> None:
    """Checks that Pillow and TensorFlow can decode a plain JPEG.

    `draft` requests an eighth of the size. This skips most of the inverse cosine transform and of
    the colour conversion, which cannot fail, but still reads every coded bit: it finds the same
    damage as full decoding (tested on thousands of damaged files) in a third of the time.

    Pillow accepts one kind of damage that TensorFlow does not: a stray marker in the coded data
    that announces a segment beyond the end of the file.
    """
    from PIL import Image, JpegImagePlugin

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = JpegImagePlugin.JpegImageFile(BytesIO(content))
            image.draft("RGB", (1, 1))
            image.load()
    except Exception as error:  # damaged files raise many types
        raise ImageError(f"cannot be decoded: {error}") from None
    for marker, _ in _segments(content):
        if marker < 0xC0:
            raise ImageError(f"damaged: unknown marker {marker:#x}")


def _encode(content: bytes) -> tuple[bytes, tuple[int, int]]:
    """Decodes an image and encodes it as an RGB JPEG; returns its height and width, too."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, palettes, EXIF, not about pixels
            image = Image.open(BytesIO(content), formats=FORMATS)
            _check_size(image.height, image.width)
            image = to_rgb(image)
            output = BytesIO()
            # Training resizes images, which hides the remaining loss.
            image.save(output, "JPEG", quality=95, subsampling=0)
    except UnidentifiedImageError:
        raise ImageError("not an image") from None
    except ImageError:
        raise
    except Exception as error:  # damaged files raise many types
        raise ImageError(f"cannot be decoded: {error}") from None
    return output.getvalue(), (image.height, image.width)


def to_rgb(image):
    """Converts a Pillow image of any mode to RGB, on a white background if it is transparent."""
    from PIL import Image, ImageChops

    if image.mode.startswith(("I", "F")):  # Pillow would clip these to 255
        lowest, highest = image.getextrema()
        if image.mode == "F" or lowest < 0 or highest > 65535:
            raise ImageError(f"has no known range (mode {image.mode}): save it with 8 or 16 bits")
        image = image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    elif image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow treats all as inverted, as Adobe writes them
    return image.convert("RGB")
