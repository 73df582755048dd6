"""Networks as evaluation and feature extraction run them: frozen, batch norm in the weights.

A convolution followed by batch norm in inference mode is again a convolution, with the weights and
the bias

    W' = W gamma / sqrt(variance + epsilon)    b' = beta - mean gamma / sqrt(variance + epsilon)

(Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference, 2018, section 3.2). What batch norm stands elsewhere, such as ahead of a ResNet-V2 unit,
stays, on constants.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slim.compat import slim, tf


@dataclass(frozen=True)
class Network:
    """A network whose variables have no values yet.

    Attributes:
        images: The placeholder that it begins with, float32 `[batch, height, width, 3]`.
        outputs: What is wanted of it.
        variables: Its model variables.
    """

    images: tf.Tensor
    outputs: tf.Tensor
    variables: Sequence[tf.Variable]


@dataclass(frozen=True)
class FrozenNetwork:
    """A network whose variables are constants.

    Attributes:
        graph_def: Its operations.
        images: The name of the tensor that it begins with.
        outputs: The name of what is wanted of it.
    """

    graph_def: tf.GraphDef
    images: str
    outputs: str

    def __call__(self, images: tf.Tensor, xla: bool = False) -> tf.Tensor:
        """Puts the network into the current graph.

        Args:
            images: float32 `[batch, height, width, 3]`.
            xla: Compile it with XLA, anew for each shape of `images`.

        Returns:
            The outputs.
        """

        def outputs(images: tf.Tensor) -> tf.Tensor:
            return tf.import_graph_def(
                self.graph_def, {self.images: images}, [self.outputs], name="frozen"
            )[0]

        return (tf.function(outputs, jit_compile=True) if xla else outputs)(images)


def build_network(outputs: Callable[[tf.Tensor], tf.Tensor], image_size: int) -> Network:
    """Builds a network in a graph of its own.

    Args:
        outputs: From images, float32 `[batch, image_size, image_size, 3]`, to what is wanted.
        image_size: Height and width in pixels.

    Returns:
        The network.
    """
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, image_size, image_size, 3])
        return Network(images, outputs(images), slim.get_model_variables())


def freeze(network: Network, values: Mapping[str, np.ndarray]) -> FrozenNetwork:
    """Gives a network's variables their values for good, and folds batch norm into the weights.

    Args:
        network: In inference mode.
        values: By the variables' names.

    Returns:
        The network, which has no variables any more; outputs agree to 1e-4 of their scale.
    """
    output = network.outputs.op.name
    graph_def = tf.graph_util.extract_sub_graph(network.outputs.graph.as_graph_def(), [output])
    graph_def = tf.graph_util.remove_training_nodes(graph_def, [output])
    for node in graph_def.node:
        if node.op == "ReadVariableOp":
            node.CopyFrom(_constant(node.name, values[node.input[0]], tf.float32))
    _fold_batch_norms(graph_def, output)
    graph_def = tf.graph_util.extract_sub_graph(graph_def, [output])
    return FrozenNetwork(graph_def, network.images.name, network.outputs.name)


def _fold_batch_norms(graph_def: tf.GraphDef, output: str) -> None:
    """Makes biases of batch norms that follow a convolution; leaves unused nodes behind.

    TensorFlow's own `optimize_for_inference_lib.fold_batch_norms` gives the same in 30 s rather
    than 0.3 s for Inception-V3, too long to wait for at every checkpoint.
    """
    nodes = {node.name: node for node in graph_def.node}
    uses = Counter(name for node in graph_def.node for name in node.input)
    uses[output] += 1
    for norm in [node for node in graph_def.node if node.op == "FusedBatchNormV3"]:
        conv = nodes[norm.input[0]]
        if conv.op != "Conv2D" or uses[conv.name] > 1:
            continue
        weights = nodes[conv.input[1]]
        if weights.op == "Cast":  # of 16 bits, which are rounded to after folding, once
            weights = nodes[weights.input[0]]
        constants = [weights, *(nodes[name] for name in norm.input[1:])]
        weights, gamma, beta, mean, variance = (
            tf.make_ndarray(node.attr["value"].tensor) for node in constants
        )
        scale = gamma / np.sqrt(variance + norm.attr["epsilon"].f)
        dtype = tf.as_dtype(norm.attr["T"].type)
        folded = [
            _constant(f"{norm.name}/weights", weights * scale, dtype),
            _constant(f"{norm.name}/biases", beta - mean * scale, dtype),
        ]
        graph_def.node.extend(folded)
        conv.input[1] = folded[0].name
        bias_add = tf.NodeDef(name=norm.name, op="BiasAdd", input=[conv.name, folded[1].name])
        for name in ("T", "data_format"):
            bias_add.attr[name].CopyFrom(norm.attr[name])
        norm.CopyFrom(bias_add)


def _constant(name: str, value: np.ndarray, dtype: tf.DType) -> tf.NodeDef:
    node = tf.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = dtype.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(
        tf.make_tensor_proto(value.astype(dtype.as_numpy_dtype), dtype)
    )
    return node
