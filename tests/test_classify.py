"""`python -m slim.classify`: probabilities, names, kinds of images, errors."""

import errno
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from slim import classify
from slim.checkpoints.description import ModelDescription
from slim.classify import classify_images
from slim.common.compat import slim, tf
from slim.common.errors import UserError
from slim.nets.nets_factory import get_network_fn
from slim.preprocessing.preprocessing_factory import get_views
from slim.serving.classifier import Classifier, Outputs
from tests.conftest import COLOURS, NUM_CLASSES
from tests.support import SMALL_NETWORK, SMALL_SIZE, beyond_memory, invoke

CROPS = 10


pytestmark = pytest.mark.usefixtures("small_network")


def classifier(outputs: Outputs, batch_size: int) -> Classifier:
    return Classifier(outputs, ModelDescription("", SMALL_SIZE, "", "", COLOURS), batch_size)


def test_json_has_the_networks_probabilities(colours, classifier_dir):
    """With moving averages, in batches of 4; the last batch has 2 images."""
    images = sorted((colours / "colours/images").glob("val_*"))
    expected = []
    with tf.Graph().as_default(), tf.Session() as session:
        encoded = tf.placeholder(tf.string, [])
        views = get_views("inception", CROPS)(encoded, SMALL_SIZE, SMALL_SIZE)
        logits, _ = get_network_fn(SMALL_NETWORK, NUM_CLASSES)(views)
        named = {f"{v.op.name}/ExponentialMovingAverage": v for v in slim.get_model_variables()}
        tf.train.Saver(named).restore(session, str(classifier_dir / "model.ckpt-7"))
        for image in images:
            rows = session.run(tf.nn.softmax(logits), {encoded: image.read_bytes()})
            expected.append(rows.mean(axis=0))
    assert set(np.argmax(expected, axis=1)) == set(range(NUM_CLASSES))

    flags = [f"--checkpoint_path={classifier_dir}", f"--num_crops={CROPS}", "--batch_size=4"]
    done = invoke(classify, *images, "--json", *flags)
    assert done.code == 0, done.error
    rows = json.loads(done.output)
    assert [row["image"] for row in rows] == [str(image) for image in images]
    for row, probabilities in zip(rows, expected, strict=True):
        labels = [prediction["label"] for prediction in row["predictions"]]
        found = [prediction["probability"] for prediction in row["predictions"]]
        assert len(found) == NUM_CLASSES and found == sorted(found, reverse=True)
        np.testing.assert_allclose(found, probabilities[labels], atol=1e-4)
        names = [prediction["class_name"] for prediction in row["predictions"]]
        assert names == [COLOURS[label] for label in labels]


def test_the_name_of_the_flag_is_optional_for_each_image(colours, classifier_dir):
    images = sorted((colours / "colours/images").glob("val_*"))[:3]
    flags = [f"--checkpoint_path={classifier_dir}", "--json"]
    done = invoke(classify, f"--images={images[0]}", images[1], images[2], *flags)
    assert [row["image"] for row in json.loads(done.output)] == list(map(str, images))


def test_any_kind_of_image_in_a_folder_and_bad_ones_beside_it(classifier_dir, tmp_path):
    """Flags and images in any order; the good ones are classified all the same."""
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    red = Image.new("RGB", (50, 40), (200, 40, 40))
    red.convert("CMYK").save(folder / "cmyk.jpg")
    red.save(folder / "lies.jpg", "PNG")
    red.save(folder / "below/upper.TIFF")
    Image.new("RGB", (40, 50), (40, 40, 200)).save(tmp_path / "blue.webp")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    (folder / "notes.txt").write_text("no image, and not taken for one")
    flag, missing = f"--checkpoint_path={classifier_dir}", tmp_path / "missing.png"
    done = invoke(
        classify, tmp_path / "blue.webp", "--top_k=1", flag, folder, missing, "--batch_size=2"
    )
    assert done.code == 1
    lines = done.output.splitlines()
    images = ["blue.webp", "folder/below/upper.TIFF", "folder/cmyk.jpg", "folder/lies.jpg"]
    assert lines[::2] == [str(tmp_path / image) for image in images]
    for line, colour in zip(lines[1::2], ["blue", "red", "red", "red"], strict=True):
        assert re.fullmatch(rf"  +\d+\.\d%  {colour}", line)
    left_out, chosen, of_broken, of_missing, summary = done.error.splitlines()
    assert left_out.endswith(f"files that are not taken for images (1): {folder}/notes.txt")
    assert chosen.startswith(f"{classifier_dir}/model.ckpt-7: moving averages")
    assert of_broken.startswith(f"{folder}/broken.jpg: ")
    assert of_missing == f"{missing}: missing"
    assert summary == "error: 2 of 6 images could not be classified, see above"


