"""Image files of any kind to the RGB JPEG that training decodes.

Pillow is imported only where an image needs it: a header is read faster without, and a small
dataset is converted in less time than Pillow takes to start.
"""

import re
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm")

# Formats that Pillow decodes by itself: EPS, for one, would start Ghostscript.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")

_JPEG_START = b"\xff\xd8\xff"
# A marker that begins a segment: neither a stuffed or filling byte nor a restart marker, which
# all stand within the coded image itself.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_END_OF_IMAGE = 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # all kinds of JPEG
_PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: what every decoder reads
_MAX_SAMPLES = 2**29 - 1  # height x width x 3; TensorFlow refuses to decode more


class ImageError(Exception):
    """Why a file cannot be used as an image, in a few words."""


def load_image(path: Path, verify: bool) -> tuple[bytes, int, int]:
    """Reads an image file, whatever its ending says, as an RGB JPEG.

    A plain JPEG (three components of 8 bits) goes through byte for byte. Anything else is decoded,
    laid on white where it is transparent, and encoded.

    Args:
        path: The image file.
        verify: Decode a plain JPEG to see that training can, too; otherwise read its header only.

    Returns:
        The encoded image, its height and its width in pixels. The orientation that EXIF may ask
        for is left to whoever looks at it, as `tf.io.decode_jpeg` does.

    Raises:
        ImageError: The file is missing, empty, not an image or damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ImageError("missing") from None
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None
    if not content:
        raise ImageError("empty file")
    if content.startswith(_JPEG_START) and (size := _plain_jpeg_size(content)):
        if verify:
            _check_jpeg(content)
    else:
        content, size = _encode(content)
    if size[0] * size[1] * 3 > _MAX_SAMPLES:
        raise ImageError(f"too large to train on: {size[1]}x{size[0]} pixels")
    return content, *size


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yields each segment's marker and where its payload begins, the end of image last."""
    position = 2
    while match := _MARKER.search(content, position):
        marker, position = content[match.end() - 1], match.end()
        yield marker, position
        if marker == _END_OF_IMAGE:
            return
        position += int.from_bytes(content[position : position + 2], "big")
    raise ImageError("truncated: its end is missing")


def _plain_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """The height and width of a plain JPEG, None for another kind of JPEG."""
    for marker, start in _segments(content):
        if marker in _FRAMES:
            precision = content[start + 2 : start + 3]
            height = int.from_bytes(content[start + 3 : start + 5], "big")
            width = int.from_bytes(content[start + 5 : start + 7], "big")
            components = content[start + 7 : start + 8]
            if not (height and width and components):
                raise ImageError("damaged: its header gives no size")
            plain = marker in _PLAIN_FRAMES and precision == b"\x08" and components == b"\x03"
            return (height, width) if plain else None
    raise ImageError("damaged: no image in it")


def _check_jpeg(content: bytes) -> None:
    """Sees that a plain JPEG decodes, in TensorFlow too.

    `draft` asks for an eighth of the size. That leaves out the larger part of the inverse cosine
    transform and of the colour conversion, which cannot fail, but reads every coded bit: it finds
    what decoding in full finds (tested on thousands of damaged files), in a third of the time.

    Pillow accepts one damage that TensorFlow does not: a stray marker in the coded image, found
    when both go on to look for the end, that claims a segment beyond the end of the file.
    """
    from PIL import Image, JpegImagePlugin

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = JpegImagePlugin.JpegImageFile(BytesIO(content))
            image.draft("RGB", (1, 1))
            image.load()
    except Exception as error:  # damaged bytes raise all kinds
        raise ImageError(f"cannot be decoded: {error}") from None
    for marker, _ in _segments(content):
        if marker < 0xC0:
            raise ImageError(f"damaged: unknown marker {marker:#x}")


def _encode(content: bytes) -> tuple[bytes, tuple[int, int]]:
    """Decodes an image of any kind, and encodes it as an RGB JPEG."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on sizes, palettes, EXIF: none is about the pixels
            image = _to_rgb(Image.open(BytesIO(content), formats=_FORMATS))
            output = BytesIO()
            # As near to lossless as JPEG is worth: nothing that training resizes would show.
            image.save(output, "JPEG", quality=95, subsampling=0)
    except UnidentifiedImageError:
        raise ImageError("not an image") from None
    except ImageError:
        raise
    except Exception as error:  # damaged bytes raise all kinds
        raise ImageError(f"cannot be decoded: {error}") from None
    return output.getvalue(), (image.height, image.width)


def _to_rgb(image):
    """Converts a Pillow image of any mode to RGB."""
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
        image = ImageChops.invert(image)  # Pillow takes all for inverted, as Adobe writes them
    return image.convert("RGB")
