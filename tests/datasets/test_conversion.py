import hashlib
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slim.common.compat import tf
from tests.datasets.conftest import (
    Record,
    add_line,
    contents,
    convert,
    encode,
    file_size_limit,
    flags_of,
    leftovers,
    picture,
    read_records,
)
from tests.support import ROOT

BIRDS = ROOT.parent / "shared" / "birds"


def listed(folder, list_name):
    lines = (folder / list_name).read_text(encoding="utf-8").splitlines()
    return [(path, int(label)) for path, label in (line.rsplit(": ", 1) for line in lines)]


def shard_names(split_name, count):
    return [f"{split_name}_{i:05d}-of-{count:05d}.tfrecord" for i in range(count)]


def test_shards_hold_the_images_and_labels_of_the_lists(make_dataset):
    folder = make_dataset(train=25, validation=11)
    done = convert(folder, "--num_shards=4")
    names = [*shard_names("train", 4), *shard_names("validation", 4)]
    assert sorted(contents(folder)) == ["dataset.json", *names]
    assert leftovers(folder) == []
    assert re.fullmatch(
        rf"{folder}: 36 images, 3 classes, 8 shards; read 36 images in \d+\.\d+ s "
        r"\(\d+ images/s\)\n",
        done.output,
    )
    assert done.error == ""

    train, validation = listed(folder, "train.txt"), listed(folder, "val.txt")
    random.Random(0).shuffle(train)
    for split_name, images in (("train", train), ("validation", validation)):
        run = math.ceil(len(images) / 4)
        for index, name in enumerate(shard_names(split_name, 4)):
            expected = [
                Record((folder / path).read_bytes(), b"jpg", label, 30, 40)
                for path, label in images[index * run : (index + 1) * run]
            ]
            assert read_records([folder / name]) == expected


def test_description(make_dataset):
    folder = make_dataset()
    convert(folder, "--seed=7")
    found = json.loads((folder / "dataset.json").read_text())
    assert (found["classes"], found["seed"], found["verified"]) == (3, 7, True)
    for split_name, list_name, samples in (
        ("train", "train.txt", 12),
        ("validation", "val.txt", 6),
    ):
        split = found["splits"][split_name]
        assert (split["samples"], split["skipped"]) == (samples, 0)
        sizes = [(folder / name).stat().st_size for name in shard_names(split_name, 10)]
        assert split["shard_bytes"] == sizes
        digest = hashlib.sha256((folder / list_name).read_bytes()).hexdigest()
        assert split["list_sha256"] == digest


def test_more_shards_than_images(make_dataset):
    folder = make_dataset(train=12, validation=3)
    convert(folder)
    names = shard_names("train", 10)
    assert [len(read_records([folder / name])) for name in names] == [2] * 6 + [0] * 4
    dataset = tf.data.TFRecordDataset([str(folder / name) for name in names])
    assert dataset.reduce(0, lambda count, _: count + 1).shape == ()


def test_neither_workers_nor_verification_matter(make_dataset):
    folder = make_dataset(train=30)
    (folder / "images" / "0003.jpg").write_bytes(encode(picture(3), "PNG"))
    results = []
    for options in (["--num_workers=1"], ["--num_workers=3"], ["--num_workers=2", "--noverify"]):
        copy = folder.with_name(f"copy{len(results)}")
        shutil.copytree(folder, copy)
        convert(copy, *options)
        results.append(contents(copy))
        results[-1].pop("dataset.json")
    assert results[0] == results[1] == results[2]


def test_seeds_change_training_only(make_dataset):
    folder = make_dataset()
    other = folder.with_name("other")
    shutil.copytree(folder, other)
    convert(folder)
    convert(other, "--seed=1")
    first, second = contents(folder), contents(other)
    assert all(first[name] == second[name] for name in shard_names("validation", 10))
    assert any(first[name] != second[name] for name in shard_names("train", 10))


def test_nothing_is_done_twice(make_dataset):
    folder = make_dataset()
    convert(folder)
    folder.chmod(0o555)
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}
    for again in ([], ["--num_workers=1"], ["--noverify"], ["--on_error=skip"]):
        done = convert(folder, *again)
        assert done.output == f"nothing to do: {folder}: 18 images, 3 classes, 20 shards\n"
        assert {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]} == before
    folder.chmod(0o755)


def test_unverified_shards_are_verified_later(make_dataset):
    folder = make_dataset()
    cut = folder / "images" / "0005.jpg"
    whole = cut.read_bytes()
    cut.write_bytes(whole[:-100])
    convert(folder, "--noverify")
    unverified = contents(folder)
    assert "images/0005.jpg: cannot be decoded" in convert(folder, code=1).error
    assert contents(folder) == unverified
    cut.write_bytes(whole)
    convert(folder)
    assert json.loads((folder / "dataset.json").read_text())["verified"]
    assert whole in [record.jpeg for record in read_records(sorted(folder.glob("train_*")))]


