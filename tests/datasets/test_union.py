"""Unions of datasets, from lists to a converted dataset."""

import shutil
from collections import Counter

import pytest

from slim.datasets import balance, listed, union
from slim.datasets.input import get_dataset
from tests.datasets.conftest import check, convert, encode, no_links, picture, read_records

# The class names of each dataset; None: it has no classes.txt.
WORLD = {
    "birds": ["raven", "crane", "snowy owl"],
    "things": ["crane", "car"],
    "plain": None,
}


@pytest.fixture
def data(tmp_path):
    """Returns a folder with three datasets of two training and one validation image per class."""
    for seed, (name, classes) in enumerate(WORLD.items()):
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        num_classes = len(classes or "ab")
        for split, count in (("train", 2), ("val", 1)):
            lines = []
            for label in range(num_classes):
                for i in range(count):
                    path = f"images/{split}_{label}_{i}.jpg"
                    image = encode(picture(100 * seed + 10 * label + i + 5 * (split == "val")))
                    (folder / path).write_bytes(image)
                    lines.append(f"{path}: {label}\n")
            (folder / f"{split}.txt").write_text("".join(lines))
        if classes:
            text = "".join(f"{label} {name}\n" for label, name in enumerate(classes))
            (folder / "classes.txt").write_text(text)
    return tmp_path


def make(data, *arguments, code=0):
    done = check(union, f"--dataset_dir={data}", *arguments, code=code)
    return done.error if code else done.output


def test_from_lists_to_shards(data):
    out = make(data, "--dataset_names=birds,things")
    folder = data / "birds+things"
    assert "| birds | 0 to 2 | 6 | 3 |\n| things | 3 to 4 | 4 | 2 |\n" in out
    convert(folder, "--num_shards=2")
    for split_name, list_name, count in (("train", "train", 2), ("validation", "val", 1)):
        dataset = get_dataset("birds+things", split_name, data)
        assert dataset.class_names == (
            "raven",
            "birds crane",
            "snowy owl",
            "things crane",
            "car",
        )
        expected = {
            (data / source / f"images/{list_name}_{label}_{i}.jpg").read_bytes(): first + label
            for source, first, num_classes in (("birds", 0, 3), ("things", 3, 2))
            for label in range(num_classes)
            for i in range(count)
        }
        records = read_records(dataset.files)
        assert len(records) == dataset.num_samples == len(expected)
        assert {record.jpeg: record.label for record in records} == expected


def test_sources_that_share_a_photograph(data):
    """As Stanford Dogs, whose photographs are ImageNet's."""
    shared = (data / "things/images/train_1_0.jpg").read_bytes()
    (data / "birds/images/val_2_0.jpg").write_bytes(shared)
    make(data, "--dataset_names=birds,things")
    in_both, two_labels = convert(data / "birds+things", "--num_shards=2").error.splitlines()
    pair = (
        "things/images/train_1_0.jpg (train.txt line 9, label 4) and "
        "birds/images/val_2_0.jpg (val.txt line 3, label 2)"
    )
    assert "1 image is in both splits" in in_both and in_both.endswith(pair)
    assert "1 image is there with two labels" in two_labels and two_labels.endswith(pair)


def test_a_file_system_without_links(data):
    """Nothing is left of a dataset that cannot be linked; with --copy, records are the same."""
    flags, folder = ("--dataset_names=birds,things",), data / "birds+things"
    with no_links():
        error = make(data, *flags, code=1)
        assert error.startswith(f"error: {folder / 'birds'} cannot be a link (Operation not ")
        assert error.endswith("; nothing was written; set --copy to copy the images\n")
        assert not folder.exists()
        subset = ("--dataset_name=birds", "--max_per_class=1", f"--dataset_dir={data}")
        error = check(balance, *subset, code=1).error
        assert "cannot be a link" in error and not (data / "birds_balanced_1").exists()

        make(data, *flags, "--copy")
        check(balance, *subset, "--copy")
        assert len([*(data / "birds_balanced_1").rglob("*.jpg")]) == 6
    assert (folder / "birds").is_dir() and not (folder / "birds").is_symlink()
    make(data, *flags, "--output_name=linked")
    for name in (folder.name, "linked"):
        convert(data / name, "--num_shards=1")
    copied, linked = (
        read_records(sorted((data / name).glob("*.tfrecord"))) for name in (folder, "linked")
    )
    assert copied == linked and len(copied) == 15


