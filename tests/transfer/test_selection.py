"""Selection of the source classes nearest to a target."""

import numpy as np

from slim.transfer.prototypes import Prototypes
from slim.transfer.selection import compare_selection, select_classes


def line(places, counts, name="line"):
    features = np.array(places, float)[:, None]
    labels = np.arange(len(places))
    return Prototypes(name, features, np.array(counts), labels, np.full(len(places), name))


def test_distance_of_a_class_is_to_the_nearest_prototype():
    target = line([4.2, 11.9, 30], [1, 9, 5])
    chosen = select_classes(line([4, 11, 20], [1] * 3), {"birds": target}, {"birds": 3})
    np.testing.assert_allclose(chosen.distances, [0.2, 0.9, 8.1])


def test_best_k_of_each_target_are_united():
    source = line([0, 1, 2, 10, 11, 12], [1] * 6)
    targets = {"low": line([0.9], [1]), "high": line([12.4], [1]), "higher": line([13], [1])}
    chosen = select_classes(source, targets, {"low": 1, "high": 2, "higher": 1})
    assert chosen.indices.tolist() == [1, 4, 5]
    assert chosen.targets.tolist() == ["low", "high", "high"]
    np.testing.assert_allclose(chosen.distances, [0.1, 1.4, 0.4])
    rows = compare_selection(source, targets, chosen.indices)
    assert [row.target for row in rows] == ["low", "high", "higher"]
    assert rows[1].selected < rows[1].whole and rows[1].selected < rows[1].random
    assert rows == compare_selection(source, targets, chosen.indices)  # the seed is fixed
