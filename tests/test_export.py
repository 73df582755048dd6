"""Tests of `slim.export`, whose SavedModels are used by a process that has only TensorFlow."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slim import eval_image_classifier as evaluation
from slim import export, load_classifier
from slim import feature_extraction as extraction
from slim.checkpoints.description import (
    ModelDescription,
    read_model_description,
    write_model_description,
)
from slim.common import files
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.preprocessing.preprocessing_factory import get_preprocessing
from slim.serving.saved_model import default_folder, replacing_folder, save
from tests.conftest import COLOURS, NUM_VALIDATION, run
from tests.datasets.conftest import encode, oriented, picture
from tests.support import SMALL_DEPTH, SMALL_NETWORK, SMALL_SIZE, invoke, write_checkpoint

pytestmark = pytest.mark.usefixtures("small_network")

KINDS = ("JPEG", "PNG", "GIF", "BMP")
# Version 2's way of loading, an empty batch, and version 1's.
USE = """
import sys
import numpy as np
import tensorflow as tf

folder, output, *paths = sys.argv[1:]
images = [open(path, "rb").read() for path in paths]
model = tf.saved_model.load(folder)
serve = model.signatures["serving_default"]
found = dict(serve(image_bytes=tf.constant(images)))
empty = serve(image_bytes=tf.zeros([0], tf.string))
found.update({f"empty_{name}": value for name, value in empty.items()})
best = model.signatures["top_k"](image_bytes=tf.constant(images))
found.update({f"best_{name}": value for name, value in best.items()})
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    loaded = tf.compat.v1.saved_model.load(session, ["serve"], folder)
    signature = loaded.signature_def["serving_default"]
    fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
    rows = session.run(fetches, {signature.inputs["image_bytes"].name: images[:2]})
