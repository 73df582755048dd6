"""`slim.load_classifier`: kinds of images, batches, use from another folder, errors."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slim import load_classifier
from slim.common.errors import UserError
from slim.nets.nets_factory import get_network
from tests.conftest import COLOURS
from tests.datasets.conftest import encode
from tests.support import SMALL_DEPTH, variable_shapes, write_checkpoint

pytestmark = pytest.mark.usefixtures("small_network")

# A program as users write it: TensorFlow 2 before, beside and after.
PROGRAM = """
import tensorflow as tf
variable = tf.Variable(2.0)
from slim import load_classifier
with load_classifier("run", model_name="inception_v3_010", image_size=75) as classifier:
    assert float(variable * 2) == 4
    (predictions,) = classifier.predict(["image.png"], top=2)
    features = classifier.features(["image.png"])
assert tf.executing_eagerly() and float(variable + 1) == 3
print([prediction.class_name for prediction in predictions], *features.shape)
"""


@pytest.fixture(scope="module")
def model(small_network, classifier_dir):
    with load_classifier(classifier_dir, batch_size=4) as model:
        yield model


def test_any_kind_of_image(model, tmp_path):
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[:] = 200, 40, 40
    pixels[10:30] = 40, 40, 200
    image = Image.fromarray(pixels)
    for kind in ("JPEG", "PNG"):
        (tmp_path / kind).write_bytes(encode(image, kind))
    images = [
        tmp_path / "JPEG",
        str(tmp_path / "JPEG"),
        encode(image, "JPEG"),
        tmp_path / "PNG",
        encode(image, "PNG"),
        image,
        image.convert("RGBA"),
        pixels,
        pixels[:, :, 0],
        image.getchannel("R"),
    ]
    found = model.probabilities(images)
    assert found.shape == (10, len(COLOURS)) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    for same in ([0, 1, 2], [3, 4, 5, 6, 7], [8, 9]):
        for other in same[1:]:
            np.testing.assert_allclose(found[same[0]], found[other], atol=1e-6)
    again = model.probabilities(np.stack([pixels] * 2))[1]
    np.testing.assert_allclose(again, found[5], atol=1e-6)

    features = model.features(images)
    assert features.shape == (10, SMALL_DEPTH) and features.dtype == np.float32
    assert model.features([]).shape == (0, SMALL_DEPTH)


def test_predictions_are_the_largest_probabilities(model, colours, classifier_dir):
    images = sorted((colours / "colours/images").glob("val_*"))
    expected = model.probabilities(images)
    predictions = model.predict(images, top=2)
    for row, found in zip(expected, predictions, strict=True):
        assert [p.probability for p in found] == sorted(row, reverse=True)[:2]
        assert [p.class_name for p in found] == [COLOURS[p.label] for p in found]
    assert model.class_names == COLOURS
    with load_classifier(classifier_dir, batch_size=100, moving_average_decay=0) as plain:
        assert np.abs(plain.probabilities(images) - expected).max() > 1e-4


def test_from_another_folder_beside_tensorflow_2(tmp_path):
    name = "inception_v3_010"
    values = {key: np.zeros(shape) for key, shape in variable_shapes(name, 4, 75).items()}
    biases = next(key for key in values if key.endswith("Conv2d_1c_1x1/biases"))
    write_checkpoint(tmp_path / "run/model.ckpt-1", {**values, biases: np.float32([0, 5, 9, 1])})
    Image.new("RGB", (80, 90)).save(tmp_path / "image.png")
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"['2', '1'] 1 {get_network(name).feature_depth}\n"


def test_errors(model, classifier_dir, tmp_path):
    image = Image.new("RGB", (4, 4))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    for wrong, message in (
        (tmp_path / "missing.jpg", r"images\[1\], .*missing.jpg, cannot be used: missing$"),
        (str(tmp_path / "broken.jpg"), r"images\[1\], .*broken.jpg, cannot be used: "),
        (b"", r"images\[1\] cannot be used: empty file"),
        (b"text", r"images\[1\] cannot be used: not an image"),
        (np.zeros((4, 4, 3)), r"float64 \[4, 4, 3\], expected uint8 \[height, width, 3\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\], expected uint8"),
        (Image.new("F", (4, 4)), r"images\[1\] cannot be used: has no known range"),
    ):
        with pytest.raises(UserError, match=message):
            model.predict([image, wrong])
    for one in (image, np.zeros((4, 4, 3), np.uint8), "image.jpg", Path("image.jpg"), b"content"):
        with pytest.raises(TypeError, match=r"images is one image, .*: pass \[image\]"):
            model.predict(one)
    with pytest.raises(TypeError, match="an image is a int, expected a path, bytes"):
        model.predict([5])
    with pytest.raises(UserError, match="--checkpoint_path: no checkpoint at nowhere"):
        load_classifier("nowhere")
    with load_classifier(classifier_dir) as closed:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        closed.predict([image])
