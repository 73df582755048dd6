"""The contents of figures of images."""

import numpy as np
import pytest
from PIL import Image

from slim.common.errors import UserError
from slim.transfer import image_plots
from slim.transfer.domain_similarity import optimal_flow
from slim.transfer.features import Pictures
from slim.transfer.linear_classifier import Evaluation
from slim.transfer.prototypes import Prototypes, union
from tests.transfer.drawing import drawn, images


@pytest.fixture
def pictures(tmp_path) -> Pictures:
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        Image.new("L" if i else "RGB", (300 + i, 120), 40 * i).save(path)
    return Pictures(paths, np.array([0, 1, 2] * 2), ["001.Sooty_Albatross", "002.Auklet", "Crow"])


def test_confused_pairs(pictures):
    confusion = np.array([[0, 2, 0], [1, 1, 0], [0, 0, 2]])
    evaluation = Evaluation(np.array([1, 0, 2, 1, 1, 2]), confusion, np.array([2, 2, 2]), 5)
    axes, text = drawn(image_plots.plot_confused_pairs(evaluation, pictures, pictures, examples=2))
    assert len(axes) == 8 and images(axes) == 2 + 2 + 1 + 2
    assert "Sooty Albatross, 2 predicted as:" in text and "Auklet, 1 predicted as:" in text
    perfect = Evaluation(pictures.labels, np.eye(3, dtype=int) * 2, np.array([2, 2, 2]), 5)
    with pytest.raises(UserError, match="no confused pairs"):
        image_plots.plot_confused_pairs(perfect, pictures, pictures)


def test_retrieval_marks_correct_and_wrong_neighbours(pictures):
    found = np.array([[3, 1, 0], [2, 4, 1]])
    axes, text = drawn(image_plots.plot_retrieval(pictures, [0, 4], pictures, found))
    assert len(axes) == images(axes) == 8
    assert "query: Sooty Albatross" in text and "query: Auklet" in text
    assert text.count("✓") == 4 and "✗ Auklet" in text and "✗ Crow" in text
    assert axes[0].images[0].get_array().shape[0] <= image_plots.THUMBNAIL


def test_a_map_has_thumbnails_that_do_not_overlap(tmp_path):
    random = np.random.default_rng(0)
    places, labels = random.normal(size=(300, 2)), np.arange(300) % 5
    path = tmp_path / "image.png"
    Image.new("RGB", (80, 60), "red").save(path)
    axes, text = drawn(image_plots.plot_feature_map(places, labels, list("abcde"), [path] * 300))
    assert all(name in text for name in "abcde")
    (dots,) = axes[0].collections
    assert len(dots.get_offsets()) == 300
    corners = np.array([image.get_extent()[::2] for image in axes[0].images])
    apart = np.abs(corners[:, np.newaxis] - corners).max(axis=2)
    assert 10 < len(corners) < 300
    assert apart[~np.eye(len(corners), dtype=bool)].min() >= image_plots.MAP_THUMBNAIL


def test_a_map_without_images_or_names():
    places = np.random.default_rng(0).normal(size=(200, 2))
    axes, text = drawn(image_plots.plot_feature_map(places, np.arange(200), ["name"] * 200))
    assert images(axes) == 0 and "name" not in text
    assert len(np.unique(axes[0].collections[0].get_facecolors(), axis=0)) > 150


def line(name, *places):
    """Returns classes of 10 images each at places on a line."""
    count = len(places)
    values = np.array(places, float)[:, np.newaxis]
    return Prototypes(name, values, np.full(count, 10), np.arange(count), np.full(count, name))


def test_nearest_classes_with_distances_and_shares(pictures):
    source, target = union([line("inat", 0, 5), line("net", 2, 9)]), line("birds", 0.5, 8)
    of = dict.fromkeys(("inat", "net", "birds"), pictures)
    figure = image_plots.plot_nearest_classes(
        optimal_flow(source, target), source, target, of, neighbours=2
    )
    axes, text = drawn(figure)
    assert images(axes) == 2 * 3
    assert [axis.get_xlabel() for axis in axes if axis.get_xlabel()] == [
        "0.50, 50%",  # from 0 and 2 to 0.5, from 5 and 9 to 8
        "1.50, 50%",
        "1.00, 50%",
        "3.00, 50%",
    ]
    assert "Sooty Albatross" in text and "class of birds" in text and "class of net" in text
