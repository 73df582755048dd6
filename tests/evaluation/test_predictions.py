"""Tests of counts against scikit-learn, of files, and of pictures pixel by pixel."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from slim.common.errors import UserError
from slim.evaluation.confusion import confusion_picture
from slim.evaluation.predictions import (
    Predictions,
    confused_pairs,
    find_predictions,
    load_predictions,
)

CLASSES = 12


def predicted_from(scores: np.ndarray, labels: np.ndarray, **known) -> Predictions:
    """Predictions of scores `[N, C]`."""
    top = np.argsort(-scores, axis=1)[:, : min(5, scores.shape[1])]
    probabilities = np.take_along_axis(scores, top, axis=1).astype(np.float32)
    return Predictions(400, labels, top, probabilities, scores.shape[1], **known)


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    random = np.random.default_rng(0)
    return random.dirichlet(np.ones(CLASSES), 100)


@pytest.fixture(scope="module")
def labels(scores) -> np.ndarray:
    random = np.random.default_rng(1)
    guess = scores.argmax(axis=1)
    return np.where(random.random(100) < 0.5, guess, random.integers(0, CLASSES, 100))


@pytest.fixture(scope="module")
def predictions(scores, labels) -> Predictions:
    """Predictions for 100 images of 12 classes."""
    names = tuple(f"species {chr(97 + label)}" for label in range(CLASSES))
    return predicted_from(scores, labels, class_names=names, class_sizes=np.arange(CLASSES) + 3)


def test_counts_equal_scikit_learn(predictions, scores, labels):
    guess, classes = scores.argmax(axis=1), np.arange(CLASSES)
    assert predictions.accuracy == pytest.approx(metrics.accuracy_score(labels, guess))
    assert predictions.recall_5 == pytest.approx(
        metrics.top_k_accuracy_score(labels, scores, k=5, labels=classes)
    )
    expected = metrics.confusion_matrix(labels, guess, labels=classes)
    np.testing.assert_array_equal(predictions.confusion, expected)
    recalls = metrics.recall_score(
        labels, guess, labels=np.unique(labels), average=None, zero_division=0
    )
    np.testing.assert_allclose(predictions.class_accuracy[np.unique(labels)], recalls)
    assert predictions.mean_class_accuracy == pytest.approx(recalls.mean())


def test_few_classes_and_one_without_images():
    found = predicted_from(np.eye(3)[[0, 1, 0, 0]], np.array([0, 0, 0, 1]))
    assert found.top.shape == (4, 3) and found.recall_5 == 1
    np.testing.assert_allclose(found.class_accuracy, [2 / 3, 0, np.nan])
    assert found.accuracy == 0.5 and found.mean_class_accuracy == pytest.approx(1 / 3)
    assert found.class_totals.tolist() == [3, 1, 0]


def test_not_finite_logits_count_as_wrong():
    found = predicted_from(np.eye(3)[[0, 1, 0]], np.array([0, 1, 0]))
    found.top[2] = -1
    assert found.num_not_finite == 1
    assert found.accuracy == found.recall_5 == pytest.approx(2 / 3)
    np.testing.assert_array_equal(found.confusion, np.diag([1, 1, 0]))
    np.testing.assert_allclose(found.class_accuracy, [0.5, 1, np.nan])


def test_saves_and_loads(predictions, labels, tmp_path):
    path = predictions.save(tmp_path / "new" / "folder")
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "predictions-400.npz",
        "predictions-400.txt",
    ]
    found = load_predictions(path)
    assert (found.step, found.num_classes) == (400, CLASSES)
    assert found.class_names == predictions.class_names
    for name in ("labels", "top", "probabilities", "class_sizes", "confusion"):
        written = getattr(predictions, name)
        np.testing.assert_array_equal(getattr(found, name), written)
        assert getattr(found, name).dtype == written.dtype
    with np.load(path) as arrays:
        assert arrays["confusion"].trace() == (arrays["top"][:, 0] == labels).sum()
        np.testing.assert_array_equal(arrays["class_accuracy"], predictions.class_accuracy)


def test_saves_what_is_known(predictions, tmp_path):
    path = replace(predictions, class_names=None, class_sizes=None).save(tmp_path)
    found = load_predictions(path)
    assert found.class_names is None and found.class_sizes is None
    cells = path.with_suffix(".txt").read_text().splitlines()[-1].split()
    assert cells[2] == "-" and cells[3] == cells[4]  # training images; label and name


def test_text_says_it_in_words(tmp_path):
    # Of three rooks two are taken for crows; of two crows one has logits that are not finite.
    scores = np.eye(3)[[1, 1, 0, 1, 1]]
    found = predicted_from(
        scores,
        np.array([0, 0, 0, 1, 1]),
        class_names=("rook", "crow", "jay"),
        class_sizes=np.array([7, 1234, 0]),
    )
    found.top[4] = -1
    text = found.save(tmp_path).with_suffix(".txt").read_text()
    assert "5 images, 3 classes, 2 of them with images" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "accuracy 40.00% 2 images right" in lines
    assert "mean class accuracy 41.67%" in lines
    assert "logits not finite 1 images, all wrong" in lines
    assert "2 3 rook crow" in lines
    assert lines[-3:] == ["33.3% 3 7 0 rook crow (2)", "50.0% 2 1,234 1 crow -", "- 0 0 2 jay -"]


def test_text_without_a_mistake(tmp_path):
    found = predicted_from(np.eye(3), np.arange(3))
    lines = found.save(tmp_path).with_suffix(".txt").read_text().splitlines()
    assert lines[lines.index("Classes confused most often") + 2] == "none"


def test_a_file_is_written_whole_or_not_at_all(predictions, tmp_path, monkeypatch):
    path = predictions.save(tmp_path)
    before = path.read_bytes()

    def fill_the_disk(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fill_the_disk)
    with pytest.raises(OSError, match="No space left on device"):
        predictions.save(tmp_path)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_refuses_files_that_are_missing_damaged_or_others(predictions, tmp_path):
    with pytest.raises(UserError, match=r"no file .*none.npz: evaluate with --per_class"):
        load_predictions(tmp_path / "none.npz")
    path = predictions.save(tmp_path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"top.npy") + 60] ^= 255  # in the compressed array
    other = io.BytesIO()
    np.savez(other, labels=np.arange(3))
    array = io.BytesIO()
    np.save(array, np.arange(3))
    for content in (b"", b"text", whole[:-100], flipped, other.getvalue(), array.getvalue()):
        path.write_bytes(content)
        with pytest.raises(
            UserError, match=r"400.npz is damaged, or not a file of .* \(.*\): evaluate"
        ):
            load_predictions(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.full(100, CLASSES)}, "labels are not in 0 to 11"),
        ({"labels": np.arange(100.0)}, "labels are not int64"),
        ({"top": np.full((100, 5), -2)}, "top is not in 0 to 11"),
        ({"top": np.zeros((100, 4), int)}, "top is not int64"),
        ({"probabilities": np.zeros((99, 5))}, "probabilities do not have the shape of top"),
        ({"class_sizes": np.ones(3, int)}, "class_sizes or class_names do not have 12"),
        ({"class_names": np.array(["a"])}, "class_sizes or class_names do not have 12"),
    ],
)
def test_refuses_arrays_that_do_not_belong_together(predictions, tmp_path, changed, message):
    path = predictions.save(tmp_path)
    with np.load(path) as arrays:
        content = {**arrays, **changed}
    np.savez(path, **content)
    with pytest.raises(UserError, match=message):
        load_predictions(path)


def test_finds_the_highest_step(tmp_path):
    with pytest.raises(UserError, match=r"no predictions-<step>.npz in"):
        find_predictions(tmp_path)
    for name in ("predictions-900.npz", "predictions-10000.npz", "predictions-10001.npz.tmp"):
        (tmp_path / name).touch()
    assert find_predictions(tmp_path).name == "predictions-10000.npz"
    assert find_predictions(tmp_path / "mine.npz") == tmp_path / "mine.npz"


def test_confused_pairs_are_the_worst():
    confusion = np.array([[5, 3, 0], [7, 2, 1], [0, 0, 9]])
    assert confused_pairs(confusion, 2) == [(1, 0, 7), (0, 1, 3)]
    assert confused_pairs(confusion) == [(1, 0, 7), (0, 1, 3), (1, 2, 1)]


def decoded(confusion: np.ndarray) -> np.ndarray:
    """The picture's pixels, int `[side, side, 3]`."""
    image = Image.open(io.BytesIO(confusion_picture(confusion)))
    assert image.format == "PNG" and image.width == image.height <= 1024
    return np.asarray(image).astype(int)


