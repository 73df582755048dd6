"""Keras Applications, an independent implementation of two networks, against TF-Slim's."""

from collections.abc import Sequence

import keras
import numpy as np
import pytest
from scipy.special import softmax

from slim import export, load_classifier
from slim.checkpoints import __main__ as checkpoints
from slim.checkpoints import freezing
from slim.checkpoints.keras_layers import (
    MODELS,
    fill_model,
    keras_name,
    load_model,
    network_values,
)
from slim.common.compat import compared_by_identity, slim, tf
from slim.common.errors import UserError
from slim.nets.nets_factory import get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing
from tests.nets.conftest import plain_session
from tests.support import invoke

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


def run_network(
    logits: tf.Tensor, variables: Sequence[tf.Variable], values: dict[str, np.ndarray]
) -> np.ndarray:
    with logits.graph.as_default(), plain_session() as session:
        assert {v.op.name for v in variables} == values.keys()
        initial = {v.initializer.inputs[1]: values[v.op.name] for v in variables}
        session.run([v.initializer for v in variables], initial)
        return session.run(logits)


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_keras(name, monkeypatch):
    """At an even size, where the paddings of Keras and of TF-Slim differ the most."""
    size = 96
    model = build(name, size)
    images = np.random.default_rng(2).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    expected = np.asarray(model(images))
    with tf.Graph().as_default(), compared_by_identity():
        network_fn = get_network_fn(MODELS[name], NUM_CLASSES)
        logits, _ = network_fn(tf.constant(images), create_aux_logits=False)
        variables = slim.get_model_variables()
    # Building a network takes seconds.
    shapes = {v.op.name: tuple(v.shape.as_list()) for v in variables}
    monkeypatch.setattr(freezing, "variable_shapes", lambda *_: shapes)
    values = network_values(name, model)
    found = run_network(logits, variables, values)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())

    before = [np.asarray(weight) for weight in model.weights]
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    fill_model(name, model, values)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_allclose(weight, value, atol=1e-7, err_msg=weight.path)


@pytest.fixture(scope="module")
def inception() -> keras.Model:
    """A model for 75 pixels, which tests leave as it is."""
    return build("InceptionV3", 75)


def test_weights_of_keras(inception, tmp_path):
    path = tmp_path / "model.weights.h5"
    inception.save_weights(path)
    expected = network_values("InceptionV3", inception)
    found = network_values("InceptionV3", load_model("InceptionV3", path))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    layers = [keras.Input((4,)), keras.layers.Dense(3, name="predictions")]
    keras.Sequential(layers).save_weights(path)
    with pytest.raises(UserError, match=r"cannot be loaded as keras.applications.InceptionV3"):
        load_model("InceptionV3", path)


def test_a_keras_model_becomes_a_checkpoint_and_a_keras_model_again(inception, tmp_path):
    size, model = 75, inception
    model.save(tmp_path / "mine.keras")
    folders = [f"--checkpoints_dir={tmp_path}", f"--weights={tmp_path / 'mine.keras'}"]
    done = invoke(checkpoints, "keras:InceptionV3", *folders)
    assert done.code == 0, done.error
    folder = tmp_path / "keras/InceptionV3"
    assert f"keras:InceptionV3 is inception_v3 with {NUM_CLASSES} classes\n" in done.output
    assert done.output.endswith(f"path: {folder}\n")
    assert f"{folder}\n" in invoke(checkpoints, "--list", f"--checkpoints_dir={tmp_path}").output
    again = invoke(checkpoints, "keras:InceptionV3", *folders)
    assert again.code == 1 and "exists already: move" in again.error

    image = np.random.default_rng(3).integers(0, 256, (90, 120, 3), np.uint8)
    prepared = get_preprocessing("inception_v3")(tf.constant(image), size, size)
    logits = np.asarray(model(prepared[None]))[0]
    with load_classifier(folder, image_size=size) as classifier:
        found = classifier.probabilities([image])[0]
    np.testing.assert_allclose(found, softmax(logits), atol=1e-4)

    exported = tmp_path / "exported.keras"
    options = [f"--checkpoint_path={folder}", f"--image_size={size}", "--format=keras"]
    done = invoke(export, *options, f"--output_dir={exported}")
    assert done.code == 0, done.error
    found = np.asarray(keras.models.load_model(exported)(prepared[None]))[0]
    np.testing.assert_allclose(found, softmax(logits), atol=1e-4)
    labels = [f"{label} {label}" for label in range(NUM_CLASSES)]
    assert (tmp_path / "exported.classes.txt").read_text().splitlines() == labels
    for more, message in (
        ([f"--output_dir={exported}"], "exported.keras exists already: pass --overwrite"),
        ([f"--output_dir={tmp_path}/folder"], "expected the name of a file that ends in .keras"),
        (["--num_crops=5"], "--num_crops=5: only for --format=saved_model"),
        (["--float16"], "--float16: only for --format=tflite"),
    ):
        done = invoke(export, *options, *more)
        assert done.code == 1 and message in done.error


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
