"""Distances between the sources and targets of a study as domains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from slim.common.errors import UserError
from slim.features.files import FeatureSplit, feature_files, find_split
from slim.transfer.domain_similarity import emd, large_classes
from slim.transfer.prototypes import Prototypes, load_prototypes, side_by_side, union
from slim.transfer.selection import SELECTION
from slim.transfer.study.cells import Cell, Cells
from slim.transfer.study.settings import StudySettings
from slim.transfer.study.sources import StudySource, Target


@dataclass(frozen=True)
class FeatureView:
    """Features of all domains by one network, in a folder."""

    folder: Path

    def feature_settings(self, domain: str) -> dict[str, Any]:
        """Returns everything that the features of a domain depend on, as JSON."""
        paths = [feature_files(self.folder, domain, split)[0] for split in ("train", None)]
        for path in (*paths, self.folder / f"{domain}.npy"):
            if path.exists():
                stat = path.stat()
                return {"bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
        raise UserError(
            f"--similarity_features: no features of {domain} in {self.folder} (expected "
            f"{paths[0].name}): extract them with feature_extraction.py, or give --nosimilarity"
        )

    def load(self, domain: str, *, normalize: bool) -> Prototypes:
        """Loads the prototypes of a domain."""
        return load_prototypes(self.folder, domain, normalize=normalize)


@dataclass(frozen=True)
class ExtractingView(FeatureView):
    """Features by the network of a source, extracted if missing."""

    source: StudySource
    splits: Mapping[str, FeatureSplit]  # training images by domain

    def feature_settings(self, domain: str) -> dict[str, Any]:
        """Returns everything that the features of a domain depend on, as JSON."""
        return self.source.feature_settings(self.splits[domain])

    def load(self, domain: str, *, normalize: bool) -> Prototypes:
        """Loads the prototypes of a domain."""
        self.source.extract(self.splits[domain])
        return super().load(domain, normalize=normalize)


@dataclass(frozen=True, kw_only=True)
class Domains:
    """Sources and targets by the concatenated features of several networks."""

    views: Sequence[FeatureView]
    sources: Sequence[str]  # A+B is the union of A and B
    targets: Sequence[str]
    min_count: int  # training images that a source class must have
    normalize: bool = False  # whether each image's features are scaled to length 1
    _loaded: dict[str, Prototypes] = field(default_factory=dict)

    def emd_cell(self, source: str, target: str) -> Cell:
        """Returns the cell of a distance."""
        features = {
            role: {part: [v.feature_settings(part) for v in self.views] for part in parts}
            for role, parts in (("source", source.split("+")), ("target", [target]))
        }
        settings = {"min_count": self.min_count}
        if self.normalize:  # absent otherwise, so that results of earlier versions are found
            settings["normalize_features"] = True
        return Cell("emd", source, target, {**features, **settings})

    def find_distance(self, source: str, target: str) -> dict[str, Any]:
        """Returns the Earth Mover's Distance between two domains."""
        domain = union([self._load(part) for part in source.split("+")])
        large = large_classes(domain, self.min_count)
        return {
            "emd": emd(large, self._load(target)),
            "source_classes": len(large.counts),
            "source_images": int(large.counts.sum()),
        }

    def _load(self, domain: str) -> Prototypes:
        if domain not in self._loaded:
            views = [view.load(domain, normalize=self.normalize) for view in self.views]
            self._loaded[domain] = side_by_side(views)
        return self._loaded[domain]


def find_domains(
    sources: Sequence[StudySource], targets: Sequence[Target], study: StudySettings
) -> Domains:
    """Returns the domains, after checking that they exist and are large enough.

    Raises:
        UserError: A dataset, a list or features are missing, or no class of a source is large
            enough.
    """
    folders = [Path(folder) for folder in study.similarity_features]
    folders = folders or [source.folder for source in plain_sources(sources, study.dataset_dir)]
    by_folder = {source.folder.resolve(): source for source in sources}
    networks = [by_folder.get(folder.resolve()) for folder in folders]
    parts = {part for source in sources for part in source.name.split("+")}
    splits = {target.name: target.splits["train"] for target in targets}
    names = sorted(parts | splits.keys())
    for name in sorted(parts - splits.keys()):
        if any(networks) or Path(study.dataset_dir, name).is_dir():
            splits[name] = find_training_split(name, study.dataset_dir)
    views = [
        ExtractingView(folder, network, splits) if network else FeatureView(folder)
        for folder, network in zip(folders, networks, strict=True)
    ]
    for view, name in product(views, names):
        view.feature_settings(name)  # fails if there are no features
    for source in sources:
        check_min_count(source.name, splits, study.min_count)
    return Domains(
        views=views,
        sources=[source.name for source in sources],
        targets=[target.name for target in targets],
        min_count=study.min_count,
        normalize=study.normalize_features,
    )


def plain_sources(sources: Sequence[StudySource], dataset_dir: str) -> list[StudySource]:
    """Returns the sources that are neither unions nor selections.

    The network of a union or a selection would count its sources twice.
    """
    plain = [
        source
        for source in sources
        if "+" not in source.name and not Path(dataset_dir, source.name, SELECTION).exists()
    ]
    if not plain:
        raise UserError(
            "--similarity_features is missing: all --sources are unions or selections; give "
            "folders of features by other networks, or --nosimilarity"
        )
    return plain


def find_training_split(name: str, dataset_dir: str) -> FeatureSplit:
    """Returns the training list of a part of a source."""
    try:
        return find_split(name, "train", dataset_dir, Path())
    except UserError as error:
        raise UserError(
            f"{error}; or give folders with the features of all domains with "
            "--similarity_features, or --nosimilarity"
        ) from error


def check_min_count(source: str, splits: Mapping[str, FeatureSplit], min_count: int) -> None:
    """Checks that a source has a class of enough images, if its lists are known."""
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


def measure_distances(cells: Cells, domains: Domains) -> None:
    """Computes the distance of each target from each source."""
    for pair in product(domains.sources, domains.targets):
        cells.compute(domains.emd_cell(*pair), partial(domains.find_distance, *pair))
