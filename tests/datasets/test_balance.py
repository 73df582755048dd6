"""Balanced subsets, from lists to a converted dataset."""

import shutil
from collections import Counter

import numpy as np
import pytest

from slim.common.files import write_whole
from slim.datasets import balance, listed
from slim.datasets.balance import take_images
from slim.datasets.input import get_dataset
from slim.datasets.lists import Entry
from tests.datasets.conftest import check, convert, leftovers

TRAIN = [30, 12, 5, 5, 1]  # images per class


@pytest.fixture
def data(tmp_path):
    """Returns a folder with a long-tailed dataset, whose images are empty files."""
    folder = tmp_path / "data" / "species"
    (folder / "images").mkdir(parents=True)
    for name, counts in (("train.txt", TRAIN), ("val.txt", [2] * len(TRAIN))):
        # Unlike most lists, this one is not sorted by class.
        order = [(i, k) for k, count in enumerate(counts) for i in range(count)]
        lines = [f"images/{name[0]}{k}_{i}.jpg: {k}\n" for i, k in sorted(order)]
        (folder / name).write_text("".join(lines))
        for i, k in order:
            (folder / f"images/{name[0]}{k}_{i}.jpg").touch()
    names = "".join(f"{k}  species {k}\n" for k in range(len(TRAIN)))  # two spaces, which are kept
    (folder / "classes.txt").write_text(names)
    return tmp_path / "data"


def make(data, *arguments, code=0, dataset="species"):
    flags = [f"--dataset_name={dataset}", f"--dataset_dir={data}", *arguments]
    done = check(balance, *flags, code=code)
    return done.error if code else done.output


def lines_of(path):
    return path.read_text().splitlines()


def without_source(line):
    return line.removeprefix("species/")


def test_no_class_exceeds_the_limit(data):
    make(data, "--max_per_class=6")
    made, source = data / "species_balanced_6", data / "species"
    taken, images = lines_of(made / "train.txt"), lines_of(source / "train.txt")
    counts = Counter(line.rpartition(": ")[2] for line in taken)
    assert counts == {str(label): min(count, 6) for label, count in enumerate(TRAIN)}
    assert all(line.startswith("species/images/") for line in taken)
    kept = set(map(without_source, taken))
    assert [line for line in images if line in kept] == list(map(without_source, taken))
    assert list(map(without_source, lines_of(made / "val.txt"))) == lines_of(source / "val.txt")
    assert (made / "classes.txt").read_bytes() == (source / "classes.txt").read_bytes()
    for line in taken + lines_of(made / "val.txt"):
        image = made / line.rpartition(": ")[0]
        assert image.samefile(source / without_source(line).rpartition(": ")[0])
    table = [line.split("\t") for line in lines_of(made / "balance.tsv")]
    assert table[0] == ["label", "name", "images", "taken"]
    assert table[1:3] == [["0", "species 0", "30", "6"], ["1", "species 1", "12", "6"]]
    assert leftovers(made) == []


def test_printed_statistics(data):
    out = make(data, "--max_per_class=5")
    cells = (line.strip("| ").split(" | ") for line in out.splitlines())
    rows = {row: values for row, *values in cells}
    assert rows["training images"] == ["species", "species_balanced_5"]
    assert rows["images"] == ["53", "21"]
    assert rows["classes with images"] == ["5", "5"]
    assert rows["most in a class"] == ["30", "5"]
    assert rows["least in a class"] == ["1", "1"]
    # Half the relative mean difference: 8 of 25 pairs of 5, 5, 5, 5, 1 differ, by 4.
    differences = np.abs(np.subtract.outer(TRAIN, TRAIN)).mean()
    expected = [differences / 2 / np.mean(TRAIN), 8 * 4 / 25 / 2 / (21 / 5)]
    assert rows["Gini coefficient"] == [f"{gini:.2f}" for gini in expected]
    next_ = f" convert_dataset.py --dataset_name=species_balanced_5 --dataset_dir={data}"
    assert out.splitlines()[-1].endswith(next_)


def test_the_seed_determines_the_choice(data):
    def train(name, *arguments):
        make(data, "--max_per_class=6", f"--output_name={name}", *arguments)
        files = {path.name: path for path in (data / name).iterdir() if path.is_file()}
        return {name: path.read_bytes() for name, path in files.items()}

    first = train("a")
    assert train("a") == train("b") == train("c", "--seed=0") == first
    assert train("d", "--seed=1")["train.txt"] != first["train.txt"]
    assert train("a", "--seed=1") == train("d", "--seed=1")  # a balanced subset may be overwritten


