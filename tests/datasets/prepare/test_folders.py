"""Preparation of folders of images."""

import errno
import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from slim.datasets import balance
from slim.datasets.input import get_dataset
from slim.datasets.prepare.folders import split_classes
from slim.datasets.tfrecord import LISTS
from tests.datasets.conftest import (
    convert,
    encode,
    file_size_limit,
    no_links,
    oriented,
    picture,
    read_records,
)
from tests.datasets.prepare.conftest import prepare, texts
from tests.datasets.prepare.miniatures import draw
from tests.support import ROOT, invoke


def draw_folders(root: Path, counts: dict[str, int], reverse: bool = False) -> list[str]:
    """Draws one folder per class and returns the sorted paths of the images."""
    paths = [f"{name}/{index:02d}.jpg" for name, count in counts.items() for index in range(count)]
    draw(root, reversed(paths) if reverse else paths)
    return sorted(paths)


def listed(folder: Path, split_name: str) -> list[tuple[str, int]]:
    lines = (folder / LISTS[split_name]).read_text().splitlines()
    parts = (line.removeprefix("images/").rsplit(": ", 1) for line in lines)
    return [(path, int(label)) for path, label in parts]


def flags_for(root: Path, data: Path, *more: str) -> list[str]:
    flags = ["--dataset_name=my_set", f"--from_folders={root}", f"--dataset_dir={data}"]
    return [*flags, *more]


def test_photographs_of_ones_own_become_upright(tmp_path, data):
    """The printed command turns them; without its flag, conversion says what it ignores."""
    root, folder = tmp_path / "mine", data / "my_set"
    draw_folders(root, {"a": 3, "b": 3})
    for path in (root / "a/00.jpg", root / "b/01.jpg"):
        path.write_bytes(oriented(picture(1, (40, 30)), "JPEG", 6))
    command = shlex.split(prepare(*flags_for(root, data))[0].partition("next: ")[2])
    options = [f"--num_{of}=1" for of in ("shards", "workers")]
    as_printed = [flag for flag in command if flag == "--apply_orientation"]
    ignored = convert(folder, *options)
    assert "warning: 2 images of" in ignored.error and "--apply_orientation turns" in ignored.error
    before = json.loads((folder / "dataset.json").read_text())
    refused = convert(folder, *options, *as_printed, code=1)
    assert "made with --apply_orientation=False, not True: delete them (rm -f" in refused.error
    for path in folder.glob("*.tfrecord"):
        path.unlink()

    (folder / "dataset.json").unlink()
    turned = convert(folder, *options, *as_printed)
    assert f"2 images of {folder} with an orientation in EXIF: turned upright" in turned.output
    records = read_records(sorted(folder.glob("*.tfrecord")))
    assert sum((record.height, record.width) == (40, 30) for record in records) == 2
    after = json.loads((folder / "dataset.json").read_text())
    assert after.pop("apply_orientation") is True and set(after) == set(before)
    # Every later command knows: training writes it to model.json, derived datasets ask for it.
    assert get_dataset("my_set", "train", data).apply_orientation
    flags = [f"--dataset_dir={data}", "--dataset_name=my_set", "--max_per_class=1"]
    assert invoke(balance, *flags).output.rstrip().endswith(" --apply_orientation")


COUNTS = {"b class": 10, "a: 7": 5, "C": 2, "lonely": 1}


def test_each_class_is_split(tmp_path, data):
    root = tmp_path / "mine"
    paths = draw_folders(root, COUNTS)
    prepare(*flags_for(root, data))
    folder = data / "my_set"
    train, validation = listed(folder, "train"), listed(folder, "validation")
    assert sorted(path for path, _ in train + validation) == paths
    names = sorted(COUNTS)
    assert (folder / "classes.txt").read_text() == "".join(
        f"{i} {n}\n" for i, n in enumerate(names)
    )
    for images in (train, validation):
        assert images == sorted(images, key=lambda image: (image[1], image[0]))
        assert all(path.split("/")[0] == names[label] for path, label in images)
    held_out = [sum(label == k for _, label in validation) for k in range(4)]
    assert dict(zip(names, held_out, strict=True)) == {"b class": 2, "a: 7": 1, "C": 1, "lonely": 0}
    assert (folder / "images").resolve() == root

    convert(folder, "--num_shards=1", "--num_workers=1")
    records = read_records([folder / "validation_00000-of-00001.tfrecord"])
    expected = [((root / path).read_bytes(), label) for path, label in validation]
    assert [(record.jpeg, record.label) for record in records] == expected


