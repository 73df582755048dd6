import hashlib
import os
import random
import re
import shutil
import sys
from pathlib import Path

import pytest

from slim import train_image_classifier as training
from slim.datasets.prepare import __main__ as prepare
from slim.datasets.prepare.archives import SOURCES, ArchiveSource, RemoteFile
from slim.datasets.prepare.folders import split_classes
from slim.datasets.prepare.layouts import LAYOUTS
from slim.datasets.registry import KNOWN, Sizes, get_dataset
from slim.datasets.tfrecord import LISTS
from tests.conftest import run
from tests.datasets.conftest import check, convert, encode, picture, read_records
from tests.datasets.miniatures import NINE, OTHER_FORMS, Miniature, cub_200, draw
from tests.loopback import Loopback
from tests.support import invoke


def command(*arguments: str, code: int = 0) -> tuple[str, str]:
    """Prepares a dataset in this process and returns what was printed."""
    done = check(prepare, *arguments, code=code)
    if code:
        *warnings, last = done.error.splitlines()
        assert all(line.startswith("warning: ") for line in warnings)
        assert last.startswith("error: ")
    return done.output, done.error


@pytest.fixture
def data(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def archive(tmp_path) -> Path:
    """A folder to unpack an archive to."""
    folder = tmp_path / "unpacked here"
    folder.mkdir()
    return folder


def flags_for(name: str, miniature: Miniature, data: Path) -> list[str]:
    return [
        f"--dataset_name={name}",
        f"--archive_dir={miniature.root}",
        f"--dataset_dir={data}",
        "--allow_partial",
        *miniature.options,
    ]


def check_lists(folder: Path, miniature: Miniature) -> None:
    """The lists, the classes and the link are what the miniature was drawn from."""
    for split_name, images in miniature.splits.items():
        expected = "".join(f"images/{path}: {label}\n" for path, label in images)
        assert (folder / LISTS[split_name]).read_text() == expected
    names = "".join(f"{label} {name}\n" for label, name in enumerate(miniature.class_names))
    assert (folder / "classes.txt").read_text() == names
    assert (folder / "images").is_symlink()
    assert (folder / "images").resolve() == miniature.images.resolve()


@pytest.mark.parametrize("name", NINE)
def test_from_the_official_archive_to_records(name, archive, data):
    miniature = NINE[name](archive)
    command(*flags_for(name, miniature, data))
    check_lists(data / name, miniature)

    convert(data / name, "--num_shards=2", "--num_workers=1")
    for split_name, images in miniature.splits.items():
        dataset = get_dataset(name, split_name, data)
        assert dataset.class_names == tuple(miniature.class_names)
        found = [(record.jpeg, record.label) for record in read_records(dataset.files)]
        expected = [((miniature.images / path).read_bytes(), label) for path, label in images]
        assert sorted(found) == sorted(expected) and len(set(found)) == len(images)


def test_from_the_official_archive_to_a_trained_step(archive, data, tmp_path, small_network):
    command(*flags_for("cub_200", cub_200(archive), data))
    convert(data / "cub_200", "--num_shards=2")
    train_dir = tmp_path / "run"
    done = check(
        training,
        f"--dataset_dir={data}",
        "--dataset_name=cub_200",
        f"--train_dir={train_dir}",
        f"--model_name={small_network}",
        "--batch_size=4",
        "--max_number_of_steps=1",
        "--seed=1",
    )
    assert re.search(r"^step 1 of 1, loss [\d.]+", done.output, re.M)
    assert (train_dir / "model.ckpt-1.index").exists()


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_other_forms_of_an_archive(name, archive, data):
    miniature = OTHER_FORMS[name](archive)
    command(*flags_for(name, miniature, data))
    check_lists(data / name, miniature)


def sizes_of(miniature: Miniature) -> Sizes:
    return Sizes(*map(len, miniature.splits.values()), len(miniature.class_names))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.txt")}


def test_what_is_as_published_is_prepared_without_a_word_of_warning(archive, data, monkeypatch):
    miniature = cub_200(archive)
    monkeypatch.setitem(KNOWN, "cub_200", sizes_of(miniature))
    flags = [flag for flag in flags_for("cub_200", miniature, data) if flag != "--allow_partial"]
    out, error = command(*flags)
    assert error == ""
    assert out == (
        f"{data}/cub_200: 9 train, 6 validation, 3 classes, images linked to {miniature.images}\n"
        f"next: python convert_dataset.py --dataset_name=cub_200 --dataset_dir={data}\n"
    )


def test_other_counts_than_the_known_ones_are_refused(archive, data):
    miniature = cub_200(archive)
    flags = flags_for("cub_200", miniature, data)
    found = (
        "found 9 train, 6 validation, 3 classes, expected 5994 train, 5794 validation, 200 classes"
    )
    _, error = command(*flags[:3], code=1)
    assert found in error and "--allow_partial" in error
    assert not data.exists()
    _, warning = command(*flags)
    assert warning == f"warning: cub_200 in {miniature.images}: {found}\n"


def test_missing_images_are_named_and_left_out(archive, data, monkeypatch):
    miniature = cub_200(archive)
    monkeypatch.setitem(KNOWN, "cub_200", sizes_of(miniature))
    flags = flags_for("cub_200", miniature, data)
    gone = [miniature.splits["train"][index][0] for index in (8, 2, 3)]
    gone.append(miniature.splits["validation"][0][0])
    for path in gone:
        (miniature.images / path).unlink()
    _, error = command(*flags[:3], code=1)
    assert f"missing images (4): {', '.join(sorted(gone)[:3])}, ...; nothing" in error
    assert not data.exists()
    command(*flags)
    lists = (data / "cub_200" / "train.txt").read_text() + (data / "cub_200/val.txt").read_text()
    left = [i for split in miniature.splits.values() for i in split if i[0] not in gone]
    assert lists == "".join(f"images/{path}: {label}\n" for path, label in left)

    shutil.rmtree(data)
    shutil.rmtree(miniature.images / miniature.class_names[1])
    _, error = command(*flags[:3], code=1)
    assert f"classes without images (1): {miniature.class_names[1]}" in error


@pytest.mark.parametrize("name", NINE)
def test_a_missing_part_is_named(name, archive, data):
    miniature = NINE[name](archive)
    flags = flags_for(name, miniature, data)
    place = LAYOUTS[name][-1].folder
    for part in LAYOUTS[name][-1].parts.split():
        path = archive / place / part
        path = path if path.exists() else archive / place / path.name
        aside = path.rename(path.with_name("aside"))
        _, error = command(*flags, code=1)
        assert f"no {part} in {archive / place}: the archive of {name} is incomplete" in error
        assert "it comes from http" in error
        aside.rename(path)
    assert not data.exists()
    command(*flags)


def test_validation_images_in_one_folder_need_the_development_kit(archive, data):
    miniature = NINE["ILSVRC2012"](archive)
    for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"):
        path = archive / "ILSVRC2012_devkit_t12" / "data" / name
        aside = path.rename(path.with_name("aside"))
        _, error = command(*flags_for("ILSVRC2012", miniature, data), code=1)
        assert f"{name}, and no val/<wnid>/, in {archive}" in error
        aside.rename(path)


@pytest.mark.parametrize("level", ["archive", "within", "default", "above"])
def test_where_the_archive_may_be(level, archive, data, monkeypatch):
    miniature = cub_200(archive)
    given = {"within": archive / "CUB_200_2011", "above": archive / "CUB_200_2011" / "images"}
    flags = flags_for("cub_200", miniature, data)
    flags[1] = f"--archive_dir={given.get(level, archive)}"
    if level == "default":
        (data / "cub_200").mkdir(parents=True)
        archive.rename(data / "cub_200" / "archive")
        del flags[1]
    command(*flags)
    if level == "default":
        miniature.images = data / "cub_200" / "archive" / "CUB_200_2011" / "images"
        target = (data / "cub_200" / "images").readlink()
        assert target == Path("archive/CUB_200_2011/images")  # the dataset can be moved
    check_lists(data / "cub_200", miniature)


def test_download_and_prepare(archive, data, tmp_path, monkeypatch):
    miniature = cub_200(archive)
    content = Path(shutil.make_archive(str(tmp_path / "CUB"), "gztar", archive)).read_bytes()
    shutil.rmtree(archive)
    with Loopback(**{"CUB.tgz": content}) as server:
        known_hash = f"sha256:{hashlib.sha256(content).hexdigest()}"
        file = RemoteFile(f"{server.address}/CUB.tgz", known_hash, len(content), "CUB_200_2011")
        monkeypatch.setitem(SOURCES, "cub_200", ArchiveSource(server.address, (file,)))
        flags = ["--dataset_name=cub_200", f"--dataset_dir={data}", "--allow_partial", "--download"]
        for _ in range(2):
            command(*flags)
        assert [path for path, _ in server.requests] == ["/CUB.tgz"]
    miniature.images = data / "cub_200" / "archive" / "CUB_200_2011" / "images"
    check_lists(data / "cub_200", miniature)


def test_nothing_of_the_user_is_overwritten(archive, data, tmp_path):
    miniature = cub_200(archive)
    folder = data / "cub_200"
    flags = flags_for("cub_200", miniature, data)
    folder.mkdir(parents=True)
    for name in (*LISTS.values(), "classes.txt"):
        (folder / name).write_text("images/mine.jpg: 0\n")
        _, error = command(*flags, code=1)
        assert f"{folder / name} exists with other content" in error
        assert contents(folder) == {name: b"images/mine.jpg: 0\n"}
        (folder / name).unlink()
    link = folder / "images"
    for make, expected in [
        (lambda: link.symlink_to(tmp_path), f"is a link to {tmp_path}, expected a "),
        (lambda: link.symlink_to("gone"), "is a link to gone, expected a "),
        (lambda: link.mkdir(), "is a folder of other images, expected a "),
        (lambda: link.write_text("mine"), "is a file, expected a "),
    ]:
        make()
        before = link.lstat()
        for flag in ("--nocopy", "--copy"):
            _, error = command(*flags, flag, code=1)
            assert f"{link} {expected}" in error
        assert list(folder.iterdir()) == [link] and link.lstat() == before
        shutil.rmtree(link) if before.st_mode & 0o170000 == 0o040000 else link.unlink()
    command(*flags)
    check_lists(folder, miniature)


def test_an_archive_in_the_place_of_the_lists_is_refused(data):
    """The archive of CUB has a classes.txt of its own, which counts from 1."""
    miniature = cub_200(data)
    (data / "CUB_200_2011").rename(data / "cub_200")
    before = contents(data / "cub_200")
    _, error = command("--dataset_name=cub_200", f"--dataset_dir={data}", "--allow_partial", code=1)
    assert f"no folder {data}/cub_200/archive" in error
    flags = flags_for("cub_200", miniature, data)
    flags[1] = f"--archive_dir={data}/cub_200"
    _, error = command(*flags, code=1)
    assert f"such as {data}/cub_200/archive" in error
    assert contents(data / "cub_200") == before


def test_again_and_elsewhere_gives_the_same_bytes(archive, data, tmp_path):
    for name in ("ILSVRC2012", "cub_200"):
        (archive / name).mkdir()
        miniature = NINE[name](archive / name)
        command(*flags_for(name, miniature, data))
        before = contents(data / name)
        command(*flags_for(name, miniature, data))
        moved = (archive / name).rename(tmp_path / f"moved {name}")
        command(
            f"--dataset_name={name}",
            f"--archive_dir={moved}",
            f"--dataset_dir={tmp_path / 'other'}",
            "--allow_partial",
        )
        assert contents(data / name) == contents(tmp_path / "other" / name) == before


def test_copies_go_on_where_they_stopped(archive, data, monkeypatch):
    miniature = cub_200(archive)
    (miniature.images / "unlisted.jpg").write_bytes(b"")
    folder = data / "cub_200"
    copied = []

    def stop_at_the_fifth(source, target, copy=shutil.copyfile):
        copied.append(source)
        if len(copied) == 5:
            Path(target).write_bytes(b"half")
            raise KeyboardInterrupt
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", stop_at_the_fifth)
    flags = [*flags_for("cub_200", miniature, data), "--copy"]
    assert invoke(prepare, *flags).code == 130
    assert contents(folder) == {} and not (folder / "images").exists()
    out, _ = command(*flags)
    assert "images copied" in out
    images = [path for split in miniature.splits.values() for path, _ in split]
    assert len(copied) == len(images) + 1  # the fifth twice
    found = {p.relative_to(folder / "images").as_posix(): p for p in folder.rglob("images/*/*")}
    assert sorted(found) == sorted(images)
    for path, copy in found.items():
        assert copy.read_bytes() == (miniature.images / path).read_bytes()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    command(*flags)
    command(*flags, "--nocopy")  # what has been copied will do
    assert len(copied) == len(images) + 1
    assert not (folder / "images").is_symlink()


def test_another_minival_is_refused(archive, data):
    miniature = NINE["inat2017"](archive)
    flags = flags_for("inat2017", miniature, data)
    flags.remove("--allow_partial")
    _, error = command(*flags, code=1)
    assert f"{archive / 'minival.txt'} is not the published list" in error


@pytest.mark.parametrize(
    ("name", "damaged", "content", "message"),
    [
        (
            "cub_200",
            "CUB_200_2011/images.txt",
            "1\n",
            "expected two words on each line, found only '1'",
        ),
        ("cub_200", "CUB_200_2011/train_test_split.txt", "1 1\n", "has no line for '2'"),
        ("cub_200", "CUB_200_2011/classes.txt", "1 a\n3 c\n", "has no line for '2'"),
        ("nabirds", "nabirds/image_class_labels.txt", "x y\n", "'y' is not a class id"),
        ("aircraft", "fgvc-aircraft-2013b/data/variants.txt", "A\n", "has no line for '707-320'"),
        ("food_101", "food-101/meta/classes.txt", "apple_pie\n", "no line for 'baby_back_ribs'"),
        ("flower_102", "setid.mat", "", "setid.mat cannot be read as a MATLAB file"),
        ("stanford_dogs", "lists/test_list.mat", "<html>", "cannot be read as a MATLAB file"),
        (
            "inat2017",
            "val2017.json",
            "{",
            "val2017.json is not the published file (JSONDecodeError",
        ),
        ("inat2017", "train2017.json", "{}", "is not the published file (KeyError: 'categories')"),
    ],
)
def test_damaged_files_are_named(name, damaged, content, message, archive, data):
    miniature = NINE[name](archive)
    (archive / damaged).write_text(content)
    _, error = command(*flags_for(name, miniature, data), code=1)
    assert message in error
    assert not data.exists()


def test_annotations_without_labels_are_told_from_those_with(archive, data):
    miniature = NINE["stanford_cars"](archive)
    unlabelled = archive / "devkit" / "cars_test_annos.mat"
    unlabelled.replace(archive / "cars_test_annos_withlabels.mat")
    _, error = command(*flags_for("stanford_cars", miniature, data), code=1)
    assert "'annotations' has no field 'class'" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--dataset_name is missing"),
        (["--dataset_name=cub_20"], "did you mean cub_200"),
        (["--dataset_name=a/b", "--from_folders=x"], "expected the name of a folder"),
        (["--dataset_name=..", "--from_folders=x"], "expected the name of a folder"),
        (["--dataset_name=mine", "--stats"], "--dataset_name=mine has no official archive"),
        (["--dataset_name=mine", "--from_folders=nowhere"], "nowhere: no such folder"),
        (["--dataset_name=nabirds", "--from_folders=x"], "is one of the paper's"),
        (["--dataset_name=mine", "--from_folders=x", "--download"], "excludes"),
        (
            ["--dataset_name=mine", "--from_folders=x", "--val_fraction=1"],
            "expected a number between 0 and 1",
        ),
        (["--dataset_name=nabirds", "--download"], "https://dl.allaboutbirds.org/nabirds"),
    ],
)
def test_wrong_flags(flags, message, data):
    assert message in command(*flags, f"--dataset_dir={data}", code=1)[1]
    assert not data.exists()


