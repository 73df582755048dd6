"""Extraction of the lists of datasets, resumed where an earlier run stopped."""

import glob
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np

from slim.common.errors import count, warn
from slim.common.files import replacing, write_whole
from slim.common.progress import progress
from slim.features.files import (
    FeatureSplit,
    RowWriter,
    Settings,
    describe,
    description_path,
    is_described,
    is_extracted,
)

MERGED_ROWS = 4096  # copied at a time


class FeatureExtractor(Protocol):
    """An extractor of features of image files, on this machine or on a cluster."""

    depth: int

    def features(self, paths: Sequence[str]) -> Iterator[np.ndarray]:
        """Yields the features of image files in order, float32 `[any, depth]`."""


def extract_missing(
    splits: Sequence[FeatureSplit],
    settings: Settings,
    make_extractor: Callable[[], AbstractContextManager[FeatureExtractor]],
) -> None:
    """Writes the features and labels of lists unless they exist.

    Args:
        splits: The lists. This process has the lock of the folder of their features.
        settings: All properties that features depend on.
        make_extractor: Called if features are missing.

    Raises:
        UserError: An image cannot be read.
    """
    missing = []
    for split in splits:
        if is_extracted(split, settings):
            has = f"has the {count(len(split.image_list.entries), 'image')}{split.left_out}"
            print(f"nothing to do: {split.feature_path} {has}", flush=True)
        else:
            missing.append(split)
    if missing:
        with make_extractor() as extractor:
            for split in missing:
                extract_split(split, settings, extractor)


def extract_split(split: FeatureSplit, settings: Settings, extractor: FeatureExtractor) -> None:
    """Writes the features and labels of a list, or the rest after an interrupted run."""
    paths = [str(split.folder / entry.path) for entry in split.image_list.entries]
    described = describe(split, settings)
    # The name has a hash of everything the features depend on, so that an existing file is valid.
    key = hashlib.sha256(described.encode()).hexdigest()[:16]
    part = split.feature_path.with_name(f".{split.feature_path.name}.{key}.part")
    if split.feature_path.exists():
        print(f"replacing {split.feature_path}: its settings or its list differ", flush=True)
    with (
        RowWriter(part, len(paths), extractor.depth) as writer,
        progress(split.name, len(paths), " images", initial=writer.rows) as shown,
    ):
        for rows in extractor.features(paths[writer.rows :]):
            writer.append(rows)
            shown.update(len(rows))
    labels = np.array([entry.label for entry in split.image_list.entries], np.int32)
    publish(part, labels, described, (split.feature_path, split.label_path))
    for stale in part.parent.glob(f".{glob.escape(split.feature_path.name)}.*.part"):
        stale.unlink()  # of other settings, whose features would replace these
    size = f"{len(paths)} x {extractor.depth}"
    print(f"{split.feature_path}: {size}{split.left_out}", flush=True)


def merge(parts: Sequence[FeatureSplit], settings: Settings, files: tuple[Path, Path]) -> None:
    """Concatenates the features and labels of lists, unless the files are made of the same.

    Args:
        parts: The lists, in order, whose features exist.
        settings: The settings of their features.
        files: The files of features and labels to write.
    """
    described = json.dumps([json.loads(describe(part, settings)) for part in parts], indent=2)
    if is_described(*files, described):
        return
    arrays = [np.load(part.feature_path, mmap_mode="r") for part in parts]
    num_rows, depth = sum(map(len, arrays)), arrays[0].shape[1]
    temporary = files[0].with_name(f"{files[0].name}.tmp")
    temporary.unlink(missing_ok=True)
    with RowWriter(temporary, num_rows, depth) as writer:
        for array in arrays:
            for start in range(0, len(array), MERGED_ROWS):
                writer.append(array[start : start + MERGED_ROWS])
    labels = np.concatenate([np.load(part.label_path) for part in parts])
    publish(temporary, labels, described, files)
    print(f"{files[0]}: {num_rows} x {depth}", flush=True)


def warn_if_stale(parts: Sequence[FeatureSplit], settings: Settings, merged: Path) -> None:
    """Prints a warning if merged features are not those of the lists."""
    description = description_path(merged)
    if merged.exists() and description.exists():
        made_of = json.loads(description.read_text())
        if any(json.loads(describe(part, settings)) not in made_of for part in parts):
            warn(f"{merged} was merged from other features: --merge_splits makes it again")


def publish(features: Path, labels: np.ndarray, described: str, files: tuple[Path, Path]) -> None:
    """Moves features to their place and writes their labels and their description.

    The features come last and those that they replace go first, so that after a kill at any
    moment no features stand beside the labels or the description of others.

    Args:
        features: The complete file of features.
        labels: Their labels, int32 `[images]`.
        described: Their description.
        files: The files of features and labels to write.
    """
    feature_path, label_path = files
    content = io.BytesIO()
    np.save(content, labels)
    feature_path.unlink(missing_ok=True)
    with replacing(label_path) as temporary:
        temporary.write_bytes(content.getvalue())
    write_whole(description_path(feature_path), described)
    features.replace(feature_path)
