"""Inception-V3 beyond the figures that test_nets.py holds every network to."""

import numpy as np
import pytest

from slim.checkpoints.reading import by_name, check_fits, read_shapes, read_tensors
from slim.common.compat import compared_by_identity, slim, tf
from slim.nets.inception_v3 import inception_v3, inception_v3_arg_scope, inception_v3_base
from tests.nets.conftest import feature_maps, plain_session


def test_reads_and_writes_checkpoints_of_tensorflow_1(reference, tmp_path):
    published = str(reference / "tf1_checkpoint/inception_v3_w8.ckpt")
    expected = np.load(reference / "tf1_checkpoint/expected.npz")
    images = np.random.RandomState(1).uniform(-1, 1, (2, 149, 149, 3)).astype(np.float32)
    with tf.Graph().as_default(), plain_session() as session:
        with compared_by_identity(), slim.arg_scope(inception_v3_arg_scope()):
            logits, end_points = inception_v3(
                tf.constant(images), 16, is_training=False, depth_multiplier=0.125, min_depth=8
            )
        outputs = {
            "logits": logits,
            "Mixed_7c_mean": tf.reduce_mean(end_points["Mixed_7c"], [1, 2]),
        }
        variables = slim.get_model_variables()
        plain, averaged = by_name(variables), by_name(variables, averages=True)
        for suffix, named in (("", plain), ("_ema", averaged)):
            check_fits(published, named, "missing", "shape")
            values = read_tensors(published, list(named))
            initial = {v.initializer.inputs[1]: values[name] for name, v in named.items()}
            session.run([variable.initializer for variable in variables], initial)
            for name, value in session.run(outputs).items():
                wanted = expected[name + suffix]
                np.testing.assert_allclose(value, wanted, atol=1e-4 * wanted.std())

        step = tf.train.create_global_step()
        session.run(step.initializer)
        saver = tf.train.Saver({**averaged, "global_step": step})
        written = saver.save(session, str(tmp_path / "model.ckpt"))
    shapes = {name: variable.shape.as_list() for name, variable in plain.items()}
    assert read_shapes(written) | shapes == read_shapes(published)
    name = "InceptionV3/Conv2d_1a_3x3/weights/ExponentialMovingAverage"
    np.testing.assert_array_equal(
        *[tf.train.load_variable(path, name) for path in (written, published)]
    )


def test_stops_at_the_final_endpoint():
    with tf.Graph().as_default():
        net, end_points = inception_v3_base(tf.zeros([1, 299, 299, 3]), "Mixed_6a")
        assert net.shape == [1, 17, 17, 768]
        assert list(end_points)[-1] == "Mixed_6a"
        with pytest.raises(ValueError, match="unknown final_endpoint 'Mixed_9z'"):
            inception_v3_base(tf.zeros([1, 299, 299, 3]), "Mixed_9z")
        with pytest.raises(ValueError, match="depth_multiplier must be positive"):
            inception_v3_base(tf.zeros([1, 299, 299, 3]), depth_multiplier=0)


def test_dropout_leaves_the_layout_optimizer_alone():
    """TensorFlow's layout optimizer fails on a GPU if a dropout has four dimensions."""
    with (
        tf.Graph().as_default() as graph,
        feature_maps("inception_v3", (3, 3), (1, 1), batch=2) as last_map,
    ):
        _, end_points = inception_v3(tf.zeros([2, 75, 75, 3]), 16, create_aux_logits=False)
        dropped = [op for op in graph.get_operations() if "/Dropout_1b/" in op.name]
        selected = [op.outputs[0].shape.rank for op in dropped if op.type.startswith("Select")]
        assert selected == [2]
        assert end_points["PreLogits"].shape.as_list() == [2, 1, 1, 2048]
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            given = np.random.RandomState(0).uniform(0.1, 1, last_map.shape)
            outputs = [end_points["AvgPool_1a"], end_points["PreLogits"]]
            features, kept = session.run(outputs, {last_map: given})
    np.testing.assert_allclose(kept[kept != 0], (features / 0.8)[kept != 0], rtol=1e-6)
    assert 0.7 < (kept != 0).sum() / (features != 0).sum() < 0.9
