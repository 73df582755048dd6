"""The toy domains."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from demo import toy
from demo.birds import Bird
from demo.cars import Car
from demo.domains import DOMAINS, Domain, draw_image
from demo.flowers import Flower
from demo.things import Thing
from demo.toy import draw_domain
from slim.common.errors import UserError
from tests.conftest import run
from tests.datasets.conftest import check, is_running, wait_until, workers_of
from tests.support import Process

TARGETS = ("toy_birds", "toy_flowers", "toy_cars")
SOURCES = ("toy_inat", "toy_imagenet")
LISTS = ("train.txt", "val.txt", "classes.txt")
SIZE = 64  # pixels, half of the default, to save time


def contents(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def read_list(directory, name):
    lines = (directory / name).read_text().splitlines()
    return [(path, int(label)) for path, label in (line.split(": ") for line in lines)]


def first_classes(name, count, train, val):
    """Returns the part of a domain that has a few classes with a few images."""
    classes = dict(list(DOMAINS[name].classes.items())[:count])
    return replace(DOMAINS[name], classes=classes, train=(train,) * count, val=val)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Returns a folder with all domains; the sources have two images per class to save time."""
    directory = tmp_path_factory.mktemp("data")
    flags = (f"--dataset_dir={directory}", f"--image_size={SIZE}", f"--domains={','.join(TARGETS)}")
    result = run("python", "-m", "demo.toy", *flags, env={"PYTHONHASHSEED": "1"})
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"{name}: 960 images of 12 classes in {directory}/{name}" for name in TARGETS
    ]
    with mock.patch.dict(DOMAINS, {name: first_classes(name, 28, 1, 1) for name in SOURCES}):
        for name in SOURCES:
            draw_domain(name, directory / name, image_size=SIZE)
    return directory


def test_all_domains_are_drawn_by_default(tmp_path, monkeypatch):
    for name in DOMAINS:
        monkeypatch.setitem(DOMAINS, name, first_classes(name, 2, train=2, val=1))
    assert check(toy, f"--dataset_dir={tmp_path}").output.splitlines() == [
        f"{name}: 6 images of 2 classes in {tmp_path}/{name}" for name in (*TARGETS, *SOURCES)
    ]


@pytest.mark.parametrize("name", DOMAINS)
def test_lists_name_every_image_once(drawn, name):
    directory = drawn / name
    train, val = read_list(directory, "train.txt"), read_list(directory, "val.txt")
    paths = [path for path, _ in train + val]
    on_disk = {str(path.relative_to(directory)) for path in directory.glob("images/*/*")}
    assert len(set(paths)) == len(paths) and set(paths) == on_disk

    classes = [line.split(" ") for line in (directory / "classes.txt").read_text().splitlines()]
    assert [int(label) for label, _ in classes] == list(range(len(classes)))
    folder = {int(label): class_name for label, class_name in classes}
    assert all(Path(path).parent == Path("images", folder[label]) for path, label in train + val)
    assert {label for _, label in train} == {label for _, label in val} == set(folder)
    files = {path.name for path in directory.iterdir()}
    assert files == {"images", "toy.json", *LISTS}


@pytest.mark.parametrize("name", TARGETS)
def test_targets_have_12_classes_of_30_and_50_images(drawn, name):
    for file, count in (("train.txt", 30), ("val.txt", 50)):
        labels = Counter(label for _, label in read_list(drawn / name, file))
        assert labels == dict.fromkeys(range(12), count)


def test_toy_inat_has_a_long_tail():
    splits = DOMAINS["toy_inat"].splits()
    labels = Counter(label for _, label in splits["train"])
    counts = sorted(labels.values(), reverse=True)
    assert len(counts) == 28 and 2500 <= sum(counts) <= 3000
    assert counts[0] >= 10 * counts[-1] and counts[-1] >= 5
    assert sum(counts[:7]) > sum(counts[14:]), "a few species have most of the images"
    labels = Counter(label for _, label in splits["validation"])
    assert labels == dict.fromkeys(range(28), 20)


