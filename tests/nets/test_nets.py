"""Every network against the figures measured on the published implementation."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tf_slim.nets

from slim.common.compat import compared_by_identity, slim, tf
from slim.common.errors import UserError
from slim.common.network_table import NETWORKS, NetworkSpec, check_image_size, get_network
from slim.nets.nets_factory import get_network_fn, networks_map
from slim.nets.resnet_v2 import resnet_v2
from slim.preprocessing import inception_preprocessing
from slim.preprocessing.preprocessing_factory import get_preprocessing
from tests.conftest import SHARED, load_recipe_weights
from tests.nets.conftest import feature_maps, few_repeats, plain_session
from tests.support import variable_shapes

NUM_CLASSES = 200
# Figures small enough to be in the repository, so that a clone alone can be tested.
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())
# Of networks whose classifier is fully connected.
DENSE_SCOPES = {"inception_v4": "InceptionV4", "inception_resnet_v2": "InceptionResnetV2"}
FAMILIES = ["inception_v3", "inception_v4", "inception_resnet_v2"]
INCEPTIONS = [name for name, network in NETWORKS.items() if network.has_aux_logits]
# Units of each block in He et al., Deep Residual Learning, Table 1, and Identity Mappings, Table 5.
UNITS = {
    "resnet_v2_50": (3, 4, 6, 3),
    "resnet_v2_101": (3, 4, 23, 3),
    "resnet_v2_152": (3, 8, 36, 3),
    "resnet_v2_200": (3, 24, 36, 3),
}
# Of two networks that differ in their number of units, or in squeeze-and-excitation, one is built
# for training and evaluated at several sizes.
SIBLINGS = ["resnet_v2_101", "resnet_v2_152", "inception_resnet_v2"]


@dataclass(frozen=True)
class Built:
    """A network that tests share, because building one takes seconds.

    `SIBLINGS` are built for evaluation, the others for training. Tests may add to the graph.

    Attributes:
        name: A key of `NETWORKS`.
        graph: The network, with its variables.
        variables: The shapes of the model variables by name, in the order of their creation.
        figures: The values of `training_figures`.
        outputs: Images of 299 pixels, their logits and end points.
    """

    name: str
    graph: tf.Graph
    variables: dict[str, list[int]]
    figures: dict[str, int]
    outputs: tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]

    @cached_property
    def evaluation(self) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """Images of any size, their logits and end points, with the same variables."""
        if self.name in SIBLINGS:
            return self.outputs
        with self.graph.as_default():
            before = len(tf.global_variables())
            images = tf.placeholder(tf.float32, [None, None, None, 3])
            outputs = get_network_fn(self.name, NUM_CLASSES)(images, reuse=True)
            assert len(tf.global_variables()) == before
        return images, *outputs


@pytest.fixture(scope="module")
def built(request) -> Built:
    name = request.param
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.float32, [None, 299, 299, 3])
        network_fn = get_network_fn(name, NUM_CLASSES, 4e-5, is_training=name not in SIBLINGS)
        outputs = network_fn(images)
        variables = {v.op.name: v.shape.as_list() for v in slim.get_model_variables()}
        figures = training_figures(variables, outputs[1])
    return Built(name, graph, variables, figures, (images, *outputs))


def networks(names: Sequence[str]) -> pytest.MarkDecorator:
    """Runs a test on several networks, which are built once per process."""
    return pytest.mark.parametrize("built", names, indirect=True)


def training_figures(
    variables: dict[str, list[int]], end_points: dict[str, tf.Tensor]
) -> dict[str, int]:
    """Returns the published figures of the training graph that is the default graph."""
    trainable = tf.trainable_variables()
    shapes = {name: end_points[name].shape.as_list() for name in sorted(end_points)}
    batches_of_four = {name: [4, *shape[1:]] for name, shape in shapes.items()}
    return {
        "num_variables": len(variables),
        "variables_crc32": crc32([list(item) for item in variables.items()]),
        "trainable_crc32": crc32(sorted(v.op.name for v in trainable)),
        "params": sum(v.shape.num_elements() for v in trainable),
        "n_regularization_losses": len(tf.losses.get_regularization_losses()),
        "n_update_ops": len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)),
        "end_points_crc32": crc32(batches_of_four),
    }


def crc32(value: object) -> int:
    return zlib.crc32(json.dumps(value).encode())


@networks(list(PUBLISHED))
def test_published_figures(built):
    """The training graph, the L2 loss and the logits; more where the reference is present."""
    published, network = PUBLISHED[built.name], get_network(built.name)
    measured = ("regularization_loss", "logits", "logits_std")
    if built.name in SIBLINGS:
        assert built.figures.pop("n_update_ops") == 0
        measured += ("n_update_ops",)
    assert built.figures == {k: value for k, value in published.items() if k not in measured}
    if scope := DENSE_SCOPES.get(built.name):
        assert built.graph.get_operation_by_name(f"{scope}/Logits/Predictions").type == "Softmax"
    with built.graph.as_default(), plain_session() as session:
        load_recipe_weights(session)
        regularization_loss = session.run(tf.losses.get_regularization_loss())
        assert regularization_loss == pytest.approx(published["regularization_loss"], rel=1e-5)

        images, logits, end_points = built.evaluation
        if built.name not in SIBLINGS:
            check_small_sizes(network, session, images, logits, end_points)
        noise = np.random.RandomState(0).uniform(-1, 1, (2, 299, 299, 3)).astype(np.float32)
        found, points = session.run([logits, end_points], {images: noise})
        wanted = np.array(published["logits"])
        atol = 1e-4 * published["logits_std"]
        np.testing.assert_allclose(found[:, : wanted.shape[1]], wanted, atol=atol)

        if not (SHARED / "reference").exists():
            return
        wanted = np.load(SHARED / "reference/logits.npz")[built.name]
        np.testing.assert_allclose(found, wanted, atol=atol)
        share = np.abs(found - wanted).max() / published["logits_std"]
        print(f"{built.name}: logits differ by {share:.1e} of their standard deviation at most")
        reference = json.loads((SHARED / "reference/nets.json").read_text())[built.name]
        for point, (mean, std) in reference["end_points_eval_mean_std"].items():
            assert points[point].mean() == pytest.approx(mean, abs=1e-4 * std), point
            assert points[point].std() == pytest.approx(std, rel=1e-4), point
        # The published Inception-V3 failed to build at 448.
        if built.name not in ("inception_v3", "inception_v3_se", *SIBLINGS):
            points = session.run(end_points, {images: np.zeros((1, 448, 448, 3), np.float32)})
            shapes = {point: list(value.shape) for point, value in points.items()}
            assert shapes == reference["end_points_eval_448"]


def check_small_sizes(
    network: NetworkSpec,
    session: tf.Session,
    images: tf.Tensor,
    logits: tf.Tensor,
    end_points: dict[str, tf.Tensor],
) -> None:
    side = network.smallest_image_size
    last_map = end_points[network.feature_endpoint]
    # One pixel less than the smallest size leaves no position.
    for pixels, positions in ((side, 1), (side - 1, 0))[: 1 + network.has_aux_logits]:
        found = session.run(last_map, {images: np.zeros((1, pixels, pixels, 3))})
        assert found.shape == (1, positions, positions, network.feature_depth)
    # Not square, and beyond the smallest by less than a stride.
    image = np.ones((1, 107, 76, 3), np.float32)
    small, found = session.run([logits, last_map], {images: image})
    assert np.isfinite(small).all() and small.shape == (1, NUM_CLASSES)
    assert found.shape[1:3] == (1 + network.has_aux_logits, 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_classifiers_have_the_variables_of_299_at_every_larger_size(name):
    for sizes in ([(3, 3), (1, 1)], [(17, 17), (8, 8)], [(33, 26), (16, 12)]):
        with tf.Graph().as_default(), feature_maps(name, *sizes, batch=2):
            _, end_points = get_network_fn(name, NUM_CLASSES)(tf.zeros([2, 75, 75, 3]))
            found = {v.op.name: v.shape.as_list() for v in slim.get_model_variables()}
        assert end_points["AuxLogits"].shape == end_points["Logits"].shape == [2, NUM_CLASSES]
        if sizes[0] == (17, 17):
            expected = found
    assert found == expected


@networks(list(PUBLISHED))
def test_features(built):
    network = get_network(built.name)
    _, _, end_points = built.outputs
    assert end_points[network.feature_endpoint].shape[-1] == network.feature_depth
    assert all(name.startswith(f"{network.scope}/") for name in built.variables)


@pytest.mark.parametrize("name", INCEPTIONS)
def test_features_need_no_variable_of_a_classifier(name):
    with tf.Graph().as_default(), feature_maps(name, (3, 4), (1, 2), batch=2):
        net, end_points = get_network_fn(name, None)(tf.zeros([2, 75, 107, 3]))
        assert net.shape == [2, 1, 1, get_network(name).feature_depth]
        assert not {"AuxLogits", "Logits"} & end_points.keys()
        assert not tf.global_variables()


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("resnet")])
def test_resnets_differ_in_their_units_and_gates_alone(name):
    base = name.removesuffix("_se")
    network, row = networks_map[name], get_network(name)
    assert network.func is resnet_v2
    assert network.keywords == {"units": UNITS[base], "scope": name, "se": name != base}
    assert row == replace(get_network("resnet_v2_50"), build=name, scope=name)


def without_gates(name: str, variables: dict[str, list[int]], num_gates: int) -> list[list]:
    """Checks the variables of squeeze-and-excitation; returns the others with the plain scope."""
    base = name.removesuffix("_se")
    scopes = [f"{get_network(name).scope}/" for name in (name, base)]
    found = {name: shape for name, shape in variables.items() if "/SE_block/" in name}
    expected = {}
    for block in {name.partition("/SE_block/")[0] for name in found}:
        channels = found[f"{block}/SE_block/Conv/weights"][2]
        hidden = channels // 16
        expected[f"{block}/SE_block/Conv/weights"] = [1, 1, channels, hidden]
        expected[f"{block}/SE_block/Conv/biases"] = [hidden]
        expected[f"{block}/SE_block/Conv_1/weights"] = [1, 1, hidden, channels]
        expected[f"{block}/SE_block/Conv_1/biases"] = [channels]
    assert found == expected
    assert len(found) == 4 * num_gates
    return [
        [name.replace(*scopes, 1), shape] for name, shape in variables.items() if name not in found
    ]


@networks(["inception_v3_se", "inception_resnet_v2_se"])
def test_squeeze_and_excitation_only_adds_its_own_variables(built):
    num_gates = {"inception_v3_se": 11, "inception_resnet_v2_se": 1 + 10 + 1 + 20 + 1 + 9 + 1}
    rest = without_gates(built.name, built.variables, num_gates[built.name])
    assert crc32(rest) == PUBLISHED[built.name.removesuffix("_se")]["variables_crc32"]


def test_squeeze_and_excitation_of_other_networks_only_adds_its_own_variables():
    rest = without_gates("resnet_v2_50_se", variable_shapes("resnet_v2_50_se", NUM_CLASSES), 16)
    assert crc32(rest) == PUBLISHED["resnet_v2_50"]["variables_crc32"]
    with few_repeats():
        expected, variables = (
            variable_shapes(name, NUM_CLASSES, 299) for name in ("inception_v4", "inception_v4_se")
        )
    # Five blocks follow the stem.
    assert without_gates("inception_v4_se", variables, 5) == [list(v) for v in expected.items()]


@pytest.mark.parametrize("name", NETWORKS)
def test_less_than_the_smallest_size_is_refused(name):
    smallest = get_network(name).smallest_image_size
    with (
        tf.Graph().as_default(),
        pytest.raises(UserError, match=f"too small for {name}, which needs at least {smallest}x"),
    ):
        get_network_fn(name, 5)(tf.zeros([1, smallest, smallest - 1, 3]))
    with pytest.raises(UserError, match="100000x100000 is too large, expected at most 4096x4096"):
        check_image_size(name, 100_000, 100_000)


@networks(["inception_v3", "resnet_v2_50"])
def test_tf_slims_own_network_has_the_same_variables_and_logits(built):
    theirs, arg_scope = {
        "inception_v3": (
            tf_slim.nets.inception_v3.inception_v3,
            tf_slim.nets.inception_v3.inception_v3_arg_scope,
        ),
        "resnet_v2_50": (
            tf_slim.nets.resnet_v2.resnet_v2_50,
            tf_slim.nets.resnet_v2.resnet_arg_scope,
        ),
    }[built.name]
    images, logits, end_points = built.evaluation
    with built.graph.as_default(), plain_session() as session:
        count = len(tf.global_variables())
        with compared_by_identity(), slim.arg_scope(arg_scope()):
            pixels = tf.ensure_shape(images, [1, 299, 330, 3])
            wanted, their_points = theirs(pixels, NUM_CLASSES, is_training=False, reuse=True)
        assert len(tf.global_variables()) == count
        names = [
            {name: point.op.name.partition("/")[2] for name, point in points.items()}
            for points in (end_points, their_points)
        ]
        # Not in tf_slim, or another kind of operation.
        for name in ("AvgPool_1a", "PreLogits", "global_pool", "resnet_v2_50/spatial_squeeze"):
            names[0].pop(name, None), names[1].pop(name, None)
        assert names[0] == names[1]
        load_recipe_weights(session)
        noise = np.random.RandomState(0).uniform(-1, 1, (1, 299, 330, 3))
        wanted = tf.reshape(wanted, [1, NUM_CLASSES])
        found, wanted = session.run([logits, wanted], {images: noise})
    np.testing.assert_allclose(found, wanted, atol=1e-4 * wanted.std())


@pytest.mark.parametrize("name", ["inception_v3", "inception_v3_se"])
def test_depth_multiplier_in_the_name(name):
    network = mock.Mock(side_effect=lambda images, **_: (images, {}))
    with tf.Graph().as_default(), mock.patch.dict(networks_map, {name: network}):
        get_network_fn(f"{name}_035", NUM_CLASSES)(tf.zeros([1, 107, 107, 3]))
    assert network.call_args.kwargs["depth_multiplier"] == 0.35


@pytest.mark.parametrize("name", ["inception_v3_100", "inception_v3_005", "resnet_v2_50_025"])
def test_depth_multiplier_that_no_network_has(name):
    with pytest.raises(UserError, match=f"unknown network '{name}'"):
        get_network(name)


@pytest.mark.parametrize("name", FAMILIES)
def test_fully_convolutional_logits_are_those_of_each_window(name):
    """At stride 2 over 12 x 12 positions, window (1, 2) begins at position (2, 4)."""
    with (
        tf.Graph().as_default(),
        plain_session() as session,
        feature_maps(name, (26, 26), (12, 12), batch=1) as last_map,
    ):
        logits, end_points = get_network_fn(name, NUM_CLASSES)(
            tf.zeros([1, 448, 448, 3]), spatial_squeeze=False, create_aux_logits=False
        )
        assert "AuxLogits" not in end_points
        features = np.random.RandomState(0).uniform(-1, 1, last_map.shape).astype(np.float32)
        session.run(tf.global_variables_initializer())
        found, w, b = session.run([logits, *slim.get_model_variables()], {last_map: features})
    assert found.shape == (1, 3, 3, NUM_CLASSES)
    expected = features[0, 2:10, 4:12].mean((0, 1)) @ w.reshape(-1, NUM_CLASSES) + b
    np.testing.assert_allclose(found[0, 1, 2], expected, atol=1e-5)


def test_every_network_defaults_to_inception_preprocessing():
    for name in [*NETWORKS, "inception_v3_se_050"]:
        assert get_preprocessing(name).func is inception_preprocessing.preprocess_image


def test_unknown_network_names_the_near_ones():
    with pytest.raises(UserError, match=r"unknown network 'inceptionv3'; did you mean"):
        get_network("inceptionv3")
