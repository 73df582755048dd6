"""Preprocessing against the published figures, closed forms, and the distributions it states."""

import io
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.preprocessing.decoding import decode_image
from slim.preprocessing.inception_preprocessing import adjust_saturation, distort_color
from slim.preprocessing.preprocessing_factory import get_preprocessing, get_views
from slim.preprocessing.vgg_preprocessing import MEANS_RGB


def evaluate(build, *arrays: np.ndarray):
    """Runs what `build` makes of placeholders for uint8 images."""
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = [tf.placeholder(tf.uint8, [None, None, 3]) for _ in arrays]
        return session.run(build(*inputs), dict(zip(inputs, arrays, strict=True)))


def encode(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


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
        print(f"{key}: {difference.max():.1e} at most, {difference.mean():.1e} on average, of 2")


def test_evaluation_crop_is_the_central_seven_eighths():
    # 80 x 160 pixels, of which the crop keeps 70 x 140; red counts rows, green columns.
    rows, columns = np.mgrid[0:80, 0:160].astype(np.uint8)
    image = np.stack([rows, columns, 0 * rows], axis=2)
    found = evaluate(lambda i: get_preprocessing("inception")(i, 70, 140), image)
    np.testing.assert_allclose((found + 1) / 2 * 255, image[5:75, 10:150], atol=1e-3)


@pytest.mark.parametrize("side", [1, 2, 7, 8, 31, 64, 299, 500])
def test_evaluation_of_a_jpeg_is_a_central_crop_of_all_its_pixels(side):
    noise = np.random.RandomState(side).randint(0, 256, (side, side + 5, 3)).astype(np.uint8)
    encoded = encode(noise, "JPEG")
    with tf.Graph().as_default(), tf.Session() as session:
        pixels = tf.image.central_crop(tf.image.decode_jpeg(encoded, channels=3), 0.875)
        expected = tf.image.resize_images(pixels, [32, 48]) / 127.5 - 1
        found = get_preprocessing("inception")(tf.constant(encoded), 32, 48)
        found, expected = session.run([found, expected])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def grid(height: int, width: int) -> np.ndarray:
    """An image whose red counts rows, and whose green counts columns."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.uint8)
    return np.stack([rows, columns, 0 * rows], axis=2)


@pytest.mark.parametrize("num_crops", [1, 5, 10, 12])
def test_views_are_the_centre_the_corners_the_whole_and_their_mirror_images(num_crops):
    image = grid(80, 160)
    found = evaluate(lambda i: get_views("inception_v3", num_crops)(i, 70, 140), image)
    places = [(5, 10), (0, 0), (0, 20), (10, 0), (10, 20)][: 1 if num_crops == 1 else 5]
    expected = [image[top : top + 70, left : left + 140] for top, left in places]
    if num_crops == 12:
        with tf.Graph().as_default(), tf.Session() as session:
            expected.append(session.run(tf.image.resize_images(image, [70, 140])))
    if num_crops >= 10:
        expected += [view[:, ::-1] for view in expected]
    assert len(found) == num_crops
    np.testing.assert_allclose((found + 1) / 2 * 255, np.stack(expected), atol=1e-3)


def test_vgg_views_and_a_central_fraction():
    """The smaller side is of 256 pixels already; of 280 it would be for four fifths."""
    image = grid(256, 256)
    found = evaluate(lambda i: get_views("vgg", 5)(i, 224, 224), image)
    places = [(16, 16), (0, 0), (0, 32), (32, 0), (32, 32)]
    expected = [
        image[top : top + 224, left : left + 224] - np.array(MEANS_RGB) for top, left in places
    ]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    noise = np.random.RandomState(0).randint(0, 256, (280, 290, 3)).astype(np.uint8)
    found = evaluate(lambda i: get_views("vgg", 1, 0.8)(i, 224, 224), noise)
    np.testing.assert_allclose(found[0], noise[28:252, 33:257] - np.array(MEANS_RGB), atol=1e-3)
    found = evaluate(lambda i: get_views("inception", 1, 0.5)(i, 140, 146), noise)
    np.testing.assert_allclose((found[0] + 1) / 2 * 255, noise[70:210, 72:218], atol=1e-3)


def test_the_first_view_is_what_evaluation_sees():
    noise = np.random.RandomState(0).randint(0, 256, (91, 133, 3)).astype(np.uint8)
    encoded = encode(noise, "JPEG")
    for name in ("inception_v3", "vgg"):
        with tf.Graph().as_default(), tf.Session() as session:
            image = tf.constant(encoded)
            alone = get_preprocessing(name)(image, 75, 75)
            views = [get_views(name, number)(image, 75, 75)[0] for number in (1, 12)]
            expected, *found = session.run([alone, *views])
        for view in found:
            np.testing.assert_allclose(view, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inception", 7), "--num_crops=7: expected 1, 5, 10 or 12"),
        (("inception", 1, 0.0), "--central_fraction=0.0: expected a fraction"),
        (("inception", 1, 1.5), "--central_fraction=1.5: expected a fraction"),
        (("incepton",), "unknown preprocessing 'incepton'; did you mean inception"),
    ],
)
def test_views_that_there_are_none_of(arguments, message):
    with pytest.raises(UserError, match=message):
        get_views(*arguments)


class Distortions(NamedTuple):
    """What training did to an image."""

    top: int
    left: int
    height: int
    width: int
    flipped: bool
    brightness: float  # added, of 1
    saturation: float  # a factor


SIDE = 120  # of the images that distortions are read from
RESULT = 40  # side of what crops of them are resized to


def read_distortions(seeds: range) -> list[Distortions]:
    """Reads off two images what training with each seed does to any image of their size.

    The one has one colour throughout. The other's red counts columns, its green rows, and its blue
    is the largest everywhere, so that it shifts with brightness alone. Nothing is ever clipped.
    """
    plain = np.full((SIDE, SIDE, 3), (150, 100, 100), np.uint8)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.uint8) + 100
    ramps = np.stack([columns, rows, np.full_like(rows, 220)], axis=2)
    preprocess = get_preprocessing("inception", is_training=True)
    read = []
    for first, second in zip(
        *(
            for_seeds(lambda i, s: preprocess(i, RESULT, RESULT, seed=s), image, seeds)
            for image in (plain, ramps)
        ),
        strict=True,
    ):
        first, second = (first / 2 + 0.5).astype(float), (second / 2 + 0.5).astype(float)
        brightness = first[0, 0, 0] - 150 / 255
        saturation = (first[0, 0, 0] - first[0, 0, 1]) / (50 / 255)
        assert np.ptp(first, axis=(0, 1)).max() < 1e-5
        blue = second[..., 2:]
        positions = (220 / 255 - (blue - second[..., :2]) / saturation) * 255 - 100
        flipped = positions[0, 0, 0] > positions[0, -1, 0]
        positions = positions[:, ::-1] if flipped else positions
        (left, top), scale = positions[0, 0], positions[9, 9] - positions[0, 0]
        width, height = scale / 9 * RESULT
        box = np.round([top, left, height, width]).astype(int)
        np.testing.assert_allclose(box, [top, left, height, width], atol=0.1)
        read.append(Distortions(*box.tolist(), bool(flipped), brightness, saturation))
    return read


def test_training_distortions_have_the_published_distribution():
    found = read_distortions(range(600))
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            [SIDE, SIDE, 3],
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            min_object_covered=0.1,
            aspect_ratio_range=(0.75, 1.33),
            area_range=(0.05, 1.0),
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        box = tf.concat([begin[:2], size[:2]], 0)
        boxes = np.array([session.run(box) for _ in range(3000)])
    tops, lefts, heights, widths = np.array([d[:4] for d in found]).T
    areas, aspects = heights * widths / SIDE**2, widths / heights
    # A crop covers a tenth of the object at least, which here is the whole image.
    assert 0.095 < areas.min() < 0.12
    assert areas.max() > 0.95
    brightness = [d.brightness for d in found]
    saturation = [d.saturation for d in found]
    flipped = [d.flipped for d in found]
    p_values = {
        "area": stats.ks_2samp(areas, boxes[:, 2] * boxes[:, 3] / SIDE**2).pvalue,
        "aspect": stats.ks_2samp(aspects, boxes[:, 3] / boxes[:, 2]).pvalue,
        "top": stats.ks_2samp(tops, boxes[:, 0]).pvalue,
        "left": stats.ks_2samp(lefts, boxes[:, 1]).pvalue,
        "brightness": stats.kstest(brightness, stats.uniform(-32 / 255, 64 / 255).cdf).pvalue,
        "saturation": stats.kstest(saturation, stats.uniform(0.5, 1).cdf).pvalue,
        "flips": stats.binomtest(sum(flipped), len(found)).pvalue,
    }
    assert min(p_values.values()) > 0.001, p_values
    # None of the choices depends on another.
    correlation = np.corrcoef([areas, aspects, brightness, saturation, flipped])
    assert np.abs(correlation - np.eye(5)).max() < 0.15


def test_training_does_what_the_published_operations_do_one_after_the_other():
    tiles = np.random.RandomState(0).randint(0, 256, (12, 12, 3)).astype(np.uint8)
    encoded = encode(tiles.repeat(10, axis=0).repeat(10, axis=1), "JPEG")
    with tf.Graph().as_default(), tf.Session() as session:
        seed = tf.placeholder(tf.int64, [2])
        preprocess = get_preprocessing("inception", is_training=True)
        result = preprocess(tf.constant(encoded), RESULT, RESULT, seed=seed)
        d = Distortions(
            *map(tf.placeholder, 4 * [tf.int32] + [tf.bool] + 2 * [tf.float32], 7 * [[]])
        )
        image = tf.image.decode_jpeg(encoded, channels=3)
        image = tf.image.convert_image_dtype(image, tf.float32)
        image = tf.image.crop_to_bounding_box(image, d.top, d.left, d.height, d.width)
        image = tf.image.resize_images(image, [RESULT, RESULT])
        image = tf.cond(d.flipped, lambda: tf.image.flip_left_right(image), lambda: image)
        image = tf.image.adjust_brightness(image, d.brightness)
        image = tf.image.adjust_saturation(image, d.saturation)
        published = (tf.clip_by_value(image, 0, 1) - 0.5) * 2
        for value, distortions in enumerate(read_distortions(range(100))):
            found = session.run(result, {seed: [value, 7]})
            expected = session.run(published, dict(zip(d, distortions, strict=True)))
            np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.5, 4.0])
def test_saturation_is_tensorflows(factor):
    random = np.random.RandomState(0)
    image = random.uniform(-0.13, 1.13, (40, 40, 3)).astype(np.float32)
    image[:4] = random.randint(0, 2, (4, 40, 3))  # black, white and the pure colours
    image[4:8] = image[4:8, :, :1]  # greys
    with tf.Graph().as_default(), tf.Session() as session:
        found, expected = session.run(
            [f(tf.constant(image), factor) for f in (adjust_saturation, tf.image.adjust_saturation)]
        )
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["inception", "vgg"])
@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images_may_come_encoded(name, is_training, kind):
    noise = np.random.RandomState(0).randint(0, 256, (50, 70, 3)).astype(np.uint8)
    encoded = encode(noise, kind)
    preprocess = get_preprocessing(name, is_training)
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.constant(encoded), decode_image(tf.constant(encoded))
        found = session.run([preprocess(image, 24, 32, seed=[3, 4]) for image in images])
    np.testing.assert_allclose(*found, atol=1e-5)


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
        np.testing.assert_allclose(first, second, atol=1e-5)
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


def test_unknown_preprocessing_names_the_near_ones():
    with pytest.raises(UserError, match="unknown preprocessing 'vggg'; did you mean vgg"):
        get_preprocessing("vggg")
