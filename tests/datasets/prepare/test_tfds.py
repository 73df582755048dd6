"""Preparation of datasets of TensorFlow Datasets, with one that the library builds in the test."""

from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.datasets.conftest import convert, read_records
from tests.datasets.prepare.conftest import prepare, texts

tfds = pytest.importorskip("tensorflow_datasets", reason="TensorFlow Datasets is not installed")

SIZES = {"train": 6, "validation": 2, "test": 3}


class TinyBirds(tfds.core.GeneratorBasedBuilder):
    """Images of one brightness each; odd ones are finches."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=["wren", "finch"]),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, _: object) -> dict[str, Iterator]:
        return {name: self._generate_examples(size) for name, size in SIZES.items()}

    def _generate_examples(self, size: int) -> Iterator[tuple[int, dict]]:
        for index in range(size):
            image = np.full((24, 32, 3), 30 * index, np.uint8)
            yield index, {"image": image, "label": index % 2}


@pytest.fixture(autouse=True)
def tfds_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def test_images_are_those_of_the_library(data):
    output, _ = prepare("--from_tfds=tiny_birds", f"--dataset_dir={data}", "--stats")
    folder = data / "tiny_birds"
    assert f"{folder}: 6 train, 2 validation, 2 classes, " in output
    assert (folder / "classes.txt").read_text() == "0 wren\n1 finch\n"
    convert(folder, "--num_shards=1", "--num_workers=1")
    for name, label in (("train", "train"), ("validation", "validation")):
        expected = tfds.as_numpy(tfds.load("tiny_birds", split=label))
        expected = sorted((int(e["image"].mean().round()), e["label"]) for e in expected)
        records = read_records([folder / f"{name}_00000-of-00001.tfrecord"])
        found = [(np.asarray(Image.open(BytesIO(r.jpeg))).mean().round(), r.label) for r in records]
        assert sorted(found) == expected
    before = texts(folder)
    prepare("--from_tfds=tiny_birds", f"--dataset_dir={data}")
    assert texts(folder) == before


def test_named_splits_and_dataset(data):
    flags = ["--from_tfds=tiny_birds:1.0.0", "--dataset_name=birds", f"--dataset_dir={data}"]
    prepare(*flags, "--tfds_splits=train+validation,test[:2]")
    assert len((data / "birds/train.txt").read_text().splitlines()) == 8
    assert len((data / "birds/val.txt").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--from_tfds=no_such_birds"], "--from_tfds=no_such_birds: TensorFlow Datasets has no"),
        (["--from_tfds=tiny_birds", "--tfds_splits=train,val"], "has no split 'val', but train"),
        (["--from_tfds=tiny_birds", "--tfds_splits=train"], "two splits"),
        (["--from_tfds=tiny_birds", "--dataset_name=cub_200"], "choose another name"),
        (["--from_tfds=tiny_birds", "--from_folders=x"], "--from_tfds excludes --archive_dir"),
    ],
)
def test_errors(flags, message, data):
    _, error = prepare(*flags, f"--dataset_dir={data}", code=1)
    assert message in error
