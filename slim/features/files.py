"""Feature files: names, contents, and when they are complete. Nothing here requires TensorFlow."""

import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from slim.common.command_line import PRECISIONS
from slim.common.errors import count
from slim.datasets.lists import ImageList
from slim.datasets.registry import dataset_folder, read_converted_list

SPLITS = ("train", "val")
PUBLISHED_NAMES = {
    "InceptionV3": "inception_v3",
    "InceptionV3SE": "inception_v3_se",
    "InceptionV4": "inception_v4",
    "InceptionResnetV2": "inception_resnet_v2",
    "InceptionResnetV2SE": "inception_resnet_v2_se",
    "ResNet50": "resnet_v2_50",
    "ResNet101": "resnet_v2_101",
    "ResNet152": "resnet_v2_152",
}


@dataclass(frozen=True)
class Settings:
    """All properties that the features of an image depend on."""

    model_name: str
    checkpoint_hash: str
    averages: bool
    endpoint: str
    image_size: int
    precision: str = PRECISIONS[0]
    preprocessing: str = "inception"


# Left out of descriptions, as in files of earlier versions.
_DEFAULTS = {"precision": PRECISIONS[0], "preprocessing": "inception"}


@dataclass(frozen=True)
class FeatureSplit:
    """One list of a dataset, and the files of its features and labels.

    Attributes:
        name: Names of the dataset and the split, for the progress bar.
        folder: The folder of the dataset, which the paths of the list are relative to.
        image_list: Images and labels.
        feature_path: Receives float32 `[images, depth]`, in the order of the list.
        label_path: Receives int32 `[images]`.
    """

    name: str
    folder: Path
    image_list: ImageList
    feature_path: Path
    label_path: Path

    def within(self, folder: Path) -> "FeatureSplit":
        """Returns the split with its files in another folder."""
        feature_path, label_path = folder / self.feature_path.name, folder / self.label_path.name
        return replace(self, feature_path=feature_path, label_path=label_path)

    @property
    def left_out(self) -> str:
        """Says how many lines of the list are left out, if any."""
        lines = count(len(self.image_list.skipped_lines), "line")
        return f" (conversion has skipped {lines})" if self.image_list.skipped_lines else ""


def find_split(name: str, split: str, dataset_dir: str, output_dir: Path) -> FeatureSplit:
    """Returns the list of a split and its files.

    Raises:
        UserError: The dataset or list is missing, or a line is invalid.
    """
    folder = dataset_folder(name, dataset_dir)
    image_list = read_converted_list(folder, f"{split}.txt")
    return FeatureSplit(
        f"{name} {split}",
        folder,
        image_list,
        *feature_files(output_dir, name, split),
    )


def checkpoint_name(path: str) -> str:
    """Returns the name of a checkpoint, or of its folder if the checkpoint is `model.ckpt`."""
    name = Path(path).name.removesuffix(".index").removesuffix(".ckpt")
    if Path(path).is_dir() or not name.startswith("model.ckpt"):
        return name or Path(path).resolve().name
    return Path(path).resolve().parent.name


def hash_checkpoint(checkpoint: str) -> str:
    """Returns the SHA-256 of the index of a checkpoint, which has checksums of all values."""
    index = Path(f"{checkpoint}.index")
    return hashlib.sha256((index if index.exists() else Path(checkpoint)).read_bytes()).hexdigest()


def describe(split: FeatureSplit, settings: Settings) -> str:
    """Returns everything a finished array depends on, as written beside it in JSON."""
    described = {**asdict(settings), "list_sha256": split.image_list.sha256}
    for name, default in _DEFAULTS.items():
        if described[name] == default:
            del described[name]
    if split.image_list.skipped_lines:
        described["skipped_lines"] = split.image_list.skipped_lines
    return json.dumps(described, indent=2) + "\n"


def is_extracted(split: FeatureSplit, settings: Settings) -> bool:
    """Returns whether features with these settings exist."""
    return is_described(split.feature_path, split.label_path, describe(split, settings))


def is_described(feature_path: Path, label_path: Path, described: str) -> bool:
    """Returns whether features and labels exist and have a description."""
    description = description_path(feature_path)
    return (
        feature_path.exists()
        and label_path.exists()
        and description.exists()
        and description.read_text() == described
    )


def description_path(feature_path: Path) -> Path:
    """Returns the file that describes features."""
    return feature_path.with_suffix(".json")


class RowWriter:
    """A `.npy` file that grows by rows and resumes where a killed process stopped.

    Args:
        path: The file; an existing file must have the same shape.
        num_rows: Number of rows when complete.
        depth: Numbers per row.
    """

    def __init__(self, path: Path, num_rows: int, depth: int) -> None:
        header = io.BytesIO()
        description = {"descr": "<f4", "fortran_order": False, "shape": (num_rows, depth)}
        np.lib.format.write_array_header_1_0(header, description)
        self._file = path.open("a+b")
        row_bytes = 4 * depth
        written = self._file.seek(0, os.SEEK_END) - len(header.getvalue())
        # A truncated row or header is written again.
        self.rows = max(0, written // row_bytes)
        if written < 0:
            self._file.truncate(0)
            self._file.write(header.getvalue())
            self._file.flush()
        else:
            self._file.truncate(len(header.getvalue()) + self.rows * row_bytes)

    def append(self, rows: np.ndarray) -> None:
        """Appends rows, float32 `[any, depth]`; a kill afterwards does not lose them."""
        self._file.write(np.ascontiguousarray(rows, "<f4").data)
        self._file.flush()
        self.rows += len(rows)

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def feature_files(folder: str | Path, dataset: str, split: str | None) -> tuple[Path, Path]:
    """Returns the files of features and labels of a split; None stands for merged splits."""
    ending = f"_{split}" if split else ""
    return tuple(Path(folder, f"{dataset}_{kind}{ending}.npy") for kind in ("feature", "label"))
