"""What tests share: the repository's commands, the published figures, a dataset of a few images."""

import os
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slim import convert_dataset as convert
from slim.checkpoints.description import ModelDescription, write_model_description
from slim.common.compat import slim, tf
from slim.nets.nets_factory import get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing
from tests import support
from tests.support import (
    ROOT,
    SMALL_NETWORK,
    SMALL_SIZE,
    TIMEOUT,
    invoke,
    variable_shapes,
    write_checkpoint,
)

SHARED = ROOT.parent / "shared"

# The tests of `./test.sh --quick`: files, folders, or tests. Each command runs once, and so do the
# parts that take a moment.
QUICK = (
    "test_architecture.py::test_no_import_runs_upward_or_in_a_circle_or_to_a_command",
    "test_architecture.py::test_nothing_is_long",
    "checkpoints/test_choosing.py",
    "checkpoints/test_description.py",
    "checkpoints/test_finding.py",
    "checkpoints/test_freezing.py::test_what_can_be_folded_is_and_what_cannot_stays",
    "common/test_command_line.py",
    "common/test_files.py",
    "common/test_tables.py",
    "datasets/test_conversion.py::test_shards_hold_the_images_and_labels_of_the_lists",
    "datasets/test_lists.py",
    "datasets/test_registry.py",
    "datasets/test_tfrecord.py",
    "evaluation/test_intervals.py",
    "features/",
    "nets/test_layers.py::test_frozen_batch_norm_is_that_of_inference",
    "nets/test_nets.py::test_less_than_the_smallest_size_is_refused",
    "nets/test_tf_slim_functions.py::test_arguments_are_in_the_order_of_tf_slim",
    "serving/test_classifier.py::test_any_kind_of_image",
    "test_classify.py::test_the_name_of_the_flag_is_optional_for_each_image",
    "test_eval_image_classifier.py::test_counts_each_image_once[plain]",
    "test_feature_extraction.py::test_plain_variables_where_there_are_no_averages",
    "test_long_tail.py",
    "test_packaging.py::test_every_command_has_an_entry_point",
    "test_packaging.py::test_published_files_at_the_root",
    "test_paths.py",
    "test_scripts.py",
    "test_train_image_classifier.py::test_a_complete_run_is_not_repeated",
    "test_train_image_classifier.py::test_evaluates_as_trained",
    "test_train_image_classifier.py::test_fine_tuning_changes_only_trainable_scopes[published]",
    "test_train_image_classifier.py::test_flags_are_the_published_ones",
    "test_train_image_classifier.py::test_invalid_flags",
    "test_train_image_classifier.py::test_writes_",
    "training/test_flags.py",
    "transfer/test_linear_classifier.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="run what a change most often breaks")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        begins = tuple(f"tests/{name}" for name in QUICK)
        others = [item for item in items if not item.nodeid.startswith(begins)]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item.nodeid.startswith(begins)]


@pytest.fixture(scope="module")
def small_network() -> Iterator[str]:
    """The name of a network that is trained in a moment; commands know it during the module."""
    with support.small_network():
        yield SMALL_NETWORK


def shared(name: str) -> Path:
    """A file or folder of published figures or photographs, which the repository does not hold."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name}: no such file or folder beside the repository (../shared/{name})")
    return path


@pytest.fixture(scope="session")
def reference() -> Path:
    return shared("reference")


@pytest.fixture(scope="session")
def birds() -> Path:
    return shared("birds")


def recipe_weights(name: str, shape: list[int]) -> np.ndarray:
    """The value of a variable in the reference figures: a function of its name."""
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    noise = random.standard_normal(size=shape).astype(np.float32)
    match name.rsplit("/", 1)[-1]:
        case "weights":
            return noise * np.sqrt(2 / np.prod(shape[:-1])).astype(np.float32)
        case "biases":
            return noise * np.float32(0.01)
        case "beta" | "moving_mean":
            return noise * np.float32(0.1)
        case "gamma":
            return np.float32(0.3) + noise * np.float32(0.1)
        case "moving_variance":
            return 1 + np.abs(noise) * np.float32(0.1)
    raise ValueError(name)


@cache
def small_values(num_classes: int | None) -> dict[str, np.ndarray]:
    """Returns these values of the variables of `SMALL_NETWORK`, which callers leave as they are."""
    with support.small_network():
        shapes = variable_shapes(SMALL_NETWORK, num_classes)
    return {name: recipe_weights(name, shape) for name, shape in shapes.items()}


def recipe_initializers(
    factor: float = 1,
) -> tuple[list[tf.Operation], dict[tf.Tensor, np.ndarray]]:
    """Returns what to run and to feed to fill every variable with the weights of the figures."""
    initializers, values = [], {}
    for variable in slim.get_model_variables():
        value = recipe_weights(variable.op.name, variable.shape.as_list())
        initializers.append(variable.initializer)
        values[variable.initializer.inputs[1]] = value * np.float32(factor)
    return initializers, values


def load_recipe_weights(session, factor: float = 1) -> None:
    """Fills every variable of a network with the weights of the reference figures, in one run."""
    session.run(*recipe_initializers(factor))


def run(*command: str, env: dict[str, str] | None = None, **kwargs) -> subprocess.CompletedProcess:
    """Runs a command in the repository's root; `python` is the one that runs the tests."""
    command = tuple(sys.executable if part == "python" else str(part) for part in command)
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        **kwargs,
    )


