"""Domain similarity: the Earth Mover's Distance between prototypes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.spatial.distance import cdist

from benchmarks.measure import LIMIT, PEER, THIS, Comparison, Settings, Task, alternate
from slim.common.command_line import available_cores
from slim.datasets.registry import KNOWN
from slim.transfer.domain_similarity import emd, large_classes, similarity_table
from slim.transfer.prototypes import Prototypes, union

SOURCES = ("ILSVRC2012", "inat2017", "ILSVRC2012+inat2017")
TARGETS = tuple(name for name in KNOWN if name not in SOURCES)
DEPTH, SMALL_DEPTH = 2048, 256  # dimensions of a feature
RANK = 32  # directions with most of the variance


def measure(settings: Settings) -> list[Comparison]:
    """Measures the 21 pairs of the paper, and one pair as published."""
    depth = SMALL_DEPTH if settings.small else DEPTH
    domains = {name: draw_prototypes(name, depth) for name in KNOWN}
    return [measure_table(domains, depth, settings), measure_pair(domains, depth, settings)]


def draw_prototypes(name: str, depth: int) -> Prototypes:
    """Draws a domain of the size of a dataset of the paper, similar to others in a few directions.

    Args:
        name: A dataset of the paper.
        depth: Dimensions of a feature.
    """
    sizes = KNOWN[name]
    random = np.random.default_rng(list(name.encode()))
    directions = np.random.default_rng(0).standard_normal((RANK, depth))
    places = random.standard_normal(RANK) + random.standard_normal((sizes.classes, RANK))
    # Class sizes are similar, except in iNaturalist.
    spread = 1.0 if name == "inat2017" else 0.1
    shares = random.lognormal(sigma=spread, size=sizes.classes)
    counts = np.ceil(sizes.train * shares / shares.sum()).astype(np.int64)
    labels = np.arange(sizes.classes)
    return Prototypes(
        name, np.abs(places @ directions), counts, labels, np.full(sizes.classes, name)
    )


def measure_table(domains: dict[str, Prototypes], depth: int, settings: Settings) -> Comparison:
    """Compares all pairs in parallel with a serial loop and with the distance matrices alone."""
    sources = [
        large_classes(union([domains[part] for part in name.split("+")])) for name in SOURCES
    ]
    pairs = [(source, domains[name]) for source in sources for name in TARGETS]

    def one_by_one() -> int:
        for pair in pairs:
            emd(*pair)
        return len(pairs)

    def table() -> int:
        return similarity_table(domains, SOURCES, TARGETS).emd.size

    def distances() -> int:
        with ThreadPoolExecutor(available_cores()) as pool:
            list(pool.map(lambda pair: cdist(pair[0].features, pair[1].features), pairs))
        return len(pairs)

    tasks = [
        Task("similarity_table", THIS, table),
        Task("one pair after the other", PEER, one_by_one),
        Task("distance matrices alone", LIMIT, distances),
    ]
    title = f"the paper's {len(pairs)} pairs of domains, features of {depth:,}"
    return Comparison(title, "pairs/s", alternate(tasks, settings))


def measure_pair(domains: dict[str, Prototypes], depth: int, settings: Settings) -> Comparison:
    """Compares one pair with the square cost of all classes in the published notebook."""
    import ot  # after slim.transfer, which keeps it from loading TensorFlow

    source, target = domains["ILSVRC2012"], domains["cub_200"]
    features = np.concatenate([source.features, target.features])
    supply = np.concatenate([source.counts / source.counts.sum(), np.zeros(len(target.counts))])
    demand = np.concatenate([np.zeros(len(source.counts)), target.counts / target.counts.sum()])

    def square() -> int:
        ot.emd2(supply, demand, cdist(features, features), numItermax=10**8)
        return 1

    def exact() -> int:
        emd(source, target)
        return 1

    def distances() -> int:
        cdist(source.features, target.features)
        return 1

    sizes = f"{len(source.counts):,} to {len(target.counts):,} classes"
    tasks = [
        Task("emd", THIS, exact),
        Task("POT on the square cost of all classes", PEER, square),
        Task("distance matrix alone", LIMIT, distances),
    ]
    title = f"one pair of domains, {sizes}, features of {depth:,}"
    return Comparison(title, "pairs/s", alternate(tasks, settings))