def test_command_line(archive, data):
    miniature = cub_200(archive)
    line = ["python", "-m", "slim.datasets.prepare", *flags_for("cub_200", miniature, data)]
    done = run(*line)
    assert done.returncode == 0 and done.stdout.startswith(f"{data}/cub_200: 9 train, "), done
    done = run(*line[:-1])
    assert done.returncode == 1 and done.stderr.count("\n") == 1


def test_slow_libraries_are_not_imported():
    script = (
        "import sys, slim.datasets.prepare; print({*sys.modules} & {'tensorflow', 'matplotlib'})"
    )
    assert run(sys.executable, "-c", script).stdout == "set()\n"


# Images of one's own.


def draw_folders(root: Path, counts: dict[str, int], reverse: bool = False) -> list[str]:
    """A folder a class; returns the paths, sorted."""
    paths = [f"{name}/{index:02d}.jpg" for name, count in counts.items() for index in range(count)]
    draw(root, reversed(paths) if reverse else paths)
    return sorted(paths)


def listed(folder: Path, split_name: str) -> list[tuple[str, int]]:
    lines = (folder / LISTS[split_name]).read_text().splitlines()
    parts = (line.removeprefix("images/").rsplit(": ", 1) for line in lines)
    return [(path, int(label)) for path, label in parts]