COLOURS = ("red", "green", "blue")
NUM_CLASSES = 3
NUM_TRAIN = 30
NUM_VALIDATION = 14


def draw_images(folder: Path, seed: int) -> None:
    """A dataset whose three classes are the colours red, green and blue, with noise."""
    random = np.random.RandomState(seed)
    for list_name, count in (("train.txt", NUM_TRAIN), ("val.txt", NUM_VALIDATION)):
        lines = []
        for index in range(count):
            label = index % NUM_CLASSES
            pixels = random.randint(0, 100, (90, 80 + index, 3))
            pixels[..., label] += 130
            name = f"images/{list_name[:-4]}_{index:03d}.jpg"
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path, quality=90)
            lines.append(f"{name}: {label}\n")
        (folder / list_name).write_text("".join(lines))


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    """A folder with the converted dataset `colours`."""
    data = tmp_path_factory.mktemp("data")
    draw_images(data / "colours", seed=0)
    done = invoke(convert, "--dataset_name=colours", f"--dataset_dir={data}", "--num_shards=3")
    assert done.code == 0, done.error
    return data


@cache
def colour_features(colours: Path) -> np.ndarray:
    """Returns what `small_values` make of the first training image of each colour."""
    images = sorted((colours / "colours/images").glob("train_*"))[:NUM_CLASSES]
    with support.small_network(), tf.Graph().as_default(), tf.Session() as session:
        preprocess = get_preprocessing("inception")
        examples = [
            preprocess(tf.constant(image.read_bytes()), SMALL_SIZE, SMALL_SIZE) for image in images
        ]
        net, _ = get_network_fn(SMALL_NETWORK, None)(tf.stack(examples))
        load_recipe_weights(session)
        return session.run(net)[:, 0, 0]


def colour_classifier(
    colours: Path, order: Sequence[int] = range(NUM_CLASSES)
) -> dict[str, np.ndarray]:
    """Returns the values of the variables of a `SMALL_NETWORK` that tells colours apart.

    All weights but the classifier's are random. An image is of the class whose example has the
    nearest features; `order` has the colour of the example of each class.
    """
    features = colour_features(colours)[list(order)]
    mean = features.mean(axis=0)
    weights = (features - mean).T / np.square(features - mean).sum(axis=1)
    return small_values(NUM_CLASSES) | {
        f"{SMALL_NETWORK}/logits/weights": weights[np.newaxis, np.newaxis],
        f"{SMALL_NETWORK}/logits/biases": -mean @ weights,
    }


def averages(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns values of variables as their moving averages."""
    return {f"{name}/ExponentialMovingAverage": value for name, value in values.items()}


@pytest.fixture(scope="session")
def classifier_dir(colours, tmp_path_factory) -> Path:
    """A folder as training leaves it: the classifier as moving averages, plain variables zero."""
    folder = tmp_path_factory.mktemp("classifier")
    values = colour_classifier(colours)
    plain = {name: np.zeros_like(value) for name, value in values.items()}
    write_checkpoint(folder / "model.ckpt-7", {**plain, **averages(values), "global_step": 7})
    description = ModelDescription(SMALL_NETWORK, SMALL_SIZE, SMALL_NETWORK, "colours", COLOURS)
    write_model_description(folder, description)
    return folder
