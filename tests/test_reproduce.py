"""The published numbers, from features whose accuracy and distances are known by construction."""

import os
import re
import zipfile
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest

from slim import reproduce
from slim.transfer.domain_similarity import emd
from slim.transfer.prototypes import Prototypes
from slim.transfer.reproduction import DISTANCES, PUBLISHED, TARGETS, emd_as_published
from slim.weights.catalogue import DRIVE_IDS, FEATURES
from tests.loopback import Loopback
from tests.support import Result, invoke

SIMILARITY = "resnet_101_JFT_299"
CUB = "inception_v3_iNat_299/cub_200"
BETWEEN_SOURCES = 40.0  # the distance of the two sources


def draw_classifier_features() -> dict[str, np.ndarray]:
    """Returns features of ten classes, where 101 of 1,000 test images look like another class."""
    arrays = {}
    for split, each, confused in (("train", 20, 0), ("val", 100, 101)):
        labels = np.repeat(np.arange(10, dtype=np.int32), each)
        shown = labels.copy()
        shown[:confused] = (labels[:confused] + 1) % 10
        arrays[f"{CUB}_feature_{split}"] = 10 * np.eye(10, dtype=np.float32)[shown]
        arrays[f"{CUB}_label_{split}"] = labels
    return arrays


def place_class(to_first: float, to_second: float) -> list[float]:
    """Returns the point of the plane that has these distances to the two sources."""
    x = (to_first**2 - to_second**2 + BETWEEN_SOURCES**2) / (2 * BETWEEN_SOURCES)
    return [x, np.sqrt(to_first**2 - x**2)]


def place_target(first: float, second: float, both: float) -> np.ndarray:
    """Returns two classes, of 3 and 1 images, at given distances from the sources and their union.

    A source is a single class of large size, 3/4 of the union and 1/4. Both classes have the first
    distance to the first source. In the union each source serves one class, which costs
    3/4 `first` + 1/4 `to_second[1]`; the exchange costs more, as `to_second[1] < to_second[0]`.
    """
    to_second_1 = 4 * both - 3 * first
    to_second_0 = (4 * second - to_second_1) / 3
    assert to_second_1 < to_second_0
    return np.array([place_class(first, to_second_0), place_class(first, to_second_1)])


def draw_domains() -> dict[str, np.ndarray]:
    """Returns domains with the published distances."""
    small = [-500.0, 0.0]  # a class of fewer than 200 images
    arrays = {
        f"{SIMILARITY}/ImageNet_train": np.array([[0.0, 0.0], small], np.float32),
        f"{SIMILARITY}/ImageNet_train_weight": np.array([600, 199], np.float32),
        f"{SIMILARITY}/inat_train": np.array([small, [BETWEEN_SOURCES, 0.0]], np.float32),
        f"{SIMILARITY}/inat_train_weight": np.array([150, 200], np.float32),
    }
    for target, distances in zip(TARGETS, zip(*DISTANCES.values(), strict=True), strict=True):
        classes = place_target(*distances).astype(np.float32)
        if target == "cub_200":  # features of images, whose means are the classes
            labels = np.array([0, 1, 0, 0], np.int32)
            offsets = np.array([[1, 0], [0, 0], [-3, 1], [2, -1]], np.float32)
            arrays[f"{SIMILARITY}/{target}_feature"] = classes[labels] + offsets
            arrays[f"{SIMILARITY}/{target}_label"] = labels
        else:
            arrays[f"{SIMILARITY}/{target}"] = classes
            arrays[f"{SIMILARITY}/{target}_weight"] = np.array([3, 1], np.float32)
    return arrays


def pack(arrays: dict[str, np.ndarray], **others: bytes) -> bytes:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"feature/{name}.npy", "w") as file:
                np.save(file, array)
        for name, content in others.items():
            archive.writestr(f"feature/{name}", content)
    return packed.getvalue()


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return draw_classifier_features() | draw_domains()


@pytest.fixture
def drive() -> Iterator[Loopback]:
    with Loopback() as drive:
        yield drive


@pytest.fixture
def run(drive, tmp_path):
    def run() -> Result:
        address = f"--address={drive.address}/{{id}}"
        return invoke(reproduce, f"--feature_dir={tmp_path}", address)

    return run