def test_toy_imagenet_is_balanced_and_has_vehicles_and_a_bird():
    splits = DOMAINS["toy_imagenet"].splits()
    for split, count in (("train", 80), ("validation", 20)):
        assert Counter(label for _, label in splits[split]) == dict.fromkeys(range(28), count)
    kinds = Counter(type(subject) for subject in DOMAINS["toy_imagenet"].classes.values())
    assert kinds == {Car: 16, Bird: 1, Flower: 1, Thing: 10}
    kinds = Counter(type(subject) for subject in DOMAINS["toy_inat"].classes.values())
    assert kinds == {Bird: 14, Flower: 14}


def test_no_two_classes_are_the_same_species():
    names = [class_name for domain in DOMAINS.values() for class_name in domain.classes]
    assert len(set(names)) == len(names)
    subjects = [subject for domain in DOMAINS.values() for subject in domain.classes.values()]
    species = [subject for subject in subjects if isinstance(subject, Bird | Flower)]
    assert len(set(species)) == len(species) == 12 + 12 + 28 + 2
    models = [
        (subject.roof, subject.grille, subject.lights, subject.wheels)
        for subject in subjects
        if isinstance(subject, Car)
    ]
    assert len(set(models)) == len(models) == 12 + 16


@pytest.mark.parametrize("name", DOMAINS)
def test_images_are_rgb_jpegs_of_more_than_one_size(drawn, name):
    sizes = set()
    for path in (drawn / name).glob("images/*/*"):
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode, min(image.size)) == ("JPEG", "RGB", SIZE)
            sizes.add(image.size)
    longest = SIZE * 5 // 4
    assert {(SIZE, SIZE), (longest, SIZE)} <= sizes and max(map(max, sizes)) == longest


def test_an_image_depends_only_on_its_arguments():
    image = draw_image("toy_birds", 3, 7)
    assert draw_image("toy_birds", 3, 7).tobytes() == image.tobytes()
    for other in (("toy_birds", 4, 7), ("toy_birds", 3, 8)):
        assert draw_image(*other).tobytes() != image.tobytes()
    assert draw_image("toy_birds", 3, 7, seed=1).tobytes() != image.tobytes()
    assert min(image.size) == 128
    assert min(draw_image("toy_birds", 3, 7, image_size=64).size) == 64


@pytest.mark.parametrize(
    ("name", "size", "left", "right"),
    [
        ("toy_birds", (72, 64), [198, 197, 200], [167, 167, 164]),
        ("toy_flowers", (72, 64), [121, 145, 70], [108, 133, 64]),
        ("toy_cars", (64, 64), [135, 118, 128], [124, 110, 118]),
        ("toy_inat", (72, 64), [132, 103, 76], [155, 124, 95]),
        ("toy_imagenet", (72, 64), [134, 134, 123], [138, 137, 123]),
    ],
)
def test_the_drawing_has_not_changed(name, size, left, right):
    """A change of the images requires another `VERSION`; Pillow's may differ a little."""
    image = draw_image(name, 5, 2, image_size=64)
    halves = np.asarray(image.resize((2, 1), Image.Resampling.BOX), int)
    assert image.size == size
    np.testing.assert_allclose(halves, [[left, right]], atol=1)


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(
    drawn, tmp_path, monkeypatch
):
    monkeypatch.setitem(DOMAINS, "toy_flowers", first_classes("toy_flowers", 3, 7, 2))
    found = []
    for num_workers in (1, 3):
        directory = tmp_path / f"{num_workers}"
        assert draw_domain("toy_flowers", directory, image_size=SIZE, num_workers=num_workers)
        found.append(contents(directory))
    assert found[0] == found[1]
    images = {path: image for path, image in found[0].items() if path.endswith(".jpg")}
    assert len(images) == 27
    assert images.items() <= contents(drawn / "toy_flowers").items()


