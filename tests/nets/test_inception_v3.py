"""Inception-V3 beyond the figures that test_nets.py holds every network to."""

import numpy as np
import pytest

from slim.checkpoints.reading import by_name, check_fits, read_shapes
from slim.common.compat import compared_by_identity, slim, tf
from slim.nets.inception_v3 import inception_v3, inception_v3_arg_scope, inception_v3_base
from slim.nets.nets_factory import get_network_fn
from slim.preprocessing.decoding import decode_image
from slim.preprocessing.preprocessing_factory import get_preprocessing
from tests.conftest import load_recipe_weights
from tests.nets.conftest import plain_session


def narrow(
    images: tf.Tensor, reuse: bool = True, **options
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds an Inception-V3 of an eighth of the width, which is fast."""
    with compared_by_identity(), slim.arg_scope(inception_v3_arg_scope()):
        return inception_v3(
            images,
            16,
            is_training=False,
            depth_multiplier=0.125,
            min_depth=8,
            reuse=reuse,
            **options,
        )


@pytest.fixture(scope="module")
def graph() -> tf.Graph:
    """A graph with the narrow network, whose variables tests reuse."""
    with tf.Graph().as_default() as graph:
        narrow(tf.zeros([2, 149, 149, 3]), reuse=False)
    return graph


def test_reads_and_writes_checkpoints_of_tensorflow_1(reference, graph, tmp_path):
    published = str(reference / "tf1_checkpoint/inception_v3_w8.ckpt")
    expected = np.load(reference / "tf1_checkpoint/expected.npz")
    images = np.random.RandomState(1).uniform(-1, 1, (2, 149, 149, 3)).astype(np.float32)
    with graph.as_default(), plain_session() as session:
        variables = slim.get_model_variables()
        logits, end_points = narrow(tf.constant(images), create_aux_logits=False)
        outputs = {
            "logits": logits,
            "Mixed_7c_mean": tf.reduce_mean(end_points["Mixed_7c"], [1, 2]),
        }
        for suffix, named in (
            ("", by_name(variables)),
            ("_ema", by_name(variables, averages=True)),
        ):
            check_fits(published, named, "missing", "shape")
            tf.train.Saver(named).restore(session, published)
            for name, value in session.run(outputs).items():
                wanted = expected[name + suffix]
                np.testing.assert_allclose(value, wanted, atol=1e-4 * wanted.std())

        tf.train.create_global_step()
        tf.train.ExponentialMovingAverage(0.9999).apply(variables)
        saver = tf.train.Saver()
        saver.restore(session, published)
        written = saver.save(session, str(tmp_path / "model.ckpt"))
    assert read_shapes(written) == read_shapes(published)
    name = "InceptionV3/Conv2d_1a_3x3/weights/ExponentialMovingAverage"
    np.testing.assert_array_equal(
        *[tf.train.load_variable(path, name) for path in (written, published)]
    )


def test_features_of_photographs(reference, birds):
    expected = np.load(reference / "features_inception_v3.npz")
    preprocess = get_preprocessing("inception_v3")
    with tf.Graph().as_default(), plain_session() as session:
        images = tf.stack(
            [
                preprocess(decode_image(tf.io.read_file(str(birds / str(path)))), 299, 299)
                for path in expected["paths"]
            ]
        )
        features, _ = get_network_fn("inception_v3", None)(images)
        load_recipe_weights(session, 0.98)
        found = session.run(features)[:, 0, 0, :]
    wanted = expected["features"]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * wanted.std())


def test_any_size_gives_logits_and_auxiliary_logits():
    with tf.Graph().as_default():
        for size, position in (((75, 75), (1, 1)), ((299, 299), (8, 8)), ((448, 320), (12, 8))):
            logits, end_points = narrow(tf.zeros([2, *size, 3]), reuse=tf.AUTO_REUSE)
            assert logits.shape == [2, 16]
            assert end_points["AuxLogits"].shape == [2, 16]
            assert end_points["Mixed_7c"].shape[1:3] == position


def test_fully_convolutional_logits_are_those_of_each_window(graph):
    # At stride 2 over 12 x 12 positions, window (1, 2) begins at position (2, 4).
    with graph.as_default(), plain_session() as session:
        images = tf.random.stateless_uniform([1, 448, 448, 3], [1, 2], -1, 1)
        logits, end_points = narrow(images, spatial_squeeze=False, create_aux_logits=False)
        session.run(tf.global_variables_initializer())
        weights, biases = (
            variable for variable in slim.get_model_variables() if "/Logits/" in variable.op.name
        )
        found, features, w, b = session.run([logits, end_points["Mixed_7c"], weights, biases])
    assert found.shape == (1, 3, 3, 16)
    expected = features[0, 2:10, 4:12].mean((0, 1)) @ w[0, 0] + b
    np.testing.assert_allclose(found[0, 1, 2], expected, atol=1e-5)


def test_stops_at_the_final_endpoint():
    with tf.Graph().as_default():
        net, end_points = inception_v3_base(tf.zeros([1, 299, 299, 3]), "Mixed_6a")
        assert net.shape == [1, 17, 17, 768]
        assert list(end_points)[-1] == "Mixed_6a"
        with pytest.raises(ValueError, match="unknown final_endpoint 'Mixed_9z'"):
            inception_v3_base(tf.zeros([1, 299, 299, 3]), "Mixed_9z")
        with pytest.raises(ValueError, match="depth_multiplier must be positive"):
            inception_v3_base(tf.zeros([1, 299, 299, 3]), depth_multiplier=0)


def test_reuse_adds_no_variable_and_gives_the_same_logits(graph):
    with graph.as_default(), plain_session() as session:
        count = len(tf.global_variables())
        images = tf.random.stateless_uniform([1, 107, 107, 3], [1, 2], -1, 1)
        logits = [narrow(images, create_aux_logits=False)[0] for _ in range(2)]
        assert len(tf.global_variables()) == count
        session.run(tf.global_variables_initializer())
        np.testing.assert_allclose(*session.run(logits), rtol=1e-5, atol=1e-6)


def test_dropout_leaves_the_layout_optimizer_alone():
    """TensorFlow's layout optimizer fails on a GPU if a dropout has four dimensions."""
    with tf.Graph().as_default() as graph:
        images = tf.random.uniform([2, 75, 75, 3], -1, 1)
        _, end_points = inception_v3(images, 16, depth_multiplier=0.125, min_depth=8)
        dropped = [op for op in graph.get_operations() if "/Dropout_1b/" in op.name]
        selected = [op.outputs[0].shape.rank for op in dropped if op.type.startswith("Select")]
        assert selected == [2]
        assert end_points["PreLogits"].shape.as_list() == [2, 1, 1, 256]
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            features, kept = session.run([end_points["AvgPool_1a"], end_points["PreLogits"]])
    np.testing.assert_allclose(kept[kept != 0], (features / 0.8)[kept != 0], rtol=1e-6)
    assert 0.7 < (kept != 0).sum() / (features != 0).sum() < 0.9