def test_an_interrupted_copy_is_resumed(data, monkeypatch):
    copy, copied = shutil.copyfile, []

    def interrupt(source, target):
        copied.append(source)
        if len(copied) == 8:  # the first of the second source's are being copied
            raise KeyboardInterrupt
        copy(source, target)

    flags = ("--dataset_names=things,birds", "--copy")
    monkeypatch.setattr(shutil, "copyfile", interrupt)
    assert check(union, f"--dataset_dir={data}", *flags, code=130)
    folder = data / "things+birds"
    assert not [path for path in folder.iterdir() if path.suffix]  # no list, no table
    make(data, *flags)
    make(data, *flags)
    assert len(copied) == 15 + 1
    (data / "birds/images/val_2_0.jpg").unlink()
    error = make(data, *flags, "--output_name=other", code=1)
    assert f"{data / 'birds/images/val_2_0.jpg'} is missing: add it" in error


def test_images_that_conversion_has_skipped_do_not_come_back(data):
    """The only images of a class may be among them; the class stays."""
    for path in (data / "birds/images").glob("*_2_?.jpg"):
        path.write_bytes(b"")
    with (data / "birds/train.txt").open("a") as file:
        file.write("no label\n")
    convert(data / "birds", "--on_error=skip")
    make(data, "--dataset_names=birds,things")
    lines = (data / "birds+things/train.txt").read_text().splitlines()
    expected = [f"birds/images/train_{label}_{i}.jpg: {label}" for label in (0, 1) for i in (0, 1)]
    assert lines[:5] == [*expected, "things/images/train_0_0.jpg: 3"]


def test_lists_and_tables(data):
    make(data, "--dataset_names=plain,birds,things", "--output_name=all of them")
    folder = data / "all of them"
    lines = (folder / "val.txt").read_text().splitlines()
    assert lines == [
        "plain/images/val_0_0.jpg: 0",
        "plain/images/val_1_0.jpg: 1",
        "birds/images/val_0_0.jpg: 2",
        "birds/images/val_1_0.jpg: 3",
        "birds/images/val_2_0.jpg: 4",
        "things/images/val_0_0.jpg: 5",
        "things/images/val_1_0.jpg: 6",
    ]
    assert all((folder / line.rpartition(": ")[0]).is_file() for line in lines)
    names = (folder / "classes.txt").read_text().splitlines()
    assert names[:3] == ["0 plain_0", "1 plain_1", "2 raven"]
    table = [line.split("\t") for line in (folder / "union.tsv").read_text().splitlines()]
    assert table[0] == ["label", "name", "source", "source_label"]
    assert table[6] == ["5", "things crane", "things", "0"]


def test_a_rerun_gives_the_same_bytes_and_a_union_can_be_balanced(data):
    make(data, "--dataset_names=birds,things")
    folder = data / "birds+things"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    make(data, "--dataset_names=birds,things")
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    flags = ["--dataset_name=birds+things", "--max_per_class=1", "--seed=1"]
    check(balance, f"--dataset_dir={data}", *flags)
    folder = data / "birds+things_balanced_1"
    lines = (folder / "train.txt").read_text().splitlines()
    assert Counter(line.rpartition(": ")[2] for line in lines) == dict.fromkeys("01234", 1)
    assert all((folder / line.rpartition(": ")[0]).is_file() for line in lines)


def test_two_kinds_at_once_in_one_folder(data, monkeypatch):
    """The folder is checked again after waiting for the other run."""
    lock, flags = listed.writing_to, (f"--dataset_dir={data}", "--output_name=new")

    def wait(folder, flag):
        monkeypatch.setattr(listed, "writing_to", lock)
        check(balance, *flags, "--dataset_name=birds", "--max_per_class=1")
        return lock(folder, flag)

    monkeypatch.setattr(listed, "writing_to", wait)
    error = make(data, *flags, "--dataset_names=birds,things", code=1)
    assert error.endswith("new exists but is not a union of datasets: set another --output_name\n")
    assert not (data / "new/union.tsv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--dataset_names=: expected two or more different names"),
        (["--dataset_names=birds"], "--dataset_names=birds: expected two or more different names"),
        (["--dataset_names=birds,birds"], "expected two or more different names"),
        (["--dataset_names=birds,thigns"], "no dataset 'thigns'"),
        (["--dataset_names=birds,birds/"], "no dataset 'birds/': expected the name of a folder"),
        (
            ["--dataset_names=birds,things", "--output_name=plain"],
            "plain exists but is not a union of datasets: set another --output_name",
        ),
        (
            ["--dataset_names=birds,things", "--output_name=things"],
            "things exists but is not a union of datasets",
        ),
        (["--dataset_names=birds,things", "--output_name=a/b"], "--output_name=a/b: expected"),
    ],
)
def test_errors_are_one_line_and_change_nothing(data, arguments, message):
    before = sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*"))
    error = make(data, *arguments, code=1)
    assert error.startswith("error: ") and message in error
    assert error.count("\n") == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*")) == before
