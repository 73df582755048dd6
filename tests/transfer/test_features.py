"""Loading of features, and their class means."""

import numpy as np
import pytest
from sklearn.preprocessing import normalize

from slim.common.errors import UserError
from slim.transfer import features
from slim.transfer.features import (
    Features,
    has_features,
    load_features,
    load_pictures,
    load_side_by_side,
)
from slim.transfer.prototypes import class_prototypes, load_prototypes, union


@pytest.fixture
def some() -> Features:
    random = np.random.default_rng(0)
    values = random.normal(size=(50, 8)).astype(np.float32)
    return Features(values, random.choice([0, 1, 2, 5], 50).astype(np.int32))


def save(folder, name, split, values, labels):
    ending = f"_{split}" if split else ""
    np.save(folder / f"{name}_feature{ending}.npy", values)
    np.save(folder / f"{name}_label{ending}.npy", labels)


def test_loads_extracted_features(tmp_path, some):
    save(tmp_path, "birds", "train", *some)
    values, labels = load_features(tmp_path, "birds", "train")
    assert values.dtype == np.float32 and labels.dtype == np.int32
    np.testing.assert_array_equal(values, some.values)
    np.testing.assert_array_equal(labels, some.labels)
    assert has_features(tmp_path, "birds")
    assert not has_features(tmp_path, "cars") and not has_features(tmp_path, "birds", "val")


def test_large_files_are_mapped(tmp_path, some, monkeypatch):
    save(tmp_path, "birds", "val", *some)
    monkeypatch.setattr(features, "BIG", 1000)
    assert isinstance(load_features(tmp_path, "birds", "val").values, np.memmap)


def test_missing_features_are_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no features .*birds_feature_train\.npy: .*demo\.sh"):
        load_features(tmp_path, "birds", "train")


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (np.zeros((4, 2), "f"), np.zeros(3, "i"), r"has 4 rows, .* has 3 labels: expected one"),
        (
            np.zeros((4, 2), "f"),
            np.zeros(4, "f"),
            r"label_train.npy is float32 \[4\], expected",
        ),
        (np.zeros(4, "f"), np.zeros(4, "i"), r"is float32 \[4\], expected float32 \[images, dim"),
        (np.zeros((4, 2), "i"), np.zeros(4, "i"), r"is int32 \[4, 2\], expected float32"),
        (np.zeros((0, 2), "f"), np.zeros(0, "i"), r"is float32 \[0, 2\], expected .* not empty"),
        (np.zeros((2, 2), "f"), np.array([0, -1]), r"has label -1: expected labels from 0"),
        (
            np.array([[0.0], [np.nan]], "f"),
            np.zeros(2, "i"),
            r"not finite in row 1 .*extract",
        ),
        (np.array([["a"]], object), np.zeros(1, "i"), r"cannot be read as an array .*delete it"),
    ],
)
def test_invalid_features_are_an_error(tmp_path, values, labels, message):
    save(tmp_path, "birds", "train", values, labels)
    with pytest.raises(UserError, match=message) as caught:
        load_features(tmp_path, "birds", "train")
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_an_error(tmp_path, some):
    save(tmp_path, "birds", "train", *some)
    path = tmp_path / "birds_feature_train.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cannot be read as an array"):
        load_features(tmp_path, "birds", "train")


def test_finds_the_images(tmp_path, some):
    folder = tmp_path / "birds"
    folder.mkdir()
    lines = [f"images/kind_{label}/{i}.jpg: {label}\n" for i, label in enumerate(some.labels)]
    (folder / "val.txt").write_text("".join(lines))
    pictures = load_pictures(tmp_path, "birds", "val", some.labels)
    assert len(pictures.paths) == 50
    assert pictures.paths[7] == folder / "images" / f"kind_{some.labels[7]}" / "7.jpg"
    assert pictures.class_names == ["kind_0", "kind_1", "kind_2", "3", "4", "kind_5"]
    (folder / "classes.txt").write_text("".join(f"{i} name {i}\n" for i in range(6)))
    assert load_pictures(tmp_path, "birds", "val", some.labels).class_names[4] == "name 4"
    # A class may have training images only.
    (folder / "train.txt").write_text("images/kind_6/a.jpg: 6\n")
    (folder / "classes.txt").write_text("".join(f"{i} name {i}\n" for i in range(7)))
    assert load_pictures(tmp_path, "birds", "val", some.labels).class_names[6] == "name 6"
    (folder / "classes.txt").unlink()
    assert load_pictures(tmp_path, "birds", "val", some.labels).class_names[5:] == [
        "kind_5",
        "kind_6",
    ]
    with pytest.raises(UserError, match=r"val\.txt has 50 images, whose labels differ from the 49"):
        load_pictures(tmp_path, "birds", "val", some.labels[1:])


@pytest.mark.parametrize("chunk", [7, 4096])
def test_prototypes_are_class_means(some, monkeypatch, chunk):
    monkeypatch.setattr("slim.transfer.prototypes.CHUNK", chunk)
    found = class_prototypes(*some, name="birds")
    assert found.labels.tolist() == [0, 1, 2, 5]
    for label, mean, count in zip(found.labels, found.features, found.counts, strict=True):
        members = [v for v, other in zip(some.values, some.labels, strict=True) if other == label]
        assert count == len(members)
        np.testing.assert_allclose(mean, np.mean(np.float64(members), axis=0), rtol=1e-12)