def test_the_split_depends_only_on_names_and_seed(tmp_path):
    lists = []
    for index, (reverse, seed) in enumerate(((False, 0), (True, 0), (False, 1))):
        draw_folders(tmp_path / f"mine{index}", COUNTS, reverse)
        data = tmp_path / f"data{index}"
        prepare(*flags_for(tmp_path / f"mine{index}", data, f"--seed={seed}"))
        lists.append(texts(data / "my_set"))
    assert lists[0] == lists[1]
    assert lists[0] != lists[2]
    more = draw_folders(tmp_path / "mine0", {"another": 4})
    prepare(*flags_for(tmp_path / "mine0", tmp_path / "more"))
    others = {path for path, _ in listed(tmp_path / "more" / "my_set", "validation")} - {*more}
    assert others == {path for path, _ in listed(tmp_path / "data0" / "my_set", "validation")}


def test_every_class_has_images_in_both_splits():
    chance = random.Random(0)
    for _ in range(200):
        count, fraction = chance.randint(1, 40), chance.uniform(0.01, 0.99)
        paths = [f"{i}.jpg" for i in range(count)]
        split = split_classes({"it": paths}, fraction, chance.random())
        train, validation = (split[name].get("it", []) for name in ("train", "validation"))
        assert sorted(train + validation) == sorted(paths)
        assert len(train) >= 1 and (count == 1 or len(validation) >= 1)
        if 1 <= fraction * count <= count - 1:
            assert abs(len(validation) - fraction * count) <= 0.5


def test_train_and_val_folders_are_the_splits(tmp_path, data):
    root = tmp_path / "mine"
    train = draw_folders(root / "train", {"x": 3, "y": 2})
    validation = draw_folders(root / "val", {"x": 1, "y": 2})
    prepare(*flags_for(root, data))
    folder = data / "my_set"
    assert listed(folder, "train") == [(f"train/{p}", int(p[0] == "y")) for p in train]
    assert listed(folder, "validation") == [(f"val/{p}", int(p[0] == "y")) for p in validation]

    draw_folders(root / "val", {"z": 1})
    (root / "test").mkdir()
    out, error = prepare(*flags_for(root, tmp_path / "other"), code=1)
    assert "classes in only one of the splits (1): z" in error
    assert "train is to train on, val to validate on, test is left out\n" in out
    prepare(*flags_for(root, tmp_path / "other", "--allow_partial"))
    assert listed(tmp_path / "other" / "my_set", "validation")[-1] == ("val/z/00.jpg", 2)


SPLITS = [
    ("train", "valid", "test"),
    ("TRAIN", "Validation", "Test"),
    ("train_images", "dev", "metadata"),
    ("Training", "Testing", None),  # the test split validates if no other one does
    ("seg_train/seg_train", "seg_test/seg_test", None),
    ("trainset", "val2017", None),
]


@pytest.mark.parametrize("folders", SPLITS, ids=lambda folders: folders[0])
def test_names_of_splits_are_not_classes(tmp_path, data, folders):
    """The names of exporters, Keras, torchvision, Hugging Face and Kaggle."""
    root, (to_train, to_validate, other) = tmp_path / "mine", folders
    train = draw_folders(root / to_train, {"x": 3, "y": 2})
    validation = draw_folders(root / to_validate, {"x": 1, "y": 2})
    if other:
        draw_folders(root / other, {"x": 2, "other": 2})
    out, error = prepare(*flags_for(root, data))
    folder = data / "my_set"
    assert listed(folder, "train") == [(f"{to_train}/{p}", int(p[0] == "y")) for p in train]
    expected = [(f"{to_validate}/{p}", int(p[0] == "y")) for p in validation]
    assert listed(folder, "validation") == expected
    assert (folder / "classes.txt").read_text() == "0 x\n1 y\n"
    assert f"{to_train} is to train on, {to_validate} to validate on" in out and not error
    assert not other or f"{other} is left out" in out or f"(1): {other}\n" in out


def test_a_test_split_without_classes_is_left_out(tmp_path, data):
    """A competition's images to predict have no labels."""
    root = tmp_path / "mine"
    paths = draw_folders(root / "train", {"x": 5, "y": 5})
    draw(root, ["test/1.jpg", "test/2.jpg"])
    out, _ = prepare(*flags_for(root, data))
    assert "a random part of train to validate on, test is left out\n" in out
    sizes = [len(listed(data / "my_set", split)) for split in LISTS]
    found = sorted(path for split in LISTS for path, _ in listed(data / "my_set", split))
    assert sizes == [8, 2] and found == [f"train/{path}" for path in paths]


