import os
import random
import resource
import struct
from collections import Counter
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from slim.common.compat import tf
from slim.datasets.images import ImageError, convert_image, load_image
from tests.datasets.conftest import encode, oriented, picture


@pytest.fixture(scope="module")
def tf_decode():
    """`tf.io.decode_jpeg` as training calls it."""
    with tf.Graph().as_default(), tf.Session() as session:
        encoded = tf.placeholder(tf.string, [])
        decoded = tf.io.decode_jpeg(encoded, channels=3)
        yield lambda content: session.run(decoded, {encoded: content})


def load(tmp_path, content, verify=True, name="image.jpg"):
    (tmp_path / name).write_bytes(content)
    return load_image(tmp_path / name, verify)[:3]


PLAIN = {
    "baseline": {"quality": 85},
    "fine colours": {"quality": 90, "subsampling": 0},
    "progressive": {"quality": 85, "progressive": True},
    "optimised": {"quality": 40, "optimize": True},
    "restart markers": {"quality": 85, "restart_marker_rows": 1},
    "rgb components": {"quality": 85, "keep_rgb": True},
    "grey": {"quality": 85},
    "grey progressive": {"quality": 85, "progressive": True},
}


def encode_plain(kind, seed, size):
    image = picture(seed, size)
    return encode(image.convert("L") if "grey" in kind else image, **PLAIN[kind])


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("kind", PLAIN)
def test_plain_jpegs_go_through(tmp_path, tf_decode, kind, verify):
    content = encode_plain(kind, 1, (61, 47))
    assert load(tmp_path, content, verify, "lies.png") == (content, 47, 61)
    assert tf_decode(content).shape == (47, 61, 3)


@pytest.mark.parametrize("verify", [True, False])
def test_several_pictures_in_one_jpeg(tmp_path, tf_decode, verify):
    content = encode(picture(1), "MPO", save_all=True, append_images=[picture(2)])
    jpeg, height, width = load(tmp_path, content, verify)
    assert jpeg == content
    assert tf_decode(jpeg).shape == (height, width, 3)


# Where the first and the last stored pixel of the first row are seen, as EXIF defines the
# orientations from 1 on: in which row and in which column.
SEEN = {
    1: ((0, 0), (0, -1)),
    2: ((0, -1), (0, 0)),
    3: ((-1, -1), (-1, 0)),
    4: ((-1, 0), (-1, -1)),
    5: ((0, 0), (-1, 0)),
    6: ((0, -1), (-1, -1)),
    7: ((-1, -1), (0, -1)),
    8: ((-1, 0), (0, 0)),
}


@pytest.mark.parametrize("kind", ["JPEG", "CMYK", "PNG", "TIFF", "WEBP"])
def test_orientation_is_one_rule_for_all_formats(tf_decode, kind):
    """By default it is ignored, also in a TIFF, which Pillow turns."""
    stored = Image.new("RGB", (48, 32))
    stored.paste((250, 0, 0), (0, 0, 16, 16))
    stored.paste((0, 250, 0), (32, 0, 48, 16))
    if kind == "CMYK":
        stored = stored.convert("CMYK")
    for orientation, seen in SEEN.items():
        content = oriented(stored, kind.replace("CMYK", "JPEG"), orientation, "<>"[orientation % 2])
        for apply_orientation in (False, True):
            image = convert_image(content, True, apply_orientation)
            pixels = tf_decode(image.jpeg)
            assert pixels.shape == (image.height, image.width, 3)
            assert image.is_oriented == (orientation != 1)
            red, green = seen if apply_orientation else SEEN[1]
            assert pixels[red][0] > 200 > 50 > pixels[red][1], (orientation, apply_orientation)
            assert pixels[green][1] > 200 > 50 > pixels[green][0], (orientation, apply_orientation)
            if kind == "JPEG" and not (apply_orientation and image.is_oriented):
                assert image.jpeg == content


def test_damaged_exif_is_no_orientation():
    content = oriented(picture(1), "JPEG", 6)
    start = content.index(b"Exif")
    damaged = content[: start + 6] + b"no" + content[start + 8 :]
    assert convert_image(damaged, True, True) == (damaged, 30, 40, False)


def palette_with_transparency():
    image = picture(3).quantize(16)
    return encode(image, "PNG", transparency=bytes([0, 128, 255] + [255] * 13))


def on_white(image):
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def with_alpha(image):
    image = image.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def grey16(image):
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


COLOUR, GREY = picture(3), picture(3).convert("L")
ODD = {  # the file's bytes, and what its picture is, by another road
    "png": (encode(COLOUR, "PNG"), COLOUR),
    "png with alpha": (encode(with_alpha(COLOUR), "PNG"), on_white(with_alpha(COLOUR))),
    "grey png with alpha": (
        encode(with_alpha(COLOUR).convert("LA"), "PNG"),
        on_white(with_alpha(COLOUR).convert("LA")),
    ),
    "palette": (encode(COLOUR.quantize(16), "PNG"), COLOUR.quantize(16).convert("RGB")),
    "palette with transparency": (
        palette_with_transparency(),
        on_white(Image.open(BytesIO(palette_with_transparency()))),
    ),
    "two tones": (encode(GREY.convert("1"), "PNG"), GREY.convert("1").convert("RGB")),
    "16 bit png": (encode(grey16(COLOUR), "PNG"), GREY.convert("RGB")),
    "16 bit tiff": (encode(grey16(COLOUR), "TIFF"), GREY.convert("RGB")),
    "16 bit pgm": (encode(grey16(COLOUR), "PPM"), GREY.convert("RGB")),
    "grey png": (encode(GREY, "PNG"), GREY.convert("RGB")),
    "cmyk jpeg": (encode(COLOUR.convert("CMYK"), quality=100, subsampling=0), COLOUR),
    "cmyk tiff": (encode(COLOUR.convert("CMYK"), "TIFF"), COLOUR),
    "gif": (encode(COLOUR.quantize(16), "GIF"), COLOUR.quantize(16).convert("RGB")),
    "bmp": (encode(COLOUR, "BMP"), COLOUR),
    "webp": (encode(COLOUR, "WEBP", lossless=True), COLOUR),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("verify", [True, False])
def test_other_kinds_become_rgb_jpegs(tmp_path, tf_decode, kind, verify):
    content, expected = ODD[kind]
    jpeg, height, width = load(tmp_path, content, verify)
    image = Image.open(BytesIO(jpeg))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (width, height))
    decoded = tf_decode(jpeg).astype(int)
    assert decoded.shape == (height, width, 3)
    difference = np.abs(decoded - np.asarray(expected).astype(int))
    assert difference.mean() < (8 if kind == "two tones" else 5)


