"""The cells of a transfer study: what one pre-training source gives on one target.

A cell's result is a small file, named after a hash of all that it depends on. What is there is not
computed again; what depends on something else has another name.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slim.checkpoints.loading import choose_averages
from slim.checkpoints.reading import find_checkpoint, read_shapes
from slim.common.errors import UserError
from slim.common.files import make_folder, write_whole
from slim.features.extractor import Extractor, load_network
from slim.features.files import (
    PUBLISHED_NAMES,
    SPLITS,
    FeatureSplit,
    Settings,
    describe,
    feature_files,
    find_split,
    hash_checkpoint,
    is_extracted,
)
from slim.features.splits import extract_split
from slim.nets.nets_factory import check_image_size, get_network
from slim.transfer.domain_similarity import emd, large_classes
from slim.transfer.features import load_features
from slim.transfer.linear_classifier import MAX_ITERATIONS, classify
from slim.transfer.prototypes import Prototypes, load_prototypes, side_by_side, union

KINDS = {"linear": "linear", "fine_tuned": "fine-tuned", "emd": "EMD"}


@dataclass(frozen=True)
class Cell:
    """A figure of the study.

    Attributes:
        kind: One of `KINDS`.
        source: The name of what was pre-trained on.
        target: The name of the dataset that it is carried over to.
        settings: All that the result depends on, as JSON has it.
    """

    kind: str
    source: str
    target: str
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """A hash of the settings."""
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}: {KINDS[self.kind]}"


class Cells:
    """The results of cells, in memory and in a folder.

    Attributes:
        results: By kind, source and target.
        failures: What went wrong, by the name of the cell.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.results: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.failures: dict[str, str] = {}
        make_folder(folder, "output_dir")

    def find(self, cell: Cell) -> bool:
        """Whether a cell was done before; says so, and takes its result."""
        path = self._path(cell)
        if not path.exists():
            return False
        self._take(cell, json.loads(path.read_text())["result"], " (done before)")
        return True

    def add(self, cell: Cell, result: dict[str, Any]) -> None:
        """Keeps a result."""
        content = {**asdict(cell), "result": result}
        write_whole(self._path(cell), json.dumps(content, indent=2) + "\n")
        self._take(cell, result)

    def fail(self, cell: Cell, error: UserError) -> None:
        """Notes what went wrong; the next run tries again."""
        self.failures[str(cell)] = str(error)
        print(f"{cell} failed: {error}", flush=True)

    def compute(self, cell: Cell, work: Callable[[], dict[str, Any]]) -> None:
        """Does a cell that was not done before; the other cells do not suffer if it fails."""
        if not self.find(cell):
            try:
                self.add(cell, work())
            except UserError as error:
                self.fail(cell, error)

    def accuracies(self, kind: str) -> dict[tuple[str, str], float]:
        """The accuracies of a kind by source and target."""
        return {
            (source, target): result["accuracy"]
            for (found, source, target), result in self.results.items()
            if found == kind
        }

    def _path(self, cell: Cell) -> Path:
        return self._folder / f"{cell.kind}-{cell.source}-{cell.target}-{cell.key}.json"

    def _take(self, cell: Cell, result: dict[str, Any], note: str = "") -> None:
        self.results[cell.kind, cell.source, cell.target] = result
        value = f"{result['emd']:.3f}" if cell.kind == "emd" else f"{result['accuracy']:.1%}"
        print(f"{cell} {value}{note}", flush=True)


class StudySource:
    """A pre-training source: its network, which is loaded when the first feature is lacking.

    Args:
        name: What the network was trained on.
        checkpoint: The checkpoint's prefix.
        settings: All that its features depend on.
        folder: Where they are kept.
        batch_size: Images a batch.
    """

    def __init__(
        self, name: str, checkpoint: str, settings: Settings, folder: Path, batch_size: int
    ) -> None:
        self.name = name
        self.checkpoint = checkpoint
        self.settings = settings
        self.folder = folder
        self._batch_size = batch_size
        self._extractor: Extractor | None = None

    def describe(self, split: FeatureSplit) -> dict[str, Any]:
        """All that the features of a split depend on."""
        return json.loads(describe(split, self.settings))

    def extract(self, *splits: FeatureSplit) -> None:
        """Writes the features of splits that are not there yet.

        Raises:
            UserError: The network does not fit the checkpoint, or an image cannot be read.
        """
        make_folder(self.folder, "output_dir")
        for split in splits:
            paths = (self.folder / path.name for path in (split.feature_path, split.label_path))
            own = replace(split, **dict(zip(("feature_path", "label_path"), paths, strict=True)))
            if not is_extracted(own, self.settings):
                if self._extractor is None:
                    network = load_network(self.settings, self.checkpoint)
                    self._extractor = Extractor(network, self.settings, self._batch_size)
                extract_split(own, self.settings, self._extractor)

    def close(self) -> None:
        """Gives up the network."""
        if self._extractor is not None:
            self._extractor.__exit__()
            self._extractor = None


