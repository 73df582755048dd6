"""Checkpoints as weights of PyTorch Image Models (timm).

Neither timm nor PyTorch is imported: their CUDA builds crash beside TensorFlow.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from slim.checkpoints.description import ModelDescription
from slim.checkpoints.loading import read_network
from slim.common.errors import UserError
from slim.serving.export_file import classes_file, writing_file

SUFFIX = ".safetensors"
# The layers of timm's models in the order in which TF-Slim creates its own: a module, or several
# with their numbers, and the layers of each. `branch1:3` stands for branch1.0 to branch1.2, and `!`
# for a bias instead of batch norm.
_LAYERS = {
    "inception_v4": (
        ("features", range(3), ""),
        ("features", [3], "conv"),
        ("features", [4], "branch0:2 branch1:4"),
        ("features", [5], "conv"),
        ("features", range(6, 10), "branch0 branch1:2 branch2:3 branch3.1"),
        ("features", [10], "branch0 branch1:3"),
        ("features", range(11, 18), "branch0 branch1:3 branch2:5 branch3.1"),
        ("features", [18], "branch0:2 branch1:4"),
        (
            "features",
            range(19, 22),
            "branch0 branch1_0 branch1_1a branch1_1b branch2_0 branch2_1 branch2_2 branch2_3a "
            "branch2_3b branch3.1",
        ),
        ("last_linear!", None, ""),
    ),
    "inception_resnet_v2": (
        ("conv2d_1a", None, ""),
        ("conv2d_2a", None, ""),
        ("conv2d_2b", None, ""),
        ("conv2d_3b", None, ""),
        ("conv2d_4a", None, ""),
        ("mixed_5b", None, "branch0 branch1:2 branch2:3 branch3.1"),
        ("repeat", range(10), "branch0 branch1:2 branch2:3 conv2d!"),
        ("mixed_6a", None, "branch0 branch1:3"),
        ("repeat_1", range(20), "branch0 branch1:3 conv2d!"),
        ("mixed_7a", None, "branch0:2 branch1:2 branch2:3"),
        ("repeat_2", range(9), "branch0 branch1:3 conv2d!"),
        ("block8", None, "branch0 branch1:3 conv2d!"),
        ("conv2d_7b", None, ""),
        ("classif!", None, ""),
    ),
}
EXAMPLE = """\
import numpy as np
import timm
import torch
from PIL import Image
model = timm.create_model({name!r}, num_classes={num_classes}, checkpoint_path={path!r}).eval()
image = Image.open("image.jpg").convert("RGB").resize(({size}, {size}))
images = torch.tensor(np.float32(image) / 127.5 - 1).permute(2, 0, 1)[None]
with torch.no_grad():
    probabilities = model(images).softmax(1)
print(open({classes!r}).read().splitlines()[probabilities[0].argmax()])
"""


def save(checkpoint: str, description: ModelDescription, path: Path, averages: bool) -> None:
    """Writes a checkpoint as weights of a timm model, and its class names beside it.

    Args:
        checkpoint: The prefix.
        description: The network and its classes.
        path: The file, `.safetensors`.
        averages: Whether to take the moving averages.

    Raises:
        UserError: timm does not have the network, the package safetensors is not installed, the
            checkpoint does not match the network, or the file cannot be written.
    """
    name, num_classes = description.model_name, len(description.class_names)
    layers = list(timm_layers(name))
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise UserError(
            "--format=timm requires the package safetensors: install it with "
            "'pip install safetensors'"
        ) from error
    weights = timm_weights(layers, read_network(checkpoint, name, num_classes, averages))
    with writing_file(path, description.class_names) as temporary:
        save_file(weights, temporary)


def timm_layers(model_name: str) -> Iterator[tuple[str, bool]]:
    """Yields the names of the convolutions and the classifier of a timm model.

    Yields:
        A name, and whether the layer has a bias instead of batch norm. The order is that in which
        TF-Slim creates its layers.

    Raises:
        UserError: timm does not have the network.
    """
    if model_name not in _LAYERS:
        reason = "timm has no such network"
        if model_name == "inception_v3":
            reason = "timm's average pooling counts the padding, which gives other features"
        raise UserError(
            f"{model_name} has no equal in timm ({reason}); networks with one: {', '.join(_LAYERS)}"
        )
    for module, numbers, layers in _LAYERS[model_name]:
        for parent in [module] if numbers is None else [f"{module}.{i}" for i in numbers]:
            for layer in layers.split() or [""]:
                branch, _, count = layer.partition(":")
                for name in [f"{branch}.{i}" for i in range(int(count))] if count else [branch]:
                    full = f"{parent}.{name}" if name else parent
                    yield full.removesuffix("!"), full.endswith("!")


def timm_weights(
    layers: list[tuple[str, bool]], values: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the weights of a timm model with the values of TF-Slim variables.

    Args:
        layers: The result of `timm_layers`.
        values: Values by the name of the variable, in the order of their creation.
    """
    weights = {}
    scopes = [key.removesuffix("/weights") for key in values if key.endswith("/weights")]
    for (layer, has_bias), scope in zip(layers, scopes, strict=True):
        kernel = np.moveaxis(values[f"{scope}/weights"], (-1, -2), (0, 1))  # outputs, inputs first
        if has_bias:
            weights[f"{layer}.weight"] = kernel
            weights[f"{layer}.bias"] = values[f"{scope}/biases"]
            continue
        beta = values[f"{scope}/BatchNorm/beta"]
        weights[f"{layer}.conv.weight"] = kernel
        weights[f"{layer}.bn.weight"] = np.ones_like(beta)  # these networks have no gamma
        weights[f"{layer}.bn.bias"] = beta
        weights[f"{layer}.bn.running_mean"] = values[f"{scope}/BatchNorm/moving_mean"]
        weights[f"{layer}.bn.running_var"] = values[f"{scope}/BatchNorm/moving_variance"]
        weights[f"{layer}.bn.num_batches_tracked"] = np.int64(0)
    return {key: np.ascontiguousarray(value) for key, value in weights.items()}


def compose_summary(path: Path, checkpoint: str, description: ModelDescription) -> str:
    """Returns a summary of the weights of a timm model, and an example of their use."""
    size, num_classes = description.image_size, len(description.class_names)
    example = EXAMPLE.format(
        name=description.model_name,
        num_classes=num_classes,
        path=str(path),
        size=size,
        classes=str(classes_file(path)),
    )
    return (
        f"{path}: weights of timm's {description.model_name}, {path.stat().st_size / 1e6:,.1f} MB, "
        f"from {checkpoint}\n"
        f"  images             float32 [batch, 3, {size}, {size}] in [-1, 1]\n"
        f"  logits             float32 [batch, {num_classes}]\n"
        f"  class names        {classes_file(path)}\n"
        f"example:\n\n{example}"
    )
