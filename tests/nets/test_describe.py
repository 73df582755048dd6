"""The table of networks."""

from slim.common.compat import slim, tf
from slim.nets.describe import describe, multiply_adds


def test_multiply_adds_of_a_convolution_and_a_fully_connected_layer():
    with tf.Graph().as_default() as graph:
        net = slim.conv2d(tf.zeros([1, 9, 7, 2]), 5, [3, 1], padding="VALID")  # to 7 x 7
        slim.fully_connected(tf.reshape(net, [1, 7 * 7 * 5]), 4)
        assert multiply_adds(graph) == 7 * 7 * 5 * 3 * 1 * 2 + 7 * 7 * 5 * 4


def test_inception_v3_has_the_figures_of_the_literature():
    parameters, *_, operations = describe("inception_v3", 299, 1000)[1:]
    assert (parameters, operations) == ("23.8 M", "5.7 G")