def own(root: Path, data: Path, *more: str) -> list[str]:
    flags = ["--dataset_name=my_set", f"--from_folders={root}", f"--dataset_dir={data}"]
    return [*flags, *more]


COUNTS = {"b class": 10, "a: 7": 5, "C": 2, "lonely": 1}


def test_own_images_are_split_by_class(tmp_path, data):
    root = tmp_path / "mine"
    paths = draw_folders(root, COUNTS)
    command(*own(root, data))
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


def test_the_split_depends_on_names_and_seed_alone(tmp_path):
    lists = []
    for index, (reverse, seed) in enumerate(((False, 0), (True, 0), (False, 1))):
        draw_folders(tmp_path / f"mine{index}", COUNTS, reverse)
        data = tmp_path / f"data{index}"
        command(*own(tmp_path / f"mine{index}", data, f"--seed={seed}"))
        lists.append(contents(data / "my_set"))
    assert lists[0] == lists[1]
    assert lists[0] != lists[2]
    more = draw_folders(tmp_path / "mine0", {"another": 4})
    command(*own(tmp_path / "mine0", tmp_path / "more"))
    others = {path for path, _ in listed(tmp_path / "more" / "my_set", "validation")} - {*more}
    assert others == {path for path, _ in listed(tmp_path / "data0" / "my_set", "validation")}


