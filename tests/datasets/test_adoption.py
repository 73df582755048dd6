"""Shards of other programs: what commands say about them, and their adoption."""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from slim import convert_dataset as conversion
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.input import get_dataset
from slim.datasets.registry import KNOWN, Sizes
from slim.datasets.tfrecord import count_records
from tests.datasets.conftest import check, contents, convert, encode, flags_of, picture

NAMES = ["daisy", "field: rose", "tulip"]


def record(image: bytes, label: int, **more: object) -> bytes:
    """A record as TF-Slim's own scripts write it, with a feature that nothing here reads."""
    values = {"encoded": image, "format": b"jpg", "class/label": label, "height": 30, "width": 40}
    values |= {"filename": b"a.jpg"} | more
    features = {}
    for key, value in values.items():
        kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
        kind = kinds.get(type(value))
        lists = {
            "bytes_list": tf.train.BytesList,
            "int64_list": tf.train.Int64List,
            "float_list": tf.train.FloatList,
        }
        if kind:
            features[f"image/{key}"] = tf.train.Feature(**{kind: lists[kind](value=[value])})
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write(folder: Path, name: str, records: Sequence[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / name)) as writer:
        for each in records:
            writer.write(each)


def write_shards(folder: Path, labels: Sequence[int] = (0, 1, 2), prefix: str = "") -> None:
    """Writes two shards of training images, of each class twice, and one to validate on."""
    images = [encode(picture(index)) for index in range(3 * len(labels))]
    records = [record(image, label) for image, label in zip(images, [*labels] * 3, strict=True)]
    for index in range(2):
        part = records[index * len(labels) : (index + 1) * len(labels)]
        write(folder, f"{prefix}train_{index:05d}-of-00002.tfrecord", part)
    write(folder, f"{prefix}validation_00000-of-00001.tfrecord", records[2 * len(labels) :])


def adopt(folder: Path, *more: str, code: int = 0):
    return check(conversion, *flags_of(folder, "--adopt", "--num_workers=1", *more), code=code)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "data" / "things"


def test_shards_of_another_program_are_described_and_adopted(make_dataset):
    folder = make_dataset()
    write_shards(folder)
    (folder / "labels.txt").write_text("".join(f"{i}:{name}\n" for i, name in enumerate(NAMES)))
    before = contents(folder)
    with pytest.raises(UserError) as caught:
        get_dataset(folder.name, "train", folder.parent)
    refused = convert(folder, code=1).error
    for message in (str(caught.value), refused):
        assert "--adopt`, or move them to another folder" in message
        assert not re.search("rm |delete|remove", message)
    assert "has shards without dataset.json, of another program" in refused
    assert (
        "2 train shards but no dataset.json; the first has 3 records with image/class/label, "
        "image/encoded, image/filename, image/format, image/height, image/width: "
        in str(caught.value)
    )

    done = adopt(folder)
    assert "warning" not in done.error
    assert done.output == f"{folder}: 9 images, 3 classes, 3 shards, as they were\n"
    described = json.loads((folder / "dataset.json").read_text())
    assert described["classes"] == 3 and described["verified"]
    for split_name, samples in (("train", 6), ("validation", 3)):
        found = get_dataset(folder.name, split_name, folder.parent)
        assert (found.num_samples, found.num_classes) == (samples, 3)
        assert found.class_names == tuple(NAMES)
        assert sum(count_records(Path(file)) for file in found.files) == samples
    assert {n: c for n, c in contents(folder).items() if n != "dataset.json"} == before
    # They are not those of the lists: conversion leaves them alone, and a damaged one is named.
    assert not re.search("rm |delete", convert(folder, code=1).error)
    (folder / "train_00001-of-00002.tfrecord").write_bytes(b"")
    with pytest.raises(UserError, match=r"has 0 bytes, expected \d+: describe them as they are"):
        get_dataset(folder.name, "train", folder.parent)


def test_shards_with_names_of_other_programs_get_links(folder):
    write_shards(folder, prefix="flowers_")
    with pytest.raises(UserError, match="or describe others with --adopt"):
        get_dataset(folder.name, "train", folder.parent)
    adopt(folder, "--noverify")
    adopt(folder, "--noverify")
    link = folder / "train_00001-of-00002.tfrecord"
    assert link.readlink() == Path("flowers_train_00001-of-00002.tfrecord")
    assert get_dataset(folder.name, "train", folder.parent).num_samples == 6
    write_shards(folder, prefix="cars-")
    assert "are the same shard of two sets" in adopt(folder, code=1).error


