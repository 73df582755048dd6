"""Preparation of official archives."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from slim.common.command_line import python_command
from slim.datasets.input import get_dataset
from slim.datasets.prepare import __main__ as command
from slim.datasets.prepare.archives import SOURCES, ArchiveSource, RemoteFile
from slim.datasets.prepare.readers import LAYOUTS
from slim.datasets.registry import KNOWN, Sizes
from slim.datasets.tfrecord import LISTS
from tests.conftest import run
from tests.datasets.conftest import convert, read_records
from tests.datasets.prepare.conftest import prepare, texts
from tests.datasets.prepare.miniatures import NINE, OTHER_LAYOUTS, Miniature, cub_200, ilsvrc2012
from tests.loopback import Loopback
from tests.support import invoke


@pytest.fixture
def archive(tmp_path) -> Path:
    """Returns an empty folder for an unpacked archive."""
    folder = tmp_path / "unpacked here"
    folder.mkdir()
    return folder


def flags_for(miniature: Miniature, data: Path) -> list[str]:
    return [
        f"--dataset_name={miniature.name}",
        f"--archive_dir={miniature.root}",
        f"--dataset_dir={data}",
        "--allow_partial",
        *miniature.options,
    ]


def check_lists(folder: Path, miniature: Miniature) -> None:
    """Checks that the lists, the classes and the link match the miniature."""
    for split_name, images in miniature.splits.items():
        expected = "".join(f"images/{path}: {label}\n" for path, label in images)
        assert (folder / LISTS[split_name]).read_text() == expected
    names = "".join(f"{label} {name}\n" for label, name in enumerate(miniature.class_names))
    assert (folder / "classes.txt").read_text() == names
    assert (folder / "images").is_symlink()
    assert (folder / "images").resolve() == miniature.images.resolve()


@pytest.mark.parametrize("draw", [*NINE.values(), *OTHER_LAYOUTS.values()])
def test_archives_become_lists(draw, archive, data):
    miniature = draw(archive)
    prepare(*flags_for(miniature, data))
    check_lists(data / miniature.name, miniature)


@pytest.mark.parametrize("name", ["ILSVRC2012", "inat2017", "nabirds"])
def test_archives_become_records(name, archive, data):
    miniature = NINE[name](archive)
    prepare(*flags_for(miniature, data))
    convert(data / name, "--num_shards=2", "--num_workers=1")
    for split_name, images in miniature.splits.items():
        dataset = get_dataset(name, split_name, data)
        assert dataset.class_names == tuple(miniature.class_names)
        found = [(record.jpeg, record.label) for record in read_records(dataset.files)]
        expected = [((miniature.images / path).read_bytes(), label) for path, label in images]
        assert sorted(found) == sorted(expected) and len(set(found)) == len(images)


def test_class_ids_may_be_floating_point_numbers(archive, data):
    """MATLAB stores numbers as such by default."""
    miniature = ilsvrc2012(archive, np.float64)
    prepare(*flags_for(miniature, data))
    check_lists(data / "ILSVRC2012", miniature)


def sizes_of(miniature: Miniature) -> Sizes:
    return Sizes(*map(len, miniature.splits.values()), len(miniature.class_names))


def test_a_complete_archive_gives_no_warning(archive, data, monkeypatch):
    miniature = cub_200(archive)
    monkeypatch.setitem(KNOWN, "cub_200", sizes_of(miniature))
    flags = [flag for flag in flags_for(miniature, data) if flag != "--allow_partial"]
    out, error = prepare(*flags)
    assert error == ""
    assert out == (
        f"{data}/cub_200: 9 train, 6 validation, 3 classes, images linked to {miniature.images}\n"
        f"next: {python_command()} convert_dataset.py --dataset_name=cub_200 --dataset_dir={data}\n"
    )


def test_unexpected_sizes_are_refused(archive, data):
    miniature = cub_200(archive)
    flags = flags_for(miniature, data)
    found = (
        "found 9 train, 6 validation, 3 classes, expected 5994 train, 5794 validation, 200 classes"
    )
    _, error = prepare(*flags[:3], code=1)
    assert found in error and "--allow_partial" in error
    assert not data.exists()
    _, warning = prepare(*flags)
    assert warning == f"warning: cub_200 in {miniature.images}: {found}\n"


def test_missing_images_are_named_and_left_out(archive, data, monkeypatch):
    miniature = cub_200(archive)
    monkeypatch.setitem(KNOWN, "cub_200", sizes_of(miniature))
    flags = flags_for(miniature, data)
    gone = [miniature.splits["train"][index][0] for index in (8, 2, 3)]
    gone.append(miniature.splits["validation"][0][0])
    for path in gone:
        (miniature.images / path).unlink()
    _, error = prepare(*flags[:3], code=1)
    assert f"missing images (4): {', '.join(sorted(gone)[:3])}, ...; nothing" in error
    assert not data.exists()
    prepare(*flags)
    lists = (data / "cub_200" / "train.txt").read_text() + (data / "cub_200/val.txt").read_text()
    left = [i for split in miniature.splits.values() for i in split if i[0] not in gone]
    assert lists == "".join(f"images/{path}: {label}\n" for path, label in left)

    shutil.rmtree(data)
    shutil.rmtree(miniature.images / miniature.class_names[1])
    _, error = prepare(*flags[:3], code=1)
    assert f"classes without images (1): {miniature.class_names[1]}" in error


@pytest.mark.parametrize("name", NINE)
def test_a_missing_part_is_named(name, archive, data):
    miniature = NINE[name](archive)
    flags = flags_for(miniature, data)
    place = LAYOUTS[name][-1].folder
    for part in LAYOUTS[name][-1].parts.split():
        path = archive / place / part
        path = path if path.exists() else archive / place / path.name
        aside = path.rename(path.with_name("aside"))
        _, error = prepare(*flags, code=1)
        assert f"no {part} in {archive / place}: the archive of {name} is incomplete" in error
        assert "it comes from http" in error
        aside.rename(path)
    assert not data.exists()
    prepare(*flags)


def test_validation_images_in_one_folder_need_the_development_kit(archive, data):
    miniature = NINE["ILSVRC2012"](archive)
    for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"):
        path = archive / "ILSVRC2012_devkit_t12" / "data" / name
        aside = path.rename(path.with_name("aside"))
        _, error = prepare(*flags_for(miniature, data), code=1)
        assert f"{name}, and no val/<wnid>/, in {archive}" in error
        aside.rename(path)


@pytest.mark.parametrize("level", ["archive", "within", "default", "above"])
def test_archive_dir_may_be_above_or_within_the_archive(level, archive, data, monkeypatch):
    miniature = cub_200(archive)
    given = {"within": archive / "CUB_200_2011", "above": archive / "CUB_200_2011" / "images"}
    flags = flags_for(miniature, data)
    flags[1] = f"--archive_dir={given.get(level, archive)}"
    if level == "default":
        (data / "cub_200").mkdir(parents=True)
        archive.rename(data / "cub_200" / "archive")
        del flags[1]
    prepare(*flags)
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
            prepare(*flags)
        assert [path for path, _ in server.requests] == ["/CUB.tgz"]
    miniature.images = data / "cub_200" / "archive" / "CUB_200_2011" / "images"
    check_lists(data / "cub_200", miniature)


def test_existing_files_are_not_overwritten(archive, data, tmp_path):
    miniature = cub_200(archive)
    folder = data / "cub_200"
    flags = flags_for(miniature, data)
    folder.mkdir(parents=True)
    for name in (*LISTS.values(), "classes.txt"):
        (folder / name).write_text("images/mine.jpg: 0\n")
        _, error = prepare(*flags, code=1)
        assert f"{folder / name} exists with other content" in error
        assert texts(folder) == {name: b"images/mine.jpg: 0\n"}
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
            _, error = prepare(*flags, flag, code=1)
            assert f"{link} {expected}" in error
        assert list(folder.iterdir()) == [link] and link.lstat() == before
        shutil.rmtree(link) if before.st_mode & 0o170000 == 0o040000 else link.unlink()
    prepare(*flags)
    check_lists(folder, miniature)


def test_lists_are_not_written_into_the_archive(data):
    """The archive of CUB-200-2011 has another classes.txt, which counts from 1."""
    miniature = cub_200(data)
    (data / "CUB_200_2011").rename(data / "cub_200")
    before = texts(data / "cub_200")
    _, error = prepare("--dataset_name=cub_200", f"--dataset_dir={data}", "--allow_partial", code=1)
    assert f"no folder {data}/cub_200/archive" in error
    flags = flags_for(miniature, data)
    flags[1] = f"--archive_dir={data}/cub_200"
    _, error = prepare(*flags, code=1)
    assert f"such as {data}/cub_200/archive" in error
    assert texts(data / "cub_200") == before


def test_the_same_archive_gives_the_same_bytes(archive, data, tmp_path):
    for name in ("ILSVRC2012", "cub_200"):
        (archive / name).mkdir()
        miniature = NINE[name](archive / name)
        prepare(*flags_for(miniature, data))
        before = texts(data / name)
        prepare(*flags_for(miniature, data))
        moved = (archive / name).rename(tmp_path / f"moved {name}")
        prepare(
            f"--dataset_name={name}",
            f"--archive_dir={moved}",
            f"--dataset_dir={tmp_path / 'other'}",
            "--allow_partial",
        )
        assert texts(data / name) == texts(tmp_path / "other" / name) == before


def test_copying_resumes(archive, data, monkeypatch):
    miniature = cub_200(archive)
    (miniature.images / "unlisted.jpg").write_bytes(b"")
    folder = data / "cub_200"
    copied = []

    def interrupt_the_fifth(source, target, copy=shutil.copyfile):
        copied.append(source)
        if len(copied) == 5:
            Path(target).write_bytes(b"half")
            raise KeyboardInterrupt
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", interrupt_the_fifth)
    flags = [*flags_for(miniature, data), "--copy"]
    assert invoke(command, *flags).code == 130
    assert texts(folder) == {} and not (folder / "images").exists()
    out, _ = prepare(*flags)
    assert "images copied" in out
    images = [path for split in miniature.splits.values() for path, _ in split]
    assert len(copied) == len(images) + 1  # the fifth twice
    found = {p.relative_to(folder / "images").as_posix(): p for p in folder.rglob("images/*/*")}
    assert sorted(found) == sorted(images)
    for path, copy in found.items():
        assert copy.read_bytes() == (miniature.images / path).read_bytes()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    prepare(*flags)
    prepare(*flags, "--nocopy")  # the copies are kept
    assert len(copied) == len(images) + 1
    assert not (folder / "images").is_symlink()


def test_another_minival_is_refused(archive, data):
    miniature = NINE["inat2017"](archive)
    flags = flags_for(miniature, data)
    flags.remove("--allow_partial")
    _, error = prepare(*flags, code=1)
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
    _, error = prepare(*flags_for(miniature, data), code=1)
    assert message in error
    assert not data.exists()


def test_annotations_without_labels_are_refused(archive, data):
    miniature = NINE["stanford_cars"](archive)
    unlabelled = archive / "devkit" / "cars_test_annos.mat"
    unlabelled.replace(archive / "cars_test_annos_withlabels.mat")
    _, error = prepare(*flags_for(miniature, data), code=1)
    assert "'annotations' has no field 'class'" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--dataset_name is missing"),
        (["--dataset_name=cub_20"], "did you mean cub_200"),
        (["--dataset_name=a/b", "--from_folders=x"], "expected the name of a folder"),
        (["--dataset_name=..", "--from_folders=x"], "expected the name of a folder"),
        ([f"--dataset_name={'a' * 300}", "--from_folders=x"], "expected the name of a folder"),
        (["--dataset_name=mine", "--stats"], "--dataset_name=mine has no official archive"),
        (["--dataset_name=mine", "--from_folders=nowhere"], "nowhere: no such folder"),
        (["--dataset_name=nabirds", "--from_folders=x"], "is one of the paper's"),
        (["--dataset_name=mine", "--from_folders=x", "--download"], "excludes"),
        (
            ["--dataset_name=mine", "--from_folders=x", "--val_fraction=1"],
            "expected a finite number >= 0 and < 1",
        ),
        (["--dataset_name=nabirds", "--download"], "https://dl.allaboutbirds.org/nabirds"),
    ],
)
def test_invalid_flags_are_refused(flags, message, data):
    assert message in prepare(*flags, f"--dataset_dir={data}", code=1)[1]
    assert not data.exists()


def test_command_line(archive, data):
    miniature = cub_200(archive)
    line = ["python", "-m", "slim.datasets.prepare", *flags_for(miniature, data)]
    done = run(*line)
    assert done.returncode == 0 and done.stdout.startswith(f"{data}/cub_200: 9 train, "), done
    done = run(*line[:-1])
    assert done.returncode == 1 and done.stderr.count("\n") == 1


def test_slow_libraries_are_not_loaded():
    modules = "archives, folders, prepared, readers, statistics, tfds, __main__"
    script = f"import sys\nfrom slim.datasets.prepare import {modules}\n"
    script += "print({*sys.modules} & {'tensorflow', 'matplotlib'})"
    assert run(sys.executable, "-c", script).stdout == "set()\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_an_unwritable_folder_is_refused(archive, data):
    miniature = cub_200(archive)
    data.mkdir(mode=0o555)
    assert "Permission denied" in prepare(*flags_for(miniature, data), code=1)[1]