def test_the_choice_is_independent_of_other_classes_and_of_order():
    images = [Entry(f"{i}.jpg", i % 3, i + 1) for i in range(90)]
    taken = take_images(images, 7, seed=5)
    for label in range(3):
        paths = [image.path for image in images if image.label == label]
        alone = [Entry(path, 0, line) for line, path in enumerate(paths, start=1)]
        found = [image.path for image in take_images(alone, 7, seed=5)]
        assert found == [image.path for image in taken if image.label == label]
    assert set(take_images(images[::-1], 7, seed=5)) == set(taken)
    assert set(taken) < set(take_images(images, 8, seed=5))
    assert take_images(images, 30, seed=5) == images


def test_every_image_has_the_same_chance():
    images = [Entry(f"images/{i}.jpg", 0, i + 1) for i in range(10)]
    seeds = 1000
    counts = Counter(image for seed in range(seeds) for image in take_images(images, 3, seed))
    deviation = np.sqrt(seeds * 0.3 * 0.7)
    assert all(abs(counts[image] - 0.3 * seeds) < 5 * deviation for image in images)


def test_from_images_to_shards(make_dataset):
    folder = make_dataset(train=12, validation=6)
    make(folder.parent, "--max_per_class=2", "--output_name=few", dataset="things")
    convert(folder.parent / "few", "--num_shards=1")
    dataset = get_dataset("few", "train", folder.parent)
    assert (dataset.num_samples, dataset.num_classes) == (6, 3)
    assert get_dataset("few", "validation", folder.parent).num_samples == 6
    make(folder.parent, "--max_per_class=2", "--output_name=few", dataset="things")
    assert "nothing to do" in convert(folder.parent / "few", "--num_shards=1").output


def test_killed_runs_can_be_repeated(data):
    made = data / "species_balanced_6"
    made.mkdir()
    (made / ".lock").touch()
    (made / "balance.tsv.tmp").write_text("half a li")
    make(data, "--max_per_class=6")
    assert len(lines_of(made / "train.txt")) == sum(min(count, 6) for count in TRAIN)
    (made / "train.txt").unlink()  # killed later
    (made / "species").unlink()
    (made / "species").symlink_to("nowhere")
    make(data, "--max_per_class=6")
    assert (made / lines_of(made / "train.txt")[0].rpartition(": ")[0]).exists()


def test_another_subset_replaces_the_first_as_a_whole(data, monkeypatch):
    made = data / "some"
    flags = (f"--dataset_dir={data}", "--dataset_name=species", "--output_name=some")
    assert check(balance, *flags, "--max_per_class=6").error == ""
    assert check(balance, *flags, "--max_per_class=6").error == ""

    def killed(path, text):
        if path.name == "val.txt":
            raise KeyboardInterrupt
        write_whole(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(listed, "write_whole", killed)
        error = check(balance, *flags, "--max_per_class=3", code=130).error
    assert error.startswith(f"warning: replacing another balanced subset in {made}\n")
    assert not (made / "train.txt").exists()  # otherwise it would be a mixture of both
    assert check(balance, *flags, "--max_per_class=3").error == ""
    assert len(lines_of(made / "train.txt")) == sum(min(count, 3) for count in TRAIN)


def test_a_subset_of_a_subset(data):
    make(data, "--max_per_class=6", "--output_name=some")
    error = make(data, "--max_per_class=3", "--output_name=some", code=1, dataset="some")
    assert "some exists but is not a balanced subset" in error
    make(data, "--max_per_class=3", dataset="some")
    lines = lines_of(data / "some_balanced_3/train.txt")
    assert Counter(line.rpartition(": ")[2] for line in lines)["0"] == 3
    assert all((data / "some_balanced_3" / line.rpartition(": ")[0]).is_file() for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--max_per_class is missing: "),
        (["--max_per_class=0"], "max_per_class"),
        (["--max_per_class=3", "--output_name=species"], "species exists but is not a balanced"),
        (["--max_per_class=3", "--output_name=other"], "other exists but is not a balanced subset"),
        (["--max_per_class=3", "--output_name=a/b"], "--output_name=a/b: expected the name of a"),
        (["--max_per_class=3", "--output_name=.."], "--output_name=..: expected the name of a"),
        (["--max_per_class=3", "--dataset_name=specie"], "no dataset 'specie'"),
        (["--max_per_class=3", "--dataset_name=broken"], "train.txt line 1: 'no label' is not of"),
    ],
)
def test_errors_are_one_line_and_change_nothing(data, arguments, message):
    shutil.copytree(data / "species", data / "other")
    shutil.copytree(data / "species", data / "broken")
    (data / "broken/train.txt").write_text("no label\n")
    before = sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*"))
    error = make(data, *arguments, code=1)
    assert error.startswith("error: ") and message in error
    assert error.count("\n") == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*")) == before