def is_blue(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., 2] > pixels[..., 0]


def is_orange(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., 0] > pixels[..., 2]


def test_picture_of_few_classes():
    pixels = decoded(np.array([[9, 1, 0, 0], [4, 4, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]))
    side = len(pixels) // 4
    cells = pixels[side // 2 :: side, side // 2 :: side]
    np.testing.assert_array_equal(is_blue(cells), np.diag([True, True, True, False]))
    orange = np.zeros((4, 4), bool)
    orange[[0, 1], [1, 0]] = True
    np.testing.assert_array_equal(is_orange(cells), orange)
    brightness = cells.sum(axis=2)
    assert brightness[2, 2] < brightness[0, 0] < brightness[1, 1]  # 100%, 90%, 50%
    assert brightness[1, 0] < brightness[0, 1] < brightness[0, 2] == 3 * 255  # 50%, 10%, none
    assert len(set(brightness[3])) == 1 and brightness[3, 0] < 3 * 255  # no images


def test_picture_of_one_class_and_of_none_right():
    assert is_blue(decoded(np.array([[3]]))[5, 5])
    assert is_orange(decoded(np.array([[0, 1], [1, 0]]))[5, -5])


def test_picture_of_many_classes_loses_no_cell():
    confusion = np.zeros((5089, 5089), np.uint8)
    np.fill_diagonal(confusion, 40)
    confusion[4000, 17] = 1
    pixels = decoded(confusion)
    height, width = np.nonzero(is_orange(pixels))
    scale = len(pixels) / 5089
    assert abs(height.mean() / scale - 4000) < 20 and abs(width.mean() / scale - 17) < 20
    assert np.ptp(height) >= 3 and np.ptp(width) >= 3  # pixels, to be seen
    assert pixels[height[0], width[0], 2] < 240
    assert is_blue(pixels[np.diag_indices(len(pixels))]).all()
