"""Labels are not taken for other classes: names of a checkpoint and of a dataset are compared."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from slim import classify, export, feature_extraction
from slim import eval_image_classifier as evaluation
from slim import train_image_classifier as training
from slim.checkpoints.description import (
    ModelDescription,
    find_other_class,
    read_model_description,
    write_model_description,
)
from slim.evaluation.predictions import load_predictions
from tests.conftest import COLOURS, averages, colour_classifier
from tests.support import SMALL_NETWORK, SMALL_SIZE, Result, invoke, write_checkpoint

pytestmark = pytest.mark.usefixtures("small_network")

OTHERS = ("red", "yellow", "blue")
DIFFERENCE = "classes.txt of colours name other classes: class 1 is 'green' there and 'yellow' here"


@pytest.fixture
def data(colours, tmp_path) -> Path:
    """A folder with the dataset `colours`, whose classes have no names yet."""
    shutil.copytree(colours / "colours", tmp_path / "data/colours")
    return tmp_path / "data"


def name_classes(data: Path, *names: str) -> None:
    lines = [f"{label} {name}\n" for label, name in enumerate(names)]
    (data / "colours/classes.txt").write_text("".join(lines))


def train(data: Path, train_dir: Path, steps: int, *flags: str) -> Result:
    return invoke(
        training,
        f"--dataset_dir={data}",
        "--dataset_name=colours",
        f"--model_name={SMALL_NETWORK}",
        f"--train_image_size={SMALL_SIZE}",
        f"--train_dir={train_dir}",
        f"--max_number_of_steps={steps}",
        "--batch_size=2",
        "--trainable_scopes=logits",
        *flags,
    )


def evaluate(data: Path, checkpoint: Path, *flags: str) -> Result:
    return invoke(
        evaluation,
        f"--dataset_dir={data}",
        "--dataset_name=colours",
        f"--checkpoint_path={checkpoint}",
        "--max_number_of_evaluations=1",
        *flags,
    )


def test_a_run_is_not_resumed_on_other_classes(data, tmp_path):
    run = tmp_path / "run"
    done = train(data, run, 1)
    assert done.code == 0, done.error
    assert read_model_description(run).class_names == ("0", "1", "2")
    # 1. Names that come later are taken, and stay when they are lost.
    name_classes(data, *COLOURS)
    assert train(data, run, 2).code == 0
    (data / "colours/classes.txt").unlink()
    assert train(data, run, 3).code == 0
    assert read_model_description(run).class_names == COLOURS
    # 2. Other names are refused, also when nothing is left to do; nothing has changed then.
    name_classes(data, *OTHERS)
    before = {path: path.read_bytes() for path in run.iterdir()}
    for steps in (3, 4):
        code, output, error = train(data, run, steps)
        assert (code, output) == (1, "")
        expected = "pass another --train_dir; pass --renamed_classes if they are the same classes"
        assert DIFFERENCE in error and expected in error
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    # 3. A restored classifier is said to be of other classes, a new one is transfer.
    for flags, warned in ((), True), (("--checkpoint_exclude_scopes=logits",), False):
        done = train(data, tmp_path / f"{warned}", 1, f"--checkpoint_path={run}", *flags)
        assert done.code == 0, done.error
        assert (f"{DIFFERENCE}; --checkpoint_exclude_scopes=logits" in done.error) == warned
    # 4. The flag of those who only renamed them.
    assert train(data, run, 4, "--renamed_classes").code == 0
    assert read_model_description(run).class_names == OTHERS


def test_a_classifier_is_not_used_with_other_classes(data, classifier_dir, tmp_path):
    name_classes(data, *OTHERS)
    dataset = (f"--dataset_dir={data}", "--dataset_name=colours")
    checkpoint = f"--checkpoint_path={classifier_dir}"
    image = data / "colours/images/val_000.jpg"
    for command, flags in (
        (classify, (image,)),
        (export, (f"--output_dir={tmp_path}/saved",)),
        (export, (f"--output_dir={tmp_path}/a.tflite", "--format=tflite")),
    ):
        done = invoke(command, *flags, checkpoint, *dataset)
        assert done.code == 1 and f"{DIFFERENCE}; omit --dataset_name, or pass" in done.error
    assert not (tmp_path / "saved").exists()
    done = invoke(classify, image, checkpoint, *dataset, "--renamed_classes", "--top_k=3")
    assert done.code == 0 and "yellow" in done.output

    done = evaluate(data, classifier_dir)
    assert done.code == 1 and f"{DIFFERENCE}; evaluate on the dataset" in done.error
    done = evaluate(data, classifier_dir, "--renamed_classes", "--moving_average_decay=0.9")
    assert done.code == 0, done.error
    # Another number of classes: the first one that differs, not only the shapes of variables.
    copy = tmp_path / "more"
    shutil.copytree(classifier_dir, copy)
    trained = ModelDescription(
        SMALL_NETWORK, SMALL_SIZE, "vgg", "colours", ("red", "grey", *OTHERS)
    )
    write_model_description(copy, trained)
    assert "class 1 is 'grey' there and 'yellow' here" in evaluate(data, copy).error

    # The labels of features are the dataset's, whatever the classifier knows.
    features = invoke(feature_extraction, checkpoint, *dataset, f"--output_dir={tmp_path}/features")
    assert features.code == 0
    assert f"{DIFFERENCE}; features have the labels of the dataset" in features.error


KITS = ("great white shark, white shark, man-eater", "crane", "Boeing, 737")


@pytest.mark.parametrize(
    ("there", "here", "first"),
    [
        (("great_white_shark", "crane", "Boeing, 737"), KITS, None),
        (("n01484850", "n02012849", "n02690373"), KITS, None),
        (("great_white_shark", "crane", "Boeing, 747"), KITS, "class 2 is 'Boeing, 747'"),
        (("tiger_shark", "crane", "Boeing, 737"), KITS, "class 0 is 'tiger_shark'"),
        (("n01484850", "n02012849"), ("n01484850", "n02012848"), "class 1 is 'n02012849'"),
        (("0", "1", "2"), KITS, None),
        (("background", "0", "1", "2"), ("background", *KITS), None),
        (("0", "1", "10"), ("0", "1", "2"), None),  # without classes.txt
        (("0", "1", "10"), ("0", "10", "2"), "class 1 is '1' there and '10' here"),
        (KITS, None, None),
        (KITS, KITS[:2], "class 2 is 'Boeing, 737' there and missing here"),
    ],
)
def test_names_of_one_class(there, here, first, tmp_path):
    write_model_description(tmp_path, ModelDescription("inception_v3", 299, "vgg", "x", there))
    found = find_other_class(f"{tmp_path}/model.ckpt-1", "x", here, to_do="stop")
    assert found is None if first is None else first in found


@pytest.fixture
def with_background(colours, tmp_path) -> Path:
    """A folder with a classifier of colours that has a background class before them."""
    values = colour_classifier(colours)
    for name, width in (("weights", [(0, 0)] * 3), ("biases", [])):
        name = f"{SMALL_NETWORK}/logits/{name}"
        values[name] = np.pad(values[name], [*width, (1, 0)]).astype(np.float32)
    values[f"{SMALL_NETWORK}/logits/biases"][0] = -100
    folder = tmp_path / "background"
    write_checkpoint(folder / "model.ckpt-7", {**averages(values), "global_step": 7})
    return folder


def test_a_network_with_a_background_class_is_evaluated_with_a_negative_offset(
    data, with_background, classifier_dir, tmp_path
):
    name_classes(data, *COLOURS)
    # As earlier versions described TF-Slim's models.
    names = ["background", *COLOURS]
    content = {"format": 1, "model_name": SMALL_NETWORK, "image_size": SMALL_SIZE}
    content |= {"preprocessing_name": SMALL_NETWORK, "dataset_name": "x", "class_names": names}
    (with_background / "model.json").write_text(json.dumps(content))
    done = evaluate(data, with_background)
    assert done.code == 1 and "; pass --labels_offset=-1, with which it was" in done.error
    found = []
    for folder, offset in ((classifier_dir, 0), (with_background, -1)):
        done = evaluate(
            data,
            folder,
            f"--labels_offset={offset}",
            "--moving_average_decay=0.9",
            f"--eval_dir={tmp_path / folder.name}",
            "--per_class",
        )
        assert done.code == 0, done.error
        found.append(load_predictions(tmp_path / folder.name / "predictions-7.npz"))
    plain, shifted = found
    np.testing.assert_array_equal(plain.labels + 1, shifted.labels)
    np.testing.assert_array_equal(plain.top[:, 0] + 1, shifted.top[:, 0])
    assert shifted.class_names == tuple(names)
    assert shifted.class_sizes.tolist() == [0, *plain.class_sizes]
    # Its dataset names the other classes.
    flags = (
        f"--dataset_dir={data}",
        "--dataset_name=colours",
        f"--checkpoint_path={with_background}",
    )
    image = data / "colours/images/val_000.jpg"
    done = invoke(classify, image, *flags, "--json")
    labels = {row["class_name"]: row["label"] for row in json.loads(done.output)[0]["predictions"]}
    assert labels == {name: label for label, name in enumerate(names)}


def test_training_with_a_negative_offset_says_so_in_model_json(data, tmp_path):
    name_classes(data, *COLOURS)
    done = train(data, tmp_path / "run", 1, "--labels_offset=-1")
    assert done.code == 0, done.error
    content = json.loads((tmp_path / "run/model.json").read_text())
    assert content["labels_offset"] == -1
    assert content["class_names"] == ["background", *COLOURS]
    assert evaluate(data, tmp_path / "run", "--labels_offset=-1").code == 0
    done = evaluate(data, tmp_path / "run")
    assert done.code == 1 and "; pass --labels_offset=-1, with which" in done.error
