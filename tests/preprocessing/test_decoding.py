"""Tests of decoding: crops against whole images."""

import io

import numpy as np
import pytest
from PIL import Image

from slim.common.compat import tf
from slim.datasets.images import convert_image
from slim.preprocessing.decoding import decode_crop, decode_image, store_image
from tests.datasets.conftest import encode, picture
from tests.datasets.test_images import ODD, PLAIN, encode_plain


def encodings() -> dict[str, bytes]:
    """One picture of noise, 61 pixels high and 83 wide, in the ways that a record may hold it."""
    noise = np.random.RandomState(0).randint(0, 256, (16, 21, 3)).astype(np.uint8)
    image = Image.fromarray(noise.repeat(4, axis=0).repeat(4, axis=1)[:61, :83])
    kinds = {
        "4:4:4": ("RGB", "JPEG", {"subsampling": "4:4:4"}),
        "4:2:2": ("RGB", "JPEG", {"subsampling": "4:2:2"}),
        "4:2:0": ("RGB", "JPEG", {"subsampling": "4:2:0"}),
        "progressive": ("RGB", "JPEG", {"progressive": True}),
        "restarts": ("RGB", "JPEG", {"restart_marker_blocks": 2}),
        "grey": ("L", "JPEG", {}),
        "PNG": ("RGB", "PNG", {}),
        "GIF": ("P", "GIF", {}),
        "BMP": ("RGB", "BMP", {}),
    }
    encoded = {}
    for kind, (mode, file_format, options) in kinds.items():
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, file_format, **options)
        encoded[kind] = buffer.getvalue()
    return encoded


@pytest.mark.parametrize("kind", encodings())
def test_a_decoded_crop_has_the_pixels_of_the_whole_image(kind):
    content = encodings()[kind]
    random = np.random.RandomState(1)
    with tf.Graph().as_default(), tf.Session() as session:
        whole = session.run(decode_image(tf.constant(content)))
        box = tf.placeholder(tf.int32, [2, 2])
        crop = decode_crop(tf.constant(content), lambda shape: tf.unstack(box))
        crop_of_pixels = decode_crop(tf.constant(whole), lambda shape: tf.unstack(box))
        assert whole.shape == (61, 83, 3)
        for index in range(60):
            size = random.randint(1, (62, 84)) if index else np.array([61, 83])
            begin = random.randint(0, np.array([62, 84]) - size)
            (top, left), (bottom, right) = begin, begin + size
            for found in session.run([crop, crop_of_pixels], {box: [begin, size]}):
                np.testing.assert_array_equal(found, whole[top:bottom, left:right])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_decodes_jpeg_and_png_to_rgb(kind, mode):
    rows, columns = np.mgrid[0:160:10, 0:240:10].astype(np.uint8)
    image = Image.fromarray(np.stack([rows, columns, rows // 2 + columns // 2], 2)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    with tf.Graph().as_default(), tf.Session() as session:
        found = session.run(decode_image(tf.constant(buffer.getvalue())))
    assert found.shape == (16, 24, 3)
    expected = np.asarray(Image.open(buffer).convert("RGB")).astype(int)
    # TensorFlow's default for JPEG is the fast cosine transform, Pillow's the exact one.
    assert np.abs(found - expected).max() <= (6 if kind == "JPEG" else 0)


def test_the_graph_stores_images_as_conversion_does():
    """Every pixel is the same, which a SavedModel relies on; Pillow and TensorFlow decode alone."""
    grey = picture(5).convert("L")
    contents = {kind: content for kind, (content, _) in ODD.items() if kind.split()[-1] != "tiff"}
    contents = {k: v for k, v in contents.items() if k not in ("webp", "16 bit pgm")}
    contents |= {kind: encode_plain(kind, 1, (61, 47)) for kind in PLAIN}
    contents["transparent grey"] = encode(grey, "PNG", transparency=100)
    contents["transparent tone"] = encode(grey.convert("1"), "PNG", transparency=0)
    contents["few colours"] = encode(picture(5).quantize(3), "PNG", bits=2)
    values = np.random.default_rng(0).integers(0, 65536, (30, 40, 4), np.uint16)
    contents["any 16 bits"] = encode(Image.fromarray(values[:, :, 0]), "PNG")
    with tf.Graph().as_default(), tf.Session() as session:
        for channels in (2, 3, 4):
            noise = tf.io.encode_png(values[:, :, :channels])
            contents[f"{channels} x 16 bits"] = session.run(noise)
        encoded, stored = (tf.placeholder(tf.string, []) for _ in range(2))
        in_graph = decode_image(store_image(encoded, apply_orientation=False))
        as_in_training = decode_image(stored)
        for kind, content in contents.items():
            found = session.run(in_graph, {encoded: content})
            jpeg = convert_image(content, verify=True).jpeg
            assert np.array_equal(found, session.run(as_in_training, {stored: jpeg})), kind
        with pytest.raises(tf.errors.InvalidArgumentError, match="a BMP has a palette"):
            session.run(in_graph, {encoded: encode(picture(5).quantize(16), "BMP")})