@pytest.mark.parametrize(
    "folders",
    [("valid", "test"), ("Train",), ("train", "val", "validation"), ("training", "Train", "test")],
)
def test_splits_that_are_no_pair_are_refused(tmp_path, data, folders):
    for folder in folders:
        draw_folders(tmp_path / "mine" / folder, {"x": 2, "y": 2})
    error = prepare(*flags_for(tmp_path / "mine", data), code=1)[1]
    assert f"{', '.join(sorted(folders))} are names of splits, not of classes; expected" in error
    assert not data.exists()


def test_a_class_may_be_called_as_a_split(tmp_path, data):
    draw_folders(tmp_path / "mine", {"car": 2, "test tube": 2, "train": 2, "valid ticket": 2})
    prepare(*flags_for(tmp_path / "mine", data))
    names = (data / "my_set" / "classes.txt").read_text()
    assert names == "0 car\n1 test tube\n2 train\n3 valid ticket\n"


def test_classes_one_level_deeper(tmp_path, data):
    root, flag = tmp_path / "mine", "--class_depth=2"
    draw_folders(root / "archive", {"x": 3, "y": 2})
    error = prepare(*flags_for(root, data), code=1)[1]
    assert "'archive' is the only class, expected two or more: set --class_depth=2" in error
    assert not data.exists()
    prepare(*flags_for(root, data, flag))
    assert (data / "my_set" / "classes.txt").read_text() == "0 x\n1 y\n"

    draw_folders(root / "backup", {"y": 2, "z/deep": 2})
    merging = f"warning: {root}: subfolders merged into 2 classes (4): archive/x, archive/y, "
    assert prepare(*flags_for(root, tmp_path / "two"))[1].startswith(merging)
    error = prepare(*flags_for(root, tmp_path / "four", flag))[1]
    assert "subfolders merged into 1 class (1): backup/z/deep; set --class_depth=3" in error
    # The names of folders that occur twice do not name classes.
    names = (tmp_path / "four" / "my_set" / "classes.txt").read_text()
    assert names == "0 archive/x\n1 archive/y\n2 backup/y\n3 backup/z\n"


def test_links_to_folders_are_followed_and_circles_end(tmp_path, data):
    root, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    draw_folders(root, {"x": 2, "y/more": 2})
    draw_folders(elsewhere, {"x/a": 3, "z": 4})
    (root / "z").mkdir()
    for link, target in {
        "x/linked": elsewhere / "x",
        "z/all": elsewhere / "z",
        "whole": elsewhere / "z",
        "x/up": "..",
        "x/further up": "../..",
        "y/more/again": "../../y",
        "y/twice": "more",
    }.items():
        (root / link).symlink_to(target)
    out, _ = prepare(*flags_for(root, data))
    found = sorted(path for split in LISTS for path, _ in listed(data / "my_set", split))
    assert found == sorted(
        [f"x/{i:02d}.jpg" for i in range(2)]
        + [f"x/linked/a/{i:02d}.jpg" for i in range(3)]
        + [f"y/more/{i:02d}.jpg" for i in range(2)]
        + [f"{folder}/{i:02d}.jpg" for i in range(4) for folder in ("whole", "z/all")]
    )
    assert "ignored files and folders (4): x/further up, x/up, y/more/again, ...\n" in out


