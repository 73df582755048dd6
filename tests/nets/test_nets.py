"""Every network against the figures measured on the published implementation."""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tf_slim.nets

from slim.common.compat import compared_by_identity, slim, tf
from slim.common.errors import UserError
from slim.common.network_table import NETWORKS, check_image_size, get_network
from slim.nets.nets_factory import arg_scopes_map, get_network_fn, networks_map
from slim.preprocessing import inception_preprocessing
from slim.preprocessing.preprocessing_factory import get_preprocessing
from tests.conftest import SHARED, load_recipe_weights
from tests.nets.conftest import plain_session

NUM_CLASSES = 200
# Figures small enough to be in the repository, so that a clone alone can be tested.
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())
# Of networks whose classifier is fully connected.
DENSE_SCOPES = {"inception_v4": "InceptionV4", "inception_resnet_v2": "InceptionResnetV2"}
FAMILIES = ["inception_v3", "inception_v4", "inception_resnet_v2"]


@dataclass(frozen=True)
class Built:
    """A network that tests share, because building one takes seconds.

    Published networks are built for training, the others for evaluation. Tests may add to the
    graph.

    Attributes:
        name: A key of `NETWORKS`.
        graph: The network, with its variables.
        variables: The shapes of the model variables by name, in the order of their creation.
        figures: The values of `training_figures`.
    """

    name: str
    graph: tf.Graph
    variables: dict[str, list[int]]
    figures: dict[str, int]


@pytest.fixture(scope="module")
def built(request) -> Iterator[Built]:
    name = request.param
    with tf.Graph().as_default() as graph:
        network_fn = get_network_fn(name, NUM_CLASSES, 4e-5, is_training=name in PUBLISHED)
        _, end_points = network_fn(tf.zeros([4, 299, 299, 3]))
        variables = {v.op.name: v.shape.as_list() for v in slim.get_model_variables()}
        figures = training_figures(variables, end_points)
    yield Built(name, graph, variables, figures)


def networks(names: Sequence[str]) -> pytest.MarkDecorator:
    """Runs a test on several networks, which are built once per process."""
    return pytest.mark.parametrize("built", names, indirect=True)


def training_figures(
    variables: dict[str, list[int]], end_points: dict[str, tf.Tensor]
) -> dict[str, int]:
    """Returns the published figures of the training graph that is the default graph."""
    trainable = tf.trainable_variables()
    return {
        "num_variables": len(variables),
        "variables_crc32": crc32([list(item) for item in variables.items()]),
        "trainable_crc32": crc32(sorted(v.op.name for v in trainable)),
        "params": sum(v.shape.num_elements() for v in trainable),
        "n_regularization_losses": len(tf.losses.get_regularization_losses()),
        "n_update_ops": len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)),
        "end_points_crc32": crc32({k: end_points[k].shape.as_list() for k in sorted(end_points)}),
    }


def crc32(value: object) -> int:
    return zlib.crc32(json.dumps(value).encode())


@networks(list(PUBLISHED))
def test_published_figures(built):
    """The training graph, the L2 loss and the logits; more where the reference is present."""
    published = PUBLISHED[built.name]
    measured = ("regularization_loss", "logits", "logits_std")
    assert built.figures == {k: value for k, value in published.items() if k not in measured}
    if scope := DENSE_SCOPES.get(built.name):
        assert built.graph.get_operation_by_name(f"{scope}/Logits/Predictions").type == "Softmax"
    with built.graph.as_default(), plain_session() as session:
        load_recipe_weights(session)
        regularization_loss = session.run(tf.losses.get_regularization_loss())
        assert regularization_loss == pytest.approx(published["regularization_loss"], rel=1e-5)

        images = tf.placeholder(tf.float32, [None, None, None, 3])
        logits, end_points = get_network_fn(built.name, NUM_CLASSES)(images, reuse=True)
        # Not square, and beyond the smallest by less than a stride.
        small = session.run(logits, {images: np.ones((1, 107, 76, 3), np.float32)})
        assert np.isfinite(small).all() and small.shape == (1, NUM_CLASSES)
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
        if built.name not in ("inception_v3", "inception_v3_se"):  # which failed to build at 448
            points = session.run(end_points, {images: np.zeros((1, 448, 448, 3), np.float32)})
            shapes = {point: list(value.shape) for point, value in points.items()}
            assert shapes == reference["end_points_eval_448"]


@networks(FAMILIES)
def test_variables_are_those_of_299_at_every_larger_size(built):
    with built.graph.as_default():
        # Reuse is an error where a shape differs.
        _, end_points = get_network_fn(built.name, NUM_CLASSES)(
            tf.zeros([1, 560, 448, 3]), reuse=True
        )
    assert end_points["AuxLogits"].shape == end_points["Logits"].shape == [1, NUM_CLASSES]


@networks(list(NETWORKS))
def test_features(built):
    network = get_network(built.name)
    size = network.smallest_image_size
    asked = set()

    def record(getter, name, *args, **kwargs):
        asked.add(name)
        return getter(name, *args, **kwargs)

    with built.graph.as_default(), tf.variable_scope("", custom_getter=record):
        net, end_points = get_network_fn(built.name, None)(tf.zeros([2, size, size, 3]), reuse=True)
    features = end_points[network.feature_endpoint]
    assert net.shape == features.shape == [2, 1, 1, network.feature_depth]
    assert all(name.startswith(f"{network.scope}/") for name in built.variables)
    assert asked == {name for name in built.variables if "logits/" not in name.lower()}


