"""Every network against the figures measured on the published implementation."""

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tf_slim.nets

from slim.compat import slim, tf
from slim.errors import UserError
from slim.nets.nets_factory import NETWORKS, get_network, get_network_fn
from slim.preprocessing import inception_preprocessing
from slim.preprocessing.preprocessing_factory import get_preprocessing
from tests.conftest import SHARED, load_recipe_weights

NUM_CLASSES = 200
# Of each network: figures small enough to stand here, so that a clone alone can be tested.
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name):
    """Training graph, value of the L2 loss, logits, and what of the reference is there."""
    published = PUBLISHED[name]
    with tf.Graph().as_default(), tf.Session() as session:
        network_fn = get_network_fn(name, NUM_CLASSES, weight_decay=4e-5, is_training=True)
        _, end_points = network_fn(tf.zeros([4, 299, 299, 3]))
        assert training_figures(end_points) == {
            key: value
            for key, value in published.items()
            if key not in ("regularization_loss", "logits", "logits_std")
        }
        load_recipe_weights(session)
        regularization_loss = session.run(tf.losses.get_regularization_loss())
        assert regularization_loss == pytest.approx(published["regularization_loss"], rel=1e-5)

        images = tf.placeholder(tf.float32, [None, None, None, 3])
        logits, end_points = get_network_fn(name, NUM_CLASSES)(images, reuse=True)
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
        wanted = np.load(SHARED / "reference/logits.npz")[name]
        np.testing.assert_allclose(found, wanted, atol=atol)
        share = np.abs(found - wanted).max() / published["logits_std"]
        print(f"{name}: logits differ by {share:.1e} of their standard deviation at most")
        reference = json.loads((SHARED / "reference/nets.json").read_text())[name]
        for point, (mean, std) in reference["end_points_eval_mean_std"].items():
            assert points[point].mean() == pytest.approx(mean, abs=1e-4 * std), point
            assert points[point].std() == pytest.approx(std, rel=1e-4), point
        if name not in ("inception_v3", "inception_v3_se"):  # which could not be built at 448
            points = session.run(end_points, {images: np.zeros((1, 448, 448, 3), np.float32)})
            shapes = {point: list(value.shape) for point, value in points.items()}
            assert shapes == reference["end_points_eval_448"]


def training_figures(end_points: dict[str, tf.Tensor]) -> dict[str, int]:
    """The published figures of the training graph that stands in the default graph."""
    variables = slim.get_model_variables()
    trainable = tf.trainable_variables()
    return {
        "num_variables": len(variables),
        "variables_crc32": crc32([[v.op.name, v.shape.as_list()] for v in variables]),
        "trainable_crc32": crc32(sorted(v.op.name for v in trainable)),
        "params": sum(v.shape.num_elements() for v in trainable),
        "n_regularization_losses": len(tf.losses.get_regularization_losses()),
        "n_update_ops": len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)),
        "end_points_crc32": crc32({k: end_points[k].shape.as_list() for k in sorted(end_points)}),
    }


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inception_resnet_v2"])
def test_variables_are_those_of_299_at_every_larger_size(name):
    with tf.Graph().as_default():
        _, end_points = get_network_fn(name, NUM_CLASSES)(tf.zeros([1, 560, 448, 3]))
        variables = [[v.op.name, v.shape.as_list()] for v in slim.get_model_variables()]
    assert crc32(variables) == PUBLISHED[name]["variables_crc32"]
    assert end_points["AuxLogits"].shape == end_points["Logits"].shape == [1, NUM_CLASSES]


@cache
def features_at_smallest_size(name: str) -> tuple[dict[str, list[int]], list[int], list[int]]:
    """Variables by name, shape of the output and of the feature end point."""
    size = get_network(name).smallest_image_size
    with tf.Graph().as_default():
        net, end_points = get_network_fn(name, None)(tf.zeros([2, size, size, 3]))
        variables = {v.op.name: v.shape.as_list() for v in slim.get_model_variables()}
        features = end_points[get_network(name).feature_endpoint]
        return variables, net.shape.as_list(), features.shape.as_list()


@pytest.mark.parametrize("name", NETWORKS)
def test_features(name):
    network = get_network(name)
    variables, net, features = features_at_smallest_size(name)
    assert net == features == [2, 1, 1, network.feature_depth]
    assert all(variable.startswith(f"{network.scope}/") for variable in variables)
    assert not [variable for variable in variables if "logits/" in variable.lower()]


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.endswith("_se")])
def test_squeeze_and_excitation_only_adds_its_own_variables(name):
    def variables(name: str) -> dict[str, list[int]]:
        named = features_at_smallest_size(name)[0].items()
        return {key.partition("/")[2]: shape for key, shape in named}

    expected = variables(name.removesuffix("_se"))
    found = variables(name)
    for block in {key.partition("/SE_block/")[0] for key in found if "/SE_block/" in key}:
        channels = found[f"{block}/SE_block/Conv/weights"][2]
        hidden = channels // 16
        expected[f"{block}/SE_block/Conv/weights"] = [1, 1, channels, hidden]
        expected[f"{block}/SE_block/Conv/biases"] = [hidden]
        expected[f"{block}/SE_block/Conv_1/weights"] = [1, 1, hidden, channels]
        expected[f"{block}/SE_block/Conv_1/biases"] = [channels]
    assert found == expected


