"""Archives as mirrors deliver them, and as file managers and network drives leave them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from slim.datasets.prepare import readers
from tests.datasets.prepare.conftest import prepare, texts
from tests.datasets.prepare.miniatures import (
    IMAGENET,
    NINE,
    OTHER_LAYOUTS,
    SYNSETS,
    Miniature,
    draw,
)
from tests.datasets.prepare.test_prepare import check_lists, flags_for


@pytest.fixture
def archive(tmp_path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    return folder


def move(archive: Path, old: str, new: str) -> None:
    """Moves a folder, perhaps into a new one of its own name."""
    aside = (archive / old).rename(archive / "aside")
    (archive / new).parent.mkdir(parents=True, exist_ok=True)
    aside.rename(archive / new)


@pytest.mark.parametrize(
    ("name", "moves", "images"),
    [
        ("food_101", [("food-101", "food-101/food-101")], "food-101/food-101/images"),
        (
            "aircraft",
            [("fgvc-aircraft-2013b", "fgvc-aircraft-2013b/fgvc-aircraft-2013b")],
            "fgvc-aircraft-2013b/fgvc-aircraft-2013b/data/images",
        ),
        ("stanford_dogs", [("Images", "images/Images")], "images/Images"),
        ("nabirds", [("nabirds", "nabirds/nabirds")], "nabirds/nabirds/images"),
        (
            "cub_200",
            [("CUB_200_2011/images", "CUB_200_2011/images/images")],
            "CUB_200_2011/images/images",
        ),
        ("flower_102", [("jpg", "jpg/jpg")], "jpg/jpg"),
        ("inat2017", [("train_val_images", "train_val_images/train_val_images")], None),
    ],
)
def test_one_repeated_folder_is_looked_through(name, moves, images, archive, data):
    miniature = NINE[name](archive)
    for old, new in moves:
        move(archive, old, new)
    miniature.images = archive / (images or moves[-1][1])
    prepare(*flags_for(miniature, data))
    check_lists(data / name, miniature)


def in_folders(miniature: Miniature, folders: dict[str, str]) -> Miniature:
    """Changes the folder at the beginning of each path."""
    for split_name, images in miniature.splits.items():
        parts = ((path.partition("/"), label) for path, label in images)
        miniature.splits[split_name] = [
            (f"{folders.get(part[0], part[0])}/{part[2]}", label) for part, label in parts
        ]
    return miniature


def test_stanford_cars_from_kaggle(archive, data):
    miniature = NINE["stanford_cars"](archive)
    nested = {name: f"{name}/{name}" for name in ("cars_train", "cars_test")}
    for old, new in (nested | {"devkit": "car_devkit/devkit"}).items():
        move(archive, old, new)
    # The layout is the one of which more is there, and all that is missing is named at once.
    annotations = archive / "cars_test_annos_withlabels.mat"
    annotations.rename(archive / "aside")
    shutil.copy(archive / "aside", archive / "cars_annos.mat")
    _, error = prepare(*flags_for(miniature, data), code=1)
    assert f"no devkit/cars_test_annos_withlabels.mat in {archive}: " in error
    assert ", only cars_train/cars_train, cars_test/cars_test, car_devkit/devkit/cars_t" in error
    (archive / "aside").rename(annotations)
    prepare(*flags_for(miniature, data))
    check_lists(data / "stanford_cars", in_folders(miniature, nested))


@pytest.mark.parametrize("level", [".", "ILSVRC", "ILSVRC/Data/CLS-LOC"])
def test_imagenet_from_kaggle(level, archive, data):
    """The same lists as from the official archives, byte for byte."""
    miniature = NINE["ILSVRC2012"](archive)
    prepare(*flags_for(miniature, data))
    official = texts(data / "ILSVRC2012")
    shutil.rmtree(data)
    root = archive / "ILSVRC/Data/CLS-LOC"
    root.mkdir(parents=True)
    for name in ("train", "val"):
        (archive / name).rename(root / name)
    shutil.rmtree(archive / "ILSVRC2012_devkit_t12")
    draw(root, ["test/ILSVRC2012_test_00000001.JPEG"])
    lines = [
        f"{Path(path).stem},{IMAGENET[label]} 85 1 499 272 {IMAGENET[label]} 1 2 3 4 "
        for path, label in reversed(miniature.splits["validation"])
    ]
    (archive / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))
    words = dict(SYNSETS.values())
    mapping = "".join(f"{wnid} {words[wnid]}\n" for wnid in IMAGENET)
    (archive / "LOC_synset_mapping.txt").write_text(mapping)
    prepare(*flags_for(replace(miniature, root=archive / level), data))
    assert texts(data / "ILSVRC2012") == official
    assert (data / "ILSVRC2012" / "images").resolve() == root


def test_names_of_flowers_as_in_another_library():
    """TFDS has them too."""
    name = "tensorflow_datasets.datasets.oxford_flowers102.oxford_flowers102_dataset_builder"
    names = pytest.importorskip(name)._NAMES
    assert " ".join(readers._FLOWERS.split()).split(", ") == [n.rstrip("?") for n in names]
    assert len(names) == 102


def test_imagenet_with_a_repeated_folder(archive, data):
    miniature = NINE["ILSVRC2012"](archive)
    move(archive, "val", "val/val")
    prepare(*flags_for(miniature, data))
    check_lists(data / "ILSVRC2012", in_folders(miniature, {"val": "val/val"}))


@pytest.mark.parametrize("draw_archive", [NINE["ILSVRC2012"], OTHER_LAYOUTS["ILSVRC2012"]])
def test_hidden_and_system_files_are_no_images_of_imagenet(draw_archive, archive, data):
    miniature = draw_archive(archive)
    image = f"{IMAGENET[0]}_18.JPEG"
    for folder in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        draw(archive, [f"train/{folder}/{image}", f"val/{folder}/ILSVRC2012_val_00000001.JPEG"])
    draw(archive, [f"train/{IMAGENET[0]}/._{image}", "val/._ILSVRC2012_val_00000001.JPEG"])
    (archive / f"train/{IMAGENET[0]}/.DS_Store").touch()
    prepare(*flags_for(miniature, data))
    check_lists(data / "ILSVRC2012", miniature)


def test_a_folder_among_the_validation_images_does_not_change_the_layout(archive, data):
    miniature = NINE["ILSVRC2012"](archive)
    draw(archive, ["val/n01440764/ILSVRC2012_val_00000009.JPEG"])
    prepare(*flags_for(miniature, data))
    check_lists(data / "ILSVRC2012", miniature)


def test_the_missing_development_kit_is_reported_before_images_are_read(archive, data, monkeypatch):
    miniature = NINE["ILSVRC2012"](archive)
    shutil.rmtree(archive / "ILSVRC2012_devkit_t12")
    (archive / "ILSVRC2012_devkit_t12.tar.gz").touch()
    read = []
    monkeypatch.setattr(readers, "_list_images", lambda *where: read.append(where[1]) or [])
    _, error = prepare(*flags_for(miniature, data), code=1)
    assert "no ILSVRC2012_devkit_t12/data/meta.mat, and no val/<wnid>/, in " in error
    assert "unpack ILSVRC2012_devkit_t12.tar.gz, which lies there, or: " in error
    assert set(read) == {"val"}


def test_nothing_there_and_packed_archives(archive, data):
    miniature = NINE["cub_200"](archive)
    shutil.rmtree(archive / "CUB_200_2011")
    flags = flags_for(miniature, data)
    _, error = prepare(*flags, code=1)
    (archive.parent / "images").mkdir()  # of something else, in the folder above
    expected = "images, images.txt, image_class_labels.txt, train_test_split.txt, classes.txt"
    assert f"no {expected} in {archive}, the folders in it and the one above: " in error
    assert "unpack " not in error
    (archive / "CUB_200_2011.tgz").touch()
    (archive / "._CUB_200_2011.tgz").touch()
    assert "unpack CUB_200_2011.tgz, which lies there" in prepare(*flags, code=1)[1]
    # The archives of the classes, as ILSVRC2012_img_train.tar holds them.
    imagenet = NINE["ILSVRC2012"](archive)
    shutil.rmtree(archive / "train")
    (archive / "train").mkdir()
    (archive / "train/n01440764.tar").touch()
    _, error = prepare(*flags_for(imagenet, data), code=1)
    assert "no train/<wnid>/ in" in error and "unpack n01440764.tar, which lies there" in error


@pytest.mark.parametrize(
    ("name", "path", "key", "of"),
    [
        ("food_101", "food-101/meta/train.txt", "image", "meta/classes.txt"),
        ("cub_200", "CUB_200_2011/images.txt", "id", "train_test_split.txt"),
        (
            "ILSVRC2012",
            "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
            "ILSVRC2012_ID",
            "meta.mat",
        ),
    ],
)
def test_a_line_that_other_files_do_not_know_is_named_with_its_file(
    name, path, key, of, archive, data
):
    """Such as a header; in the ground truth of ImageNet it would shift all labels by one image."""
    miniature = NINE[name](archive)
    text = (archive / path).read_text()
    header = f"{key} name\n" if name == "cub_200" else f"{key}\n"
    (archive / path).write_text(header + text)
    _, error = prepare(*flags_for(miniature, data), code=1)
    assert f"{archive / path} mentions '{key}', but " in error
    assert f"{of} has no line for '{key}'" in error


@pytest.mark.parametrize("name", ["flower_102", "stanford_dogs", "food_101"])
def test_an_archive_may_lie_in_the_folder_of_the_dataset(name, data):
    """The published README unpacks it there. No file of these has the name of a list."""
    (data / name).mkdir(parents=True)
    miniature = NINE[name](data / name)
    flags = flags_for(miniature, data)
    for _ in range(2):
        prepare(*flags)
        check_lists(data / name, miniature)