def test_complete_domains_are_skipped(drawn):
    images = drawn / "toy_cars"
    before = {path: path.stat().st_mtime_ns for path in images.rglob("*")}
    flags = (f"--dataset_dir={drawn}", "--domains=toy_cars", f"--image_size={SIZE}")
    done = check(toy, *flags)
    assert done.output == f"toy_cars: 960 images of 12 classes in {images}, already drawn\n"
    assert {path: path.stat().st_mtime_ns for path in images.rglob("*")} == before


def test_a_killed_run_resumes_to_the_same_bytes(drawn, tmp_path):
    directory = tmp_path / "toy_birds"
    flags = (f"--dataset_dir={tmp_path}", "--domains=toy_birds", f"--image_size={SIZE}")
    with Process("demo.toy", *flags, log=tmp_path / "log") as process:
        wait_until(lambda: len(list(directory.glob("images/*/*.jpg"))) >= 40)
        workers = workers_of(process)
        process.kill()
        wait_until(lambda: not any(map(is_running, workers)))  # all end with the command
    assert workers
    so_far = contents(directory)
    assert not set(LISTS) & set(so_far) and len(so_far) < 960
    # To save time, the last class alone is left to draw.
    *others, _ = sorted((drawn / "toy_birds/images").iterdir())
    for image in [image for folder in others for image in folder.iterdir()]:
        path = directory / image.relative_to(drawn / "toy_birds")
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            shutil.copy(image, path)
    check(toy, *flags)
    assert contents(directory) == contents(drawn / "toy_birds")


def test_missing_files_are_written_again(drawn, tmp_path, monkeypatch):
    monkeypatch.setitem(DOMAINS, "toy_birds", first_classes("toy_birds", 2, 3, 1))
    assert draw_domain("toy_birds", tmp_path)
    before = contents(tmp_path)
    assert len(before) == 8 + 4
    for path in ("images/crested_greenlet/0001.jpg", "val.txt"):
        (tmp_path / path).unlink()
    assert draw_domain("toy_birds", tmp_path)
    assert not draw_domain("toy_birds", tmp_path)
    assert contents(tmp_path) == before


def test_a_mistyped_domain_is_refused_before_drawing(tmp_path):
    error = check(toy, f"--dataset_dir={tmp_path}", "--domains=toy_cars,toy_brids", code=1).error
    assert not list(tmp_path.iterdir())
    assert "--domains=toy_cars,toy_brids: did you mean toy_birds" in error
    assert error.count("\n") == 1
    error = check(toy, f"--dataset_dir={tmp_path}", "--image_size=100000", code=1).error
    assert "--image_size=100000" in error and "2048" in error and error.count("\n") == 1
    with pytest.raises(UserError, match="--domains=birds: did you mean toy_birds"):
        draw_domain("birds", tmp_path)


def test_a_folder_drawn_with_another_seed_is_not_changed(drawn):
    before = contents(drawn / "toy_cars")
    error = check(toy, f"--dataset_dir={drawn}", "--domains=toy_cars", "--seed=1", code=1).error
    assert error.startswith(f'error: {drawn}/toy_cars/toy.json has {{"seed": 0,')
    assert "move the folder away or choose another --dataset_dir" in error
    assert error.count("\n") == 1
    assert contents(drawn / "toy_cars") == before


def test_two_runs_at_once_draw_one_domain(tmp_path, monkeypatch):
    """The folder is checked again after waiting for the other run."""
    monkeypatch.setitem(DOMAINS, "toy_birds", Domain({"wren": Bird("tan", "tan")}, (1,), 1))
    lock = toy.writing_to

    def wait(folder, flag):
        monkeypatch.setattr(toy, "writing_to", lock)
        draw_domain("toy_birds", folder, seed=0)
        return lock(folder, flag)

    monkeypatch.setattr(toy, "writing_to", wait)
    assert not draw_domain("toy_birds", tmp_path / "same", seed=0)
    monkeypatch.setattr(toy, "writing_to", wait)
    with pytest.raises(UserError, match=r'has {"seed": 0, .* expected {"seed": 1, '):
        draw_domain("toy_birds", tmp_path / "other", seed=1)
    assert contents(tmp_path / "other") == contents(tmp_path / "same")


