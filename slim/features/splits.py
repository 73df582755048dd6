"""Extraction of one list of a dataset, resumed where an earlier run stopped."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from tqdm import tqdm

from slim.common.files import replacing, write_whole
from slim.features.files import FeatureSplit, RowWriter, Settings, describe


class FeatureExtractor(Protocol):
    """An extractor of features of image files, on this machine or on a cluster."""

    depth: int

    def features(self, paths: Sequence[str]) -> Iterator[np.ndarray]:
        """Yields the features of image files in order, float32 `[any, depth]`."""


def extract_split(split: FeatureSplit, settings: Settings, extractor: FeatureExtractor) -> None:
    """Writes the features and labels of a list, or the rest after an interrupted run.

    Raises:
        UserError: An image cannot be read.
    """
    paths = [str(split.folder / entry.path) for entry in split.image_list.entries]
    # The name has a hash of everything the features depend on, so that an existing file is valid.
    key = hashlib.sha256(describe(split, settings).encode()).hexdigest()[:16]
    part = split.feature_path.with_name(f".{split.feature_path.name}.{key}.part")
    for stale in part.parent.glob(f".{split.feature_path.name}.*.part"):
        if stale != part:
            stale.unlink()
    with (
        RowWriter(part, len(paths), extractor.depth) as writer,
        tqdm(total=len(paths), initial=writer.rows, desc=split.name, unit="images") as progress,
    ):
        for rows in extractor.features(paths[writer.rows :]):
            writer.append(rows)
            progress.update(len(rows))
    with replacing(split.label_path) as temporary, temporary.open("wb") as file:
        np.save(file, np.array([entry.label for entry in split.image_list.entries], np.int32))
    part.replace(split.feature_path)
    write_whole(split.feature_path.with_suffix(".json"), describe(split, settings))
    print(f"{split.feature_path}: {len(paths)} x {extractor.depth}", flush=True)
