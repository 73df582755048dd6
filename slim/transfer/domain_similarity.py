"""Domain similarity by the Earth Mover's Distance (section 4.1 of the paper)."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import ot
from scipy.spatial.distance import cdist

from slim.common.command_line import available_cores
from slim.common.errors import UserError, did_you_mean
from slim.common.progress import progress
from slim.common.tables import Table
from slim.transfer import GAMMA, MIN_COUNT
from slim.transfer.prototypes import Prototypes, check_same_network, union

MAX_ITERATIONS = 10**8  # of the network simplex; about 10**5 are needed at the paper's sizes


def emd(source: Prototypes, target: Prototypes) -> float:
    """Returns the Earth Mover's Distance between two domains.

    It is the least cost of moving the images of the source to the classes of the target,

        min over f >= 0 of  sum_ij f_ij |s_i - t_j|
        where  sum_j f_ij = a_i  and  sum_i f_ij = b_j,

    with prototypes s_i and t_j, Euclidean distances, and class counts a and b normalized to 1. The
    published notebook solves the same problem on a square cost of all source and target classes,
    most of which carry no flow. The rectangular cost has the same solution and is much faster.

    Args:
        source: m classes.
        target: n classes.

    Raises:
        UserError: The domains come from different networks.
        RuntimeError: The solver did not reach the optimum.
    """
    flow = optimal_flow(source, target)
    return float((flow.mass * flow.distances).sum())


class Flow(NamedTuple):
    """The cheapest way to move the mass of m source classes to n target classes."""

    mass: np.ndarray  # [m, n], in all 1
    distances: np.ndarray  # [m, n], between prototypes


def optimal_flow(source: Prototypes, target: Prototypes) -> Flow:
    """Returns the flow f whose cost is the Earth Mover's Distance; `emd` has the formula."""
    check_same_network(source, target)
    # By differences: |s|^2 + |t|^2 - 2st would not give exactly 0 from a domain to itself.
    distances = cdist(source.features, target.features)
    weights = (domain.counts / domain.counts.sum() for domain in (source, target))
    mass, log = ot.emd(*weights, distances, numItermax=MAX_ITERATIONS, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"EMD from {source.name} to {target.name}: {log['warning']}")
    return Flow(mass, distances)


def flow_table(flows: Mapping[str, Flow], source: Prototypes) -> Table:
    """Returns a table of the mass from each source dataset, and of its part of the distance."""
    rows = []
    for target, flow in flows.items():
        for dataset in dict.fromkeys(source.datasets):
            mass, distances = (each[source.datasets == dataset] for each in flow)
            share, cost = mass.sum(), (mass * distances).sum()
            cells = [f"{share:.1%}", f"{cost / share:.3f}", f"{cost:.3f}"]
            rows.append([target, str(dataset), *cells])
    header = ["target", "mass from", "share of the mass", "mean distance", "part of the EMD"]
    return Table(header, rows, numeric=[2, 3, 4])


def large_classes(source: Prototypes, min_count: int = MIN_COUNT) -> Prototypes:
    """Returns the classes with at least `min_count` images; it is an error if there are none."""
    large = source.counts >= min_count
    if not large.any():
        raise UserError(
            f"no class of {source.name or 'the source'} has at least {min_count} images, the "
            f"largest of {len(large)} has {source.counts.max()}: lower min_count"
        )
    return source.subset(large)


@dataclass(frozen=True)
class SimilarityTable:
    """Distances and similarities between S sources and T targets."""

    sources: list[str]
    targets: list[str]
    emd: np.ndarray  # [S, T]
    similarity: np.ndarray  # [S, T], exp(-gamma EMD)

    def nearest_first(self, target: str) -> list[str]:
        """Returns the sources in ascending distance from a target."""
        order = np.argsort(self.emd[:, self.targets.index(target)], kind="stable")
        return [self.sources[row] for row in order]

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> Table:
        rows = [
            [source, *(f"{d:.3f} ({s:.3f})" for d, s in zip(distances, similarities, strict=True))]
            for source, distances, similarities in zip(
                self.sources, self.emd, self.similarity, strict=True
            )
        ]
        return Table(["EMD (similarity)", *self.targets], rows)


def similarity_table(
    domains: Mapping[str, Prototypes],
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    gamma: float = GAMMA,
    min_count: int = MIN_COUNT,
    num_workers: int | None = None,
) -> SimilarityTable:
    """Compares every source with every target, in parallel, with a progress bar.

    Args:
        domains: Prototypes by name.
        sources: Names; `A+B` is the union of A and B, in which each class counts by its images.
        targets: Names.
        gamma: The factor of the distance in the similarity.
        min_count: Images that a source class must have.
        num_workers: Threads; the solver does not hold the interpreter lock. Default: one per core.

    Raises:
        UserError: A name is unknown, no source class is large enough, or networks differ.
    """
    # The large classes of a source are the same for all targets.
    large = {name: large_classes(_find(domains, name), min_count) for name in sources}
    found = {name: _find(domains, name) for name in targets}
    pairs = [(large[source], found[target]) for source in sources for target in targets]
    with ThreadPoolExecutor(num_workers or available_cores()) as pool:
        solved = pool.map(lambda pair: emd(*pair), pairs)
        distances = list(progress("domain similarity", len(pairs), " pairs", items=solved))
    table = np.array(distances).reshape(len(sources), len(targets))
    return SimilarityTable(list(sources), list(targets), table, np.exp(-gamma * table))


def _find(domains: Mapping[str, Prototypes], name: str) -> Prototypes:
    """Returns a domain, or a union of domains, by name."""
    parts = [name] if name in domains else name.split("+")
    for part in parts:
        if part not in domains:
            raise UserError(f"no domain '{part}': {did_you_mean(part, list(domains))}")
    return union([domains[part] for part in parts])
