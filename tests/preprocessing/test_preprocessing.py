"""Preprocessing against the published figures, closed forms, and the distributions it states."""

import io

import numpy as np
import pytest
from PIL import Image

from slim.compat import tf
from slim.datasets.input import decode_image
from slim.errors import UserError
from slim.preprocessing.inception_preprocessing import distort_color, distorted_bounding_box_crop
from slim.preprocessing.preprocessing_factory import get_preprocessing


def evaluate(build, *arrays: np.ndarray):
    """Runs what `build` makes of placeholders for uint8 images."""
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = [tf.placeholder(tf.uint8, [None, None, 3]) for _ in arrays]
        return session.run(build(*inputs), dict(zip(inputs, arrays, strict=True)))


def for_seeds(build, image: np.ndarray, seeds: range) -> np.ndarray:
    """The result of `build(image, seed)` for each seed."""
    with tf.Graph().as_default(), tf.Session() as session:
        seed = tf.placeholder(tf.int64, [2])
        result = build(tf.constant(image), seed)
        return np.stack([session.run(result, {seed: [value, 7]}) for value in seeds])


def test_evaluation_crop_equals_the_published_one(reference, birds):
    published = np.load(reference / "preprocess_eval.npz")
    for key in published:
        path, size = key.split("|")
        height, width = map(int, size.split("x"))
        with tf.Graph().as_default(), tf.Session() as session:
            image = decode_image(tf.io.read_file(str(birds / path)))
            found = session.run(get_preprocessing("inception_v3")(image, height, width))
        difference = np.abs(found - published[key])
        assert difference.max() <= 2 / 255
        assert difference.mean() <= 1 / 255


def test_evaluation_crop_is_the_central_seven_eighths():
    # 80 x 160 pixels, of which the crop keeps 70 x 140; red counts rows, green columns.
    rows, columns = np.mgrid[0:80, 0:160].astype(np.uint8)
    image = np.stack([rows, columns, 0 * rows], axis=2)
    found = evaluate(lambda i: get_preprocessing("inception")(i, 70, 140), image)
    np.testing.assert_allclose((found + 1) / 2 * 255, image[5:75, 10:150], atol=1e-3)


def test_training_crops_have_the_stated_area_and_aspect_and_are_flipped_half_of_the_time():
    rows, columns = np.mgrid[0:200, 0:200].astype(np.uint8)
    image = np.stack([rows, columns, 0 * rows], axis=2)
    with tf.Graph().as_default(), tf.Session() as session:
        seed = tf.placeholder(tf.int64, [2])
        crop = distorted_bounding_box_crop(tf.constant(image), seed)
        shapes = [session.run(tf.shape(crop), {seed: [value, 7]}) for value in range(300)]
    heights, widths = np.array(shapes)[:, 0], np.array(shapes)[:, 1]
    areas, aspects = heights * widths / 200**2, widths / heights
    assert 0.045 < areas.min() < 0.12
    assert 0.9 < areas.max() <= 1
    assert 0.73 < aspects.min() < 0.8
    assert 1.25 < aspects.max() < 1.37
    preprocess = get_preprocessing("inception", is_training=True)
    found = for_seeds(lambda i, s: preprocess(i, 20, 20, seed=s), image, range(200))
    flipped = (found[:, :, 0, 1] > found[:, :, -1, 1]).mean()
    assert 0.4 < flipped < 0.6


def test_training_images_depend_on_the_seed_alone_and_stay_in_range():
    image = np.random.RandomState(0).randint(0, 256, (90, 120, 3)).astype(np.uint8)
    for name, low, high in (("inception", -1, 1), ("vgg", -124, 152)):
        preprocess = get_preprocessing(name, is_training=True)
        first, second = (
            for_seeds(lambda i, s, p=preprocess: p(i, 32, 48, seed=s), image, range(20))
            for _ in range(2)
        )
        assert first.shape == (20, 32, 48, 3)
        assert first.dtype == np.float32
        np.testing.assert_array_equal(first, second)
        assert len({value.tobytes() for value in first}) == 20
        assert first.min() >= low
        assert first.max() <= high


def test_colour_distortions_have_the_stated_ranges():
    # A grey image shows brightness alone; saturation scales the distance from grey.
    grey = np.full((2, 2, 3), 0.5, np.float32)
    found = for_seeds(lambda i, s: distort_color(i, s, ("brightness",)), grey, range(300))
    shifts = found[:, 0, 0, 0] - 0.5
    assert -32 / 255 <= shifts.min() < -0.11
    assert 0.11 < shifts.max() <= 32 / 255
    assert abs(shifts.mean()) < 0.015
    reddish = np.broadcast_to(np.float32([0.6, 0.5, 0.5]), (2, 2, 3))
    found = for_seeds(lambda i, s: distort_color(i, s, ("saturation",)), reddish, range(300))
    saturation = 1 - found[:, 0, 0, 1] / found[:, 0, 0, 0]
    factors = saturation / (1 - 0.5 / 0.6)
    assert 0.5 - 1e-3 <= factors.min() < 0.55
    assert 1.45 < factors.max() <= 1.5 + 1e-3


def test_slow_mode_and_boxes():
    image = np.zeros((100, 100, 3), np.uint8)
    image[40:60, 40:60] = 255
    preprocess = get_preprocessing("inception", is_training=True)
    found = for_seeds(
        lambda i, s: preprocess(
            i, 24, 24, seed=s, bbox=tf.constant([[[0.4, 0.4, 0.6, 0.6]]]), fast_mode=False
        ),
        image,
        range(30),
    )
    # Each crop covers a tenth of the object at least, so that something of it is seen.
    assert all(value.max() > value.min() for value in found)
    assert np.abs(found).max() <= 1


def test_vgg_resizes_the_smaller_side_and_crops_the_centre():
    # 512 x 768 pixels, each a square of 2 x 2 in the image that is resized to 256 x 384.
    small = np.random.RandomState(0).randint(0, 256, (256, 384, 3)).astype(np.uint8)
    image = small.repeat(2, axis=0).repeat(2, axis=1)
    found = evaluate(lambda i: get_preprocessing("vgg")(i, 224, 224), image)
    expected = small[16:240, 80:304] - np.float32([123.68, 116.78, 103.94])
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_vgg_takes_sizes_beyond_its_own():
    image = np.random.RandomState(0).randint(0, 256, (100, 150, 3)).astype(np.uint8)
    found = evaluate(lambda i: get_preprocessing("vgg")(i, 448, 448), image)
    assert found.shape == (448, 448, 3)
    # Nothing is padded: the subtracted mean alone would be constant.
    assert (found.std(axis=(0, 1)) > 30).all()


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


def test_unknown_preprocessing_names_the_near_ones():
    with pytest.raises(UserError, match="unknown preprocessing 'vggg'; did you mean vgg"):
        get_preprocessing("vggg")
