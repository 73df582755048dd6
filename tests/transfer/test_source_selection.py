"""Source selection, from features to a converted dataset."""

import numpy as np
import pytest
from PIL import Image

from slim import convert_dataset as convert
from slim.datasets.input import get_dataset
from slim.transfer import source_selection
from tests.support import invoke

CLASSES = 6  # per source, at different places on a line


def place(dataset, label):
    """Returns the mean feature of a class: 0, 1, ... (left), 10, 11, ... (right), 4.2, 11.9."""
    return {"left": label, "right": 10 + label, "near": [4.2, 11.9][label % 2]}[dataset]


@pytest.fixture
def world(tmp_path):
    """Returns a folder with two sources and a target: images, lists and features."""
    features, random = tmp_path / "feature", np.random.default_rng(0)
    features.mkdir()
    for dataset, num_classes in (("left", CLASSES), ("right", CLASSES), ("near", 2)):
        folder = tmp_path / "data" / dataset
        (folder / "images").mkdir(parents=True)
        for split, count in (("train", 4), ("val", 2)):
            labels = np.repeat(np.arange(num_classes), count).astype(np.int32)
            lines = []
            for i, label in enumerate(labels):
                colour = (label * 30, 200, {"left": 0, "right": 120, "near": 240}[dataset])
                Image.new("RGB", (32, 32), colour).save(folder / "images" / f"{split}{i}.jpg")
                lines.append(f"images/{split}{i}.jpg: {label}\n")
            (folder / f"{split}.txt").write_text("".join(lines))
            values = random.normal(size=(len(labels), 3)) * 0.01
            values[:, 0] += [place(dataset, label) for label in labels]
            np.save(features / f"{dataset}_feature_{split}.npy", values.astype(np.float32))
            np.save(features / f"{dataset}_label_{split}.npy", labels)
        names = [f"{i} {dataset}_{i}\n" for i in range(num_classes)]
        (folder / "classes.txt").write_text("".join(names))
    return tmp_path


def select(world, **settings):
    settings = {
        "feature_dir": world / "feature",
        "dataset_dir": world / "data",
        "sources": "left,right",
        "targets": "near",
        "top_k": "3",
        "min_count": "1",
        "output_name": "chosen",
    } | settings
    flags = [f"--{name}={value}" for name, value in settings.items() if value is not None]
    return invoke(source_selection, *flags)


def test_from_features_without_images_that_conversion_has_skipped(world):
    folder = world / "data/left"
    (folder / "images/train0.jpg").write_bytes(b"")
    flags = [f"--dataset_dir={world / 'data'}", "--dataset_name=left", "--on_error=skip"]
    assert invoke(convert, *flags).code == 0
    for kind in ("feature", "label"):
        path = world / f"feature/left_{kind}_train.npy"
        np.save(path, np.load(path)[1:])
    done = select(world)
    assert done.code == 0, done.error


def test_from_features_to_shards(world):
    done = select(world, top_k="4")
    assert done.code == 0, done.error
    table = (world / "data/chosen/selection.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in table[1:]]
    assert [row[1] for row in rows] == ["left_4", "left_5", "right_1", "right_2"]
    assert rows[2][2:5] == ["right", "1", "4"] and rows[2][6] == "near"
    assert (world / "data/chosen/classes.txt").read_text().startswith("0 left_4\n1 left_5\n")
    lines = (world / "data/chosen/val.txt").read_text().splitlines()
    assert lines[:5:2] == [
        "left/images/val8.jpg: 0",
        "left/images/val10.jpg: 1",
        "right/images/val2.jpg: 2",
    ]
    # The selection is nearer than all classes and than random ones.
    row = next(line for line in done.output.splitlines() if line.startswith("| near"))
    whole, selected, random = (float(cell) for cell in row.split("|")[2:5])
    assert selected < min(whole, random)

    command = ["--dataset_name=chosen", f"--dataset_dir={world / 'data'}", "--num_shards=2"]
    assert "convert_dataset.py --dataset_name=chosen" in done.output
    converted = invoke(convert, *command)
    assert converted.code == 0, converted.error
    dataset = get_dataset("chosen", "train", world / "data")
    assert (dataset.num_samples, dataset.num_classes) == (16, 4)
    assert dataset.class_names == ("left_4", "left_5", "right_1", "right_2")

    copied = select(world, top_k="4", output_name="copied", copy=True)  # for lack of links
    assert copied.code == 0, copied.error
    folder = world / "data/copied"
    lines = [line for name in ("train", "val") for line in (folder / f"{name}.txt").open()]
    assert len(lines) == len([path for path in folder.rglob("*.jpg") if path.is_file()]) == 24
    assert not any(path.is_symlink() for path in folder.iterdir())

    again = select(world, top_k="2")  # a selection may be overwritten
    assert again.code == 0
    assert len((world / "data/chosen/train.txt").read_text().splitlines()) == 8


def test_normalized_features_differ_in_direction_alone(world):
    features = world / "feature"
    for dataset, places in (("left", [(2, 1), (40, 0)] + 4 * [(0, 5)]), ("near", [(1, 0)] * 2)):
        labels = np.load(features / f"{dataset}_label_train.npy")
        values = np.array(places, np.float32)[labels]
        np.save(features / f"{dataset}_feature_train.npy", values)
    for normalize, nearest in ((False, "left_0"), (True, "left_1")):
        done = select(world, sources="left", top_k="1", normalize_features=normalize)
        assert done.code == 0, done.error
        table = (world / "data/chosen/selection.tsv").read_text().splitlines()
        assert [row.split("\t")[1] for row in table[1:]] == [nearest]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output_name": "left"}, "left exists but is not a selection of classes: set another"),
        ({"output_name": None}, "--output_name is missing: "),
        ({"top_k": "13"}, "--top_k=13 for near: expected 1 to 12, the number of source classes"),
        ({"top_k": "2,3"}, "--top_k has 2 numbers: expected one number, or 1"),
        ({"top_k": "two"}, "--top_k=two: expected one number"),
        (
            {"min_count": "5"},
            "no class of left+right has at least 5 images, the largest of 12 has 4",
        ),
        ({"sources": "left,rihgt"}, "no dataset 'rihgt'"),
        ({"targets": "far"}, "no features "),
        ({"sources": "left,left"}, "--sources=left,left: left occurs twice"),
        ({"targets": "near,"}, "--targets=near,: a name is empty; omit the comma"),
        ({"seed": -1}, "--seed=-1"),
    ],
)
def test_errors_are_one_line(world, settings, message):
    done = select(world, **settings)
    assert done.code == 1
    assert done.error.startswith("error: ") and message in done.error
    assert done.error.count("\n") == 1
    assert (world / "data/left/train.txt").read_text().startswith("images/train0.jpg: 0\n")


def test_features_of_another_list_are_refused(world):
    path = world / "data/left/train.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    done = select(world)
    assert done.code == 1
    assert "train.txt lists 23 images of 6 classes, the features in" in done.error
