"""Keras Applications, an independent implementation of five networks, against TF-Slim's."""

import keras
import numpy as np
import pytest

from slim.checkpoints.keras_models import (
    MODELS,
    fill_model,
    keras_name,
    load_model,
    network_values,
)
from slim.common.compat import slim, tf
from slim.common.errors import UserError
from slim.nets.nets_factory import get_network_fn
from tests.nets.conftest import plain_session

NUM_CLASSES = 7


def build(name: str, size: int) -> keras.Model:
    """A Keras model without softmax whose weights and averages are random."""
    keras.utils.set_random_seed(1)
    model = getattr(keras.applications, name)(
        weights=None, classes=NUM_CLASSES, classifier_activation=None, input_shape=(size, size, 3)
    )
    random = np.random.default_rng(1)
    for weight in model.weights:
        noise = random.standard_normal(weight.shape)
        match weight.name:
            case "kernel":
                weight.assign(noise * np.sqrt(2 / np.prod(weight.shape[:-1])))
            case "bias" | "beta" | "moving_mean":
                weight.assign(0.1 * noise)
            case "gamma" | "moving_variance":
                weight.assign(0.5 + 0.1 * np.abs(noise))
    return model


def run_network(name: str, values: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    with tf.Graph().as_default(), plain_session() as session:
        logits, _ = get_network_fn(name, NUM_CLASSES)(tf.constant(images), create_aux_logits=False)
        variables = slim.get_model_variables()
        assert {v.op.name for v in variables} == values.keys()
        initial = {v.initializer.inputs[1]: values[v.op.name] for v in variables}
        session.run([v.initializer for v in variables], initial)
        return session.run(logits)


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_keras(name):
    """At an even size, where the paddings of Keras and of TF-Slim differ the most."""
    size = 96
    model = build(name, size)
    images = np.random.default_rng(2).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    expected = np.asarray(model(images))
    values = network_values(name, model)
    found = run_network(MODELS[name], values, images)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())

    before = [np.asarray(weight) for weight in model.weights]
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    fill_model(name, model, values)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_allclose(weight, value, atol=1e-7, err_msg=weight.path)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_files_of_keras(suffix, tmp_path):
    model = build("InceptionV3", 75)
    path = tmp_path / f"model{suffix}"
    (model.save if suffix == ".keras" else model.save_weights)(path)
    expected = network_values("InceptionV3", model)
    found = network_values("InceptionV3", load_model("InceptionV3", path))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    with pytest.raises(UserError, match=r"keras.applications.ResNet50V2"):
        network_values("ResNet50V2", load_model("ResNet50V2", path))


def test_files_that_are_not_of_keras(tmp_path):
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(UserError, match=r"text.h5 cannot be loaded as keras.applications.Inceptio"):
        load_model("InceptionV3", tmp_path / "text.h5")
    with pytest.raises(UserError, match=r"--weights=.*none.keras: no such file"):
        load_model("InceptionV3", tmp_path / "none.keras")
    layers = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(UserError, match="no layer 'predictions'"):
        network_values("InceptionV3", layers)


def test_networks_that_keras_does_not_have():
    assert keras_name("inception_v3") == "InceptionV3"
    for name, reason in (
        ("inception_v4", "Keras has no such network"),
        ("resnet_v2_50", "Keras pads before pool1 in another way"),
    ):
        with pytest.raises(UserError, match=f"{name} has no equal in Keras .*{reason}"):
            keras_name(name)
