"""Networks of Keras Applications as TF-Slim networks, and back.

Each layer of a Keras model has the same computation as one TF-Slim layer. The ResNets differ in one
place: Keras pads the feature map with zeros before `pool1`. Their names here are those of TF-Slim
with `_keras` at the end, such as `resnet_v2_50_keras`, because they need other weights.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slim.checkpoints.loading import variable_shapes
from slim.checkpoints.released import KERAS_MODELS
from slim.common.errors import UserError

if TYPE_CHECKING:
    import keras

MODELS = {name: network for name, (network, _) in KERAS_MODELS.items()}
PREDICTIONS = "predictions"  # the layer of the classifier
_BATCH_NORM = "/BatchNorm"
_RESNET_PARTS = {
    "preact": "preact_bn",
    "shortcut": "0_conv",
    **{f"conv{i}": f"{i}_conv" for i in (1, 2, 3)},
    **{f"conv{i}{_BATCH_NORM}": f"{i}_bn" for i in (1, 2)},
}
_KERAS_EPSILON = {"resnet": 1.001e-5, "inception": 1e-3}
_SLIM_EPSILON = {"resnet": 1e-5, "inception": 1e-3}


@dataclass(frozen=True)
class Weight:
    """A weight that both networks have.

    Attributes:
        variable: The name of the TF-Slim variable.
        shape: The shape of the TF-Slim variable.
        layer: The name of the Keras layer.
        attribute: The attribute of the Keras layer, such as `kernel`.
    """

    variable: str
    shape: tuple[int, ...]
    layer: str
    attribute: str


def keras_name(model_name: str) -> str:
    """Returns the name in Keras Applications of a network.

    Raises:
        UserError: Keras Applications does not have the network.
    """
    for name, network in MODELS.items():
        if network == model_name:
            return name
    reason = "Keras has no such network"
    if f"{model_name}_keras" in MODELS.values():
        reason = "Keras pads before pool1 in another way, which gives other features"
    raise UserError(
        f"{model_name} has no equal in Keras Applications ({reason}); networks with one: "
        f"{', '.join(MODELS.values())}"
    )


def build_model(
    name: str, num_classes: int, *, weights: str | None = None, image_size: int | None = None
) -> "keras.Model":
    """Builds a model of Keras Applications with its classifier.

    Args:
        name: A key of `MODELS`.
        num_classes: Number of classes.
        weights: `imagenet` to download Keras' own weights; None for random ones.
        image_size: Height and width of the images in pixels. Default: that of the model.
    """
    import keras

    shape = (image_size, image_size, 3) if image_size else None
    build = getattr(keras.applications, name)
    return build(weights=weights, classes=num_classes, input_shape=shape)


def load_model(name: str, path: Path) -> "keras.Model":
    """Loads a model from a file that `model.save` or `model.save_weights` has written.

    Args:
        name: A key of `MODELS`.
        path: The file, `.keras`, `.h5` or `.weights.h5`.

    Raises:
        UserError: The file is not of this model.
    """
    import keras

    if not path.is_file():
        raise UserError(f"--weights={path}: no such file; expected a .keras or .h5 file")
    try:
        with warnings.catch_warnings():
            # About containers of layers, which have no weights of their own.
            warnings.filterwarnings("ignore", message="Skipping nested container")
            if path.suffix == ".keras":
                return keras.models.load_model(path, compile=False)
            model = build_model(name, _count_classes(path))
            model.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"--weights={path} cannot be loaded as keras.applications.{name} ({reason}); expected "
            "a .keras file of model.save, or a .weights.h5 file of model.save_weights, with the "
            "classifier (include_top=True)"
        ) from error
    return model


def _count_classes(path: Path) -> int:
    """Returns the number of classes in a file of weights, whose classifier is its only matrix."""
    import h5py

    matrices = []

    def visit(_: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and len(item.shape) == 2:
            matrices.append(item.shape)

    with h5py.File(path) as file:
        file.visititems(visit)
    if len(matrices) != 1:
        raise ValueError(f"it has {len(matrices)} matrices, expected that of the classifier")
    return matrices[0][1]


def network_values(name: str, model: "keras.Model") -> dict[str, np.ndarray]:
    """Returns the values of the TF-Slim variables of a Keras model.

    Args:
        name: A key of `MODELS`.
        model: The model, with its classifier.

    Raises:
        UserError: The model is not of this name.
    """
    values = {}
    layers = {layer.name: layer for layer in model.layers}
    for weight in matching_weights(name, list(layers), _model_classes(name, layers)):
        found = getattr(layers.get(weight.layer), weight.attribute, None)
        if found is None or np.prod(found.shape) != np.prod(weight.shape):
            raise _another_model(name, weight.layer)
        value = np.reshape(np.asarray(found), weight.shape)
        values[weight.variable] = value + _epsilon_difference(MODELS[name], weight)
    if len(values) != len(model.weights):
        raise _another_model(name, f"{len(model.weights)} weights")
    return values


def fill_model(name: str, model: "keras.Model", values: dict[str, np.ndarray]) -> None:
    """Sets the weights of a Keras model to the values of TF-Slim variables.

    Args:
        name: A key of `MODELS`.
        model: The model of `build_model`.
        values: Values by the name of the variable.
    """
    layers = {layer.name: layer for layer in model.layers}
    for weight in matching_weights(name, list(layers), _model_classes(name, layers)):
        variable = getattr(layers[weight.layer], weight.attribute)
        value = np.reshape(values[weight.variable], variable.shape)
        variable.assign(value - _epsilon_difference(MODELS[name], weight))


def matching_weights(name: str, layers: Sequence[str], num_classes: int) -> Iterator[Weight]:
    """Yields the weights that a Keras model and its TF-Slim network have in common.

    Args:
        name: A key of `MODELS`.
        layers: The names of the layers of the Keras model.
        num_classes: Number of classes.
    """
    kinds = {"weights": "kernel", "biases": "bias"}
    shapes = variable_shapes(MODELS[name], num_classes)
    scopes = dict.fromkeys(variable.rpartition("/")[0] for variable in shapes)
    found = layer_names(name, list(scopes), layers)
    for variable, shape in shapes.items():
        scope, _, kind = variable.rpartition("/")
        yield Weight(variable, shape, found[scope], kinds.get(kind, kind))


def layer_names(name: str, scopes: Sequence[str], layers: Sequence[str]) -> dict[str, str]:
    """Returns the names of Keras layers by the scopes of TF-Slim layers.

    Keras names some layers by their place, and numbers the others in the order of their creation,
    which is that of TF-Slim.

    Args:
        name: A key of `MODELS`.
        scopes: The scopes of all TF-Slim layers in the order of their creation.
        layers: The names of all Keras layers.
    """
    named = _resnet_layer if name.startswith("ResNet") else _inception_layer
    found = {scope: layer for scope in scopes if (layer := named(scope))}
    rest = [scope for scope in scopes if scope not in found]
    for kind, chosen in (
        ("conv2d", [scope for scope in rest if not scope.endswith(_BATCH_NORM)]),
        ("batch_normalization", [scope for scope in rest if scope.endswith(_BATCH_NORM)]),
    ):
        numbered = [layer for layer in layers if re.fullmatch(rf"{kind}(_\d+)?", layer)]
        numbered.sort(key=lambda layer: int(re.sub(r"\D", "", layer[len(kind) :]) or 0))
        if len(numbered) != len(chosen):
            raise _another_model(name, f"{len(numbered)} layers {kind}")
        found |= dict(zip(chosen, numbered, strict=True))
    return found


def _resnet_layer(scope: str) -> str:
    """Returns the name of the Keras layer of a layer of ResNet-V2."""
    path = scope.partition("/")[2]
    if unit := re.fullmatch(r"block(\d)/unit_(\d+)/bottleneck_v2/(.+)", path):
        return f"conv{int(unit[1]) + 1}_block{unit[2]}_{_RESNET_PARTS[unit[3]]}"
    return {"conv1": "conv1_conv", "postnorm": "post_bn", "logits": PREDICTIONS}[path]


def _inception_layer(scope: str) -> str | None:
    """Returns the name of the Keras layer of a layer of an Inception network, if it has one."""
    path = scope.partition("/")[2]
    if path.startswith("Logits/"):
        return PREDICTIONS
    if path.startswith("Conv2d_7b_1x1"):
        return "conv_7b_bn" if path.endswith(_BATCH_NORM) else "conv_7b"
    if path == "Block8/Conv2d_1x1":
        return "block8_10_conv"
    block = re.fullmatch(r"Repeat\w*/(block\d+_\d+)/Conv2d_1x1", path)
    return f"{block[1]}_conv" if block else None


def _model_classes(name: str, layers: dict[str, "keras.Layer"]) -> int:
    if PREDICTIONS not in layers:
        raise UserError(
            f"the Keras model has no layer '{PREDICTIONS}': expected keras.applications.{name} "
            "with include_top=True"
        )
    return int(layers[PREDICTIONS].kernel.shape[-1])


def _epsilon_difference(model_name: str, weight: Weight) -> float:
    """Returns what to add to a Keras weight so that both batch norms add the same to variances."""
    family = model_name.partition("_")[0]
    added = _KERAS_EPSILON[family] - _SLIM_EPSILON[family]
    return added if weight.attribute == "moving_variance" else 0.0


def _another_model(name: str, found: str) -> UserError:
    return UserError(
        f"the Keras model is not keras.applications.{name} with its classifier: it differs at "
        f"{found}"
    )