def test_every_class_keeps_images_for_both():
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


def test_own_train_and_val(tmp_path, data):
    root = tmp_path / "mine"
    train = draw_folders(root / "train", {"x": 3, "y": 2})
    validation = draw_folders(root / "val", {"x": 1, "y": 2})
    command(*own(root, data))
    folder = data / "my_set"
    assert listed(folder, "train") == [(f"train/{p}", int(p[0] == "y")) for p in train]
    assert listed(folder, "validation") == [(f"val/{p}", int(p[0] == "y")) for p in validation]

    draw_folders(root / "val", {"z": 1})
    (root / "test").mkdir()
    out, error = command(*own(root, tmp_path / "other"), code=1)
    assert "classes in only one of train and val (1): z" in error
    assert "ignored files and folders (1): test" in out
    command(*own(root, tmp_path / "other", "--allow_partial"))
    assert listed(tmp_path / "other" / "my_set", "validation")[-1] == ("val/z/00.jpg", 2)


def test_what_is_no_image_is_left_out_and_folders_in_classes_are_not(tmp_path, data):
    root = tmp_path / "mine"
    paths = draw_folders(root, {"x": 2, "y/deep/er": 3})
    (root / "x" / "upper.JPEG").write_bytes(encode(picture(7)))
    (root / "x" / "grey.png").write_bytes(encode(picture(8), "PNG"))
    for name in ("notes.txt", "x/Thumbs.db", "y/deep/video.mp4"):
        (root / name).write_bytes(b"")
    for name in ("x/.DS_Store", "x/._00.jpg", ".hidden.jpg"):
        (root / name).write_bytes(b"")
    (root / "empty").mkdir()
    out, _ = command(*own(root, data))
    assert "ignored files and folders (4): " in out
    folder = data / "my_set"
    found = sorted(path for split in LISTS for path, _ in listed(folder, split))
    assert found == sorted([*paths, "x/upper.JPEG", "x/grey.png"])
    assert (folder / "classes.txt").read_text() == "0 x\n1 y\n"