def test_a_missing_or_damaged_shard_is_made_again(make_dataset):
    folder = make_dataset()
    convert(folder)
    before = contents(folder)
    (folder / "train_00003-of-00010.tfrecord").unlink()
    (folder / "validation_00001-of-00010.tfrecord").write_bytes(b"")
    convert(folder)
    assert contents(folder) == before


def spoil(folder: Path) -> list[str]:
    """Adds a problem of every kind to a dataset, and returns the expected report."""
    images = folder / "images"
    (images / "0001.jpg").unlink()
    (images / "0002.jpg").write_bytes(b"")
    (images / "0003.jpg").write_bytes((images / "0003.jpg").read_bytes()[:-50])
    (images / "0013.jpg").write_text("<html>not found</html>")
    add_line(folder, "images/0000.jpg 2")
    add_line(folder, "images/none.jpg: -3")
    add_line(folder, "../elsewhere.jpg: 1")
    add_line(folder, "images/0004.jpg: 2")
    add_line(folder, "images/0014.jpg: 5", "val.txt")
    add_line(folder, "images/0005.jpg: 5", "val.txt")
    return [
        "train.txt line 2: images/0001.jpg: missing",
        "train.txt line 3: images/0002.jpg: empty file",
        "train.txt line 4: images/0003.jpg: cannot be decoded: image file is truncated",
        "train.txt line 13: 'images/0000.jpg 2' is not of the form 'relative/path.jpg: label'",
        "train.txt line 14: images/none.jpg: label -3 is negative",
        "train.txt line 15: ../elsewhere.jpg: leaves the dataset's folder",
        "train.txt line 16: images/0004.jpg: already on line 5",
        "val.txt line 2: images/0013.jpg: not an image",
        "val.txt line 7: images/0014.jpg: already on line 3",
        "train.txt and val.txt: labels are not dense: 2 of 0..5 occur in neither list, the first "
        "is 3",
    ]


def test_all_problems_in_one_report(make_dataset):
    folder = make_dataset()
    expected = spoil(folder)
    done = convert(folder, code=1)
    report = folder / "conversion_problems.txt"
    lines = report.read_text().splitlines()
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)
    in_both, two_labels, *shown, error = done.error.splitlines()
    assert in_both.startswith(f"warning: {folder}: 1 image is in both splits, byte for byte, ")
    pair = (
        "images/0005.jpg (train.txt line 6, label 2) and images/0005.jpg (val.txt line 8, label 5)"
    )
    assert in_both.endswith(f"such as {pair}") and two_labels.endswith(f"such as {pair}")
    assert shown == lines
    assert error == (
        f"error: 10 problems in {folder}, listed in {report}: fix lists and images, or skip such "
        "lines with --on_error=skip; nothing was converted"
    )
    assert contents(folder) == {}


def test_copies_in_both_splits_and_with_two_labels_are_named(make_dataset):
    """Copies, links, and images of other formats, which are stored as JPEG."""
    folder = make_dataset()
    images = folder / "images"
    (images / "copy.jpg").write_bytes((images / "0000.jpg").read_bytes())
    (images / "link.jpg").symlink_to("0001.jpg")
    for name in ("one.png", "two.PNG"):
        (images / name).write_bytes(encode(picture(99), "PNG"))
    add_line(folder, "images/one.png: 2")
    add_line(folder, "images/link.jpg: 0")
    add_line(folder, "images/two.PNG: 2", "val.txt")
    add_line(folder, "images/copy.jpg: 0", "val.txt")
    in_both, two_labels = convert(folder).error.splitlines()
    assert in_both == (
        f"warning: {folder}: 2 images are in both splits, byte for byte, so that evaluation counts "
        "what was trained on; such as images/one.png (train.txt line 13, label 2) and "
        "images/two.PNG (val.txt line 7, label 2)"
    )
    assert two_labels.startswith(f"warning: {folder}: 1 image is there with two labels, ")
    for place in (
        "images/0001.jpg (train.txt line 2, label 1)",
        "images/link.jpg (train.txt line 14, label 0)",
    ):
        assert place in two_labels
    assert len(read_records(sorted(folder.glob("*.tfrecord")))) == 22


def test_a_single_class_is_named(make_dataset):
    folder = make_dataset()
    for path in folder.glob("*.txt"):
        path.write_text(re.sub(": [12]", ": 0", path.read_text()))
    error = convert(folder).error
    assert error.startswith(f"warning: {folder} has one class: any network ")


