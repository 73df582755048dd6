"""Parameters and multiply-adds of networks."""

from slim.common.compat import slim, tf
from slim.nets.describe import count_multiply_adds, measure


def test_multiply_adds_of_a_convolution_and_a_fully_connected_layer():
    with tf.Graph().as_default() as graph:
        net = slim.conv2d(tf.zeros([1, 9, 7, 2]), 5, [3, 1], padding="VALID")  # to 7 x 7
        slim.fully_connected(tf.reshape(net, [1, 7 * 7 * 5]), 4)
        assert count_multiply_adds(graph) == 7 * 7 * 5 * 3 * 1 * 2 + 7 * 7 * 5 * 4


def test_inception_v3_has_the_figures_of_the_literature():
    parameters, multiply_adds = measure("inception_v3", 299, 1000)
    assert (f"{parameters / 1e6:.1f}", f"{multiply_adds / 1e9:.1f}") == ("23.8", "5.7")