@networks([name for name in NETWORKS if name.endswith("_se")])
def test_squeeze_and_excitation_only_adds_its_own_variables(built):
    base = built.name.removesuffix("_se")
    scopes = [f"{get_network(name).scope}/" for name in (built.name, base)]
    rest = [
        [name.replace(*scopes, 1), shape]
        for name, shape in built.variables.items()
        if "/SE_block/" not in name
    ]
    assert crc32(rest) == PUBLISHED[base]["variables_crc32"]
    found = {name: shape for name, shape in built.variables.items() if "/SE_block/" in name}
    expected = {}
    for block in {name.partition("/SE_block/")[0] for name in found}:
        channels = found[f"{block}/SE_block/Conv/weights"][2]
        hidden = channels // 16
        expected[f"{block}/SE_block/Conv/weights"] = [1, 1, channels, hidden]
        expected[f"{block}/SE_block/Conv/biases"] = [hidden]
        expected[f"{block}/SE_block/Conv_1/weights"] = [1, 1, hidden, channels]
        expected[f"{block}/SE_block/Conv_1/biases"] = [channels]
    assert found == expected
    num_blocks = {
        "inception_v3_se": 11,
        "inception_v4_se": 4 + 1 + 7 + 1 + 3,
        "inception_resnet_v2_se": 1 + 10 + 1 + 20 + 1 + 9 + 1,
        "resnet_v2_50_se": 16,
        "resnet_v2_101_se": 33,
        "resnet_v2_152_se": 50,
    }
    assert len(found) == 4 * num_blocks[built.name]


@networks(FAMILIES)
def test_less_than_the_smallest_size_leaves_no_position(built):
    network = get_network(built.name)
    too_small = network.smallest_image_size - 1
    with (
        built.graph.as_default(),
        compared_by_identity(),
        slim.arg_scope(arg_scopes_map[built.name]()),
        pytest.raises(ValueError, match="Negative dimension size"),
    ):
        networks_map[built.name](tf.zeros([1, too_small, too_small, 3]), None, reuse=True)


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
    with built.graph.as_default(), plain_session() as session:
        images = tf.random.stateless_uniform([1, 299, 330, 3], [1, 2], -1, 1)
        logits, _ = get_network_fn(built.name, NUM_CLASSES)(images, reuse=True)
        count = len(tf.global_variables())
        with compared_by_identity(), slim.arg_scope(arg_scope()):
            wanted, _ = theirs(images, NUM_CLASSES, is_training=False, reuse=True)
        assert len(tf.global_variables()) == count
        load_recipe_weights(session)
        found, wanted = session.run([logits, tf.reshape(wanted, [1, NUM_CLASSES])])
    np.testing.assert_allclose(found, wanted, atol=1e-4 * wanted.std())


def test_depth_multiplier_in_the_name_is_that_of_tf_slim():
    name = "inception_v3_035"
    shapes, depths = {}, []
    for theirs in (False, True):
        with tf.Graph().as_default(), compared_by_identity():
            images = tf.zeros([1, 107, 107, 3])
            if theirs:
                network = tf_slim.nets.inception_v3
                with slim.arg_scope(network.inception_v3_arg_scope()):
                    # Its classifier needs 299 pixels.
                    net, _ = network.inception_v3_base(images, depth_multiplier=0.35)
            else:
                _, end_points = get_network_fn(name, NUM_CLASSES)(images, create_aux_logits=False)
                net = end_points[get_network(name).feature_endpoint]
            depths.append(net.shape[-1])
            shapes[theirs] = {
                v.op.name.removeprefix("InceptionV3/"): v.shape.as_list()
                for v in slim.get_model_variables()
                if "Logits" not in v.op.name
            }
    assert shapes[False] == shapes[True]
    assert depths == [get_network(name).feature_depth] * 2 and depths[0] < 2048 / 2


@pytest.mark.parametrize("name", ["inception_v3_100", "inception_v3_005", "resnet_v2_50_025"])
def test_depth_multiplier_that_no_network_has(name):
    with pytest.raises(UserError, match=f"unknown network '{name}'"):
        get_network(name)


@networks(["inception_v4_se", "inception_resnet_v2"])
def test_fully_convolutional_logits_are_those_of_each_window(built):
    """At stride 2 over 12 x 12 positions, window (1, 2) begins at position (2, 4)."""
    features = np.random.RandomState(0).uniform(-1, 1, (1, 12, 12, 1536)).astype(np.float32)
    with built.graph.as_default(), plain_session() as session:
        logits, end_points = get_network_fn(built.name, NUM_CLASSES)(
            tf.zeros([1, 448, 448, 3]), spatial_squeeze=False, create_aux_logits=False, reuse=True
        )
        assert "AuxLogits" not in end_points
        weights, biases = (v for v in slim.get_model_variables() if "/Logits/Logits/" in v.op.name)
        session.run([weights.initializer, biases.initializer])
        last_map = end_points[get_network(built.name).feature_endpoint]
        found, w, b = session.run([logits, weights, biases], {last_map: features})
    assert found.shape == (1, 3, 3, NUM_CLASSES)
    expected = features[0, 2:10, 4:12].mean((0, 1)) @ w + b
    np.testing.assert_allclose(found[0, 1, 2], expected, atol=1e-5)


def test_every_network_defaults_to_inception_preprocessing():
    for name in [*NETWORKS, "inception_v3_se_050"]:
        assert get_preprocessing(name).func is inception_preprocessing.preprocess_image


def test_unknown_network_names_the_near_ones():
    with pytest.raises(UserError, match=r"unknown network 'inceptionv3'; did you mean"):
        get_network("inceptionv3")