def read_table(result: Result) -> dict[str, list[str]]:
    """Returns the cells after the first one by the name of the number."""
    rows = [
        re.split(r" *\| *", line)[1:-1] for line in result.output.splitlines() if line[0] == "|"
    ]
    header = ["number", "published", "here", "difference", "rounded as published", "agrees"]
    assert rows[0] == header
    assert list(dict.fromkeys(row[0] for row in rows[2:])) == [p.name for p in PUBLISHED]
    return {row[0]: row[1:] for row in rows[2:]}


def test_the_published_numbers():
    values = {number.name: (number.value, number.digits) for number in PUBLISHED}
    assert len(PUBLISHED) == len(values) == 22
    assert values.pop("accuracy on CUB-200-2011 (%)") == (89.9, 1)
    assert values["EMD from ImageNet to CUB-200-2011"] == (57.532, 3)
    assert values["EMD from iNat2017 to NABirds"] == (37.703, 3)
    assert values["EMD from ImageNet + iNat2017 to Food-101"] == (58.395, 3)
    assert list(values) == [
        f"EMD from {source} to {target}"
        for source in ("ImageNet", "iNat2017", "ImageNet + iNat2017")
        for target in (
            "CUB-200-2011",
            "Flower-102",
            "Stanford Cars",
            "Stanford Dogs",
            "Aircraft",
            "NABirds",
            "Food-101",
        )
    ]


def test_fetches_the_features_and_agrees(run, drive, arrays, tmp_path):
    drive.files[DRIVE_IDS[FEATURES]] = pack(arrays)
    result = run()
    assert result.code == 0, result.error
    for number, cells in zip(PUBLISHED, read_table(result).values(), strict=True):
        value = f"{number.value:.{number.digits}f}"
        assert cells[:2] == [value, value] and float(cells[2]) == 0
        assert cells[3:] == [value, "yes"]
    assert (tmp_path / f"{CUB}_feature_val.npy").exists()

    drive.requests.clear()
    assert run().code == 0
    assert drive.requests == []


def test_takes_features_that_are_there(run, drive, arrays, tmp_path):
    for name, array in arrays.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", array)
    assert run()[::2] == (0, "")
    assert drive.requests == []


def test_names_what_disagrees(run, drive, arrays):
    arrays[f"{SIMILARITY}/aircraft"][1] += 0.01
    arrays[f"{CUB}_label_val"][-2:] = 0  # two more of 1,000 are wrong
    drive.files[DRIVE_IDS[FEATURES]] = pack(arrays)
    result = run()
    assert result.code == 1
    assert result.error.endswith("\nerror: 4 of 22 numbers disagree\n")
    table = read_table(result)
    assert {name for name, cells in table.items() if cells[-1] == "no"} == {
        "accuracy on CUB-200-2011 (%)",
        *(f"EMD from {s} to Aircraft" for s in ("ImageNet", "iNat2017", "ImageNet + iNat2017")),
    }
    assert table["accuracy on CUB-200-2011 (%)"] == ["89.9", "89.7", "-0.2", "89.7", "no"]
    classes = arrays[f"{SIMILARITY}/aircraft"]
    moved = np.average(np.linalg.norm(classes, axis=1), weights=[3, 1])
    cells = table["EMD from ImageNet to Aircraft"]
    assert float(cells[1]) == pytest.approx(moved, abs=0.0005)
    assert float(cells[2]) == pytest.approx(moved - 58.717, abs=0.001) and cells[2][0] in "+-"


def test_the_accuracy_agrees_within_a_digit(run, drive, arrays):
    arrays[f"{CUB}_label_val"][-1] = 0  # one more of 1,000 is wrong: 89.8 %
    drive.files[DRIVE_IDS[FEATURES]] = pack(arrays)
    result = run()
    assert result.code == 0
    assert read_table(result)[PUBLISHED[0].name] == ["89.9", "89.8", "-0.1", "89.8", "yes"]


