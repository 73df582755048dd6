"""The steps of a transfer study: features, linear classifiers and distances.

A cell is the result for a source and a target. The name of its file contains a hash of everything
the result depends on, and a cell whose file exists is not computed again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from slim.checkpoints.finding import find_checkpoint
from slim.checkpoints.reading import read_shapes
from slim.common.errors import UserError
from slim.common.files import write_whole, writing_to
from slim.features.extractor import Extractor, choose_settings, load_network
from slim.features.feature_files import (
    SPLITS,
    FeatureSplit,
    Settings,
    describe,
    extract_missing,
    feature_files,
    find_split,
    is_extracted,
)
from slim.nets.nets_factory import get_network
from slim.transfer.domain_similarity import emd, large_classes
from slim.transfer.features import load_features
from slim.transfer.linear_classifier import MAX_ITERATIONS, classify
from slim.transfer.prototypes import Prototypes, load_prototypes, side_by_side, union
from slim.transfer.selection import SELECTION

KINDS = {"linear": "linear", "fine_tuned": "fine-tuned", "emd": "EMD"}


@dataclass(frozen=True)
class Cell:
    """A result of the study for a source and a target."""

    kind: str  # a key of KINDS
    source: str
    target: str
    settings: Mapping[str, Any]  # everything the result depends on, as JSON

    @property
    def key(self) -> str:
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}: {KINDS[self.kind]}"


class Cells:
    """The results of a study, in memory and in `<output_dir>/cells`."""

    def __init__(self, output_dir: Path) -> None:
        self._folder = output_dir / "cells"
        self._folder.mkdir(exist_ok=True)
        self.results: dict[tuple[str, str, str], dict[str, Any]] = {}  # by kind, source, target
        self.failures: dict[str, str] = {}  # by the text of the cell

    def find(self, cell: Cell) -> bool:
        """Returns whether a result exists; if so, loads and prints it."""
        path = self._path(cell)
        if path.exists():
            self._store(cell, json.loads(path.read_text())["result"], " (already done)")
        return path.exists()

    def add(self, cell: Cell, result: dict[str, Any]) -> None:
        content = {**asdict(cell), "result": result}
        write_whole(self._path(cell), json.dumps(content, indent=2) + "\n")
        self._store(cell, result)

    def fail(self, cell: Cell, error: UserError) -> None:
        # There is no file, so the next run tries again.
        self.failures[str(cell)] = str(error)
        print(f"{cell} failed: {error}", flush=True)

    def compute(self, cell: Cell, work: Callable[[], dict[str, Any]]) -> None:
        """Computes a result unless it exists; an error does not affect other cells."""
        if not self.find(cell):
            try:
                self.add(cell, work())
            except UserError as error:
                self.fail(cell, error)

    def _path(self, cell: Cell) -> Path:
        return self._folder / f"{cell.kind}-{cell.source}-{cell.target}-{cell.key}.json"

    def _store(self, cell: Cell, result: dict[str, Any], note: str = "") -> None:
        self.results[cell.kind, cell.source, cell.target] = result
        value = f"{result['emd']:.3f}" if cell.kind == "emd" else f"{result['accuracy']:.1%}"
        print(f"{cell} {value}{note}", flush=True)


@dataclass(frozen=True)
class StudySource:
    """A pre-training source and its network, which is loaded when features are missing."""

    name: str
    checkpoint: str  # the prefix
    settings: Settings  # all properties that its features depend on
    folder: Path  # of its features
    batch_size: int

    def feature_settings(self, split: FeatureSplit) -> dict[str, Any]:
        """Returns everything that the features of a split depend on, as JSON."""
        return json.loads(describe(split, self.settings))

    def extract(self, *splits: FeatureSplit) -> None:
        own = [split.within(self.folder) for split in splits]
        if not all(is_extracted(split, self.settings) for split in own):
            with writing_to(self.folder, "feature_dir"):
                extract_missing(own, self.settings, lambda: nullcontext(self._extractor))

    def close(self) -> None:
        if extractor := self.__dict__.pop("_extractor", None):
            extractor.__exit__()

    @cached_property
    def _extractor(self) -> Extractor:
        network = load_network(self.settings, self.checkpoint)
        return Extractor(network, self.settings, self.batch_size)


@dataclass(frozen=True)
class Target:
    name: str
    splits: Mapping[str, FeatureSplit]  # `train` and `val`

    @property
    def num_images(self) -> dict[str, int]:
        return {name: len(split.image_list.entries) for name, split in self.splits.items()}

    @property
    def hashes(self) -> dict[str, str]:
        return {name: split.image_list.sha256 for name, split in self.splits.items()}


def find_sources(values: flags.FlagValues) -> list[StudySource]:
    """Returns the sources, after checking that their checkpoints match their networks."""
    names = values.sources
    paths = values.checkpoints or [f"./checkpoints/{name}" for name in names]
    models = values.model_name or [None]
    models = models * len(names) if len(models) == 1 else models
    sources = []
    for name, path, model in zip(names, paths, models, strict=True):
        # 1. The network, as model.json or the flags describe it.
        checkpoint = find_checkpoint(path, "--checkpoints")
        settings = choose_settings(checkpoint, model_name=model, image_size=values.image_size)
        # 2. A checkpoint of another network would be noticed only when it is loaded.
        scope = get_network(settings.model_name).scope
        if not any(key.startswith(f"{scope}/") for key in read_shapes(checkpoint)):
            raise UserError(
                f"--checkpoints: {checkpoint} has no variable of {settings.model_name} (in "
                f"{scope}/): pass its --model_name, one for all sources or one per source"
            )
        folder = Path(values.feature_dir, name)
        sources.append(StudySource(name, checkpoint, settings, folder, values.batch_size))
    return sources


def find_targets(values: flags.FlagValues) -> list[Target]:
    return [
        Target(
            name, {split: find_split(name, split, values.dataset_dir, Path()) for split in SPLITS}
        )
        for name in values.targets
    ]


def linear_cell(source: StudySource, target: Target) -> Cell:
    features = {name: source.feature_settings(split) for name, split in target.splits.items()}
    classifier = f"logistic regression, L-BFGS, {MAX_ITERATIONS} iterations at most"
    settings = {"features": features, "classifier": classifier}
    return Cell("linear", source.name, target.name, settings)


def fit_classifier(source: StudySource, target: Target) -> dict[str, Any]:
    source.extract(*target.splits.values())
    evaluation = classify(*(load_features(source.folder, target.name, split) for split in SPLITS))
    return {
        "accuracy": evaluation.accuracy,
        "images": int(evaluation.confusion.sum()),
        "iterations": evaluation.iterations,
    }


@dataclass(frozen=True)
class FeatureView:
    """Features of all domains by one network, in a folder."""

    folder: Path

    def feature_settings(self, domain: str) -> dict[str, Any]:
        # Nothing is known of the network, so a distance depends on the file itself.
        paths = [feature_files(self.folder, domain, split)[0] for split in ("train", None)]
        for path in (*paths, self.folder / f"{domain}.npy"):
            if path.exists():
                stat = path.stat()
                return {"bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
        raise UserError(
            f"--similarity_features: no features of {domain} in {self.folder} (expected "
            f"{paths[0].name}): extract them with feature_extraction.py, or pass --nosimilarity"
        )

    def extract(self, domain: str) -> None:
        pass  # feature_settings found them


@dataclass(frozen=True)
class ExtractingView(FeatureView):
    """Features by the network of a source, extracted if missing."""

    source: StudySource
    splits: Mapping[str, FeatureSplit]  # training images by domain

    def feature_settings(self, domain: str) -> dict[str, Any]:
        return self.source.feature_settings(self.splits[domain])

    def extract(self, domain: str) -> None:
        self.source.extract(self.splits[domain])


class Domains:
    """Domains by the concatenated features of several networks."""

    def __init__(self, views: Sequence[FeatureView], min_count: int, *, normalize: bool) -> None:
        self.views, self._min_count, self._normalize = views, min_count, normalize
        self._loaded: dict[str, Prototypes] = {}

    def emd_cell(self, source: str, target: str) -> Cell:
        # A source A+B is the union of A and B.
        settings = {
            role: {part: [v.feature_settings(part) for v in self.views] for part in parts}
            for role, parts in (("source", source.split("+")), ("target", [target]))
        }
        settings["min_count"] = self._min_count
        if self._normalize:  # absent otherwise, so that results of earlier versions are found
            settings["normalize_features"] = True
        return Cell("emd", source, target, settings)

    def find_distance(self, source: str, target: str) -> dict[str, Any]:
        domain = union([self._load(part) for part in source.split("+")])
        large = large_classes(domain, self._min_count)
        return {
            "emd": emd(large, self._load(target)),
            "source_classes": len(large.counts),
            "source_images": int(large.counts.sum()),
        }

    def _load(self, domain: str) -> Prototypes:
        if domain not in self._loaded:
            found = []
            for view in self.views:
                view.extract(domain)
                found.append(load_prototypes(view.folder, domain, normalize=self._normalize))
            self._loaded[domain] = side_by_side(found)
        return self._loaded[domain]


def find_domains(
    sources: Sequence[StudySource], targets: Sequence[Target], values: flags.FlagValues
) -> Domains:
    """Returns the domains, after checking that they exist and are large enough."""
    # 1. The networks that measure similarity. The network of a union or of a selection would count
    #    its sources twice.
    folders = [Path(folder) for folder in values.similarity_features] or [
        source.folder
        for source in sources
        if "+" not in source.name and not Path(values.dataset_dir, source.name, SELECTION).exists()
    ]
    if not folders:
        raise UserError(
            "--similarity_features is missing: all --sources are unions or selections; pass "
            "folders of features by other networks, or --nosimilarity"
        )
    by_folder = {source.folder.resolve(): source for source in sources}
    networks = [by_folder.get(folder.resolve()) for folder in folders]

    # 2. The training images of all domains. Without a network that has to extract features, the
    #    lists of sources may be missing.
    splits = {target.name: target.splits["train"] for target in targets}
    names = sorted({part for source in sources for part in source.name.split("+")} | splits.keys())
    for name in names:
        if name not in splits and (any(networks) or Path(values.dataset_dir, name).is_dir()):
            try:
                splits[name] = find_split(name, "train", values.dataset_dir, Path())
            except UserError as error:
                raise UserError(
                    f"{error}; or pass folders with the features of all domains with "
                    "--similarity_features, or --nosimilarity"
                ) from error

    # 3. Errors are found before the first step of the study.
    views = [
        ExtractingView(folder, network, splits) if network else FeatureView(folder)
        for folder, network in zip(folders, networks, strict=True)
    ]
    for view, name in product(views, names):
        view.feature_settings(name)  # fails if there are no features
    for source in sources:
        parts = source.name.split("+")
        if splits.keys() >= set(parts):
            labels = [[entry.label for entry in splits[part].image_list.entries] for part in parts]
            largest = max(np.bincount(each).max() for each in labels)
            if largest < values.min_count:
                raise UserError(
                    f"--min_count={values.min_count}: no class of {source.name} has that many "
                    f"training images, the largest has {largest}; lower it"
                )
    return Domains(views, values.min_count, normalize=values.normalize_features)