def test_skip_leaves_out_invalid_lines_and_images(make_dataset):
    folder = make_dataset()
    expected = spoil(folder)
    done = convert(folder, "--on_error=skip", "--num_shards=3")
    report = folder / "conversion_problems.txt"
    assert len(report.read_text().splitlines()) == len(expected)
    assert f"warning: 9 lines skipped, see {report}" in done.error
    assert "15 images, 6 classes, 6 shards, 9 lines skipped; read 19 images in" in done.output
    good = [f"images/{i:04d}.jpg" for i in (0, *range(4, 13), *range(14, 18))] + ["images/0005.jpg"]
    found = read_records(sorted(folder.glob("*.tfrecord")))
    assert sorted(r.jpeg for r in found) == sorted((folder / p).read_bytes() for p in good)
    splits = json.loads((folder / "dataset.json").read_text())["splits"]
    assert [splits[s]["samples"] for s in splits] == [9, 6]
    assert [splits[s]["skipped"] for s in splits] == [7, 2]
    lines = [[2, 3, 4, 13, 14, 15, 16], [2, 7]]
    assert [splits[s]["skipped_lines"] for s in splits] == lines
    assert convert(folder, "--on_error=skip", "--num_shards=3").output.startswith("nothing to do")
    convert(folder, "--num_shards=3", code=1)


def test_repaired_images_are_read_again(make_dataset):
    folder, clean = make_dataset(), make_dataset("clean")
    convert(clean)
    images = sorted((folder / "images").iterdir())
    for path in images[:3]:
        path.write_bytes(b"")
    convert(folder, code=1)
    for path in images[:2]:
        shutil.copy(clean / "images" / path.name, path)
    assert "error: 1 problem in" in convert(folder, code=1).error
    # The shard with the problem, of two images, is made again.
    output = convert(folder, "--on_error=skip").output
    pattern = r"17 images, .*, 1 line skipped; read 2 images in ([0-9.]+) s \(([0-9]+) images/s\)$"
    seconds, speed = re.search(pattern, output).groups()
    assert int(speed) == round(2 / float(seconds))
    for path in (*folder.glob("*.tfrecord"), folder / "dataset.json"):
        path.unlink()
    shutil.copy(clean / "images" / images[2].name, images[2])
    convert(folder)
    assert contents(folder) == contents(clean)
    assert not (folder / "conversion_problems.txt").exists()
    assert leftovers(folder) == []