def test_own_images_in_the_folder_of_the_dataset(data):
    root = data / "my_set" / "images"
    paths = draw_folders(root, {"x": 4, "y": 3})
    command(*own(root, data))
    assert not root.is_symlink()
    found = [path for split in LISTS for path, _ in listed(data / "my_set", split)]
    assert sorted(found) == paths
    command(*own(root, data))
    _, error = command(*own(data / "my_set", data), code=1)
    assert "nothing was written" in error


def test_folders_without_images(tmp_path, data):
    (tmp_path / "mine" / "x").mkdir(parents=True)
    assert "no images for train" in command(*own(tmp_path / "mine", data), code=1)[1]
    draw_folders(tmp_path / "mine", {"x": 1})
    assert "no images for validation" in command(*own(tmp_path / "mine", data), code=1)[1]
    draw_folders(tmp_path / "mine", {"x": 3})
    (tmp_path / "mine" / "x" / "line\nbreak.jpg").write_bytes(encode(picture(9)))
    assert "file names with a line break (1): " in command(*own(tmp_path / "mine", data), code=1)[1]
    assert not data.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written(archive, data):
    miniature = cub_200(archive)
    data.mkdir(mode=0o555)
    assert "Permission denied" in command(*flags_for("cub_200", miniature, data), code=1)[1]
