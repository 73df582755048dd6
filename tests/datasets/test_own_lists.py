"""Lists that repeat training images, and datasets without a validation split."""

import json
import shutil
from collections import Counter
from pathlib import Path

from slim import eval_image_classifier as evaluation
from slim import feature_extraction as extraction
from slim import train_image_classifier as training
from slim.datasets import balance, union
from slim.datasets.prepare import __main__ as preparation
from tests.datasets.conftest import add_line, check, contents, convert, read_records
from tests.datasets.test_conversion import listed
from tests.support import SMALL_NETWORK, SMALL_SIZE, small_network


def test_repeated_training_lines_oversample(make_dataset):
    folder = make_dataset()
    for line in ("images/0001.jpg: 1", "images/0001.jpg: 1", "images/0004.jpg: 1"):
        add_line(folder, line)
    done = convert(folder, "--num_shards=2")
    assert done.output.startswith(
        "note: 3 lines of train.txt repeat an image, which oversamples it\n"
    )
    assert done.error == ""  # copies are neither suspicious nor warned about
    records = Counter(read_records(sorted(folder.glob("train_*.tfrecord"))))
    times = Counter(path for path, _ in listed(folder, "train.txt"))
    assert {record.jpeg: number for record, number in records.items()} == {
        (folder / path).read_bytes(): number for path, number in times.items()
    }
    # A union keeps the lines, a balanced subset counts them.
    place = f"--dataset_dir={folder.parent}"
    check(balance, place, "--dataset_name=things", "--max_per_class=6")
    taken = Counter(listed(folder.with_name("things_balanced_6"), "train.txt"))
    assert taken.total() == 4 + 6 + 4 and taken["things/images/0001.jpg", 1] == 3
    # They are refused where they would count an image twice, or contradict each other.
    for path in [*folder.glob("*.tfrecord"), folder / "dataset.json"]:
        path.unlink()
    add_line(folder, "images/0001.jpg: 2")
    add_line(folder, "images/0012.jpg: 0", "val.txt")
    error = convert(folder, code=1).error
    assert "images/0001.jpg: already on line 2 with another label, 1, not 2" in error
    assert "val.txt line 7: images/0012.jpg: already on line 1\n" in error


def without_validation(folder: Path) -> Path:
    (folder / "val.txt").unlink()
    return folder


def test_a_dataset_without_a_validation_split(make_dataset, tmp_path):
    folder = without_validation(make_dataset())
    done = convert(folder, "--num_shards=2")
    assert done.output.startswith(f"note: {folder} has no val.txt, and thus no validation split\n")
    assert f"{folder}: 12 images, 3 classes, 2 shards" in done.output and done.error == ""
    assert list(json.loads((folder / "dataset.json").read_text())["splits"]) == ["train"]
    assert "nothing to do" in convert(folder, "--num_shards=2").output

    named = [f"--dataset_dir={folder.parent}", "--dataset_name=things"]
    network = [f"--model_name={SMALL_NETWORK}"]
    features = [*named, *network, f"--image_size={SMALL_SIZE}", f"--output_dir={tmp_path}"]
    message = f"error: {folder} has no validation split, since it has no val.txt: use the split"
    with small_network():
        size, run = f"--train_image_size={SMALL_SIZE}", tmp_path / "run"
        steps = ["--max_number_of_steps=1", "--batch_size=4", size, f"--train_dir={run}"]
        check(training, *named, *network, *steps)
        checkpoint = f"--checkpoint_path={run}"
        check(extraction, *features, checkpoint, "--splits=train")
        for command, flags in (
            (evaluation, [*named, *network, checkpoint]),
            (extraction, [*features, checkpoint]),
        ):
            error = check(command, *flags, code=1).error
            assert error.startswith(message) and error.count("\n") == 1

    # Tables, plots and derived datasets have what there is.
    done = check(preparation, *named, "--stats")
    assert "| things" in done.output and "validation" not in done.output
    check(balance, *named, "--max_per_class=2")
    subset = folder.with_name("things_balanced_2")
    assert len(listed(subset, "train.txt")) == 6 and not (subset / "val.txt").exists()
    other = make_dataset("others")
    check(union, named[0], "--dataset_names=things,others")
    joined = folder.with_name("things+others")
    assert len(listed(joined, "train.txt")) == 24 and len(listed(joined, "val.txt")) == 6
    without_validation(other)  # a later union has none, and no list of the earlier one
    check(union, named[0], "--dataset_names=things,others")
    assert not (joined / "val.txt").exists()


def test_a_lost_or_added_validation_list_is_noticed(make_dataset):
    folder = make_dataset()
    other = without_validation(Path(shutil.copytree(folder, folder.with_name("other"))))
    convert(folder)
    before = contents(without_validation(folder))
    assert f"no list {folder}/val.txt: expected a line" in convert(folder, code=1).error
    assert contents(folder) == before
    convert(other)
    shutil.copy(other / "train.txt", other / "val.txt")
    error = convert(other, code=1).error
    assert "shards made with no val.txt: delete them (rm -f" in error and "validation" not in error
    known = without_validation(make_dataset("cub_200"))  # as published
    assert f"no list {known}/val.txt: expected a line" in convert(known, code=1).error


def test_folders_without_a_validation_split(make_dataset):
    folder = make_dataset()
    root, source = folder.parent / "photographs", folder / "images"
    for index, name in enumerate(["a", "b"]):
        (root / name).mkdir(parents=True)
        for number in range(3):
            shutil.copy(source / f"{3 * index + number:04d}.jpg", root / name)
    flags = [f"--dataset_dir={folder.parent}", f"--from_folders={root}"]
    done = check(preparation, *flags, "--dataset_name=own", "--val_fraction=0", "--stats")
    own = folder.with_name("own")
    assert f"{own}: 6 train, 0 validation, 2 classes" in done.output
    assert len(listed(own, "train.txt")) == 6 and not (own / "val.txt").exists()
    # A second split of the same folder does not replace the first one.
    assert (
        "exists with other content"
        in check(preparation, *flags, "--dataset_name=own", code=1).error
    )
    check(preparation, *flags, "--dataset_name=split")
    error = check(preparation, *flags, "--dataset_name=split", "--val_fraction=0", code=1).error
    assert "val.txt exists with other content; nothing was written" in error
