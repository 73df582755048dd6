"""Feature files: their names and descriptions, and how they are written, resumed and published.

Nothing here requires TensorFlow.
"""

import glob
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from slim.common.command_line import PRECISIONS
from slim.common.errors import count
from slim.common.files import replacing, write_whole
from slim.common.progress import progress
from slim.datasets.lists import ImageList
from slim.datasets.registry import dataset_folder, read_converted_list, read_dataset_description

SPLITS = ("train", "val")


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
    apply_orientation: bool = False  # to images of datasets that are not converted


# Omitted from descriptions, as in files of earlier versions.
_DEFAULTS = {
    "precision": PRECISIONS[0],
    "preprocessing": "inception",
    "apply_orientation": False,
}


@dataclass(frozen=True)
class FeatureSplit:
    """One list of a dataset, and the files of its features and labels."""

    name: str  # of the dataset and the list, for the progress bar
    folder: Path  # of the dataset, which the paths of the list are relative to
    image_list: ImageList
    feature_path: Path  # receives float32 [images, depth], in the order of the list
    label_path: Path  # receives int32 [images]

    def within(self, folder: Path) -> "FeatureSplit":
        """Returns the split with its files in another folder."""
        feature_path, label_path = folder / self.feature_path.name, folder / self.label_path.name
        return replace(self, feature_path=feature_path, label_path=label_path)


def find_split(name: str, split: str, dataset_dir: str, output_dir: Path) -> FeatureSplit:
    """Returns a list of a dataset, and the files of its features."""
    folder = dataset_folder(name, dataset_dir)
    image_list = read_converted_list(folder, f"{split}.txt")
    return FeatureSplit(
        f"{name} {split}", folder, image_list, *feature_files(output_dir, name, split)
    )


def feature_files(folder: str | Path, dataset: str, split: str | None) -> tuple[Path, Path]:
    """Returns the files of features and labels of a split; None stands for merged splits."""
    ending = f"_{split}" if split else ""
    return tuple(Path(folder, f"{dataset}_{kind}{ending}.npy") for kind in ("feature", "label"))


def description_path(feature_path: Path) -> Path:
    return feature_path.with_suffix(".json")


def hash_checkpoint(checkpoint: str) -> str:
    """Returns the SHA-256 of the index of a checkpoint, which has checksums of all values."""
    index = Path(f"{checkpoint}.index")
    return hashlib.sha256((index if index.exists() else Path(checkpoint)).read_bytes()).hexdigest()


def describe(split: FeatureSplit, settings: Settings) -> str:
    """Returns everything that complete features depend on, as JSON."""
    described = {**asdict(settings), "list_sha256": split.image_list.sha256}
    described["apply_orientation"] = applies_orientation(split, settings)
    for name, default in _DEFAULTS.items():
        if described[name] == default:
            del described[name]
    if split.image_list.skipped_lines:
        described["skipped_lines"] = split.image_list.skipped_lines
    return json.dumps(described, indent=2) + "\n"


def applies_orientation(split: FeatureSplit, settings: Settings) -> bool:
    """Returns whether to turn images: as in the dataset's conversion, otherwise as in training."""
    return (read_dataset_description(split.folder) or settings).apply_orientation


def is_extracted(split: FeatureSplit, settings: Settings) -> bool:
    return is_described((split.feature_path, split.label_path), describe(split, settings))


def is_described(files: tuple[Path, Path], described: str) -> bool:
    description = description_path(files[0])
    return all(path.exists() for path in (*files, description)) and (
        description.read_text() == described
    )


def extract_missing(
    splits: Sequence[FeatureSplit],
    settings: Settings,
    make_extractor: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Writes the features and labels of lists unless they exist, and resumes interrupted ones.

    The caller has the lock of the folder. `make_extractor`, called if features are missing, returns
    a context with an extractor, which has `depth` and `features(paths, apply_orientation)`.
    """
    missing = []
    for split in splits:
        if is_extracted(split, settings):
            images = count(len(split.image_list.entries), "image")
            print(f"nothing to do: {split.feature_path} has the {images}{_skipped(split)}")
        else:
            missing.append(split)
    if not missing:
        return
    with make_extractor() as extractor:
        for split in missing:
            paths = [str(split.folder / entry.path) for entry in split.image_list.entries]
            labels = np.array([entry.label for entry in split.image_list.entries], np.int32)
            described = describe(split, settings)
            if split.feature_path.exists():
                print(f"replacing {split.feature_path}: its settings or its list differ")

            # The features grow in a hidden file. Its name has a hash of everything that they depend
            # on, so that the rows of an existing file are valid.
            key = hashlib.sha256(described.encode()).hexdigest()[:16]
            part = split.feature_path.with_name(f".{split.feature_path.name}.{key}.part")
            with (
                RowWriter(part, len(paths), extractor.depth) as writer,
                progress(split.name, len(paths), " images", initial=writer.rows) as shown,
            ):
                turned = applies_orientation(split, settings)
                for rows in extractor.features(paths[writer.rows :], turned):
                    writer.append(rows)
                    shown.update(len(rows))

            publish(part, labels, described, (split.feature_path, split.label_path))
            for stale in part.parent.glob(f".{glob.escape(split.feature_path.name)}.*.part"):
                stale.unlink()  # of other settings, whose features would replace these
            size = f"{len(paths)} x {extractor.depth}"
            print(f"{split.feature_path}: {size}{_skipped(split)}", flush=True)


def _skipped(split: FeatureSplit) -> str:
    lines = split.image_list.skipped_lines
    return f" (conversion has skipped {count(len(lines), 'line')})" if lines else ""


def publish(features: Path, labels: np.ndarray, described: str, files: tuple[Path, Path]) -> None:
    """Moves complete features to their place and writes their labels and their description."""
    # The features come last and those that they replace go first, so that after a kill at any
    # moment no features are next to the labels or the description of others.
    feature_path, label_path = files
    content = io.BytesIO()
    np.save(content, labels)
    feature_path.unlink(missing_ok=True)
    with replacing(label_path) as temporary:
        temporary.write_bytes(content.getvalue())
    write_whole(description_path(feature_path), described)
    features.replace(feature_path)


class RowWriter:
    """A `.npy` file of `[num_rows, depth]` that grows by rows and resumes after a kill."""

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
