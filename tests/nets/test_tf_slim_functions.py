"""The networks under the names and with the arguments of TF-Slim, as other code imports them."""

import inspect
from functools import partial

import numpy as np
import pytest
import tf_slim
import tf_slim.nets

from slim.common.compat import compared_by_identity, tf
from slim.nets import inception, nets_factory, resnet_v2
from tests.nets.conftest import feature_maps, few_repeats, plain_session

# The parameters of TF-Slim's functions, in its order; tf_slim has two of the modules itself.
PARAMETERS = {
    inception.inception_v4: "inputs num_classes is_training dropout_keep_prob reuse scope "
    "create_aux_logits",
    inception.inception_v4_base: "inputs final_endpoint scope",
    inception.inception_resnet_v2: "inputs num_classes is_training dropout_keep_prob reuse scope "
    "create_aux_logits activation_fn",
    inception.inception_resnet_v2_base: "inputs final_endpoint output_stride align_feature_maps "
    "scope activation_fn",
    inception.inception_v3: "inputs num_classes is_training dropout_keep_prob min_depth "
    "depth_multiplier prediction_fn spatial_squeeze reuse create_aux_logits scope global_pool",
    resnet_v2.resnet_v2_50: "inputs num_classes is_training global_pool output_stride "
    "spatial_squeeze reuse scope",
}


def positional(function) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize("function", PARAMETERS, ids=range(len(PARAMETERS)))
def test_arguments_are_in_the_order_of_tf_slim(function):
    expected = PARAMETERS[function].split()
    if function is resnet_v2.resnet_v2_50:
        # What a partial function sets by name becomes keyword-only, and so does what follows it.
        assert positional(function) == expected[:-1]
        assert positional(tf_slim.nets.resnet_v2.resnet_v2_50) == [
            name for name in expected if name != "spatial_squeeze"
        ]
    else:
        assert positional(function) == expected


def test_base_of_inception_v3_has_the_arguments_of_tf_slim():
    theirs = tf_slim.nets.inception_v3.inception_v3_base
    assert positional(inception.inception_v3_base) == positional(theirs)


def test_maps_of_the_factory():
    assert set(nets_factory.networks_map) == set(nets_factory.arg_scopes_map)
    assert nets_factory.networks_map["inception_v3_se"] is inception.inception_v3_se
    assert nets_factory.networks_map["resnet_v2_101"] is resnet_v2.resnet_v2_101
    sizes = {name: fn.default_image_size for name, fn in nets_factory.networks_map.items()}
    assert sizes == {name: 224 if "resnet_v2_" in name[:10] else 299 for name in sizes}
    assert nets_factory.get_network_fn("inception_v4", 5).default_image_size == 299


UNKNOWN = (None, None)


@pytest.mark.parametrize("network", [inception.inception_v3, inception.inception_v3_se])
def test_global_pool_of_inception_v3_for_unknown_sizes(network):
    with (
        tf.Graph().as_default(),
        plain_session() as session,
        feature_maps("inception_v3", UNKNOWN, UNKNOWN, batch=None) as last_map,
    ):
        images = tf.placeholder(tf.float32, [None, None, None, 3])
        build = partial(network, images, is_training=False, create_aux_logits=False)
        logits, end_points = build(7, global_pool=True, spatial_squeeze=False)
        features, _ = build(0, reuse=True, global_pool=True)
        assert logits.shape.as_list() == [None, 1, 1, 7]
        assert "AvgPool_1a" not in end_points
        session.run(tf.global_variables_initializer())
        given = np.random.default_rng(0).uniform(size=(2, 8, 11, 2048))
        outputs = [end_points["global_pool"], features, logits]
        *pooled, found = session.run(outputs, {last_map: given})
    for values in pooled:
        np.testing.assert_allclose(values[:, 0, 0], given.mean((1, 2)), atol=1e-5)
    assert found.shape == (2, 1, 1, 7)


@pytest.mark.parametrize(
    ("name", "scope", "num_classes"),
    [("inception_v4", "InceptionV4", 0), ("inception_resnet_v2", "InceptionResnetV2", None)],
)
def test_pre_logits_for_unknown_sizes(name, scope, num_classes):
    with tf.Graph().as_default(), feature_maps(name, UNKNOWN, UNKNOWN, batch=None):
        images = tf.placeholder(tf.float32, [None, None, None, 3])
        net, end_points = nets_factory.networks_map[name](images, num_classes, is_training=False)
        assert net is end_points["global_pool"]
        assert net.shape.as_list() == [None, 1, 1, 1536]
        assert net.op.name.startswith(f"{scope}/Logits/AvgPool_1a")
        assert not {"Logits", "Predictions", "AuxLogits"} & set(end_points)


