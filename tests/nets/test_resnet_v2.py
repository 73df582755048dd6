"""ResNet-V2 beyond the figures that test_nets.py holds every network to."""

import numpy as np
import pytest

from slim.common.compat import compared_by_identity, slim, tf
from slim.nets.resnet_v2 import resnet_v2, resnet_v2_arg_scope
from tests.conftest import load_recipe_weights
from tests.nets.conftest import plain_session


def shallow(images: tf.Tensor, num_classes: int | None = None, **options) -> tf.Tensor:
    """A ResNet of seven units, every kind of them."""
    with slim.arg_scope(resnet_v2_arg_scope()), compared_by_identity():
        net, _ = resnet_v2(images, num_classes, False, units=(2, 2, 2, 1), **options)
    return net


def test_atrous_units_give_what_strided_ones_give_at_more_positions():
    with tf.Graph().as_default(), plain_session() as session:
        images = tf.placeholder(tf.float32, [1, None, None, 3])
        strided = shallow(images, global_pool=False)
        atrous = {
            stride: shallow(images, global_pool=False, output_stride=stride, reuse=True)
            for stride in (4, 8, 16, 32)
        }
        load_recipe_weights(session)
        for size in ((64, 96), (65, 81), (90, 77)):
            noise = np.random.default_rng(1).uniform(-1, 1, (1, *size, 3))
            wanted, found = session.run([strided, atrous], {images: noise})
            for stride, values in found.items():
                assert values.shape[1:3] == tuple(-(-pixels // stride) for pixels in size)
                step = 32 // stride
                atol = 1e-4 * wanted.std()
                np.testing.assert_allclose(values[:, ::step, ::step], wanted, atol=atol)


def test_without_global_pool_logits_keep_their_positions():
    with tf.Graph().as_default():
        images = tf.zeros([2, 96, 64, 3])
        logits = shallow(images, 5, global_pool=False, spatial_squeeze=False)
        assert logits.shape == [2, 3, 2, 5]
        assert shallow(images, 5, spatial_squeeze=False, reuse=True).shape == [2, 1, 1, 5]
        with pytest.raises(ValueError, match="squeeze"):
            shallow(images, 5, global_pool=False, reuse=True)


def test_without_root_block_it_begins_with_a_feature_map():
    with tf.Graph().as_default():
        net = shallow(
            tf.zeros([2, 24, 17, 10]), include_root_block=False, global_pool=False, output_stride=4
        )
        assert net.shape == [2, 6, 5, 2048]
        assert not [
            v for v in slim.get_model_variables() if v.op.name.startswith("resnet_v2/conv1")
        ]


@pytest.mark.parametrize(("root", "strides"), [(True, "4, 8, 16, 32"), (False, "1, 2, 4, 8")])
def test_an_output_stride_that_is_never_passed_is_named(root, strides):
    with (
        tf.Graph().as_default(),
        pytest.raises(ValueError, match=rf"output_stride must be one of \[{strides}\], not 12"),
    ):
        shallow(tf.zeros([2, 64, 64, 3]), include_root_block=root, output_stride=12)
