"""The Earth Mover's Distance: comparison with other solvers, and known properties."""

from functools import partial
from xml.etree import ElementTree

import numpy as np
import ot
import pytest
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from slim.common.errors import UserError
from slim.transfer import domain_similarity as ds
from slim.transfer.domain_similarity import (
    emd,
    flow_table,
    large_classes,
    optimal_flow,
    similarity_table,
)
from slim.transfer.prototypes import Prototypes, union


def draw(num_classes, seed, dimensions=6, name="", least=1):
    random = np.random.default_rng(seed)
    counts = random.integers(least, 60, num_classes)
    features = random.normal(size=(num_classes, dimensions))
    labels = np.arange(num_classes)
    return Prototypes(name, features, counts, labels, np.full(num_classes, name))


def square_formulation(source, target):
    """Returns weights and cost of the published notebook, over all classes of both domains."""
    m, n = len(source.counts), len(target.counts)
    every = np.concatenate([source.features, target.features])
    weights = np.zeros((2, m + n))
    weights[0, :m] = source.counts / source.counts.sum()
    weights[1, m:] = target.counts / target.counts.sum()
    return weights, cdist(every, every)


def solve_linear_program(weights, cost):
    """Returns the least cost of moving the first weights to the second."""
    m, n = cost.shape
    rows = np.kron(np.eye(m), np.ones(n))
    columns = np.kron(np.ones(m), np.eye(n))
    solved = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate(weights))
    assert solved.status == 0
    return solved.fun


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 7), (5, 3), (9, 12)])
def test_equals_a_linear_program(m, n):
    source, target = draw(m, 1), draw(n, 2)
    weights = source.counts / source.counts.sum(), target.counts / target.counts.sum()
    expected = solve_linear_program(weights, cdist(source.features, target.features))
    assert emd(source, target) == pytest.approx(expected, abs=1e-9)


def test_equals_the_published_square_formulation():
    source, target = draw(30, 1), draw(20, 2)
    weights, cost = square_formulation(source, target)
    assert emd(source, target) == pytest.approx(ot.emd2(*weights, cost), abs=1e-9)
    few = draw(4, 1), draw(3, 2)
    assert emd(*few) == pytest.approx(solve_linear_program(*square_formulation(*few)), abs=1e-9)


def test_is_symmetric_and_zero_for_the_same_domain():
    source, target = draw(40, 1), draw(30, 2)
    assert emd(source, target) == pytest.approx(emd(target, source), abs=1e-12)
    assert emd(source, source) == 0
    backwards = source.subset(np.arange(40)[::-1])
    assert emd(source, backwards) == pytest.approx(0, abs=1e-12)


def test_a_shift_costs_its_length():
    domain, shift = draw(50, 1), np.array([3.0, 0, 0, -4, 0, 0])
    shifted = Prototypes("", domain.features + shift, domain.counts, domain.labels, domain.datasets)
    assert emd(domain, shifted) == pytest.approx(5, abs=1e-12)


def test_only_shares_of_counts_matter():
    source, target = draw(10, 1), draw(10, 2)
    tenfold = Prototypes("", source.features, source.counts * 10, source.labels, source.datasets)
    assert emd(tenfold, target) == pytest.approx(emd(source, target), abs=1e-12)


def test_similarity_is_that_of_the_paper():
    source, target = draw(300, 1, least=20), draw(10, 2)
    large = source.subset(source.counts >= 40)
    assert 0 < len(large.counts) < 300
    expected = np.exp(-0.01 * emd(large, target))
    domains = {"source": source, "target": target}
    similarity = partial(similarity_table, domains, ["source"], ["target"])
    assert similarity(min_count=40).similarity == pytest.approx(expected)
    assert similarity(gamma=0.5, min_count=1).similarity < expected
    assert (ds.GAMMA, ds.MIN_COUNT) == (0.01, 200)


def test_a_source_without_large_classes_is_an_error():
    message = r"no class of toys has at least 200 images, the largest of 8 has \d+"
    with pytest.raises(UserError, match=message):
        large_classes(draw(8, 1, name="toys"))


def test_features_of_two_networks_are_an_error():
    with pytest.raises(UserError, match=r"a has features of 6 dimensions, b of 5: extract both"):
        emd(draw(3, 1, name="a"), draw(3, 2, dimensions=5, name="b"))


def test_a_solver_that_stops_early_is_an_error(monkeypatch):
    monkeypatch.setattr(ds, "MAX_ITERATIONS", 1)
    with (
        pytest.warns(UserWarning, match="numItermax"),
        pytest.raises(RuntimeError, match=r"EMD from a to b: .*numItermax"),
    ):
        emd(draw(40, 1, name="a"), draw(40, 2, name="b"))


def test_table_with_a_union():
    domains = {
        name: draw(20, i, name=name) for i, name in enumerate(["inat", "net", "x", "y", "z"])
    }
    sources, targets = ["net", "inat", "net+inat"], ["x", "y", "z"]
    table = similarity_table(domains, sources, targets, min_count=5, num_workers=2)
    assert table.emd.shape == table.similarity.shape == (3, 3)
    both = ds.large_classes(union([domains["net"], domains["inat"]]), 5)
    for column, target in enumerate(targets):
        single = ds.large_classes(domains["inat"], 5)
        assert table.emd[1, column] == pytest.approx(emd(single, domains[target]))
        assert table.emd[2, column] == pytest.approx(emd(both, domains[target]))
    np.testing.assert_allclose(table.similarity, np.exp(-0.01 * table.emd))
    serial = similarity_table(domains, sources, targets, min_count=5, num_workers=1)
    np.testing.assert_allclose(serial.emd, table.emd)
    lines = str(table).splitlines()
    assert lines[0] == "| EMD (similarity) | x | y | z |" and len(lines) == 5
    assert lines[4].startswith(f"| net+inat | {table.emd[2, 0]:.3f} ({table.similarity[2, 0]:.3f})")
    rows = ElementTree.fromstring(table._repr_html_())
    assert [[cell.text for cell in row] for row in rows] == [
        line.strip("| ").split(" | ") for line in lines if "---" not in line
    ]


def test_the_flow_moves_all_mass_at_the_cost_of_the_distance():
    source = union([draw(9, 1, name="inat"), draw(6, 2, name="net")])
    target = draw(7, 3)
    flow = optimal_flow(source, target)
    np.testing.assert_allclose(flow.mass.sum(axis=1), source.counts / source.counts.sum())
    np.testing.assert_allclose(flow.mass.sum(axis=0), target.counts / target.counts.sum())
    np.testing.assert_allclose(flow.distances, cdist(source.features, target.features))
    assert (flow.mass >= 0).all()
    assert (flow.mass * flow.distances).sum() == pytest.approx(emd(source, target))


def test_table_of_the_flow():
    def classes(name, *places):
        count = len(places)
        values = np.array(places, float)[:, np.newaxis]
        return Prototypes(name, values, np.full(count, 10), np.arange(count), np.full(count, name))

    source, target = union([classes("inat", 0, 1), classes("net", 9)]), classes("birds", 1, 1, 7)
    table = flow_table({"birds": optimal_flow(source, target)}, source)
    assert table.rows == [
        ["birds", "inat", "66.7%", "0.500", "0.333"],
        ["birds", "net", "33.3%", "2.000", "0.667"],
    ]


def test_an_unknown_domain_is_an_error():
    domains = {"imagenet": draw(4, 1), "birds": draw(4, 2)}
    with pytest.raises(UserError, match=r"no domain 'imagnet': did you mean imagenet\?"):
        similarity_table(domains, ["birds+imagnet"], ["birds"], min_count=1)
