"""Small datasets, the conversion command, and shards as TensorFlow reads them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
BYTES = ("encoded", "format")
NUMBERS = ("class/label", "height", "width")


class Record(NamedTuple):
    jpeg: bytes
    format: bytes
    label: int
    height: int
    width: int


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth coloured picture that compresses like a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    output = BytesIO()
    image.save(output, kind, **options)
    return output.getvalue()


def read_records(paths: Iterable[str | Path]) -> list[Record]:
    """All records of some shards, read and parsed by TensorFlow."""
    from slim.compat import tf

    records = []
    for path in paths:
        for serialized in tf.io.tf_record_iterator(str(path)):
            features = tf.train.Example.FromString(serialized).features.feature
            assert set(features) == {f"image/{key}" for key in (*BYTES, *NUMBERS)}
            values = [features[f"image/{key}"].bytes_list.value for key in BYTES]
            values += [features[f"image/{key}"].int64_list.value for key in NUMBERS]
            records.append(Record(*(value for (value,) in values)))
    return records


def contents(folder: Path) -> dict[str, bytes]:
    """What a conversion leaves, by file name."""
    kept = [*folder.glob("*.tfrecord"), *folder.glob("dataset.json")]
    return {path.name: path.read_bytes() for path in kept}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Makes a dataset of small JPEG files, labels 0, 1, 2 in turn."""

    def make(name: str = "things", train: int = 12, validation: int = 6) -> Path:
        folder = tmp_path / "data" / name
        (folder / "images").mkdir(parents=True)
        for list_name, indices in (
            ("train.txt", range(train)),
            ("val.txt", range(train, train + validation)),
        ):
            lines = []
            for index in indices:
                path = f"images/{index:04d}.jpg"
                (folder / path).write_bytes(encode(picture(index), quality=85))
                lines.append(f"{path}: {index % 3}\n")
            (folder / list_name).write_text("".join(lines))
        return folder

    return make


def command(folder: Path, *options: str) -> list[str]:
    flags = [f"--dataset_name={folder.name}", f"--dataset_dir={folder.parent}"]
    return [sys.executable, "convert_dataset.py", *flags, *options]


@pytest.fixture
def convert() -> Callable[..., subprocess.CompletedProcess]:
    """Runs the command on a dataset's folder, and checks its exit code."""

    def run(folder: Path, *options: str, code: int = 0) -> subprocess.CompletedProcess:
        done = subprocess.run(
            command(folder, *options), cwd=REPOSITORY, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def add_line(folder: Path, line: str, list_name: str = "train.txt") -> None:
    with (folder / list_name).open("a", encoding="utf-8") as file:
        file.write(line + os.linesep)