def test_many_problems_are_shown_in_part(make_dataset):
    folder = make_dataset(train=30)
    shutil.rmtree(folder / "images")
    lines = convert(folder, code=1).error.splitlines()
    assert lines[20:21] == ["... and 16 more"]
    assert lines[21].startswith("error: 36 problems")
    assert len((folder / "conversion_problems.txt").read_text().splitlines()) == 36
    assert "no image of" in convert(folder, "--on_error=skip", code=1).error


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A converted dataset of two images per split."""
    folder = tmp_path_factory.mktemp("data") / "two"
    folder.mkdir()
    for name in ("train", "val"):
        for label in (0, 1):
            (folder / f"{name}{label}.jpg").write_bytes(encode(picture(label)))
            add_line(folder, f"{name}{label}.jpg: {label}", f"{name}.txt")
    convert(folder)
    return folder


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        (["--num_shards=5"], None, "shards made with --num_shards=10, not 5: delete them (rm -f "),
        (["--seed=3"], None, "shards made with --seed=0, not 3: delete them"),
        ([], "list", "shards made with another val.txt: delete them"),
        ([], "no description", "shards without dataset.json, of another program or an unfinished"),
        (
            [],
            "stale shard",
            "such as train_00000-of-00007.tfrecord: move such shards to another folder",
        ),
        ([], "description", "dataset.json was not written by this version of convert_dataset.py"),
    ],
)
def test_shards_of_another_conversion_are_refused(converted, tmp_path, options, change, message):
    folder = Path(shutil.copytree(converted, tmp_path / "copy"))
    if change == "list":
        lines = (folder / "val.txt").read_text().splitlines(keepends=True)
        (folder / "val.txt").write_text("".join(lines[:-1]))
    elif change == "no description":
        (folder / "dataset.json").unlink()
    elif change == "stale shard":
        (folder / "train_00000-of-00007.tfrecord").touch()
    elif change == "description":
        (folder / "dataset.json").write_text("{}")
    before = contents(folder)
    done = convert(folder, *options, code=1)
    assert message in done.error
    assert done.error.count("\n") == 1
    assert contents(folder) == before


def test_errors_are_one_line(make_dataset, tmp_path):
    folder = make_dataset("cub_201")
    empty, missing = make_dataset("empty"), make_dataset("missing")
    (empty / "val.txt").write_text("\n")
    (missing / "train.txt").unlink()
    for wrong, options, message in [
        (folder.with_name("cub_20"), [], "did you mean cub_201 or cub_200"),
        (folder.with_name("nabirds"), [], "put its images, train.txt and val.txt there"),
        (tmp_path / "none" / "food_10", [], "did you mean food_101"),
        (empty, [], "val.txt is empty: expected a line 'relative/path.jpg: label' for each image"),
        (missing, [], f"no list {missing}/train.txt: expected a line"),
        (folder, ["--num_shards=0"], "num_shards"),
        (folder, ["--num_shards=1000000000"], "num_shards"),
        (folder, ["--num_workers=0"], "num_workers"),
        (folder, ["--on_error=maybe"], "fail|skip"),
        (folder, ["--dataset_name="], f"--dataset_name is missing: {tmp_path}/data has cub_201"),
        (folder, ["--dataset_name=../cub_201"], "no dataset '../cub_201': expected the name of a"),
        (folder, [f"--dataset_name={folder}"], "expected the name of a folder in --dataset_dir"),
        (folder, ["--dataset_name=cub_201/"], "expected the name of a folder in --dataset_dir"),
        (folder, ["--dataset_name=.."], "expected the name of a folder in --dataset_dir"),
        (folder, [f"--dataset_name={'a' * 300}"], "expected the name of a folder"),
    ]:
        error = convert(wrong, *options, code=1).error
        assert error.startswith("error: ") and error.count("\n") == 1
        assert message in error


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written(make_dataset):
    folder = make_dataset()
    folder.chmod(0o555)
    assert "Permission denied" in convert(folder, code=1).error
    folder.chmod(0o755)


def test_a_full_disk(make_dataset):
    folder = make_dataset(train=40)
    with file_size_limit(20_000):  # less than a shard
        done = convert(folder, "--num_shards=1", code=1)
    assert re.fullmatch(r"error: .*File too large.* run the same command to resume\n", done.error)
    assert contents(folder) == {}
    assert not list(folder.glob(".conversion-*/*.tmp"))


def test_known_datasets_are_checked(make_dataset):
    folder = make_dataset("flower_102")
    assert convert(folder).error == (
        f"warning: {folder} lists 12 train, 6 validation, 3 classes; the paper's flower_102 has "
        "2040 train, 6149 validation, 102 classes\n"
    )


def test_strange_names_and_linked_folders(make_dataset, tmp_path):
    folder = make_dataset()
    (folder / "images").rename(tmp_path / "elsewhere")
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    names = ["with space.jpg", "colon: 7.jpg", "\u00e9t\u00e9 \u2028.jpg", "lies.png"]
    for index, name in enumerate(names):
        (folder / "images" / name).write_bytes(encode(picture(100 + index)))
        add_line(folder, f"images/{name}: {index % 3}", "val.txt")
    convert(folder, "--num_shards=1")
    found = read_records([folder / "validation_00000-of-00001.tfrecord"])
    expected = [((folder / "images" / name).read_bytes(), i % 3) for i, name in enumerate(names)]
    assert [(record.jpeg, record.label) for record in found[6:]] == expected


def test_memory_does_not_grow_with_the_images(make_dataset):
    chance = random.Random(0)
    folder = make_dataset(train=1, validation=1)
    start = encode(picture(0))
    (folder / "images" / "big.jpg").write_bytes(start + chance.randbytes(2_000_000))
    peaks = []
    for name, images in (("few", 4), ("many", 80)):
        copy = folder.with_name(name)
        shutil.copytree(folder, copy)
        for index in range(images):
            (copy / "images" / f"{index}.jpg").symlink_to("big.jpg")
            add_line(copy, f"images/{index}.jpg: {index % 3}")
        script = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        line = [sys.executable, "-c", script, sys.executable, "convert_dataset.py"]
        line += flags_of(copy, "--noverify", "--num_shards=1")
        output = subprocess.check_output(line, cwd=ROOT, text=True)
        peaks.append(int(output.splitlines()[-1]) * 1024)
    assert peaks[1] - peaks[0] < 8_000_000  # of 152 million bytes more


@pytest.mark.skipif(not BIRDS.is_dir(), reason=f"no photographs at {BIRDS}")
def test_photographs(tmp_path):
    folder = tmp_path / "birds"
    folder.mkdir()
    for path in BIRDS.iterdir():
        (folder / path.name).symlink_to(path)
    convert(folder)
    train, validation = listed(folder, "train.txt"), listed(folder, "val.txt")
    random.Random(0).shuffle(train)
    records = read_records(sorted(folder.glob("*.tfrecord")))
    assert len(records) == 939
    for record, (path, label) in zip(records, train + validation, strict=True):
        assert (record.jpeg, record.label) == ((BIRDS / path).read_bytes(), label)
    with tf.Graph().as_default(), tf.Session() as session:
        encoded = tf.placeholder(tf.string, [])
        shape = tf.shape(tf.io.decode_jpeg(encoded, channels=3))
        for record in records[::40]:
            assert list(session.run(shape, {encoded: record.jpeg})) == [*record[3:], 3]
