"""The benchmarks: arithmetic, photographs, and the smallest run of every subject."""

import importlib.metadata
import io
import json
import os
import re
import statistics
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import __main__ as command
from benchmarks import conversion, gpu, linear_classifier, networks, similarity, training_step
from benchmarks.conversion import one_at_a_time
from benchmarks.measure import LIMIT, PEER, THIS, Comparison, Figure, Settings, Task, alternate
from benchmarks.networks import keras
from benchmarks.photographs import (
    NAME,
    convert_folder,
    draw_photograph,
    find_photographs,
    image_files,
    make_dataset,
)
from benchmarks.processes import in_fresh_process, measure_subject
from slim.common.command_line import available_cores
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.input import get_dataset
from slim.datasets.registry import KNOWN, Sizes
from slim.transfer.domain_similarity import MIN_COUNT
from tests.support import SMALL_SIZE, THIS_MACHINE, invoke

SETTINGS = Settings(
    folder=Path(),
    photographs="drawn",
    num_images=2,
    image_size=299,
    batch_size=8,
    precision="float32",
    xla=False,
    steps=2,
    rounds=3,
    seconds=0.0,
    small=True,
)


LIMITS = (gpu.CONVOLUTIONS, gpu.PRODUCT)


class Clock:
    """A clock that tasks advance."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log = []

    def __call__(self) -> float:
        return self.now

    def task(self, name: str, role: str, done: float, seconds: list[float]) -> Task:
        remaining = iter(seconds)

        def work() -> float:
            self.log.append(name)
            self.now += next(remaining)
            return done

        def prepare() -> None:
            self.now += 1000

        return Task(name, role, work, prepare)


def test_rates_alternate_and_their_median_counts():
    clock = Clock()
    # Neither the slow first pass of each task nor preparation counts.
    tasks = [
        clock.task("a", THIS, 10, [500, 1, 5, 2]),
        clock.task("b", PEER, 3, [500, 3, 1, 1.5]),
    ]
    a, b = alternate(tasks, SETTINGS, clock)
    assert clock.log == ["a", "b"] * 4
    assert a.rounds == (10, 2, 5) and a.value == 5
    assert b.rounds == (1, 3, 2) and b.value == 2
    assert (a.name, a.role, b.name, b.role) == ("a", THIS, "b", PEER)


def test_short_passes_are_repeated():
    clock = Clock()
    tasks = [clock.task("a", THIS, 8, [500, 1, 1, 2, 4])]
    # A round takes at least two seconds: two passes of 1 s, then one of 2 s.
    (figure,) = alternate(tasks, replace(SETTINGS, rounds=2, seconds=2), clock)
    assert figure.rounds == (8, 4)


def test_ratios_are_of_the_medians():
    this = Figure("ours", THIS, (90.0, 100.0, 500.0))
    others = [Figure("theirs", PEER, (20.0, 40.0, 41.0)), Figure("floor", LIMIT, (400.0,))]
    comparison = Comparison("a title", "images/s", [this, *others])
    assert [figure["times"] for figure in comparison.to_json()["figures"]] == [1, 2.5, 0.25]
    assert comparison.summary() == ["a title", "100 images/s", "2.50 x theirs; 0.250 x floor"]
    assert str(comparison).splitlines() == [
        "| a title |  | images/s | this project is |",
        "| --- | --- | ---: | --- |",
        "| ours | this project | 100 |  |",
        "| theirs | peer | 40.0 | 2.50 times as fast |",
        "| floor | limit | 400 | 0.250 times as fast |",
    ]
    assert this.scaled(0.5).rounds == (45, 50, 250)


def test_drawn_photographs_have_the_size_of_real_ones(birds):
    def bytes_per_pixel(image: Image.Image) -> float:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        return len(file.getvalue()) / (image.width * image.height)

    taken = sorted(birds.rglob("*.jpg"))[::40]
    expected = statistics.median(bytes_per_pixel(Image.open(path)) for path in taken)
    drawn = [bytes_per_pixel(draw_photograph(seed)) for seed in range(4)]
    assert statistics.median(drawn) == pytest.approx(expected, rel=0.4)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("taken")
    (folder / "deeper").mkdir()
    for seed, name in enumerate(("a: 1.jpg", "deeper/b.PNG", "deeper/c.jpeg")):
        with (folder / name).open("wb") as file:
            image = draw_photograph(seed).resize((40 + seed, 30))
            image.save(file, "PNG" if name.endswith("PNG") else "JPEG")
    (folder / "notes.txt").write_text("no image")
    return find_photographs(folder, 100)


def test_given_photographs_become_a_dataset(tmp_path, photographs):
    assert [path.name for path in photographs] == ["a: 1.jpg", "b.PNG", "c.jpeg"]
    make_dataset(tmp_path, photographs, 9)
    splits = [get_dataset(NAME, split, str(tmp_path)) for split in ("train", "validation")]
    assert [split.num_samples for split in splits] == [4, 4]
    assert [path.resolve() for path in image_files(tmp_path)] == (photographs * 3)[:8]


def test_the_published_loop_writes_the_same_records(tmp_path, photographs):
    def images(files: list[str]) -> list[tuple]:
        found = []
        for file in files:
            for record in tf.io.tf_record_iterator(file):
                feature = tf.train.Example.FromString(record).features.feature
                size = [
                    feature[f"image/{side}"].int64_list.value[0] for side in ("height", "width")
                ]
                (content,) = feature["image/encoded"].bytes_list.value
                found.append((content, *size, len(feature)))
        return sorted(found)

    jpegs = [path for path in photographs if path.suffix != ".PNG"]
    make_dataset(tmp_path, jpegs, 8)
    convert_folder(tmp_path / NAME)
    assert one_at_a_time(image_files(tmp_path), tmp_path) == 8
    shards = [str(path) for path in (tmp_path / NAME).glob("*.tfrecord")]
    assert images([str(tmp_path / "one_at_a_time.tfrecord")]) == images(shards)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no images found"), (b"\xff\xd8\xff no more", "bad.jpg .*; remove it")],
)
def test_unusable_photographs_are_an_error(tmp_path, content, message):
    if content:
        (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(UserError, match=rf"--images.*{message}"):
        find_photographs(tmp_path, 100)


def test_an_unknown_subject_is_an_error():
    done = invoke(command, "--subjects=conversion,evaluate")
    assert done.code == 1
    assert "--subjects=conversion,evaluate: did you mean evaluation" in done.error


def test_a_process_that_is_killed_is_an_error():
    with pytest.raises(BrokenExecutor):
        in_fresh_process(os._exit, 9)


def test_a_failed_subject_does_not_affect_others(tmp_path, monkeypatch, photographs):
    comparison = Comparison("speed", "images/s", [Figure("ours", THIS, (3.0,))])

    def in_process(function, *args):
        if args and args[0] == "conversion":
            raise UserError("the disk is full")
        if args and args[0] == "evaluation":
            raise ZeroDivisionError("a bug")
        return ("Heading", [comparison]) if args else function()

    monkeypatch.setattr(command, "in_fresh_process", in_process)
    done = invoke(
        command,
        "--subjects=conversion,evaluation,similarity",
        f"--images={photographs[0].parent}",
        "--num_images=2",
        f"--json={tmp_path / 'figures.json'}",
    )
    assert done.code == 1
    assert "not measured: conversion, evaluation" in done.error
    assert "| similarity | speed | 3.00 images/s |" in done.output
    assert "the disk is full" in done.error and "ZeroDivisionError" in done.error
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["failed"] == ["conversion", "evaluation"]
    assert list(written["subjects"]) == ["similarity"]


def test_a_json_file_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"--json=.*nowhere/figures.json: No such file"):
        path = tmp_path / "nowhere/figures.json"
        command.write_json(path, {}, SETTINGS, measured={}, failed=[])


def keras_stand_in(input_shape, classes=1000, include_top=True, **_) -> keras.Model:
    """Returns a network of one convolution, with the arguments of `keras.applications`."""
    layers = [
        keras.layers.Input(input_shape),
        keras.layers.Conv2D(8, 3, strides=8),
        keras.layers.GlobalAveragePooling2D(),
    ]
    if include_top:
        layers.append(keras.layers.Dense(classes, "softmax"))
    return keras.Sequential(layers)


@pytest.fixture
def smallest(small_network, tmp_path, photographs, monkeypatch) -> Settings:
    """Settings of passes that take a moment: a small network, small domains, small matrices."""
    monkeypatch.setitem(networks.KERAS_MODELS, small_network, keras_stand_in)
    monkeypatch.setattr(training_step, "SIDE", 64)
    sizes = Sizes(train=30 * MIN_COUNT, validation=1, classes=5)
    monkeypatch.setattr(similarity, "KNOWN", dict.fromkeys(KNOWN, sizes))
    monkeypatch.setattr(linear_classifier, "SMALL", Sizes(train=60, validation=20, classes=5))
    forks = get_context("forkserver")  # has TensorFlow loaded, see tests/support.py
    monkeypatch.setattr(conversion, "other_process", lambda: ProcessPoolExecutor(1, forks))
    make_dataset(tmp_path, [path for path in photographs if path.suffix != ".PNG"], 4)
    return replace(
        SETTINGS,
        folder=tmp_path,
        num_images=4,
        image_size=SMALL_SIZE,
        batch_size=2,
        steps=1,
        rounds=1,
        model_name=small_network,
    )


@pytest.mark.parametrize("subject", command.SUBJECTS)
def test_every_subject_measures_this_project_beside_others(subject, smallest):
    heading, comparisons = measure_subject(subject, smallest)
    assert heading and comparisons
    for comparison in comparisons:
        this, *others = comparison.figures
        assert this.role == THIS and others
        assert {figure.role for figure in others} <= {PEER, LIMIT}
        assert all(0 < figure.value < np.inf for figure in comparison.figures)


def test_training_on_a_gpu(small_network, monkeypatch):
    chosen = [
        gpu.CANDIDATES[0],
        *(c for c in gpu.CANDIDATES if c.kind in LIMITS),
        gpu.CANDIDATES[1],
    ]
    candidates = [candidate._replace(model_name=small_network) for candidate in chosen]
    monkeypatch.setattr(training_step, "SIDE", 64)
    # Other processes on the machine do not affect the comparison.
    monkeypatch.setattr(gpu, "alternate", partial(alternate, clock=time.process_time))
    monkeypatch.setattr(gpu, "CANDIDATES", candidates)
    monkeypatch.setattr(gpu, "in_fresh_process", lambda function, *given: function(*given))
    sizes = ("--batch_size=1", "--image_size=75", "--num_images=2", "--seconds=0")
    done = invoke(gpu, *sizes, "--precisions=float32")
    assert done.code == 0, done.error
    machine, _, *table = done.output.splitlines()[len(candidates) + 1 :]
    assert machine.startswith(f"{THIS_MACHINE}, ")
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]
    assert [(row[0], row[1]) for row in rows] == [(c.name, "float32") for c in candidates]
    rates = [float(row[2].replace(",", "")) for row in rows]
    for row, rate in zip(rows, rates, strict=True):
        assert float(row[5].replace(",", "")) == pytest.approx(rate / rates[0], rel=0.02)
    assert rates[0] < rates[1]  # the step has the convolutions, and more


def test_the_quickest_subject(tmp_path, monkeypatch):
    path = tmp_path / "figures.json"
    monkeypatch.setattr(linear_classifier, "SMALL", Sizes(train=60, validation=20, classes=5))
    monkeypatch.setattr(command, "in_fresh_process", lambda function, *given: function(*given))
    done = invoke(
        command,
        "--quick",
        "--subjects=linear_classifier",
        "--num_images=2",
        "--rounds=1",
        f"--json={path}",
    )
    assert done.code == 0, done.error
    written = json.loads(path.read_text())
    machine = written["machine"]
    assert machine["cores"] == available_cores()
    assert machine["versions"]["tf-slim"] == importlib.metadata.version("tf-slim")
    assert machine["cpu"] in done.output
    assert written["settings"]["num_images"] == 2 and written["failed"] == []

    rows = re.findall(r"\| (.*) \| (?:peer|limit) \| (.*) \| (.*) times as fast \|", done.output)
    shown = {name: [float(n.replace(",", "")) for n in numbers] for name, *numbers in rows}
    (subject,) = written["subjects"].values()
    for comparison in subject["comparisons"]:
        this, *others = comparison["figures"]
        assert this["role"] == THIS and {f["role"] for f in others} <= {PEER, LIMIT}
        for figure in others:
            value, times = shown.pop(figure["name"])
            assert value == pytest.approx(figure["value"], rel=0.01) and value > 0
            assert times == pytest.approx(this["value"] / value, rel=0.02)
    assert not shown
    # Both figures of the fit are the same speed.
    fit, arithmetic = (c["figures"][0] for c in subject["comparisons"])
    iterations = int(re.search(r"(\d+) iterations", fit["name"])[1])
    per_image = 2 * 2 * 512 * 5 * iterations / 1e9
    assert arithmetic["value"] == pytest.approx(fit["value"] * per_image)