def test_every_format_of_photographs_is_read_and_a_lost_class_is_named(tmp_path, data):
    root = tmp_path / "mine"
    draw_folders(root, {"x": 2})
    for name, kind in {
        "0.jfif": "JPEG",
        "1.AVIF": "AVIF",
        "2.jp2": "JPEG2000",
        "3.JPE": "JPEG",
    }.items():
        (root / "y").mkdir(exist_ok=True)
        (root / "y" / name).write_bytes(encode(picture(1), kind))
    for name in ("hawk/1.heic", "hawk/2.heic", "x/@eaDir/thumbnail.jpg", "__MACOSX/x/00.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"unknown")
    (root / "owl").mkdir()
    out, error = prepare(*flags_for(root, data))
    assert error == (
        f"warning: {root}: subfolders without images, which are no classes (2): hawk (2 other "
        "files, such as 1.heic), owl (0 other files)\n"
    )
    assert "ignored" not in out
    convert(data / "my_set", "--num_shards=1")
    shards = sorted((data / "my_set").glob("*.tfrecord"))
    assert sorted(record.label for record in read_records(shards)) == [0, 0, 1, 1, 1, 1]


def test_other_files_are_ignored_and_nested_folders_are_read(tmp_path, data):
    root = tmp_path / "mine"
    paths = draw_folders(root, {"x": 2, "y/deep/er": 3})
    (root / "x" / "upper.JPEG").write_bytes(encode(picture(7)))
    (root / "x" / "grey.png").write_bytes(encode(picture(8), "PNG"))
    for name in ("notes.txt", "x/Thumbs.db", "y/deep/video.mp4"):
        (root / name).write_bytes(b"")
    for name in ("x/.DS_Store", "x/._00.jpg", ".hidden.jpg"):
        (root / name).write_bytes(b"")
    (root / "empty").mkdir()
    out, _ = prepare(*flags_for(root, data))
    assert "ignored files and folders (3): " in out
    folder = data / "my_set"
    found = sorted(path for split in LISTS for path, _ in listed(folder, split))
    assert found == sorted([*paths, "x/upper.JPEG", "x/grey.png"])
    assert (folder / "classes.txt").read_text() == "0 x\n1 y\n"


def test_images_may_lie_in_the_folder_of_the_dataset(data):
    root = data / "my_set" / "images"
    paths = draw_folders(root, {"x": 4, "y": 3})
    prepare(*flags_for(root, data))
    assert not root.is_symlink()
    found = [path for split in LISTS for path, _ in listed(data / "my_set", split)]
    assert sorted(found) == paths
    prepare(*flags_for(root, data))
    _, error = prepare(*flags_for(data / "my_set", data, "--class_depth=2"), code=1)
    assert "nothing was written" in error


@pytest.mark.parametrize("device", [None, "/dev/zero"])
def test_only_regular_files_are_copied(tmp_path, data, device):
    root = tmp_path / "mine"
    draw_folders(root, {"x": 4, "y": 1})
    other = root / "x/00.jpg"
    other.unlink()
    if device:
        other.symlink_to(device)  # copying it would not end
    else:
        os.mkfifo(other)
    with file_size_limit(100_000):
        error = prepare(*flags_for(root, data, "--copy"), code=1)[1]
    assert error.endswith(f"error: {other} is not a regular file: remove it, then run this again\n")


def test_a_file_system_without_links(tmp_path, data):
    root, folder = tmp_path / "mine", data / "my_set"
    paths = draw_folders(root, {"x": 2, "y": 2})
    link = re.escape(str(folder / "images"))
    for number, message in {
        errno.EOPNOTSUPP: f"{link} cannot be a link .*; nothing was written; set --copy",
        errno.EPERM: f"{link} cannot be a link .*; nothing was written; set --copy",
        errno.EIO: f"cannot write {link}: Input/output error; fix this",
    }.items():
        with no_links(number):
            error = prepare(*flags_for(root, data), code=1)[1]
        assert re.match(f"error: {message}", error) and not folder.exists()
    with no_links():
        prepare(*flags_for(root, data, "--copy"))
    copies = folder / "images"
    found = [path.relative_to(copies).as_posix() for path in copies.rglob("*.jpg")]
    assert sorted(found) == paths and not copies.is_symlink()


def test_a_closed_pipe_is_not_an_error(tmp_path, data):
    root = tmp_path / "mine"
    draw_folders(root, {"x": 2, "y": 2})
    reader, writer = os.pipe()
    os.close(reader)
    for module, flags in {
        "slim.datasets.prepare": flags_for(root, data),
        "slim.convert_dataset": ["--dataset_name=my_set", f"--dataset_dir={data}"],
    }.items():
        command = [sys.executable, "-m", module, *flags]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, text=True)
        assert (done.returncode, done.stderr) == (141, "")
    os.close(writer)


def test_folders_without_images_are_refused(tmp_path, data):
    (tmp_path / "mine" / "x").mkdir(parents=True)
    assert "no images for train" in prepare(*flags_for(tmp_path / "mine", data), code=1)[1]
    draw_folders(tmp_path / "mine", {"w": 1, "x": 1})
    assert "no images for validation" in prepare(*flags_for(tmp_path / "mine", data), code=1)[1]
    draw_folders(tmp_path / "mine", {"x": 3})
    flags = flags_for(tmp_path / "mine", data, "--val_fraction=0.999999")
    expected = "--val_fraction=0.999999 leaves no image to train on, the largest class has 3"
    assert expected in prepare(*flags, code=1)[1]
    (tmp_path / "mine" / "x" / "line\nbreak.jpg").write_bytes(encode(picture(9)))
    assert (
        "file names with a line break (1): "
        in prepare(*flags_for(tmp_path / "mine", data), code=1)[1]
    )
    assert not data.exists()