@pytest.mark.parametrize("path", ["train.txt", "images/wren/0000.jpg"])
def test_a_folder_made_by_hand_is_not_changed(tmp_path, path):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("images/wren/0000.jpg: 0\n")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="move the folder away or choose another --dataset_dir"):
        draw_domain("toy_birds", tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("file", LISTS)
def test_an_edited_list_is_not_changed(tmp_path, monkeypatch, file):
    monkeypatch.setitem(DOMAINS, "toy_birds", Domain({"wren": Bird("tan", "tan")}, (1,), 1))
    draw_domain("toy_birds", tmp_path)
    (tmp_path / file).write_bytes(b"0 m\xefne\n")
    with pytest.raises(UserError, match=f"{file} is not the file that is written for toy_birds"):
        draw_domain("toy_birds", tmp_path)
    assert (tmp_path / file).read_bytes() == b"0 m\xefne\n"


def test_an_unwritable_folder_is_reported_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    flags = (f"--dataset_dir={tmp_path / 'file'}", "--domains=toy_birds")
    error = check(toy, *flags, code=1).error
    assert error.count("\n") == 1
    assert "cannot write" in error and "Not a directory" in error


# The difficulty of the targets: colour must not suffice, shape must help.


def read_images(directory, name, side=96):
    paths, labels = zip(*read_list(directory, name), strict=True)
    images = [Image.open(directory / path).resize((side, side)) for path in paths]
    return np.stack([np.asarray(image) for image in images]) / np.float32(255), np.array(labels)


def nearest_mean_colour(train, labels, images):
    means = np.stack([train[labels == label].mean((0, 1, 2)) for label in range(12)])
    return ((images.mean((1, 2))[:, None] - means) ** 2).sum(-1).argmin(1)


def nearest_histogram(train, labels, images):
    def histograms(images):
        levels = (images * 3.999).astype(int) @ [16, 4, 1]
        return np.sqrt([np.bincount(image.ravel(), minlength=64) for image in levels])

    return labels[(histograms(images) @ histograms(train).T).argmax(1)]


def ridge_on_edges(train, labels, images):
    """Classifies linearly by the strength of the edges of each direction in each cell."""

    cell = np.arange(96) // 8
    cell = cell[:, None] * 12 + cell

    def edges(images):
        dy, dx = np.gradient(images.mean(-1), axis=(1, 2))
        direction = (np.arctan2(dy, dx) % np.pi / np.pi * 8).astype(int) % 8
        place = (np.arange(len(images))[:, None, None] * 144 + cell) * 8 + direction
        cells = np.bincount(place.ravel(), np.hypot(dx, dy).ravel(), len(images) * 144 * 8)
        cells = cells.reshape(-1, 144, 8).astype(np.float32)
        cells /= np.linalg.norm(cells, axis=-1, keepdims=True) + 0.1
        return cells.reshape(len(cells), -1)

    features = edges(np.concatenate([train, train[:, :, ::-1]]))
    wanted = np.eye(12)[np.concatenate([labels, labels])]
    weights = np.linalg.solve(features @ features.T + 10 * np.eye(len(features)), wanted)
    return (edges(images) @ features.T @ weights).argmax(1)


@pytest.mark.parametrize("name", TARGETS)
def test_colour_does_not_separate_the_classes_and_shape_helps(drawn, name):
    train, labels = read_images(drawn / name, "train.txt")
    images, truth = read_images(drawn / name, "val.txt")
    assert (nearest_mean_colour(train, labels, images) == truth).mean() < 0.3
    assert (nearest_histogram(train, labels, images) == truth).mean() < 0.5
    assert (ridge_on_edges(train, labels, images) == truth).mean() > 3 / 12