@pytest.mark.parametrize("chunk", [3, 4096])
def test_normalized_prototypes_do_not_depend_on_scale(some, monkeypatch, chunk):
    monkeypatch.setattr("slim.transfer.prototypes.CHUNK", chunk)
    found = class_prototypes(*some, normalize=True)
    unit = normalize(some.values.astype(np.float64))
    for label, mean in zip(found.labels, found.features, strict=True):
        np.testing.assert_allclose(mean, unit[some.labels == label].mean(axis=0))
    larger = class_prototypes(8 * some.values, some.labels, normalize=True)
    np.testing.assert_allclose(larger.features, found.features, rtol=1e-6)
    zero = class_prototypes(np.zeros((2, 3), np.float32), np.zeros(2, int), normalize=True)
    np.testing.assert_array_equal(zero.features, np.zeros((1, 3)))


def test_prototypes_of_images_that_count_several_times(some):
    times = np.random.default_rng(1).integers(0, 4, 50)
    times[some.labels == 2] = 0
    found = class_prototypes(*some, times=times)
    repeated = class_prototypes(*(np.repeat(array, times, axis=0) for array in some))
    assert found.labels.tolist() == [0, 1, 5]
    np.testing.assert_array_equal(found.counts, repeated.counts)
    np.testing.assert_allclose(found.features, repeated.features)


def test_features_of_two_networks_side_by_side(tmp_path, some):
    for name, factor in (("one", 1), ("two", 5)):
        (tmp_path / name).mkdir()
        save(tmp_path / name, "birds", "train", factor * some.values, some.labels)
    folders = [tmp_path / "one", tmp_path / "two"]
    raw = load_side_by_side(folders, "birds", normalize=False)
    np.testing.assert_allclose(raw.values, np.concatenate([some.values, 5 * some.values], axis=1))
    np.testing.assert_array_equal(raw.labels, some.labels)
    equal = load_side_by_side(folders, "birds", normalize=True).values
    np.testing.assert_allclose(equal, np.tile(normalize(some.values), 2), rtol=1e-5)
    save(tmp_path / "two", "birds", "train", some.values, some.labels[::-1])
    with pytest.raises(UserError, match="birds: the features of the networks are of different im"):
        load_side_by_side(folders, "birds", normalize=True)


def test_prototypes_of_values_that_are_not_finite(some):
    some.values[3, 4] = np.inf
    with pytest.raises(UserError, match=rf"birds .*not finite in class {some.labels[3]}"):
        class_prototypes(*some, name="birds")


def test_prototypes_of_the_training_images_come_first(tmp_path, some):
    own = class_prototypes(*some)
    np.save(tmp_path / "birds.npy", np.float32(own.features) + 2)
    np.save(tmp_path / "birds_weight.npy", np.float32(own.counts))
    published = load_prototypes(tmp_path, "birds")
    np.testing.assert_allclose(published.features, own.features + 2, atol=1e-6)
    assert published.counts.tolist() == own.counts.tolist()
    assert published.datasets.tolist() == ["birds"] * 4

    save(tmp_path, "birds", None, some.values + 1, some.labels)
    np.testing.assert_allclose(load_prototypes(tmp_path, "birds").features, own.features + 1, 1e-5)

    save(tmp_path, "birds", "train", *some)
    np.testing.assert_array_equal(load_prototypes(tmp_path, "birds").features, own.features)


def test_published_prototypes_are_checked(tmp_path):
    np.save(tmp_path / "birds.npy", np.ones((4, 3), "f"))
    np.save(tmp_path / "birds_weight.npy", np.ones(5, "f"))
    with pytest.raises(UserError, match=r"birds\.npy and birds_weight\.npy have 4 and 5 classes"):
        load_prototypes(tmp_path, "birds")
    with pytest.raises(UserError, match=r"no features .*cars_feature_train\.npy"):
        load_prototypes(tmp_path, "cars")


def test_means_cannot_be_normalized(tmp_path, some):
    own = class_prototypes(*some)
    np.save(tmp_path / "birds.npy", own.features)
    np.save(tmp_path / "birds_weight.npy", own.counts)
    with pytest.raises(UserError, match=r"birds\.npy has the means of classes, .* per image: "):
        load_prototypes(tmp_path, "birds", normalize=True)


def test_union_keeps_all_classes(some):
    one, other = class_prototypes(*some, "one"), class_prototypes(some.values + 1, some.labels, "b")
    both = union([one, other])
    assert both.name == "one+b" and len(both.features) == 8
    assert both.counts.tolist() == one.counts.tolist() * 2
    assert both.datasets.tolist() == ["one"] * 4 + ["b"] * 4
    narrow = class_prototypes(some.values[:, :5], some.labels, "narrow")
    with pytest.raises(UserError, match=r"one has features of 8 dimensions, narrow of 5"):
        union([one, narrow])