def test_names_missing_features(run, drive, arrays):
    for name in (f"{CUB}_label_val", f"{SIMILARITY}/inat_train", f"{SIMILARITY}/nabirds_weight"):
        del arrays[name]
    drive.files[DRIVE_IDS[FEATURES]] = pack(arrays)
    result = run()
    assert result.code == 1
    lines = result.error.splitlines()
    assert lines[-1].startswith("error: 16 of 22 numbers were not computed, --feature_dir=")
    assert lines[-1].endswith(
        f" lacks the features {CUB}, {SIMILARITY}/inat_train, {SIMILARITY}/nabirds"
    )
    for name, cells in read_table(result).items():
        if name.startswith("EMD from ImageNet to ") and not name.endswith("NABirds"):
            assert cells[-1] == "yes"
        else:
            assert cells[1:] == ["missing", "", "", "no"]


def test_an_interrupted_download_is_resumed(run, drive, arrays, tmp_path):
    drive.files[DRIVE_IDS[FEATURES]] = pack(arrays, notes=os.urandom(1_500_000))
    drive.stops_after = 1_200_000
    result = run()
    assert result.code == 1
    warning, error = result.error.splitlines()[-2:]
    assert warning.startswith("warning: feature: cannot be fetched (")
    assert error.startswith("error: 22 of 22 numbers were not computed")
    assert all(cells[1] == "missing" for cells in read_table(result).values())
    (part,) = tmp_path.iterdir()
    have = part.stat().st_size

    drive.stops_after = None
    assert run().code == 0
    assert drive.requests[-1] == (f"/{DRIVE_IDS[FEATURES]}", f"bytes={have}-")


def test_other_features_are_kept_and_used(run, drive, arrays, tmp_path):
    drive.files[DRIVE_IDS[FEATURES]] = pack(arrays)
    other = tmp_path / f"{SIMILARITY}/food_101.npy"
    other.parent.mkdir()
    np.save(other, np.zeros((2, 2), np.float32))
    content = other.read_bytes()
    result = run()
    assert result.code == 1
    assert f"{other}: move them away" in result.error
    assert other.read_bytes() == content
    assert list(other.parent.iterdir()) == [other]


def test_a_damaged_file_is_one_line(run, arrays, tmp_path):
    for name, array in arrays.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", array)
    damaged = tmp_path / f"{SIMILARITY}/inat_train.npy"
    damaged.write_bytes(b"")
    result = run()
    assert result.code == 1
    assert result.error.startswith(f"error: {damaged} cannot be read as an array")
    assert result.error.count("\n") == 1


def make_domain(features: np.ndarray, counts: np.ndarray) -> Prototypes:
    labels = np.arange(len(counts))
    return Prototypes("", features, counts, labels, np.full(len(counts), ""))


@pytest.mark.parametrize("swap", [False, True])
def test_a_surplus_of_rounded_weights_is_left_where_it_costs_most(swap):
    """1,500 equal classes weigh 667 millionths each, 500 more than a million in sum."""
    places = np.random.default_rng(0).uniform(0, 100, 1500)
    many = make_domain(places[:, np.newaxis], np.full(1500, 300))
    one = make_domain(np.zeros((1, 1)), np.array([40]))
    pair = (one, many) if swap else (many, one)
    assert emd(*pair) == pytest.approx(places.mean())
    expected = (667 * places.sum() - 500 * places.max()) / 10**6
    assert emd_as_published(*pair) == pytest.approx(expected, abs=1e-9)
    assert abs(expected - places.mean()) > 0.01


def test_weights_of_whole_millionths_change_nothing():
    random = np.random.default_rng(0)
    source = make_domain(random.normal(size=(8, 3)), np.full(8, 250))
    target = make_domain(random.normal(size=(5, 3)), np.array([10, 20, 30, 25, 15]))
    assert emd_as_published(source, target) == pytest.approx(emd(source, target), abs=1e-12)


def test_rounding_is_that_of_pyemd():
    """The expected value is from pyemd 1.0.0, on the square cost of the published notebook."""
    random = np.random.RandomState(0)
    source = make_domain(20 * random.normal(size=(600, 8)), np.full(600, 1300))
    target = make_domain(20 * random.normal(size=(30, 8)), random.randint(10, 60, 30))
    pyemd = 47.409774
    assert emd_as_published(source, target) == pytest.approx(pyemd, abs=1e-5)
    assert abs(emd(source, target) - pyemd) > 0.005
