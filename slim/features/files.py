"""Feature files: names, contents, completeness. Nothing here needs TensorFlow."""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from slim.common.command_line import PRECISIONS
from slim.common.files import replacing
from slim.datasets.lists import ImageList, read_valid_list
from slim.datasets.registry import dataset_folder

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Settings:
    """All that the features of an image depend on."""

    model_name: str
    checkpoint_hash: str
    averages: bool
    endpoint: str
    image_size: int
    precision: str = PRECISIONS[0]


@dataclass(frozen=True)
class FeatureSplit:
    """One list of a dataset, and where its features and labels go.

    Attributes:
        name: Of the dataset and the split, for the progress bar.
        folder: The dataset's folder, which the list's paths are relative to.
        image_list: Images and labels.
        feature_path: Receives float32 `[images, depth]`, in the order of the list.
        label_path: Receives int32 `[images]`.
    """

    name: str
    folder: Path
    image_list: ImageList
    feature_path: Path
    label_path: Path


def find_split(name: str, split: str, dataset_dir: str, output_dir: Path) -> FeatureSplit:
    """Reads a list, each of whose lines must be good.

    Raises:
        UserError: One is not, or there is no such dataset or list.
    """
    folder = dataset_folder(name, dataset_dir)
    path = folder / f"{split}.txt"
    image_list = read_valid_list(path)
    return FeatureSplit(
        f"{name} {split}",
        folder,
        image_list,
        output_dir / f"{name}_feature_{split}.npy",
        output_dir / f"{name}_label_{split}.npy",
    )


def checkpoint_name(path: str) -> str:
    """What to call a checkpoint: its file, or its folder where all files are called alike."""
    name = Path(path).name.removesuffix(".index").removesuffix(".ckpt")
    if Path(path).is_dir() or not name.startswith("model.ckpt"):
        return name or Path(path).resolve().name
    return Path(path).resolve().parent.name


def hash_checkpoint(checkpoint: str) -> str:
    """A hash that changes with a checkpoint's values: of its index, which has their checksums."""
    index = Path(f"{checkpoint}.index")
    return hashlib.sha256((index if index.exists() else Path(checkpoint)).read_bytes()).hexdigest()


def describe(split: FeatureSplit, settings: Settings) -> str:
    """All that a finished array depends on, as it is written beside it."""
    described = {**asdict(settings), "list_sha256": split.image_list.sha256}
    if settings.precision == PRECISIONS[0]:  # as before there was any other
        del described["precision"]
    return json.dumps(described, indent=2) + "\n"


def is_done(split: FeatureSplit, settings: Settings) -> bool:
    """Whether features of these settings are there already, and says so."""
    done = is_extracted(split, settings)
    if done:
        num_images = len(split.image_list.entries)
        print(f"nothing to do: {split.feature_path} has the {num_images} images", flush=True)
    return done


def is_extracted(split: FeatureSplit, settings: Settings) -> bool:
    """Whether features of these settings are there already."""
    description = split.feature_path.with_suffix(".json")
    return (
        split.feature_path.exists()
        and split.label_path.exists()
        and description.exists()
        and description.read_text() == describe(split, settings)
    )


class RowWriter:
    """A `.npy` file that grows by rows, and is gone on with where a killed process left it.

    Args:
        path: The file; one that is there is taken to be of the same shape.
        num_rows: Rows when it is done.
        depth: Numbers in a row.
    """

    def __init__(self, path: Path, num_rows: int, depth: int) -> None:
        header = io.BytesIO()
        description = {"descr": "<f4", "fortran_order": False, "shape": (num_rows, depth)}
        np.lib.format.write_array_header_1_0(header, description)
        self._file = path.open("a+b", buffering=0)
        row_bytes = 4 * depth
        written = self._file.seek(0, os.SEEK_END) - len(header.getvalue())
        # A row that was cut off is written again; so is a header.
        self.rows = max(0, written // row_bytes)
        if written < 0:
            self._file.truncate(0)
            self._file.write(header.getvalue())
        else:
            self._file.truncate(len(header.getvalue()) + self.rows * row_bytes)

    def append(self, rows: np.ndarray) -> None:
        """Writes rows, float32 `[any, depth]`."""
        self._file.write(np.ascontiguousarray(rows, "<f4").data)
        self.rows += len(rows)

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def merge(parts: Sequence[Path], path: Path) -> None:
    """Writes arrays one after the other as one, without holding them in memory."""
    newest = max(part.stat().st_mtime_ns for part in parts)
    if path.exists() and path.stat().st_mtime_ns > newest:
        return
    arrays = [np.load(part, mmap_mode="r") for part in parts]
    shape = (sum(len(array) for array in arrays), *arrays[0].shape[1:])
    with replacing(path) as temporary:
        merged = np.lib.format.open_memmap(temporary, "w+", arrays[0].dtype, shape)
        start = 0
        for array in arrays:
            merged[start : start + len(array)] = array
            start += len(array)
        merged.flush()
    print(f"{path}: {' x '.join(map(str, shape))}", flush=True)