def test_a_dataset_of_the_paper_with_other_records(folder, monkeypatch):
    """As published, its sizes need no description; they are taken only for that many records."""
    write_shards(folder)
    monkeypatch.setitem(KNOWN, "things", Sizes(6, 3, 3))
    for split_name, samples in (("train", 6), ("validation", 3)):
        assert get_dataset("things", split_name, folder.parent).num_samples == samples
    monkeypatch.setitem(KNOWN, "things", Sizes(2040, 6149, 102))
    for split_name, held, expected in (("train", 3, 2040), ("validation", 3, 6149)):
        message = (
            f"the first has {held} records .*: expected {expected} in all as in the paper; desc"
        )
        with pytest.raises(UserError, match=message):
            get_dataset("things", split_name, folder.parent)
    warning = (
        f"warning: {folder} has 6 train, 3 validation, 3 classes; the paper's things has 2040 "
    )
    assert warning in adopt(folder).error
    assert get_dataset("things", "validation", folder.parent).num_samples == 3


BIRD = encode(picture(1))


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [record(BIRD, 0, height=None)],
            ": record 0: expected one image/height .*, found image/cla",
        ),
        ([record(BIRD, 0), record(BIRD, 0.5)], ": record 1: expected one image/class/label "),
        ([record(BIRD, -1)], "label -1 is negative"),
        ([record(BIRD[:-60], 0)], ": record 0: cannot be decoded"),
        ([record(encode(picture(1), "WEBP"), 0)], "image/encoded is no JPEG, PNG, GIF or BMP file"),
        ([b"no example"], "not a tf.train.Example"),
        ([record(BIRD, 7)], "labels are not dense: 4 of 0..7 occur .*, or name all of them in cl"),
    ],
)
def test_records_that_cannot_be_used(folder, records, message):
    write_shards(folder)
    write(folder, "train_00001-of-00002.tfrecord", records)
    before = contents(folder)
    done = adopt(folder, code=1)
    assert re.search(f"^error: .*{message}", done.error, re.M), done.error
    assert contents(folder) == before


def test_shards_that_are_missing_or_no_records(folder):
    write_shards(folder)
    (folder / "validation_00000-of-00001.tfrecord").write_bytes(b"\x1f\x8bcompressed")
    assert "has no record at byte 0" in adopt(folder, code=1).error
    (folder / "validation_00000-of-00001.tfrecord").unlink()
    assert "no validation shards in" in adopt(folder, code=1).error
    (folder / "train_00000-of-00002.tfrecord").unlink()
    assert "has 1 train shards, expected one set of 2: complete it" in adopt(folder, code=1).error


def test_classes_of_labels(folder):
    """Label 0 may be a background, and named classes may have no images."""
    write_shards(folder, labels=(1, 2, 3))
    assert "label 0 has no images; pass --labels_offset=1" in adopt(folder).error
    assert get_dataset("things", "train", folder.parent).num_classes == 4
    (folder / "classes.txt").write_text("".join(f"{i} c{i}\n" for i in range(6)))
    assert "3 classes have no images, the first is c0" in adopt(folder).error
    assert get_dataset("things", "train", folder.parent).num_classes == 6
    (folder / "classes.txt").write_text("0 a\n1 b\n")
    assert "has label 3, but names of 2 classes" in adopt(folder, code=1).error


def test_shards_of_conversion_need_no_adoption(make_dataset):
    folder = make_dataset()
    convert(folder, "--num_shards=2")
    assert "--adopt: convert_dataset.py made the shards in" in adopt(folder, code=1).error
    # A whole shard of the same name is no damaged one, which conversion would make again.
    mine = folder / "validation_00001-of-00002.tfrecord"
    ours = mine.read_bytes()
    write(folder, mine.name, [record(BIRD, 0)])
    theirs = mine.read_bytes()
    expected = f"does not describe, such as {mine.name}: move such shards to another folder"
    assert expected in convert(folder, "--num_shards=2", code=1).error
    assert mine.read_bytes() == theirs
    mine.write_bytes(ours[:-1])
    convert(folder, "--num_shards=2")
    assert mine.read_bytes() == ours
    # Advice to delete them names their own files only.
    (folder / "mine.tfrecord").touch()
    advice = convert(folder, "--num_shards=3", code=1).error
    (command,) = re.findall(r"\((rm -f [^)]*)\)", advice)
    assert f"{folder}/train_?????-of-00002.tfrecord" in command
    subprocess.run(["sh", "-c", command], check=True)
    assert contents(folder) == {"mine.tfrecord": b""}