@pytest.mark.parametrize(
    ("name", "num_blocks"),
    [
        ("inception_v3_se", 11),
        ("inception_v4_se", 4 + 1 + 7 + 1 + 3),
        ("inception_resnet_v2_se", 1 + 10 + 1 + 20 + 1 + 9 + 1),
        ("resnet_v2_50_se", 16),
        ("resnet_v2_101_se", 33),
        ("resnet_v2_152_se", 50),
    ],
)
def test_every_block_is_excited(name, num_blocks):
    variables = features_at_smallest_size(name)[0]
    assert sum(key.endswith("/SE_block/Conv/weights") for key in variables) == num_blocks


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inception_resnet_v2"])
def test_less_than_the_smallest_size_leaves_no_position(name):
    network = get_network(name)
    too_small = network.smallest_image_size - 1
    with (
        tf.Graph().as_default(),
        slim.arg_scope(network.arg_scope()),
        pytest.raises(ValueError, match="Negative dimension size"),
    ):
        network.build(tf.zeros([1, too_small, too_small, 3]), None)


@pytest.mark.parametrize("name", NETWORKS)
def test_less_than_the_smallest_size_is_refused(name):
    smallest = get_network(name).smallest_image_size
    with (
        tf.Graph().as_default(),
        pytest.raises(UserError, match=f"too small for {name}, which needs at least {smallest}x"),
    ):
        get_network_fn(name, 5)(tf.zeros([1, smallest, smallest - 1, 3]))


@pytest.mark.parametrize(
    ("name", "theirs", "arg_scope"),
    [
        (
            "inception_v3",
            tf_slim.nets.inception_v3.inception_v3,
            tf_slim.nets.inception_v3.inception_v3_arg_scope,
        ),
        (
            "resnet_v2_50",
            tf_slim.nets.resnet_v2.resnet_v2_50,
            tf_slim.nets.resnet_v2.resnet_arg_scope,
        ),
    ],
)
def test_tf_slims_own_network_has_the_same_variables_and_logits(name, theirs, arg_scope):
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.random.stateless_uniform([2, 150, 181, 3], [1, 2], -1, 1)
        logits, _ = get_network_fn(name, 7)(images)
        count = len(tf.global_variables())
        with slim.arg_scope(arg_scope()):
            wanted, _ = theirs(images, 7, is_training=False, reuse=True)
        assert len(tf.global_variables()) == count
        load_recipe_weights(session)
        found, wanted = session.run([logits, tf.reshape(wanted, [2, 7])])
    np.testing.assert_allclose(found, wanted, atol=1e-4 * wanted.std())


@pytest.mark.parametrize("name", ["inception_v4_se", "inception_resnet_v2"])
def test_fully_convolutional_logits_are_those_of_each_window(name):
    """At stride 2 over 12 x 12 positions, window (1, 2) begins at position (2, 4)."""
    features = np.random.RandomState(0).uniform(-1, 1, (1, 12, 12, 1536)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        logits, end_points = get_network_fn(name, 5)(
            tf.zeros([1, 448, 448, 3]), spatial_squeeze=False, create_aux_logits=False
        )
        assert "AuxLogits" not in end_points
        weights, biases = (v for v in slim.get_model_variables() if "ogits/" in v.op.name)
        session.run([weights.initializer, biases.initializer])
        last_map = end_points[get_network(name).feature_endpoint]
        found, w, b = session.run([logits, weights, biases], {last_map: features})
    assert found.shape == (1, 3, 3, 5)
    expected = features[0, 2:10, 4:12].mean((0, 1)) @ w + b
    np.testing.assert_allclose(found[0, 1, 2], expected, atol=1e-5)


def test_every_network_defaults_to_inception_preprocessing():
    for name in NETWORKS:
        assert get_preprocessing(name).func is inception_preprocessing.preprocess_image


def test_unknown_network_names_the_near_ones():
    with pytest.raises(UserError, match=r"unknown network 'inceptionv3'; did you mean"):
        get_network("inceptionv3")


def crc32(value: object) -> int:
    return zlib.crc32(json.dumps(value).encode())
