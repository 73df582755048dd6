"""Weights for PyTorch Image Models, which is an independent implementation of two networks."""

import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from slim import export
from slim.checkpoints.loading import variable_shapes
from slim.common.compat import compared_by_identity, slim, tf
from slim.common.errors import UserError
from slim.nets.nets_factory import get_network_fn
from slim.serving.timm_export import timm_layers, timm_weights
from tests.nets.conftest import plain_session
from tests.support import invoke, write_checkpoint

SIZE, NUM_CLASSES = 96, 7
# Layers with weights, and those of them with batch norm, of timm 1.0.31.
COUNTS = {"inception_v4": (150, 149), "inception_resnet_v2": (245, 204)}


def random_values(name: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    values = {}
    for key, shape in variable_shapes(name, NUM_CLASSES).items():
        noise = random.standard_normal(shape)
        match key.rpartition("/")[2]:
            case "weights":
                value = noise * np.sqrt(2 / np.prod(shape[:-1]))
            case "moving_variance":
                value = 0.5 + 0.1 * np.abs(noise)
            case _:
                value = 0.1 * noise
        values[key] = np.float32(value)
    return values


# In a process of its own: PyTorch crashes beside TensorFlow.
TIMM = """
import sys

import numpy as np
import timm
import torch

name, weights, images, output = sys.argv[1:]
model = timm.create_model(name, num_classes=7, checkpoint_path=weights).eval()
with torch.no_grad():
    logits = model(torch.tensor(np.load(images)).permute(0, 3, 1, 2))
np.save(output, logits.numpy())
"""


@pytest.mark.skipif(not find_spec("timm"), reason="timm is not installed: pip install timm")
@pytest.mark.parametrize("name", COUNTS)
def test_logits_are_those_of_timm(name, tmp_path):
    values = random_values(name)
    checkpoint = write_checkpoint(tmp_path / "model.ckpt-5", {**values, "global_step": 5})
    done = invoke(export, f"--checkpoint_path={checkpoint}", "--format=timm")
    assert done.code == 0, done.error
    path = tmp_path / "export/5.safetensors"
    assert done.output.startswith(f"{path}: weights of timm's {name}, ")
    assert len((tmp_path / "export/5.classes.txt").read_text().splitlines()) == NUM_CLASSES

    images = np.random.default_rng(2).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    options = [name, str(path), str(tmp_path / "images.npy"), str(tmp_path / "logits.npy")]
    subprocess.run([sys.executable, "-c", TIMM, *options], check=True)
    found = np.load(tmp_path / "logits.npy")
    with tf.Graph().as_default(), plain_session() as session, compared_by_identity():
        network_fn = get_network_fn(name, NUM_CLASSES)
        logits, _ = network_fn(tf.constant(images), create_aux_logits=False)
        variables = slim.get_model_variables()
        feed = {v.initializer.inputs[1]: values[v.op.name] for v in variables}
        session.run([v.initializer for v in variables], feed)
        expected = session.run(logits)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_layers_is_that_of_timm(name):
    layers = dict(timm_layers(name))
    with_bias = sum(layers.values())
    assert (len(layers), len(layers) - with_bias) == COUNTS[name]


def test_kernels_are_transposed_and_batch_norm_gets_a_scale():
    random = np.random.default_rng(1)
    shapes = {"net/a/weights": (3, 1, 4, 5), "net/fc/weights": (5, 2), "net/fc/biases": (2,)}
    norms = {f"net/a/BatchNorm/{key}": (5,) for key in ("beta", "moving_mean", "moving_variance")}
    values = {key: np.float32(random.random(shape)) for key, shape in {**shapes, **norms}.items()}
    found = timm_weights([("stem.0", False), ("head", True)], values)
    images = random.random((1, 3, 1, 4))
    ours = np.einsum("nhwi,hwio->no", images, values["net/a/weights"])
    theirs = np.einsum("nihw,oihw->no", images.transpose(0, 3, 1, 2), found["stem.0.conv.weight"])
    np.testing.assert_allclose(theirs, ours)
    np.testing.assert_array_equal(found["head.weight"], values["net/fc/weights"].T)
    np.testing.assert_array_equal(found["head.bias"], values["net/fc/biases"])
    np.testing.assert_array_equal(found["stem.0.bn.weight"], np.ones(5))
    np.testing.assert_array_equal(found["stem.0.bn.running_var"], values[list(norms)[2]])
    assert all(value.flags.c_contiguous for value in found.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("inception_v3", "inception_v3 has no equal in timm (timm's average pooling counts"),
        ("resnet_v2_50", "resnet_v2_50 has no equal in timm (timm has no such network)"),
    ],
)
def test_networks_that_timm_does_not_have(name: str, message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        list(timm_layers(name))
