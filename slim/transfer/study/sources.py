"""Sources and targets of a study, and linear classifiers on features of targets by sources."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from slim.checkpoints.finding import find_checkpoint
from slim.checkpoints.reading import read_shapes
from slim.common.errors import UserError
from slim.common.files import writing_to
from slim.features.extractor import Extractor, choose_settings, load_network
from slim.features.files import SPLITS, FeatureSplit, Settings, describe, find_split, is_extracted
from slim.features.splits import extract_missing
from slim.nets.nets_factory import get_network
from slim.transfer.features import load_features
from slim.transfer.linear_classifier import MAX_ITERATIONS, classify
from slim.transfer.study.cells import Cell, Cells
from slim.transfer.study.settings import StudySettings


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
        """Writes the features of splits unless they exist.

        Raises:
            UserError: The network does not match the checkpoint, an image cannot be read, or
                another process writes to the folder.
        """
        own = [split.within(self.folder) for split in splits]
        if not all(is_extracted(split, self.settings) for split in own):
            with writing_to(self.folder, "feature_dir"):
                extract_missing(own, self.settings, lambda: nullcontext(self._extractor))

    def close(self) -> None:
        """Unloads the network."""
        if extractor := self.__dict__.pop("_extractor", None):
            extractor.__exit__()

    @cached_property
    def _extractor(self) -> Extractor:
        network = load_network(self.settings, self.checkpoint)
        return Extractor(network, self.settings, self.batch_size)


@dataclass(frozen=True)
class Target:
    """A dataset to transfer to: its name, and its lists `train` and `val`."""

    name: str
    splits: Mapping[str, FeatureSplit]

    @property
    def num_images(self) -> dict[str, int]:
        """The number of images per list."""
        return {name: len(split.image_list.entries) for name, split in self.splits.items()}

    @property
    def hashes(self) -> dict[str, str]:
        """The SHA-256 of each list."""
        return {name: split.image_list.sha256 for name, split in self.splits.items()}


def find_sources(
    names: Sequence[str],
    checkpoints: Sequence[str],
    model_names: Sequence[str],
    *,
    study: StudySettings,
) -> list[StudySource]:
    """Returns the sources, after checking their checkpoints.

    Args:
        names: Names of the sources.
        checkpoints: A checkpoint or folder per source; empty for `./checkpoints/<source>`.
        model_names: The network of all sources, or one per source; empty for the trained ones.
        study: Settings of the study.

    Raises:
        UserError: A checkpoint is missing, or does not match its network.
    """
    paths = checkpoints or [f"./checkpoints/{name}" for name in names]
    models = model_names or [None]
    models = models * len(names) if len(models) == 1 else models
    return [
        find_source(name, path, model, study=study)
        for name, path, model in zip(names, paths, models, strict=True)
    ]


def find_source(
    name: str, path: str, model_name: str | None, *, study: StudySettings
) -> StudySource:
    """Returns a source, see `find_sources`; the network is not built."""
    checkpoint = find_checkpoint(path, "--checkpoints")
    settings = choose_settings(checkpoint, model_name=model_name, image_size=study.image_size)
    scope = get_network(settings.model_name).scope
    if not any(key.startswith(f"{scope}/") for key in read_shapes(checkpoint)):
        raise UserError(
            f"--checkpoints: {checkpoint} has no variable of {settings.model_name} (in {scope}/): "
            "give its --model_name, one for all sources or one per source"
        )
    return StudySource(name, checkpoint, settings, Path(study.feature_dir, name), study.batch_size)


def find_targets(names: Sequence[str], dataset_dir: str) -> list[Target]:
    """Returns the lists of the targets."""
    return [
        Target(name, {split: find_split(name, split, dataset_dir, Path()) for split in SPLITS})
        for name in names
    ]


def fit_classifiers(
    cells: Cells, sources: Sequence[StudySource], targets: Sequence[Target]
) -> None:
    """Fits a linear classifier on the features of each target by each source."""
    for source in sources:
        for target in targets:
            cells.compute(linear_cell(source, target), partial(fit_classifier, source, target))


def linear_cell(source: StudySource, target: Target) -> Cell:
    """Returns the cell of a linear classifier."""
    features = {name: source.feature_settings(split) for name, split in target.splits.items()}
    classifier = f"logistic regression, L-BFGS, {MAX_ITERATIONS} iterations at most"
    settings = {"features": features, "classifier": classifier}
    return Cell("linear", source.name, target.name, settings)


def fit_classifier(source: StudySource, target: Target) -> dict[str, Any]:
    """Returns the result of a linear classifier, after extracting missing features."""
    source.extract(*target.splits.values())
    evaluation = classify(*(load_features(source.folder, target.name, split) for split in SPLITS))
    return {
        "accuracy": evaluation.accuracy,
        "images": int(evaluation.confusion.sum()),
        "iterations": evaluation.iterations,
    }