found.update({f"v1_{name}": value for name, value in rows.items()})
assert not [name for name in sys.modules if "slim" in name]
arrays = {name: np.asarray(value) for name, value in found.items()}
np.savez(output, **{k: v.astype("S") if v.dtype == object else v for k, v in arrays.items()})
"""


def test_numbers_equal_those_of_evaluation_and_extraction(colours, classifier_dir, tmp_path):
    folder = classifier_dir / "export/7"
    exported = invoke(export, f"--checkpoint_path={classifier_dir}", "--top_k=2")
    assert exported.code == 0, exported.error
    assert exported.output.startswith(f"{folder}: a SavedModel of ")
    assert f"{classifier_dir}/model.ckpt-7: moving averages (" in exported.error
    assert [path.name for path in folder.parent.iterdir()] == ["7"]

    images = [colours / f"colours/images/val_{index:03d}.jpg" for index in range(NUM_VALIDATION)]
    green = Image.new("RGB", (48, 40), (30, 200, 30))
    for kind in KINDS:
        green.save(tmp_path / kind, kind)
    # The printed example runs after it.
    (tmp_path / "image.jpg").write_bytes((tmp_path / "JPEG").read_bytes())
    example = exported.output.partition("example:\n\n")[2]
    example = example.replace("image.jpg", f"{tmp_path}/image.jpg")
    kinds = [tmp_path / kind for kind in KINDS]
    done = run("python", "-c", USE + example, folder, tmp_path / "found.npz", *images, *kinds)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert re.fullmatch(r"\d+\.\d% green", first) and len(others) == 1

    found = np.load(tmp_path / "found.npz")
    for name, width in (("probabilities", 3), ("class_names", 3), ("features", SMALL_DEPTH)):
        assert found[name].shape == (NUM_VALIDATION + len(KINDS), width)
        assert found[f"empty_{name}"].shape == (0, width)
        assert found[f"v1_{name}"].shape == (2, width)
    assert (found["class_names"] == np.array([name.encode() for name in COLOURS])).all()
    order = np.argsort(-found["probabilities"], kind="stable")[:, :2]
    best = np.take_along_axis(found["probabilities"], order, axis=1)
    np.testing.assert_array_equal(found["best_probabilities"], best)
    assert (found["best_class_names"] == np.array(COLOURS).astype("S")[order]).all()
    for name in ("probabilities", "features"):
        assert found[name].dtype == np.float32
        scale = found[name].std()
        np.testing.assert_allclose(found[f"v1_{name}"], found[name][:2], atol=1e-4 * scale)
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, atol=1e-5)
    assert (found["probabilities"][NUM_VALIDATION:].argmax(axis=1) == 1).all()

    common = [f"--dataset_dir={colours}", "--dataset_name=colours", f"--model_name={SMALL_NETWORK}"]
    common += [f"--checkpoint_path={classifier_dir}", "--moving_average_decay=0.9"]
    options = [f"--eval_image_size={SMALL_SIZE}", "--max_number_of_evaluations=1"]
    evaluated = invoke(evaluation, *common, *options)
    assert evaluated.code == 0, evaluated.error
    likeliest = found["probabilities"][:NUM_VALIDATION].argmax(axis=1)
    accuracy = (likeliest == np.arange(NUM_VALIDATION) % 3).mean()
    assert f"eval/Accuracy {accuracy:.4f}, eval/Recall_5 1.0000, " in evaluated.output
    assert f", {NUM_VALIDATION} images, " in evaluated.output
    assert accuracy > 0.9

    options = [f"--image_size={SMALL_SIZE}", "--splits=val", f"--output_dir={tmp_path}"]
    extracted = invoke(extraction, *common, *options)
    assert extracted.code == 0, extracted.error
    features = np.load(tmp_path / "colours_feature_val.npy")
    scale = features.std()
    np.testing.assert_allclose(found["features"][:NUM_VALIDATION], features, atol=1e-4 * scale)


def test_one_photograph_has_one_answer(classifier_dir, tmp_path):
    """From its path, its bytes, Pillow and the SavedModel, turned as `model.json` says.

    The expected answer is that for a file of the upright picture.
    """
    shutil.copytree(classifier_dir, tmp_path, dirs_exist_ok=True)
    written = replace(read_model_description(tmp_path), apply_orientation=True)
    write_model_description(tmp_path, written)
    upright = picture(7, (48, 40))
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    cut_out = stored.convert("RGBA")
    cut_out.putalpha(Image.linear_gradient("L").resize(stored.size))
    path = tmp_path / "image"
    contents = [oriented(image, "PNG", 6) for image in (stored, cut_out)]
    contents += [oriented(stored, "JPEG", 6), oriented(stored.convert("CMYK"), "JPEG", 6, ">")]
    # Upright: without EXIF, and with a directory of EXIF beyond its end.
    damaged = oriented(upright, "JPEG", 6).replace(b"II*\0\x08\0", b"II*\0\xff\xff")
    upright_ones = [encode(upright), damaged]
    exported = invoke(export, f"--checkpoint_path={tmp_path}", f"--output_dir={tmp_path}/saved")
    assert exported.code == 0, exported.error
    serve = tf.saved_model.load_v2(str(tmp_path / "saved")).signatures["serving_default"]
    served = serve(image_bytes=tf.constant(contents + upright_ones))["probabilities"].numpy()
    with load_classifier(tmp_path) as model, load_classifier(classifier_dir) as other:
        (expected,) = model.probabilities([upright])
        found = model.probabilities(upright_ones)
        np.testing.assert_allclose(found, served[len(contents) :], atol=1e-6)
        for content, probabilities in zip(contents, served, strict=False):
            path.write_bytes(content)
            found = model.probabilities([path, content, Image.open(path)])
            np.testing.assert_allclose(found, np.stack([probabilities] * 3), atol=1e-6)
            if content is not contents[1]:
                np.testing.assert_allclose(probabilities, expected, atol=0.02)
            assert np.abs(other.probabilities([path]) - found).max() > 1e-3


def write_constant(folder: Path, probability: float) -> None:
    """Exports a classifier that gives every class the same probability."""

    def classify(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": tf.fill([tf.size(encoded), len(COLOURS)], probability)}

    with replacing_folder(folder, overwrite=True) as temporary:
        save(classify, ModelDescription("", SMALL_SIZE, "", "", COLOURS), temporary, top_k=1)


def read_constant(folder: Path) -> float:
    outputs = tf.saved_model.load_v2(str(folder)).signatures["serving_default"](
        image_bytes=tf.constant([encode(picture(0))])
    )
    return float(outputs["probabilities"][0, 0])


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("float16", [False, True])
def test_tflite_gives_the_probabilities_and_features(float16, colours, classifier_dir, tmp_path):
    path = tmp_path / "model.tflite"
    options = [f"--checkpoint_path={classifier_dir}", f"--output_dir={path}", "--format=tflite"]
    done = invoke(export, *options, *["--float16"] * float16)
    assert done.code == 0, done.error
    pictures = sorted((colours / "colours/images").glob("val_*"))[:3]
    with load_classifier(classifier_dir) as classifier:
        expected = classifier.probabilities(pictures), classifier.features(pictures)
    prepare = get_preprocessing(SMALL_NETWORK)
    with tf.Graph().as_default(), tf.Session() as session:
        images = [prepare(tf.constant(p.read_bytes()), SMALL_SIZE, SMALL_SIZE) for p in pictures]
        images = np.stack(session.run(images))
    run = tf.compat.v2.lite.Interpreter(str(path)).get_signature_runner("serving_default")
    outputs = run(images=images)
    for name, wanted in zip(("probabilities", "features"), expected, strict=True):
        atol = (1e-2 if float16 else 1e-4) * wanted.std()
        np.testing.assert_allclose(outputs[name], wanted, atol=atol)
    assert (tmp_path / "model.classes.txt").read_text() == "0 red\n1 green\n2 blue\n"


def test_an_export_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "models/3"
    write_constant(folder, 0.5)
    (tmp_path / "models/3.new.tmp").mkdir()  # left by a run that was killed
    write_constant(folder, 0.25)
    assert read_constant(folder) == 0.25
    with pytest.raises(RuntimeError, match="amid"), replacing_folder(folder, True) as temporary:
        temporary.mkdir()
        raise RuntimeError("amid")
    assert read_constant(folder) == 0.25
    write_constant(folder, 0.125)
    assert read_constant(folder) == 0.125
    assert [path.name for path in folder.parent.iterdir()] == ["3"]


def test_one_export_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.1)
    with replacing_folder(tmp_path / "3", overwrite=False) as temporary:
        temporary.mkdir()
        with (
            pytest.raises(UserError, match=f"in use by process {os.getpid()} on "),
            replacing_folder(tmp_path / "3", overwrite=True),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_into_the_folder_of_a_running_training(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_SECONDS", 0)
    with files.exclusive(tmp_path), replacing_folder(tmp_path / "3", False) as temporary:
        temporary.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_nothing_is_lost_by_mistake(classifier_dir, tmp_path):
    write_constant(tmp_path / "model", 0.5)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    for folder, more, message in (
        ("model", [], "model exists already: pass --overwrite to replace it, or another"),
        ("mine", [], "mine: exists but is not a SavedModel; pass a new folder"),
        ("mine", ["--overwrite"], "mine: exists but is not a SavedModel; pass a new folder"),
        ("mine/notes.txt", ["--overwrite"], "notes.txt: exists but is not a SavedModel"),
        ("mine/notes.txt/new", [], "notes.txt/new: cannot be written"),
    ):
        flags = [f"--checkpoint_path={classifier_dir}", f"--output_dir={tmp_path / folder}"]
        done = invoke(export, *flags, *more)
        assert (done.code, done.output) == (1, "")
        assert re.fullmatch(f"error: .*{message}.*", done.error.splitlines()[-1])
    assert read_constant(tmp_path / "model") == 0.5
    assert (tmp_path / "mine/notes.txt").exists()


def test_the_default_folder(tmp_path):
    for name, folder in (("model.ckpt", "export/12"), ("inat_299.ckpt", "export/inat_299/12")):
        prefix = write_checkpoint(tmp_path / name, {"global_step": 12})
        assert default_folder(prefix) == tmp_path / folder
