"""Frozen networks for inference, with batch norm folded into the weights.

A convolution followed by batch norm in inference mode is a convolution with the weights and the
bias

    W' = W gamma / sqrt(variance + epsilon)    b' = beta - mean gamma / sqrt(variance + epsilon)

(Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference, 2018, section 3.2). Batch norm elsewhere, such as before a ResNet-V2 unit, remains.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slim.common.compat import slim, tf
from slim.nets.sizes import count_parameters


@dataclass(frozen=True)
class InferenceGraph:
    """A network whose variables have no values yet.

    Attributes:
        images: The input placeholder, float32 `[batch, height, width, 3]`.
        outputs: The outputs: a tensor, or a structure of tensors such as a dictionary.
        variables: The model variables.
    """

    images: tf.Tensor
    outputs: Any
    variables: Sequence[tf.Variable]


@dataclass(frozen=True)
class FrozenNetwork:
    """A network whose variables are constants.

    Attributes:
        graph_def: The graph.
        images: The name of the input tensor.
        outputs: The names of the outputs, in their structure.
        parameters: The number of parameters before batch norm was folded.
    """

    graph_def: tf.GraphDef
    images: str
    outputs: Any
    parameters: int

    def __call__(self, images: tf.Tensor, xla: bool = False) -> Any:
        """Adds the network to the current graph.

        Args:
            images: float32 `[batch, height, width, 3]`.
            xla: Whether to compile with XLA, once per shape of `images`.

        Returns:
            The outputs, in the structure given to `build_network`.
        """

        def outputs(images: tf.Tensor) -> Any:
            tensors = tf.import_graph_def(
                self.graph_def, {self.images: images}, tf.nest.flatten(self.outputs), name="frozen"
            )
            return tf.nest.pack_sequence_as(self.outputs, tensors)

        return (tf.function(outputs, jit_compile=True) if xla else outputs)(images)


def build_network(outputs: Callable[[tf.Tensor], Any], image_size: int) -> InferenceGraph:
    """Builds a network in a new graph.

    Args:
        outputs: The function from images, float32 `[batch, image_size, image_size, 3]`, to a tensor
            or a structure of tensors.
        image_size: Height and width in pixels.
    """
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, image_size, image_size, 3])
        return InferenceGraph(images, outputs(images), slim.get_model_variables())


def freeze(network: InferenceGraph, values: Mapping[str, np.ndarray]) -> FrozenNetwork:
    """Replaces the variables of a network by constants and folds batch norm into the weights.

    Args:
        network: The network, in inference mode.
        values: The values by variable name.

    Returns:
        The network without variables; its outputs agree to 1e-4 of their scale.
    """
    outputs = [tensor.op.name for tensor in tf.nest.flatten(network.outputs)]
    graph_def = tf.graph_util.extract_sub_graph(network.images.graph.as_graph_def(), outputs)
    graph_def = tf.graph_util.remove_training_nodes(graph_def, outputs)
    for node in graph_def.node:
        if node.op == "ReadVariableOp":
            node.CopyFrom(_constant(node.name, values[node.input[0]], tf.float32))
    _fold_batch_norms(graph_def, outputs)
    graph_def = tf.graph_util.extract_sub_graph(graph_def, outputs)
    names = tf.nest.map_structure(lambda tensor: tensor.name, network.outputs)
    return FrozenNetwork(graph_def, network.images.name, names, count_parameters(network.variables))


def _fold_batch_norms(graph_def: tf.GraphDef, outputs: Sequence[str]) -> None:
    """Replaces batch norms that follow a convolution by biases; leaves unused nodes behind.

    `optimize_for_inference_lib.fold_batch_norms` of TensorFlow does the same in 30 s instead of 0.3
    s for Inception-V3, which is too long for each checkpoint.
    """
    nodes = {node.name: node for node in graph_def.node}
    uses = Counter(name for node in graph_def.node for name in node.input)
    uses.update(outputs)
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
