"""Networks of Keras Applications as TF-Slim networks, and back.

Each layer of a Keras model has the same computation as one TF-Slim layer. Keras' ResNets differ in
one place, the padding before `pool1`, and therefore are not here.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from slim.common.errors import UserError

if TYPE_CHECKING:
    import keras

MODELS = {"InceptionV3": "inception_v3", "InceptionResNetV2": "inception_resnet_v2"}
PREDICTIONS = "predictions"  # the layer of the classifier
_BATCH_NORM = "/BatchNorm"


class Weight(NamedTuple):
    """A weight that both networks have."""

    variable: str  # the name of the TF-Slim variable
    shape: tuple[int, ...]  # of the TF-Slim variable
    layer: str  # the name of the Keras layer
    attribute: str  # of the Keras layer, such as "kernel"


def keras_name(model_name: str) -> str:
    """Returns the name in Keras Applications of a network, or refuses a network without one."""
    for name, network in MODELS.items():
        if network == model_name:
            return name
    reason = "Keras has no such network"
    if model_name in ("resnet_v2_50", "resnet_v2_101", "resnet_v2_152"):
        reason = "Keras pads before pool1 in another way, which gives other features"
    raise UserError(
        f"{model_name} has no equal in Keras Applications ({reason}); networks with one: "
        f"{', '.join(MODELS.values())}"
    )


def build_model(
    name: str, num_classes: int, *, weights: str | None = None, image_size: int | None = None
) -> "keras.Model":
    """Builds a model of Keras Applications with its classifier.

    `weights` are `imagenet` to download Keras' own, otherwise random; `image_size` defaults to that
    of the model.
    """
    import keras

    shape = (image_size, image_size, 3) if image_size else None
    build = getattr(keras.applications, name)
    return build(weights=weights, classes=num_classes, input_shape=shape)


def load_model(name: str, path: Path) -> "keras.Model":
    """Loads a model of `MODELS` from a file of `model.save` or `model.save_weights`."""
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
    """Returns the values of the TF-Slim variables of a Keras model with its classifier.

    `name` is a key of `MODELS`. A model of another name is refused.
    """
    values = {}
    layers = {layer.name: layer for layer in model.layers}
    for weight in _matching_weights(name, layers):
        found = getattr(layers.get(weight.layer), weight.attribute, None)
        if found is None or np.prod(found.shape) != np.prod(weight.shape):
            raise _another_model(name, weight.layer)
        values[weight.variable] = np.reshape(np.asarray(found), weight.shape)
    if len(values) != len(model.weights):
        raise _another_model(name, f"{len(model.weights)} weights")
    return values


def fill_model(name: str, model: "keras.Model", values: dict[str, np.ndarray]) -> None:
    """Sets the weights of the model of `build_model` to the values of TF-Slim variables."""
    layers = {layer.name: layer for layer in model.layers}
    for weight in _matching_weights(name, layers):
        variable = getattr(layers[weight.layer], weight.attribute)
        variable.assign(np.reshape(values[weight.variable], variable.shape))


def _matching_weights(name: str, layers: dict[str, "keras.Layer"]) -> Iterator[Weight]:
    """Yields the weights that a Keras model and its TF-Slim network have in common."""
    from slim.checkpoints.freezing import variable_shapes  # loads TensorFlow, `MODELS` does not

    if PREDICTIONS not in layers:
        raise UserError(
            f"the Keras model has no layer '{PREDICTIONS}': expected keras.applications.{name} "
            "with include_top=True"
        )
    kinds = {"weights": "kernel", "biases": "bias"}
    shapes = variable_shapes(MODELS[name], int(layers[PREDICTIONS].kernel.shape[-1]))
    scopes = dict.fromkeys(variable.rpartition("/")[0] for variable in shapes)
    found = _layer_names(name, list(scopes), list(layers))
    for variable, shape in shapes.items():
        scope, _, kind = variable.rpartition("/")
        yield Weight(variable, shape, found[scope], kinds.get(kind, kind))


def _layer_names(name: str, scopes: Sequence[str], layers: Sequence[str]) -> dict[str, str]:
    """Returns the names of Keras layers by the scopes of TF-Slim layers."""
    # Keras names some layers by their place, and numbers the others in the order of their creation,
    # which is that of TF-Slim.
    # 1. Layers whose Keras name tells their place.
    found = {scope: layer for scope in scopes if (layer := _named_layer(scope))}
    # 2. The others in the order of their numbers.
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


def _named_layer(scope: str) -> str | None:
    """Returns the name of the Keras layer of a TF-Slim layer, unless Keras numbers it."""
    path = scope.partition("/")[2]
    if path.startswith("Logits/"):
        return PREDICTIONS
    if path.startswith("Conv2d_7b_1x1"):
        return "conv_7b_bn" if path.endswith(_BATCH_NORM) else "conv_7b"
    if path == "Block8/Conv2d_1x1":
        return "block8_10_conv"
    block = re.fullmatch(r"Repeat\w*/(block\d+_\d+)/Conv2d_1x1", path)
    return f"{block[1]}_conv" if block else None


def _another_model(name: str, found: str) -> UserError:
    return UserError(
        f"the Keras model is not keras.applications.{name} with its classifier: it differs at "
        f"{found}"
    )