def test_images_of_folders_behind_links_and_of_datasets(colours, tmp_path, capsys, monkeypatch):
    """Every file of a folder is classified or counted; a dataset has the images of its lists."""
    folder = tmp_path / "folder"
    (folder / "species").mkdir(parents=True)
    (folder / "linked").symlink_to(colours / "colours/images")
    (folder / "species/up").symlink_to("..")
    expected = sorted(path.name for path in (folder / "linked").iterdir())
    for name in ("1.jfif", "2.avif", "3.heic", "labels.csv", ".hidden.jpg"):
        (folder / "species" / name).touch()
    found = classify.find_images([str(folder)])
    assert [path.name for path in found] == [*expected, "1.jfif", "2.avif"]
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {folder}: files that are not taken for images (3): ")

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"folder cannot be read"):
        patch.setattr(os, "scandir", refuse)
        classify.find_images([str(folder)])

    dataset = tmp_path / "dataset"
    dataset.mkdir()
    (dataset / "colours").symlink_to(colours / "colours")
    Image.new("RGB", (4, 4)).save(dataset / "statistics.png")
    (dataset / "train.txt").write_text("colours/images/train_003.jpg: 0\n")
    (dataset / "val.txt").write_text("colours/images/val_001.jpg: 1\n")
    names = ("train_003.jpg", "val_001.jpg")
    images = [dataset / "colours/images" / name for name in names]
    assert classify.find_images([str(dataset)]) == images


def test_images_that_cannot_be_read_or_give_no_number(tmp_path, capsys):
    """A batch without readable images, and a network that has diverged."""
    image, missing = tmp_path / "image.png", tmp_path / "missing.png"
    Image.new("RGB", (4, 4)).save(image)

    def diverged(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": tf.fill([tf.size(encoded), 3], np.float32(np.nan))}

    with classifier(diverged, batch_size=1) as model:
        assert classify_images(model, [missing, image], 5, as_json=True) == 2
    out, error = capsys.readouterr()
    assert json.loads(out) == []
    assert error.splitlines() == [
        f"{missing}: missing",
        f"{image}: the network's probabilities are not finite",
    ]


def test_names_that_are_not_unicode_are_valid_json(tmp_path, capsys):
    """Of a file and of a class; strict parsers refuse half a pair of surrogates."""
    image = tmp_path / os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (4, 4)).save(image)

    def unsure(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": tf.fill([tf.size(encoded), 2], np.float32(0.5))}

    names = ("\ud83d", "\u9ebb\U0001f426")
    with Classifier(unsure, ModelDescription("", SMALL_SIZE, "", "", names), 1) as model:
        assert classify_images(model, [image], 2, as_json=True) == 0
    (row,) = json.loads(capsys.readouterr().out)
    found = [row["image"], *(prediction["class_name"] for prediction in row["predictions"])]
    assert found == [f"{tmp_path}/caf\\udce9.png", r"\ud83d", names[1]]


def test_errors(classifier_dir, tmp_path):
    image = tmp_path / "image.png"
    Image.new("RGB", (4, 4)).save(image)
    (tmp_path / "empty").mkdir()
    good = f"--checkpoint_path={classifier_dir}"
    for arguments, message in (
        ([good], "IMAGE is missing: .* -m slim.classify IMAGE"),
        ([tmp_path / "none.jpg", good], "no image at .*none.jpg: expected an image file"),
        ([tmp_path / "empty", good], "no image in the folder .*empty: expected files as .jpg"),
        ([""], "an IMAGE is empty: expected an image file or a folder"),
        ([image], "--checkpoint_path is missing"),
        ([image, f"--checkpoint_path={tmp_path}"], "holds no checkpoint"),
        ([image, good, "--num_crops=3"], "--num_crops=3: expected 1, 5, 10 or 12"),
        ([image, good, "--model_name=resnet50"], "unknown network 'resnet50'; did you mean"),
        (
            [image, good, "--model_name=inception_v3"],
            f"--model_name=inception_v3: checkpoint .* has variables of {SMALL_NETWORK}; omit the",
        ),
        ([image, good, "--image_size=100000"], "100000x100000 is too large, .* at most 4096x4096"),
        ([image, good, "--moving_average_decay=2"], "expected a finite number >= 0 and <= 1"),
        ([image, good, "--image_size=20"], f"20x20 is too small for {SMALL_NETWORK}, .* 32x32"),
        ([image, good, "--preprocessing_name=vg"], "unknown preprocessing 'vg'; did you mean vgg"),
        ([image, good, "--top_k=0"], "top_k"),
        ([image, good, f"--batch_size={10**20}"], "batch_size"),
    ):
        done = invoke(classify, *arguments)
        assert (done.code, done.output) == (1, ""), arguments
        assert re.fullmatch(f"error: .*{message}.*\n", done.error), (arguments, done.error)


def test_out_of_memory_is_one_line(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "image.png")

    def classify(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([encoded]):
            return {"probabilities": beyond_memory([None, 3])}

    with (
        classifier(classify, batch_size=8) as model,
        pytest.raises(UserError, match=r"^batch_size=8: out of memory; pass a smaller one"),
    ):
        classify_images(model, [tmp_path / "image.png"], 1, as_json=False)
