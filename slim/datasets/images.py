"""Conversion of image files to JPEGs, which training decodes to RGB.

Pillow is imported only when an image needs it: reading a header is faster without it, and loading
Pillow takes longer than converting a small dataset.
"""

import re
import stat
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

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

_EXIF = b"Exif\0\0"  # begins the EXIF of a JPEG, which is within the first segments
_ORIENTATION = 0x0112  # its tag; 1 is upright
# Pillow's transpositions that make other orientations upright: FLIP_LEFT_RIGHT, ROTATE_180,
# FLIP_TOP_BOTTOM, TRANSPOSE, ROTATE_270, TRANSVERSE, ROTATE_90.
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
_TURNED_BACK = {2: 4, 4: 2}  # the inverse of ROTATE_90 and ROTATE_270; others are their own


class ImageError(Exception):
    """A file cannot be used as an image."""


class StoredImage(NamedTuple):
    """An image as conversion stores it."""

    jpeg: bytes
    height: int
    width: int
    is_oriented: bool  # whether EXIF gives the pixels of the file an orientation but upright


def load_image(
    path: Path, verify: bool, apply_orientation: bool = False, *, max_side: int | None = None
) -> StoredImage:
    """Reads an image file of any format, regardless of its extension, as a JPEG.

    The bytes of a plain JPEG (one or three components of 8 bits) are returned unchanged. Other
    images are decoded, composed with a white background if they are transparent, and encoded as
    RGB. `verify` decodes a plain JPEG to check that training can; otherwise only its header is
    read. `apply_orientation` turns and encodes images of any format as EXIF says; otherwise the
    orientation is ignored, as by `tf.io.decode_jpeg`. Images with a side of more than `max_side`
    pixels are shrunk and encoded.
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
    return convert_image(content, verify, apply_orientation, max_side=max_side)


def load_thumbnail(path: Path, most: int):
    """Returns the centre of an image file as a square Pillow image in RGB, `most` pixels wide.

    It is upright. Smaller images keep their size, and any format that `load_image` reads will do.
    """
    from PIL import Image, ImageOps

    content = load_image(path, verify=False, apply_orientation=True).jpeg
    try:
        with Image.open(BytesIO(content)) as image:
            image.draft("RGB", (2 * most, 2 * most))  # decodes at a fraction of the size
            return ImageOps.fit(image.convert("RGB"), (min(*image.size, most),) * 2)
    except OSError as error:
        raise ImageError(f"cannot be decoded ({error})") from error


def convert_image(
    content: bytes, verify: bool, apply_orientation: bool = False, *, max_side: int | None = None
) -> StoredImage:
    """Converts the content of an image file as `load_image` does."""
    if not content:
        raise ImageError("empty file")
    if content.startswith(_JPEG_START) and (size := _plain_jpeg_size(content)):
        _check_size(*size)
        start = content.find(_EXIF, 0, 2**16)
        is_oriented = start > 0 and _find_turn(partial(_load_exif, content[start:])) is not None
        is_larger = max_side and max(size) > max_side
        if not is_larger and not (is_oriented and apply_orientation):
            if verify:
                _check_jpeg(content)
            return StoredImage(content, *size, is_oriented)
    image = _open(content)
    _check_size(image.height, image.width)
    return encode_image(image, apply_orientation, max_side)


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


def _open(content: bytes):
    """Returns a Pillow image, whose pixels are decoded on demand."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, EXIF
            return Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError("not an image") from None
    except Exception as error:  # damaged files raise many types
        raise ImageError(f"cannot be decoded: {error}") from None


def encode_image(
    image, apply_orientation: bool = False, max_side: int | None = None
) -> StoredImage:
    """Encodes a Pillow image as conversion encodes images that are not plain JPEGs."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about palettes, EXIF, not about pixels
            # Loading a TIFF turns it, and no image of another format.
            turn = _find_turn(image.getexif)
            if max_side and (ratio := 2 * max_side / max(image.size)) < 1:
                # JPEGs are decoded at a fraction of their size, at least twice the final one.
                image.draft(None, tuple(round(ratio * side) for side in image.size))
            rgb = _to_rgb(image)
            if max_side:
                rgb.thumbnail((max_side, max_side), reducing_gap=None)
            if turn is not None and apply_orientation == (image.format != "TIFF"):
                rgb = rgb.transpose(turn if apply_orientation else _TURNED_BACK.get(turn, turn))
            output = BytesIO()
            # Training resizes images, which hides the remaining loss.
            rgb.save(output, "JPEG", quality=95, subsampling=0)
    except ImageError:
        raise
    except Exception as error:  # damaged files raise many types
        raise ImageError(f"cannot be decoded: {error}") from None
    return StoredImage(output.getvalue(), rgb.height, rgb.width, turn is not None)


def _load_exif(content: bytes):
    from PIL import Image

    exif = Image.Exif()
    exif.load(content)
    return exif


def _find_turn(read_exif: Callable) -> int | None:
    """Returns the transposition that makes an image upright; None if it is, or has no EXIF."""
    try:
        return _TURNS.get(read_exif().get(_ORIENTATION))
    except Exception:  # damaged EXIF raises many types, and is not needed
        return None


def _to_rgb(image):
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
