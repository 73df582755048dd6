"""Networks for inference: built, filled from a checkpoint, and frozen with batch norm folded.

A convolution followed by batch norm in inference mode is a convolution with the weights and the
bias

    W' = W gamma / sqrt(variance + epsilon)    b' = beta - mean gamma / sqrt(variance + epsilon)

(Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference, 2018, section 3.2). Batch norm elsewhere, such as before a ResNet-V2 unit, remains.
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from slim.checkpoints.reading import (
    by_name,
    check_fits,
    has_averages,
    read_tensors,
)
from slim.common.compat import compared_by_identity, slim, tf
from slim.common.devices import count_parameters
from slim.common.errors import UserError, did_you_mean
from slim.nets.nets_factory import get_network, get_network_fn


@dataclass(frozen=True)
class InferenceGraph:
    """A network whose variables have no values yet."""

    images: tf.Tensor  # the input placeholder, float32 [batch, height, width, 3]
    outputs: Any  # a tensor, or a structure of tensors such as a dictionary
    variables: Sequence[tf.Variable]  # of the model


@dataclass(frozen=True)
class FrozenNetwork:
    """A network whose variables are constants."""

    graph_def: tf.GraphDef
    images: str  # the name of the input tensor
    outputs: Any  # the names of the outputs, in their structure
    parameters: int  # before batch norm was folded

    def __call__(self, images: tf.Tensor, xla: bool = False) -> Any:
        """Adds the network to the current graph, and returns its outputs in their structure.

        `images` are float32 `[batch, height, width, 3]`. XLA compiles once per shape of `images`.
        """

        def outputs(images: tf.Tensor) -> Any:
            tensors = tf.import_graph_def(
                self.graph_def, {self.images: images}, tf.nest.flatten(self.outputs), name="frozen"
            )
            return tf.nest.pack_sequence_as(self.outputs, tensors)

        return (tf.function(outputs, jit_compile=True) if xla else outputs)(images)


def build_network(
    model_name: str,
    num_classes: int | None,
    image_size: int,
    *,
    outputs: Callable[[tf.Tensor, Mapping[str, tf.Tensor]], Any],
    precision: str = "float32",
) -> InferenceGraph:
    """Builds a network for inference in a new graph, without its auxiliary classifier.

    Without `num_classes` there is no classifier. `outputs` maps logits and end points to a tensor
    or a structure of tensors; `precision` is the type that the layers compute in.
    """
    network_fn = get_network_fn(model_name, num_classes, dtype=tf.as_dtype(precision))
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, image_size, image_size, 3])
        logits, end_points = network_fn(images, create_aux_logits=False)
        return InferenceGraph(images, outputs(logits, end_points), slim.get_model_variables())


def pool_features(end_points: Mapping[str, tf.Tensor], endpoint: str) -> tf.Tensor:
    """Returns features, `[batch, depth]`: an end point averaged over its positions."""
    if endpoint not in end_points:
        raise UserError(f"--endpoint={endpoint}: {did_you_mean(endpoint, list(end_points))}")
    net = end_points[endpoint]
    return tf.reduce_mean(net, [1, 2]) if len(net.shape) == 4 else net


def freeze_checkpoint(
    graph: InferenceGraph,
    checkpoint: str,
    *,
    averages: bool,
    hint: str,
    shape_hint: str | None = None,
) -> FrozenNetwork:
    """Freezes a network with the values of a checkpoint, and prints to stderr which values.

    `hint` ends the error about missing variables, and without `shape_hint` that about variables of
    other shapes. `averages` is the result of `reading.choose_averages`.
    """
    restored = by_name(graph.variables, averages=averages)
    check_fits(checkpoint, restored, hint, shape_hint or hint)
    values = read_tensors(checkpoint, list(restored))
    frozen = freeze(graph, {v.op.name: values[name] for name, v in restored.items()})
    chosen, other = "moving averages", "plain variables with --moving_average_decay=0"
    if not averages:
        chosen, other = "plain variables", "moving averages with --moving_average_decay=0.9999"
    choice = f" ({other})" if has_averages(checkpoint) else ""
    print(f"{checkpoint}: {chosen}{choice}", file=sys.stderr, flush=True)
    return frozen


def freeze(network: InferenceGraph, values: Mapping[str, np.ndarray]) -> FrozenNetwork:
    """Replaces variables by constants and folds batch norm; outputs agree to 1e-4 of scale."""
    # 1. Only what the outputs need: no dropout, no identities of training.
    outputs = [tensor.op.name for tensor in tf.nest.flatten(network.outputs)]
    graph_def = tf.graph_util.extract_sub_graph(network.images.graph.as_graph_def(), outputs)
    graph_def = tf.graph_util.remove_training_nodes(graph_def, outputs)
    # 2. The values in place of the operations that read them.
    for node in graph_def.node:
        if node.op == "ReadVariableOp":
            node.CopyFrom(_constant(node.name, values[node.input[0]], tf.float32))
    # 3. Batch norm into the weights before it; then drop what nothing uses any more.
    _fold_batch_norms(graph_def, outputs)
    graph_def = tf.graph_util.extract_sub_graph(graph_def, outputs)
    names = tf.nest.map_structure(lambda tensor: tensor.name, network.outputs)
    return FrozenNetwork(graph_def, network.images.name, names, count_parameters(network.variables))


def _fold_batch_norms(graph_def: tf.GraphDef, outputs: Sequence[str]) -> None:
    """Replaces batch norms that follow a convolution by biases; leaves unused nodes behind."""
    # `optimize_for_inference_lib.fold_batch_norms` of TensorFlow does the same in 30 s instead of
    # 0.3 s for Inception-V3, which is too long for each checkpoint.
    nodes = {node.name: node for node in graph_def.node}
    uses = Counter(name for node in graph_def.node for name in node.input)
    uses.update(outputs)  # a convolution that is an output itself must keep its values
    for norm in [node for node in graph_def.node if node.op == "FusedBatchNormV3"]:
        conv = nodes[norm.input[0]]
        if conv.op != "Conv2D" or uses[conv.name] > 1:
            continue
        weights = nodes[conv.input[1]]
        if weights.op == "Cast":  # a 16-bit cast: fold in float32, then round once
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


@cache
def variable_shapes(model_name: str, num_classes: int | None) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the variables of a network by name, in the order of their creation."""
    size = get_network(model_name).default_image_size
    with compared_by_identity():
        graph = build_network(model_name, num_classes, size, outputs=lambda *_: ())
    return {v.op.name: tuple(v.shape.as_list()) for v in graph.variables}