def test_inverted_and_bare_cmyk_look_as_in_tensorflow(tmp_path, tf_decode):
    adobe = encode(picture(4).convert("CMYK"), quality=100)
    start = adobe.index(b"\xff\xee")
    bare = adobe[:start] + adobe[start + 2 + int.from_bytes(adobe[start + 2 : start + 4], "big") :]
    for content in (adobe, bare):
        jpeg, _, _ = load(tmp_path, content)
        difference = tf_decode(jpeg).astype(int) - tf_decode(content).astype(int)
        assert np.abs(difference).mean() < 2.5


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image"),
        (b"\xff\xd8\xff", "truncated"),
        (encode(picture(1))[:80], "truncated"),
        (encode(picture(1), "PNG")[:400], "cannot be decoded"),
        (encode(picture(1).convert("CMYK"))[:-200], "cannot be decoded"),
        (encode(picture(1).convert("F"), "TIFF"), "no known range"),
    ],
)
def test_files_that_are_not_images(tmp_path, content, message, verify):
    with pytest.raises(ImageError, match=message):
        load(tmp_path, content, verify)


@pytest.mark.parametrize("verify", [True, False])
def test_files_that_cannot_be_read(tmp_path, verify):
    pipe, device, huge = (tmp_path / f"{name}.jpg" for name in ("pipe", "device", "huge"))
    os.mkfifo(pipe)  # reading it would wait
    device.symlink_to("/dev/zero")  # reading it would not end
    with huge.open("wb") as file:
        file.truncate(2**31)  # takes no space on the disk
    faults = {pipe: "not a regular file", device: "not a regular file", tmp_path: "not a regular"}
    faults |= {tmp_path / "none.jpg": "^missing$", huge: "too large: 2147483648 bytes"}
    for path, message in faults.items():
        with pytest.raises(ImageError, match=message):
            load_image(path, verify)


@pytest.mark.parametrize("cut", [1, 2, 3, 50, 500])
def test_verify_finds_a_truncated_jpeg(tmp_path, cut):
    content = encode(picture(1, (120, 90)), quality=95)
    with pytest.raises(ImageError):
        load(tmp_path, content[:-cut])


def resized_header(mode, options, height, width):
    """Returns a small JPEG whose header gives another size."""
    content = encode(Image.new(mode, (16, 16)), **options)
    frame = content.index(b"\xff\xc2" if options else b"\xff\xc0")
    return content[: frame + 5] + struct.pack(">HH", height, width) + content[frame + 9 :]


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize(("mode", "message"), [("RGB", "x"), ("L", "x"), ("CMYK", "exceeds limit")])
def test_more_pixels_than_tensorflow_decodes(tmp_path, mode, message, options, verify):
    """A decoder would allocate the coefficients of a progressive image, here up to 1.6 GB."""
    content = resized_header(mode, options, 13_000, 20_000)
    if message == "x":
        message = "too large to train on: 20000x13000 pixels"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=message):
        load(tmp_path, content, verify)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000  # KiB


def damage(content: bytes, chance: random.Random) -> bytes:
    content, place = bytearray(content), chance.randrange(len(content))
    kind = chance.choice(["cut", "cut the end", "change", "blank", "insert", "remove", "marker"])
    if kind == "cut":
        del content[place:]
    elif kind == "cut the end":
        del content[-chance.randrange(1, 40) :]
    elif kind == "change":
        for _ in range(chance.choice([1, 3, 10])):
            content[chance.randrange(len(content))] = chance.randrange(256)
    elif kind == "blank":
        end = min(len(content), place + chance.randrange(2000))
        content[place:end] = bytes(end - place)
    elif kind == "insert":
        content[place:place] = chance.randbytes(chance.randrange(50))
    elif kind == "remove":
        del content[place : place + chance.randrange(200)]
    else:
        content[place : place + 2] = bytes([0xFF, chance.randrange(256)])
    return bytes(content)


@pytest.mark.parametrize("kind", PLAIN)
def test_training_can_decode_every_verified_image(tmp_path, tf_decode, kind):
    whole = encode_plain(kind, 5, (120, 90))
    chance = random.Random(kind)
    outcomes = Counter()
    for _ in range(700):
        content = damage(whole, chance)
        try:
            jpeg, height, width = load(tmp_path, content)
        except ImageError:
            outcomes["refused"] += 1
        else:
            assert tf_decode(jpeg).shape == (height, width, 3)
            outcomes["accepted"] += 1
    assert min(outcomes.values()) > 100  # else nothing was tried
