"""The sources and targets of a study."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from slim.common.errors import UserError
from slim.features.files import FeatureSplit, find_split
from slim.transfer.selection import SELECTION
from slim.transfer.study.cells import (
    Cells,
    Domains,
    FeatureView,
    StudySource,
    Target,
    find_domain,
    find_source,
    fit_linear,
    linear_cell,
)


def find_sources(
    names: Sequence[str],
    paths: Sequence[str],
    model_names: Sequence[str],
    image_size: int,
    feature_dir: Path,
    batch_size: int,
) -> list[StudySource]:
    """The sources, see `find_source`.

    Raises:
        UserError: A checkpoint is missing or of another network.
    """
    paths = paths or [f"./checkpoints/{name}" for name in names]
    model_names = model_names * len(names) if len(model_names) == 1 else model_names
    return [
        find_source(name, path, model_name, image_size, feature_dir / name, batch_size)
        for name, path, model_name in zip(names, paths, model_names, strict=True)
    ]


def find_feature_views(
    folders: Sequence[str], sources: Sequence[StudySource], dataset_dir: str
) -> list[FeatureView]:
    """Whose features tell what is near: of the folders given, else of the plain sources.

    A network that was trained on parts of several sources would count these twice.

    Raises:
        UserError: No folder is given, and there is no plain source.
    """
    if folders:
        of_folder = {source.folder.resolve(): source for source in sources}
        return [
            FeatureView(Path(folder), of_folder.get(Path(folder).resolve())) for folder in folders
        ]
    plain = [
        source
        for source in sources
        if "+" not in source.name and not Path(dataset_dir, source.name, SELECTION).exists()
    ]
    if not plain:
        raise UserError(
            "--similarity_features is missing: each of --sources is made of others, whose networks "
            "are not here; give folders of features, or --nosimilarity"
        )
    return [FeatureView(source.folder, source) for source in plain]


def find_domains(
    views: Sequence[FeatureView],
    sources: Sequence[StudySource],
    targets: Mapping[str, Target],
    dataset_dir: str,
    min_count: int,
) -> Domains:
    """The domains of sources and targets, checked to be there and large enough.

    Raises:
        UserError: A dataset, a list or a folder's features are missing, or no class of a source has
            so many images.
    """
    parts = {part for source in sources for part in source.name.split("+")}
    splits = {name: target["train"] for name, target in targets.items()}
    extracting = any(view.source for view in views)
    for name in sorted(parts - splits.keys()):
        if extracting or Path(dataset_dir, name).is_dir():
            try:
                splits[name] = find_split(name, "train", dataset_dir, Path())
            except UserError as error:
                raise UserError(
                    f"{error}; or leave the domains out with --nosimilarity, or give folders that "
                    "have the features of all with --similarity_features"
                ) from error
    for view in views:
        for name in sorted(parts | targets.keys()) if not view.source else ():
            find_domain(view.folder, name)
    for source in sources:
        check_min_count(source.name, splits, min_count)
    return Domains(views, splits, min_count)


def check_min_count(source: str, splits: Mapping[str, FeatureSplit], min_count: int) -> None:
    """Refuses a source without a large class, as far as lists tell.

    Raises:
        UserError: No class has so many images.
    """
    parts = source.split("+")
    if not all(part in splits for part in parts):
        return
    largest = max(
        np.bincount([entry.label for entry in splits[part].image_list.entries]).max()
        for part in parts
    )
    if largest < min_count:
        raise UserError(
            f"--min_count={min_count}: no class of {source} has that many training images, the "
            f"largest has {largest}; lower it"
        )


def compute_cells(
    cells: Cells,
    sources: Sequence[StudySource],
    targets: Mapping[str, Target],
    domains: Domains | None,
) -> None:
    """Fits the linear classifiers and computes the distances that were not done before."""
    with ExitStack() as networks:
        for source in sources:
            networks.callback(source.close)
            for name, target in targets.items():
                cell = linear_cell(source, name, target)
                cells.compute(cell, lambda s=source, n=name, t=target: fit_linear(s, n, t))
        for source in sources if domains else ():
            for name in targets:
                cell = domains.emd_cell(source.name, name)
                cells.compute(cell, lambda s=source.name, n=name: domains.distance(s, n))


def describe_settings(
    sources: Sequence[StudySource],
    targets: Mapping[str, Target],
    gamma: float,
    min_count: int,
    domains: Domains | None,
) -> dict[str, Any]:
    """What the study was asked for, as `study.json` has it."""
    return {
        "sources": [
            {"name": source.name, "checkpoint": source.checkpoint, **asdict(source.settings)}
            for source in sources
        ],
        "targets": [
            {
                "name": name,
                "images": {key: len(split.image_list.entries) for key, split in target.items()},
                "list_sha256": {key: split.image_list.sha256 for key, split in target.items()},
            }
            for name, target in targets.items()
        ],
        "similarity_features": [str(folder) for folder in domains.folders] if domains else None,
        "gamma": gamma,
        "min_count": min_count,
    }


def refuse_failures(cells: Cells, output_dir: str) -> None:
    """Ends the command with an error where cells failed.

    Raises:
        UserError: Naming the first one.
    """
    if cells.failures:
        cell, error = next(iter(cells.failures.items()))
        total = len(cells.failures) + len(cells.results)
        raise UserError(
            f"{len(cells.failures)} of {total} cells failed, the first is {cell}: {error}; the "
            f"others are in {output_dir}, and the same command tries again"
        )
