"""Settings of the notebooks: the paper's if its features are there, otherwise the toy domains'.

Parameters are text, as in environment variables; the empty text stands for the default.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from slim.common.errors import UserError
from slim.common.tables import Table
from slim.datasets.tfrecord import LISTS
from slim.transfer import GAMMA, MIN_COUNT, reproduction
from slim.transfer.features import (
    Features,
    Pictures,
    has_features,
    has_splits,
    load_features,
    load_pictures,
    load_side_by_side,
)

# The networks that were trained on the paper's sources.
PAPER_NETWORKS = {
    "ImageNet": "inception_v3_ILSVRC_299",
    "iNat2017": reproduction.CLASSIFIER_FEATURES,
    "ImageNet+iNat2017": "inception_v3_ILSVRC_iNat_299",
}

# A network, another one, a dataset, and one with classes of different sizes.
PAPER = (
    reproduction.CLASSIFIER_FEATURES,
    PAPER_NETWORKS["ImageNet"],
    reproduction.CLASSIFIER_DATASET,
    "nabirds",
)
TOY = ("toy_inat", "toy_imagenet", "toy_birds", "toy_inat")
TOY_SOURCES = ("toy_imagenet", "toy_inat")
TOY_TARGETS = ("toy_birds", "toy_flowers", "toy_cars")
PAPER_TOP_K = 200
MOST_VALUES = 10**8  # a thousand draws take some minutes
NORMALIZED_GAMMA = 1.0  # spreads the similarities of normalized features over the paper's range


@dataclass(frozen=True, kw_only=True)
class LinearSettings:
    """Settings of `LinearClassifierDemo.ipynb`."""

    origin: str  # where the settings come from, a sentence
    network: Path  # the folder with the features of a network
    other_network: Path | None  # that of a network to compare with
    dataset: str
    long_tailed: str  # a dataset with classes of different sizes
    published: float | None  # accuracy in [0, 1]

    @property
    def networks(self) -> list[Path]:
        return [self.network] + ([self.other_network] if self.other_network else [])

    def table(self) -> Table:
        rows = [
            ["features", str(self.network)],
            ["compared with", str(self.other_network or "-")],
            ["dataset", self.dataset],
            ["dataset for the long tail", self.long_tailed],
        ]
        return Table(["setting", "value"], rows)


@dataclass(frozen=True, kw_only=True)
class DomainSettings:
    """Settings of `DomainSimilarityDemo.ipynb`."""

    origin: str  # where the settings come from, a sentence
    networks: Sequence[Path]  # folders, whose features are concatenated
    normalize: bool  # whether each network's features are scaled to length 1 per image
    files: Mapping[str, str]  # names of feature files by domain
    sources: Sequence[str]
    targets: Sequence[str]
    feature_dir: str
    gamma: float
    min_count: int  # images that a source class must have
    top_k: int | None  # source classes to select per target; None for a tenth
    dataset_dir: str

    @property
    def with_union(self) -> list[str]:
        """The sources, and their union if there are several."""
        union = ["+".join(self.sources)] if len(self.sources) > 1 else []
        return [*self.sources, *union]

    def trained(self, source: str) -> Path:
        """Returns the folder of features by the network that was trained on a source."""
        return Path(self.feature_dir, PAPER_NETWORKS.get(source, source))

    @property
    def is_published(self) -> bool:
        """Whether the features are those of the published distances."""
        names = [network.name for network in self.networks]
        return names == [reproduction.SIMILARITY_FEATURES] and not self.normalize

    def table(self) -> Table:
        scale = "each image's features scaled to length 1" if self.normalize else "as extracted"
        rows = [
            ["features", " next to ".join(map(str, self.networks))],
            ["scale of the features", scale],
            ["sources", ", ".join(self.sources)],
            ["targets", ", ".join(self.targets)],
            ["source classes", f"with at least {self.min_count} training images"],
            ["gamma", f"{self.gamma:g}"],
        ]
        return Table(["setting", "value"], rows)


def linear_settings(
    *,
    feature_dir: str,
    network: str = "",
    other_network: str = "",
    dataset_name: str = "",
    long_tailed: str = "",
) -> LinearSettings:
    """Returns the settings of the notebook on linear classifiers from its parameters."""
    names = (network, other_network, dataset_name, long_tailed)
    # The toy domains are used without features of the paper's, even if their own are missing: the
    # error then says how to make them.
    for default in (PAPER, TOY):
        own, other, dataset, tail = (a or b for a, b in zip(names, default, strict=True))
        folder, other_folder = Path(feature_dir, own), Path(feature_dir, other)
        if has_splits(folder, dataset):
            break
    is_paper = (own, dataset) == (PAPER[0], PAPER[2])
    missing = f"{Path(feature_dir, PAPER[0])} has no features of {PAPER[2]}"
    has_other = other != own and (other_network or has_splits(other_folder, dataset))
    return LinearSettings(
        origin=_origin(any(names), is_paper, missing),
        network=folder,
        other_network=other_folder if has_other else None,
        dataset=dataset,
        long_tailed=tail if long_tailed or has_splits(folder, tail) else dataset,
        published=reproduction.ACCURACY / 100 if is_paper else None,
    )


def domain_settings(
    *,
    feature_dir: str,
    dataset_dir: str,
    networks: str = "",
    sources: str = "",
    targets: str = "",
    normalize_features: str = "",
    gamma: str = "",
    min_count: str = "",
    top_k: str = "",
) -> DomainSettings:
    """Returns the settings of the notebook on domain similarity from its parameters."""
    # 1. The domains, and the networks: own sources are those that their networks are named after.
    paper = Path(feature_dir, reproduction.SIMILARITY_FEATURES)
    is_paper = paper.is_dir()
    names = _words(sources, reproduction.SOURCES if is_paper else TOY_SOURCES)
    goals = _words(targets, reproduction.TARGETS if is_paper else TOY_TARGETS)
    folders = _words(networks, [paper.name] if is_paper and not sources else names)
    # 2. Features of several networks are normalized, so that no network outweighs another.
    normalize = _number("NORMALIZE_FEATURES", normalize_features, len(folders) > 1, 0, most=1)
    return DomainSettings(
        origin=_origin(bool(networks or sources or targets), is_paper, f"{paper} is not there"),
        networks=[Path(feature_dir, folder) for folder in folders],
        normalize=bool(normalize),
        files={name: reproduction.SOURCES.get(name, name) for name in (*names, *goals)},
        sources=names,
        targets=goals,
        feature_dir=feature_dir,
        gamma=_number("GAMMA", gamma, NORMALIZED_GAMMA if normalize else GAMMA, 0.0),
        min_count=_number("MIN_COUNT", min_count, MIN_COUNT if is_paper or sources else 1, 1),
        top_k=_number("TOP_K", top_k, PAPER_TOP_K if is_paper and not sources else None, 1),
        dataset_dir=dataset_dir,
    )


def load_domain_features(settings: DomainSettings) -> dict[str, Features]:
    """Loads the features of all training images by domain, to resample them.

    The result is empty if there are only means, or too many features to resample in minutes.
    """
    files = list(product(settings.networks, settings.files.values()))
    if not all(has_features(*pair) for pair in files):
        return {}
    splits = (load_features(*pair, "train", check_values=False) for pair in files)
    if sum(split.values.size for split in splits) > MOST_VALUES:
        return {}
    return {
        name: load_side_by_side(settings.networks, file, normalize=settings.normalize)
        for name, file in settings.files.items()
    }


def load_domain_pictures(settings: DomainSettings) -> dict[str, Pictures]:
    """Returns the training images of the datasets that have images and features of them."""
    network = settings.networks[0]
    found = {}
    for file in settings.files.values():
        images = Path(settings.dataset_dir, file, LISTS["train"])
        if images.exists() and has_features(network, file):
            labels = load_features(network, file, "train", check_values=False).labels
            found[file] = load_pictures(settings.dataset_dir, file, "train", labels)
    return found


def _origin(is_given: bool, is_paper: bool, missing: str) -> str:
    if is_given:
        return "Own settings."
    return "The paper's setting." if is_paper else f"The toy domains, because {missing}."


def _words(text: str, default: Iterable[str]) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())] or list(default)


def _number(name: str, text: str, default: Any, least: float, *, most: float = math.inf) -> Any:
    """Returns a parameter as a number from `least` to `most`, of the type of `least`."""
    if not (text := str(text)):  # papermill turns numbers into int and float
        return default
    with suppress(ValueError):
        if least <= (number := type(least)(text)) <= most:
            return number
    kind = "a whole number" if isinstance(least, int) else "a number"
    bounds = f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"
    raise UserError(f"{name}={text}: expected {kind}, {bounds}, or nothing")