# Heights of feature maps at 299 pixels: Figures 3 to 9 and 15 to 19 of the paper.
HEIGHTS = {
    inception.inception_v4_base: {"Conv2d_1a_3x3": 149, "Mixed_3a": 73, "Mixed_4a": 71},
    inception.inception_v4_se_base: {"Mixed_5b": 35},
    inception.inception_resnet_v2_base: {"MaxPool_5a_3x3": 35, "Mixed_5b": 35},
    inception.inception_resnet_v2_se_base: {"Mixed_5b": 35},
}


@pytest.mark.parametrize("base", HEIGHTS)
def test_base_stops_at_the_final_endpoint_and_reuses_variables(base):
    for final_endpoint, height in HEIGHTS[base].items():
        with tf.Graph().as_default():
            images = tf.zeros([2, 299, 299, 3])
            net, end_points = base(images, final_endpoint, scope="here")
            assert net.shape[1] == height
            assert list(end_points)[-1] == final_endpoint
            assert net.op.name.startswith(f"here/{final_endpoint}")
            variables = [v.ref() for v in tf.global_variables()]
            base(images, final_endpoint, scope="here", reuse=True)
            assert [v.ref() for v in tf.global_variables()] == variables
    with tf.Graph().as_default(), pytest.raises(ValueError, match="unknown final_endpoint 'Mixed'"):
        base(tf.zeros([1, 299, 299, 3]), "Mixed")


# At 321 pixels, aligned maps have ceil(321 / stride) positions, others those of VALID windows.
@pytest.mark.parametrize(
    ("options", "heights"),
    [
        ({}, [160, 37, 18]),
        ({"align_feature_maps": True}, [161, 41, 21]),
        ({"align_feature_maps": True, "output_stride": 8}, [161, 41, 41]),
    ],
)
def test_dense_prediction_of_inception_resnet_v2(options, heights):
    with tf.Graph().as_default(), compared_by_identity(), few_repeats():
        _, end_points = inception.inception_resnet_v2_base(
            tf.zeros([1, 321, 321, 3]), "Mixed_6a", **options
        )
    names = ("Conv2d_1a_3x3", "MaxPool_5a_3x3", "Mixed_6a")
    assert [end_points[name].shape[1] for name in names] == heights


def test_atrous_inception_resnet_v2_gives_the_strided_values_at_more_positions():
    def build(images: tf.Tensor, stride: int) -> tf.Tensor:
        with tf_slim.arg_scope([tf_slim.batch_norm], is_training=False):
            net, _ = inception.inception_resnet_v2_base(
                images, "PreAuxLogits", stride, True, reuse=tf.AUTO_REUSE
            )
        return net

    with (
        tf.Graph().as_default(),
        compared_by_identity(),
        few_repeats(),
        plain_session() as session,
    ):
        images = tf.random.stateless_uniform([1, 81, 97, 3], [1, 2], -1, 1)
        nets = [build(images, stride) for stride in (16, 8)]
        session.run(tf.global_variables_initializer())
        strided, atrous = session.run(nets)
    assert atrous.shape[1:3] == (11, 13)
    np.testing.assert_allclose(atrous[:, ::2, ::2], strided, atol=1e-4 * strided.std())


def test_dense_prediction_that_does_not_exist():
    images = tf.zeros([1, 299, 299, 3])
    with pytest.raises(ValueError, match="output_stride must be 8 or 16, not 32"):
        inception.inception_resnet_v2_base(images, output_stride=32)
    with pytest.raises(ValueError, match="output_stride 8 ends at PreAuxLogits: pass final_endp"):
        inception.inception_resnet_v2_base(images, output_stride=8)


def test_arg_scope_without_batch_norm_has_biases():
    with tf.Graph().as_default():
        arg_scope = inception.inception_v3_arg_scope(use_batch_norm=False, activation_fn=None)
        with tf_slim.arg_scope(arg_scope):
            net, _ = inception.inception_v3_base(tf.zeros([1, 75, 75, 3]), "Conv2d_1a_3x3")
        names = [v.op.name.rpartition("/")[2] for v in tf_slim.get_model_variables()]
        assert names == ["weights", "biases"]
        assert net.op.type == "BiasAdd"


def test_updates_of_batch_norm_in_place():
    with tf.Graph().as_default(), plain_session() as session:
        arg_scope = resnet_v2.resnet_arg_scope(batch_norm_updates_collections=None)
        with tf_slim.arg_scope(arg_scope):
            net, _ = resnet_v2.resnet_v2(tf.ones([1, 32, 32, 3]), units=(1,))
        assert not tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        average = next(v for v in tf.global_variables() if "preact/moving_mean" in v.name)
        session.run(tf.global_variables_initializer())
        session.run(net)
        assert session.run(average).any()
