import re

import pytest

from slim.common.errors import UserError
from slim.datasets.input import get_dataset
from slim.datasets.registry import KNOWN, Sizes
from tests.datasets.conftest import convert


@pytest.fixture
def converted(make_dataset):
    folder = make_dataset()
    convert(folder, "--num_shards=3")
    return folder


def refused(folder, *parts, split_name="train"):
    with pytest.raises(UserError) as caught:
        get_dataset(folder.name, split_name, folder.parent)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_converted_datasets(converted):
    for split_name, samples in (("train", 12), ("validation", 6)):
        found = get_dataset("things", split_name, str(converted.parent))
        names = [f"{split_name}_0000{i}-of-00003.tfrecord" for i in range(3)]
        assert found.files == tuple(str(converted / name) for name in names)
        assert (found.num_samples, found.num_classes) == (samples, 3)
        assert (found.name, found.split_name, found.class_names) == ("things", split_name, None)


def test_class_names(converted, capsys):
    (converted / "classes.txt").write_text("0 Blue_Jay\n1 a finch\n2 Wren\n")
    found = get_dataset("things", "train", converted.parent)
    assert found.class_names == ("Blue_Jay", "a finch", "Wren")
    assert capsys.readouterr().err == ""
    (converted / "classes.txt").write_text("1 001.Blue_Jay\n2 002.finch\n3 003.Wren\n")
    assert get_dataset("things", "train", converted.parent).class_names is None
    assert "does not name labels 0 to 2" in capsys.readouterr().err
    (converted / "classes.txt").write_bytes("0 Jay\n1 Häher\n2 Wren\n".encode("latin-1"))
    refused(converted, f"{converted / 'classes.txt'} line 2 is not UTF-8: save the file as UTF-8")
    (converted / "classes.txt").write_bytes("0 Jay\n1 Häher\n2 Wren\n".encode("utf-8-sig"))
    found = get_dataset("things", "train", converted.parent)
    assert found.class_names == ("Jay", "Häher", "Wren")


def test_unknown(converted):
    refused(converted.with_name("thing"), "no dataset 'thing'", "did you mean things?")
    (converted.parent / ".hidden").mkdir()
    (converted.parent / "food_101").mkdir()
    listed = (
        f"{converted.parent} has food_101, things; data/README.md says how to get others: "
        "ILSVRC2012, inat2017, aircraft, cub_200, flower_102, nabirds, stanford_cars, stanford_dogs"
    )
    assert refused(converted.with_name("zoo"), "no dataset 'zoo'").endswith(listed)
    with pytest.raises(UserError, match=f"--dataset_name is missing: {listed}"):
        get_dataset("", "train", converted.parent)
    refused(converted, "no split 'test': expected train or validation", split_name="test")
    refused(converted / "..", "no dataset '..': expected the name of a folder in --dataset_dir")


def test_not_converted(make_dataset, monkeypatch):
    folder = make_dataset()
    command = f" convert_dataset.py --dataset_name=things --dataset_dir={folder.parent}`"
    refused(folder, f"no train shards in {folder}: make them with `", command)
    monkeypatch.chdir(folder.parents[1])
    with pytest.raises(UserError, match=r"with `\S+ convert_dataset.py --dataset_name=things`$"):
        get_dataset("things", "train", "./data/")


def test_incomplete_or_damaged(converted):
    shard = converted / "train_00001-of-00003.tfrecord"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    refused(converted, f"{shard} has {len(content) - 1} bytes, expected {len(content)}")
    shard.unlink()
    refused(converted, f"{shard} is missing: convert again with `", "convert_dataset.py")
    assert get_dataset("things", "validation", converted.parent).num_samples == 6


def test_stale(converted):
    stale = converted / "train_00000-of-00005.tfrecord"
    stale.touch()
    refused(converted, f"{stale} is not part of the conversion that dataset.json describes", "move")
    stale.unlink()
    with (converted / "val.txt").open("a") as file:
        file.write("images/more.jpg: 1\n")
    refused(converted, f"{converted / 'val.txt'} has changed since the shards were made")
    (converted / "val.txt").unlink()
    (converted / "train.txt").unlink()
    assert get_dataset("things", "train", converted.parent).num_samples == 12


def test_interrupted(converted):
    staging = converted / ".conversion-0123456789abcdef"
    staging.mkdir()
    (converted / "dataset.json").rename(staging / "dataset.json")
    refused(converted, "was interrupted: finish it with `", "convert_dataset.py")


def test_shards_of_the_published_script(make_dataset, capsys, monkeypatch):
    known = make_dataset("cub_200")
    convert(known, "--num_shards=4")
    (known / "dataset.json").unlink()
    capsys.readouterr()
    monkeypatch.setitem(KNOWN, "cub_200", Sizes(12, 6, 200))
    found = get_dataset("cub_200", "train", known.parent)
    assert (found.num_samples, found.num_classes, len(found.files)) == (12, 200, 4)
    assert re.fullmatch(r"note: .*/cub_200 has no dataset.json; .*\n", capsys.readouterr().err)
    (known / "train_00002-of-00004.tfrecord").unlink()
    refused(known, "has 3 train shards, expected one set of 4")
    (known / "train_00002-of-00005.tfrecord").touch()
    refused(known, "has 4 train shards, expected one set of 4 or 5")


def test_sizes_of_the_paper():
    assert {name: tuple(sizes) for name, sizes in KNOWN.items()} == {
        "ILSVRC2012": (1281167, 50000, 1000),
        "inat2017": (665473, 9697, 5089),
        "aircraft": (6667, 3333, 100),
        "cub_200": (5994, 5794, 200),
        "flower_102": (2040, 6149, 102),
        "food_101": (75750, 25250, 101),
        "nabirds": (23929, 24633, 555),
        "stanford_cars": (8144, 8041, 196),
        "stanford_dogs": (12000, 8580, 120),
    }
