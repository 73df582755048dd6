"""Keras Applications, an independent implementation of two networks, against TF-Slim's."""

import sys
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import pytest
from scipy.special import log_softmax

from slim import export, load_classifier
from slim.checkpoints import __main__ as checkpoints
from slim.checkpoints import freezing, keras_layers
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
from tests.nets.conftest import few_repeats, plain_session
from tests.support import invoke

NUM_CLASSES = 7
SIZE = 96  # an even size, where the paddings of Keras and of TF-Slim differ the most


def build(name: str) -> keras.Model:
    """A Keras model without softmax whose weights and averages are random."""
    keras.utils.set_random_seed(1)
    model = getattr(keras.applications, name)(
        weights=None, classes=NUM_CLASSES, classifier_activation=None, input_shape=(SIZE, SIZE, 3)
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


def test_logits_are_those_of_inception_v3_of_keras(monkeypatch):
    name = "InceptionV3"
    model = build(name)
    images = np.random.default_rng(2).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
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


@pytest.fixture
def few_blocks(monkeypatch) -> Iterator[None]:
    """Repeats each block of Inception-ResNet-V2 twice at most, here and in Keras."""
    module = sys.modules[keras.applications.InceptionResNetV2.__module__]
    monkeypatch.setattr(
        module, "range", lambda first, end: range(first, min(end, first + 2)), raising=False
    )
    freezing.variable_shapes.cache_clear()
    with few_repeats():
        yield
    freezing.variable_shapes.cache_clear()


@pytest.mark.usefixtures("few_blocks")
def test_weights_become_a_checkpoint_and_a_keras_model(tmp_path):
    name = "InceptionResNetV2"
    model = build(name)
    pixels = np.random.default_rng(3).integers(0, 256, (90, 120, 3), np.uint8)
    image = tf.io.encode_jpeg(pixels).numpy()
    prepared = get_preprocessing(MODELS[name])(tf.constant(image), SIZE, SIZE)
    logits = np.asarray(model(prepared[None]))[0]
    for weight in model.get_layer(keras_layers.PREDICTIONS).weights:
        weight.assign(weight / logits.std())  # no probability is 0 or 1
    expected = log_softmax(logits / logits.std())
    model.save_weights(tmp_path / "mine.weights.h5")
    folders = [f"--checkpoints_dir={tmp_path}", f"--weights={tmp_path / 'mine.weights.h5'}"]
    done = invoke(checkpoints, f"keras:{name}", *folders)
    assert done.code == 0, done.error
    folder = tmp_path / "keras" / name
    assert f"keras:{name} is {MODELS[name]} with {NUM_CLASSES} classes\n" in done.output
    assert done.output.endswith(f"path: {folder}\n")
    assert f"{folder}\n" in invoke(checkpoints, "--list", f"--checkpoints_dir={tmp_path}").output
    again = invoke(checkpoints, f"keras:{name}", *folders)
    assert again.code == 1 and "exists already: move" in again.error

    with load_classifier(folder, image_size=SIZE) as classifier:
        found = classifier.probabilities([image])[0]
    np.testing.assert_allclose(np.log(found), expected, atol=1e-4)

    exported = tmp_path / "exported.keras"
    options = [f"--checkpoint_path={folder}", f"--image_size={SIZE}", "--format=keras"]
    done = invoke(export, *options, f"--output_dir={exported}")
    assert done.code == 0, done.error
    loaded = load_model(name, exported)
    found = np.asarray(loaded(prepared[None]))[0]
    np.testing.assert_allclose(np.log(found), expected, atol=1e-4)
    values = network_values(name, loaded)
    for variable, value in network_values(name, model).items():
        np.testing.assert_array_equal(values[variable], value)
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


def test_weights_of_another_model(tmp_path, monkeypatch):
    def dense(*units: int) -> keras.Model:
        layers = [keras.layers.Dense(number) for number in units]
        return keras.Sequential([keras.Input((4,)), *layers])

    dense(3).save_weights(tmp_path / "model.weights.h5")
    # In place of InceptionV3, which takes seconds to build.
    monkeypatch.setattr(keras_layers, "build_model", lambda _, classes: dense(classes, classes))
    with pytest.raises(UserError, match=r"cannot be loaded as keras.applications.InceptionV3"):
        load_model("InceptionV3", tmp_path / "model.weights.h5")


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