def find_source(
    name: str, path: str, model_name: str, image_size: int, folder: Path, batch_size: int
) -> StudySource:
    """A source, its checkpoint checked as far as can be without building the network.

    Args:
        name: What the network was trained on.
        path: A checkpoint, or a folder whose newest one is taken.
        model_name: The network.
        image_size: Height and width in pixels.
        folder: Where features are kept.
        batch_size: Images a batch.

    Raises:
        UserError: There is no checkpoint, or it is of another network.
    """
    model_name = PUBLISHED_NAMES.get(model_name, model_name)
    network = get_network(model_name)
    check_image_size(model_name, image_size, image_size)
    checkpoint = find_checkpoint(path, "--checkpoints")
    if not any(key.startswith(f"{network.scope}/") for key in read_shapes(checkpoint)):
        raise UserError(
            f"--checkpoints: {checkpoint} has no variable of {model_name} (in {network.scope}/): "
            "give its --model_name, one for all sources or one each"
        )
    settings = Settings(
        model_name,
        hash_checkpoint(checkpoint),
        choose_averages(checkpoint, None),
        network.feature_endpoint,
        image_size,
    )
    return StudySource(name, checkpoint, settings, folder, batch_size)


Target = Mapping[str, FeatureSplit]  # `train` and `val` of a dataset


def find_target(name: str, dataset_dir: str) -> Target:
    """The lists of a dataset.

    Raises:
        UserError: There is no such dataset, or a list is missing or has unusable lines.
    """
    return {split: find_split(name, split, dataset_dir, Path()) for split in SPLITS}


def linear_cell(source: StudySource, name: str, target: Target) -> Cell:
    """The cell of a linear classifier on a target's features by a source's network."""
    described = {split: source.describe(target[split]) for split in SPLITS}
    classifier = f"logistic regression, L-BFGS, {MAX_ITERATIONS} iterations at most"
    return Cell("linear", source.name, name, {"features": described, "classifier": classifier})


def fit_linear(source: StudySource, name: str, target: Target) -> dict[str, Any]:
    """The accuracy of a linear classifier, on features that are extracted where they lack.

    Raises:
        UserError: Features cannot be extracted or are damaged, or show one class only.
    """
    source.extract(*target.values())
    evaluation = classify(*(load_features(source.folder, name, split) for split in SPLITS))
    return {
        "accuracy": evaluation.accuracy,
        "images": int(evaluation.confusion.sum()),
        "iterations": evaluation.iterations,
    }


@dataclass(frozen=True)
class FeatureView:
    """How one network sees all domains.

    Attributes:
        folder: Of its features.
        source: Where the network is of a source of the study: it extracts what is lacking.
    """

    folder: Path
    source: StudySource | None


class Domains:
    """Domains as several networks see them side by side.

    Args:
        views: Those networks.
        train_splits: The training images by dataset; of those that only views without a source
            know there need be none.
        min_count: Images that a source class must have.
    """

    def __init__(
        self, views: Sequence[FeatureView], train_splits: Mapping[str, FeatureSplit], min_count: int
    ) -> None:
        self._views = views
        self._train_splits = train_splits
        self._min_count = min_count
        self._loaded: dict[str, Prototypes] = {}

    @property
    def folders(self) -> list[Path]:
        """Of the features that are looked at."""
        return [view.folder for view in self._views]

    def emd_cell(self, source: str, target: str) -> Cell:
        """The cell of the distance between two domains; a source `A+B` is the union of both."""
        described = {
            role: {part: [self._describe(view, part) for view in self._views] for part in parts}
            for role, parts in (("source", source.split("+")), ("target", [target]))
        }
        return Cell("emd", source, target, {**described, "min_count": self._min_count})

    def distance(self, source: str, target: str) -> dict[str, Any]:
        """The Earth Mover's Distance between two domains.

        Raises:
            UserError: Features are missing or damaged, or no source class is large enough.
        """
        domain = union([self._load(part) for part in source.split("+")])
        large = large_classes(domain, self._min_count)
        return {
            "emd": emd(large, self._load(target)),
            "source_classes": len(large.counts),
            "source_images": int(large.counts.sum()),
        }

    def _describe(self, view: FeatureView, name: str) -> Any:
        if view.source:
            return view.source.describe(self._train_splits[name])
        stat = find_domain(view.folder, name).stat()
        return {"bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}

    def _load(self, name: str) -> Prototypes:
        if name not in self._loaded:
            for view in self._views:
                if view.source:
                    view.source.extract(self._train_splits[name])
            seen = [load_prototypes(view.folder, name) for view in self._views]
            self._loaded[name] = side_by_side(seen)
        return self._loaded[name]


def find_domain(folder: Path, name: str) -> Path:
    """The file that `load_prototypes` takes a domain from.

    Raises:
        UserError: There is none.
    """
    files = [feature_files(folder, name, split)[0] for split in ("train", None)]
    files.append(folder / f"{name}.npy")
    for path in files:
        if path.exists():
            return path
    raise UserError(
        f"--similarity_features: no features of {name} in {folder} (expected {files[0].name}): "
        "write them with feature_extraction.py, or leave the domains out with --nosimilarity"
    )
