"""Feature extraction: values, order, kinds of images, interruptions, errors."""

import json
import os
import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector import ProjectorConfig
from tensorboard.plugins.projector.projector_plugin import _read_tensor_binary_file

from slim import convert_dataset, load_classifier
from slim import eval_image_classifier as evaluation
from slim import feature_extraction as extraction
from slim import train_image_classifier as training
from slim.checkpoints.description import (
    ModelDescription,
    read_model_description,
    write_model_description,
)
from slim.common import files
from slim.evaluation.predictions import load_predictions
from slim.features import extractor
from slim.features.extractor import PUBLISHED_NAMES
from slim.nets.nets_factory import NETWORKS
from slim.transfer.features import load_pictures
from tests.conftest import (
    NUM_TRAIN,
    NUM_VALIDATION,
    averages,
    draw_images,
    recipe_weights,
    run,
    small_values,
)
from tests.datasets.conftest import Trap, oriented, picture, wait_until
from tests.support import (
    SMALL_DEPTH,
    SMALL_NETWORK,
    SMALL_SIZE,
    THIS_MACHINE,
    Process,
    beyond_memory,
    invoke,
    write_checkpoint,
)

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture(scope="module")
def checkpoint(small_network, tmp_path_factory) -> str:
    """A network of random weights as moving averages, plain variables half of them."""
    values = small_values(None)
    plain = {name: value / 2 for name, value in values.items()}
    folder = tmp_path_factory.mktemp("checkpoint")
    return write_checkpoint(folder / "net.ckpt", {**plain, **averages(values)})


def arguments(data: Path, checkpoint: str, output: Path, *more: object) -> list[object]:
    return [
        f"--dataset_dir={data}",
        "--dataset_name=colours",
        f"--checkpoint_path={checkpoint}",
        f"--model_name={SMALL_NETWORK}",
        f"--image_size={SMALL_SIZE}",
        f"--output_dir={output}",
        *more,
    ]


def test_features_of_photographs_equal_the_published_ones(reference, birds, tmp_path):
    shapes = json.loads((reference / "nets.json").read_text())["inception_v3"]["model_variables"]
    values = {name: recipe_weights(name, shape) * np.float32(0.98) for name, shape in shapes}
    plain = {name: value / 2 for name, value in values.items()}
    checkpoint = write_checkpoint(tmp_path / "net.ckpt", {**plain, **averages(values)})
    expected = np.load(reference / "features_inception_v3.npz")
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "images").symlink_to(birds / "images")
    lines = [f"{path}: {index}\n" for index, path in enumerate(expected["paths"])]
    (folder / "train.txt").write_text("".join(lines))
    (folder / "val.txt").write_text("".join(reversed(lines)))
    common = [f"--dataset_dir={tmp_path}", "--dataset_name=photographs"]
    common += [f"--checkpoint_path={checkpoint}", "--merge_splits", f"--output_dir={tmp_path}"]
    done = invoke(extraction, *common, "--batch_size=2")
    assert done.code == 0, done.error
    assert "moving averages" in done.error
    found = np.load(tmp_path / "photographs_feature_train.npy")
    assert (found.shape, found.dtype) == ((3, 2048), np.float32)
    scale = expected["features"].std()
    np.testing.assert_allclose(found, expected["features"], atol=1e-4 * scale)
    share = np.abs(found - expected["features"]).max() / scale
    print(f"features differ by {share:.1e} of their standard deviation at most")
    merged = np.load(tmp_path / "photographs_feature.npy")
    np.testing.assert_allclose(merged, np.concatenate([found, found[::-1]]), atol=1e-4 * scale)
    labels = np.load(tmp_path / "photographs_label.npy")
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, [0, 1, 2, 2, 1, 0])


def test_labels_follow_the_lists_and_finished_features_are_skipped(colours, checkpoint, tmp_path):
    flags = arguments(colours, checkpoint, tmp_path)
    assert invoke(extraction, *flags).code == 0
    for split, count in (("train", NUM_TRAIN), ("val", NUM_VALIDATION)):
        features = np.load(tmp_path / f"colours_feature_{split}.npy")
        assert features.shape == (count, SMALL_DEPTH)
        labels = np.load(tmp_path / f"colours_label_{split}.npy")
        np.testing.assert_array_equal(labels, np.arange(count) % 3)
    # Two datasets in one run, image by image, have the same features as each alone in batches.
    more = ["--dataset_name=colours,again", "--batch_size=1"]
    both = arguments(colours, checkpoint, tmp_path / "both", *more)
    if not (colours / "again").exists():
        shutil.copytree(colours / "colours", colours / "again")
    assert invoke(extraction, *both).code == 0
    for name in ("colours", "again"):
        found = np.load(tmp_path / f"both/{name}_feature_val.npy")
        np.testing.assert_allclose(found, features, atol=1e-4 * features.std())
    shutil.rmtree(tmp_path / "both")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    done = invoke(extraction, *flags)
    assert done.code == 0
    assert done.output.count("nothing to do") == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    # Features of another size are not skipped.
    done = invoke(extraction, *flags, "--image_size=40", "--splits=val")
    assert "nothing to do" not in done.output


def test_every_kind_of_image_that_conversion_takes(checkpoint, tmp_path):
    """The same pixels as JPEG, as PNG with a wrong extension, and with a palette."""
    folder = tmp_path / "colours"
    (folder / "images").mkdir(parents=True)
    pixels = np.zeros((90, 90, 3), np.uint8)
    pixels[:45], pixels[45:] = (200, 30, 30), (20, 160, 60)
    image = Image.fromarray(pixels)
    image.save(folder / "images/a.jpg", "JPEG", quality=95, subsampling=0)
    image.save(folder / "images/b.jpg", "PNG")
    image.quantize(4).save(folder / "images/c.png")
    (folder / "train.txt").write_text("".join(f"images/{n}: 0\n" for n in ("a.jpg", "b.jpg")))
    (folder / "val.txt").write_text("images/c.png: 0\n")
    done = invoke(extraction, *arguments(tmp_path, checkpoint, tmp_path / "out"))
    assert done.code == 0, done.error
    a, b = np.load(tmp_path / "out/colours_feature_train.npy")
    (c,) = np.load(tmp_path / "out/colours_feature_val.npy")
    np.testing.assert_allclose(b, a, atol=0.02 * a.std())
    np.testing.assert_allclose(c, a, atol=0.02 * a.std())


def test_plain_variables_where_there_are_no_averages(colours, tmp_path):
    plain = write_checkpoint(tmp_path / "plain.ckpt", small_values(None))
    flags = arguments(colours, plain, tmp_path / "out", "--splits=val")
    done = invoke(extraction, *flags)
    assert done.code == 0
    assert "plain variables" in done.error
    done = invoke(extraction, *flags, "--moving_average_decay=0.9999")
    assert done.code == 1
    assert "has no moving averages; omit the flag" in done.error


def test_precision_and_xla(colours, checkpoint, tmp_path):
    """bfloat16 has 8 bits of mantissa, float16 has 11; the layers' errors add up to a few times."""
    trainable = [value for name, value in small_values(None).items() if "/moving_" not in name]
    found = {}
    for name, flags in {
        "bfloat16": ["--precision=bfloat16"],
        "float16": ["--precision=float16", "--xla"],
        "float32": [],
    }.items():
        flags = arguments(colours, checkpoint, tmp_path, "--splits=val", *flags)
        done = invoke(extraction, *flags)
        assert done.code == 0, done.error
        compiled = " with XLA" if "--xla" in flags else ""
        size = sum(value.size for value in trainable)
        line = (
            f"{SMALL_NETWORK} at {SMALL_SIZE} pixels: {size:,} parameters, {name}{compiled}, "
            f"on {THIS_MACHINE}\n"
        )
        assert line in done.error
        # Features of the same precision are skipped, those of another one are not.
        assert "nothing to do" not in done.output
        assert "nothing to do" in invoke(extraction, *flags).output
        found[name] = np.load(tmp_path / "colours_feature_val.npy")
        assert found[name].dtype == np.float32
    exact = found.pop("float32")
    errors = {
        name: np.linalg.norm(features - exact) / np.linalg.norm(exact)
        for name, features in found.items()
    }
    assert 2**-11 < errors["bfloat16"] < 2**-6
    assert 2**-14 < errors["float16"] < 2**-9


def test_a_killed_extraction_resumes(checkpoint, tmp_path):
    draw_images(tmp_path / "colours", seed=1)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = ["--splits=train", "--batch_size=2"]
    assert invoke(extraction, *arguments(tmp_path, checkpoint, whole, *flags)).code == 0
    row_bytes = 4 * SMALL_DEPTH
    trap = Trap(tmp_path / "colours/images/train_020.jpg")
    line = arguments(tmp_path, checkpoint, killed, *flags)
    with Process("feature_extraction", *line, log=tmp_path / "log") as process:
        trap.wait()
        wait_until(lambda: sum(p.stat().st_size for p in killed.glob(".*.part")) >= 3 * row_bytes)
        process.kill()
    trap.remove()
    assert not (killed / "colours_feature_train.npy").exists()
    (part,) = killed.glob(".*.part")
    with part.open("ab") as file:
        file.write(b"half a row")
    kept = part.read_bytes()[: 128 + 2 * row_bytes]
    assert invoke(extraction, *line).code == 0
    found = (killed / "colours_feature_train.npy").read_bytes()
    assert found.startswith(kept)
    found = np.load(killed / "colours_feature_train.npy")
    expected = np.load(whole / "colours_feature_train.npy")
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())
    assert not list(killed.glob(".*"))


def test_all_unreadable_images_are_listed(checkpoint, tmp_path):
    draw_images(tmp_path / "colours", seed=1)
    (tmp_path / "colours/images/train_003.jpg").write_bytes(b"no image")
    (tmp_path / "colours/images/train_021.jpg").unlink()
    flags = arguments(tmp_path, checkpoint, tmp_path / "out", "--batch_size=4")
    done = invoke(extraction, *flags)
    assert done.code == 1
    assert "2 images cannot be read" in done.error
    assert "train_003.jpg: not an image" in done.error
    assert "train_021.jpg: missing" in done.error
    assert not list((tmp_path / "out").glob("*.npy"))
    draw_images(tmp_path / "colours", seed=1)
    done = invoke(extraction, *flags)
    assert done.code == 0, done.error
    assert len(np.load(tmp_path / "out/colours_feature_train.npy")) == NUM_TRAIN


def test_a_second_extraction_into_a_folder_is_refused(colours, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_SECONDS", 0)
    flags = arguments(colours, checkpoint, tmp_path, "--splits=val", "--merge_splits")
    with files.exclusive(tmp_path):
        done = invoke(extraction, *flags)
    assert (done.code, done.output) == (1, "")
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    assert f"error: {tmp_path} is in use by {holder}: wait until it ends" in done.error
    assert invoke(extraction, *flags).code == 0


def test_network_size_and_preprocessing_are_those_of_training(colours, checkpoint, tmp_path):
    """Without `model.json`, they are those of the flags or the published defaults."""
    for path in Path(checkpoint).parent.glob("net.ckpt*"):
        shutil.copy(path, tmp_path)
    trained = ModelDescription(SMALL_NETWORK, 40, "vgg", "colours", ("a", "b", "c"))
    write_model_description(tmp_path, trained)
    common = [f"--dataset_dir={colours}", "--dataset_name=colours", "--splits=val"]
    own = [*common, f"--checkpoint_path={tmp_path}/net.ckpt", f"--output_dir={tmp_path}/own"]
    flags = ["--image_size=40", "--preprocessing_name=vgg", "--splits=val"]
    done = invoke(extraction, *own)
    assert done.code == 0, done.error
    assert "note: " not in done.error
    assert invoke(extraction, *arguments(colours, checkpoint, tmp_path / "flags", *flags)).code == 0
    found, expected = (
        np.load(tmp_path / folder / "colours_feature_val.npy") for folder in ("own", "flags")
    )
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.std())
    done = invoke(extraction, *own, f"--image_size={SMALL_SIZE}", "--preprocessing_name=inception")
    assert done.code == 0, done.error
    assert "nothing to do" not in done.output
    assert "note: --image_size=32: trained at 40, see " in done.error
    assert "note: --preprocessing_name=inception: trained with vgg, see " in done.error


def test_a_batch_beyond_the_memory_is_one_line(colours, checkpoint, tmp_path, monkeypatch):
    network = mock.Mock(side_effect=lambda *_: beyond_memory([None, SMALL_DEPTH]), parameters=0)
    monkeypatch.setattr(extractor, "load_network", lambda *_: network)
    done = invoke(extraction, *arguments(colours, checkpoint, tmp_path, "--batch_size=4096"))
    assert done.code == 1
    assert done.error.splitlines()[-1] == (
        "error: --batch_size=4096: not enough memory; pass a smaller one, the features so far are "
        "kept"
    )


def test_images_that_conversion_skips_are_left_out_everywhere(tmp_path):
    folder, run, output = tmp_path / "colours", tmp_path / "run", tmp_path / "out"
    draw_images(folder, seed=1)
    lines = (folder / "train.txt").read_text().splitlines(keepends=True)
    lines.insert(5, "no label here\n")
    (folder / "train.txt").write_text("".join(lines))
    (folder / "images/train_003.jpg").write_bytes(b"no image")
    labels = [index % 3 for index in range(NUM_TRAIN) if index != 3]
    data = [f"--dataset_dir={tmp_path}", "--dataset_name=colours"]
    common = [*data, f"--model_name={SMALL_NETWORK}"]
    start = [f"--train_image_size={SMALL_SIZE}", "--batch_size=4", f"--train_dir={run}"]
    start += ["--trainable_scopes=logits"]
    per_class = ["--per_class", f"--eval_dir={run}"]
    cached = [f"--checkpoint_path={run}", "--cache_features", "--noaugment"]
    cached += [f"--train_dir={tmp_path}/again"]
    for command, flags in (
        (convert_dataset, [*data, "--num_shards=2", "--num_workers=1", "--on_error=skip"]),
        (training, [*common, *start, "--max_number_of_steps=1"]),
        (evaluation, [*common, f"--checkpoint_path={run}/model.ckpt-1", *per_class]),
        (extraction, [*data, f"--checkpoint_path={run}", f"--output_dir={output}"]),
        (training, [*common, *start, *cached, "--max_number_of_steps=1"]),
    ):
        done = invoke(command, *flags)
        assert done.code == 0, done.error
        if command is extraction:
            size = f"{NUM_TRAIN - 1} x {SMALL_DEPTH}"
            summary = f"train.npy: {size} (conversion has skipped 2 lines)"
            assert summary in done.output
    for features in (output, tmp_path / "again/features"):
        np.testing.assert_array_equal(np.load(features / "colours_label_train.npy"), labels)
        described = json.loads((features / "colours_feature_train.json").read_text())
        assert described["skipped_lines"] == [4, 6]
    pictures = load_pictures(tmp_path, "colours", "train", np.array(labels))
    assert [path.name for path in pictures.paths[2:5]] == [
        f"train_{index:03d}.jpg" for index in (2, 4, 5)
    ]
    sizes = load_predictions(run / "predictions-1.npz").class_sizes
    np.testing.assert_array_equal(sizes, np.bincount(labels))
    # The record of conversion holds for the list that it has read only.
    (folder / "train.txt").write_text("".join(lines[:5]))
    done = invoke(extraction, *data, f"--checkpoint_path={run}", f"--output_dir={output}")
    assert done.code == 1
    assert "1 image cannot be read, the first is " in done.error


def test_the_projector_has_features_classes_and_thumbnails(colours, checkpoint, tmp_path):
    """As TensorBoard's own server reads them; a second dataset is added to the first."""
    (tmp_path / "data").mkdir()
    for name in ("colours", "others"):
        (tmp_path / "data" / name).symlink_to(colours / "colours")
    flags = arguments(tmp_path / "data", checkpoint, tmp_path, "--splits=val", "--projector")
    assert invoke(extraction, *flags).code == 0
    done = invoke(extraction, *flags, "--dataset_name=others")
    assert done.output.endswith(f"projector: tensorboard --logdir={tmp_path}/projector\n")
    folder = tmp_path / "projector"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    names = [embedding.tensor_name for embedding in config.embeddings]
    assert names == ["colours_feature_val", "others_feature_val"]
    embedding = config.embeddings[0]
    features = np.load(tmp_path / "colours_feature_val.npy")
    found = _read_tensor_binary_file(folder / embedding.tensor_path, embedding.tensor_shape)
    np.testing.assert_array_equal(found, features)
    lines = (folder / embedding.metadata_path).read_text().splitlines()
    entries = [line.rsplit(": ", 1) for line in (colours / "colours/val.txt").open()]
    assert lines[0] == "class\tlabel\timage"
    assert [line.split("\t")[1:] for line in lines[1:]] == [[k.strip(), p] for p, k in entries]
    side = embedding.sprite.single_image_dim[0]
    with Image.open(folder / embedding.sprite.image_path) as sprite:
        assert sprite.size == (4 * side, 4 * side)  # 14 images
        first = np.asarray(sprite)[:side, side : 2 * side].mean(axis=(0, 1))
    with Image.open(colours / "colours" / entries[1][0]) as image:
        np.testing.assert_allclose(first, np.asarray(image).mean(axis=(0, 1)), atol=12)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated"])
def test_an_image_that_the_projector_cannot_read_is_one_line(damage, checkpoint, tmp_path):
    draw_images(tmp_path / "colours", seed=1)
    flags = arguments(tmp_path, checkpoint, tmp_path / "out", "--splits=val", "--projector")
    assert invoke(extraction, *flags).code == 0
    image = tmp_path / "colours/images/val_003.jpg"
    content = image.read_bytes()
    if damage == "missing":
        image.unlink()
    else:
        image.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    before = (tmp_path / "out/colours_feature_val.npy").read_bytes()
    done = invoke(extraction, *flags)
    assert done.code == 1
    assert re.search(r"error: --projector: .*val_003.jpg: .*; restore the image", done.error)
    assert (tmp_path / "out/colours_feature_val.npy").read_bytes() == before
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_default_output_is_named_after_the_checkpoint():
    for path, name in (
        ("./checkpoints/inception/inception_v3_iNat_299.ckpt", "inception_v3_iNat_299"),
        ("checkpoints/toy_inat/model.ckpt-600", "toy_inat"),
    ):
        assert extraction.checkpoint_name(path) == name


def test_errors(colours, checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    good = {
        "dataset_dir": colours,
        "dataset_name": "colours",
        "checkpoint_path": checkpoint,
        "model_name": SMALL_NETWORK,
        "image_size": SMALL_SIZE,
        "output_dir": tmp_path / "out",
    }
    for changed, message in (
        ({"dataset_name": "colour"}, "no dataset 'colour'.*did you mean colours"),
        ({"dataset_name": "colours/"}, "no dataset 'colours/': .*, without '/'"),
        ({"dataset_name": colours / "colours"}, "no dataset '/.*/colours': .*, without '/'"),
        ({"dataset_name": ".."}, "no dataset '..': .*, without '/'"),
        ({"checkpoint_path": ""}, "--checkpoint_path is missing"),
        ({"dataset_name": ""}, "--dataset_name is missing: .*colours"),
        ({"dataset_name": "colours,colours"}, "colours occurs twice; pass it once"),
        ({"splits": "train,test"}, "--splits=train,test: known: train, val"),
        ({"splits": ""}, "--splits=: known: train, val"),
        ({"splits": "val,val"}, "--splits=val,val: val occurs twice; pass it once"),
        ({"preprocessing_name": "incepton"}, "unknown preprocessing 'incepton'; did you mean"),
        ({"model_name": "InceptionV5"}, "unknown network 'InceptionV5'; did you mean"),
        ({"checkpoint_path": tmp_path / "none"}, "no checkpoint at .*none"),
        ({"image_size": 31}, f"31x31 is too small for {SMALL_NETWORK}, .* at least 32x32"),
        ({"moving_average_decay": 2}, "moving_average_decay=2.0: expected a finite number >= 0"),
        ({"batch_size": 10**20}, "batch_size=1"),
        ({"endpoint": "globalpool"}, "--endpoint=globalpool: did you mean global_pool"),
        (
            {"output_dir": tmp_path / "file"},
            "cannot write .*file: File exists; .* another --output_dir",
        ),
    ):
        flags = [f"--{name}={value}" for name, value in {**good, **changed}.items()]
        done = invoke(extraction, *flags)
        assert done.code == 1, changed
        assert re.fullmatch(f"error: .*{message}.*\n", done.error), (changed, done.error)


def test_a_list_with_bad_lines_is_refused(colours, checkpoint, tmp_path):
    shutil.copytree(colours / "colours", tmp_path / "colours")
    with (tmp_path / "colours/val.txt").open("a") as file:
        file.write("no label here\n")
    done = invoke(extraction, *arguments(tmp_path, checkpoint, tmp_path / "out"))
    assert done.code == 1
    assert "val.txt has 1 invalid line, the first is val.txt line 15" in done.error


def test_published_names_of_networks():
    assert set(PUBLISHED_NAMES.values()) <= set(NETWORKS)


def test_the_command_stands_at_the_top():
    done = run("python", "feature_extraction.py", "--help")
    assert done.returncode == 0
    assert "inception_v3_iNat_299.ckpt" in done.stdout


def test_orientation_is_that_of_the_dataset_otherwise_of_training(classifier_dir, tmp_path):
    """An image that is stored sideways, before and after conversion, which ignores orientation."""
    trained, folder, output = tmp_path / "run", tmp_path / "sideways", tmp_path / "out"
    shutil.copytree(classifier_dir, trained)
    written = read_model_description(trained)
    write_model_description(trained, replace(written, apply_orientation=True))
    folder.mkdir()
    for name in ("train", "val"):
        (folder / f"{name}.jpg").write_bytes(oriented(picture(7, (40, 48)), "JPEG", 6))
        (folder / f"{name}.txt").write_text(f"{name}.jpg: 0\n")
    data = [f"--dataset_dir={tmp_path}", "--dataset_name=sideways"]
    for model in (trained, classifier_dir):
        flags = [*data, f"--checkpoint_path={trained}", f"--output_dir={output}", "--splits=val"]
        done = invoke(extraction, *flags)
        assert done.code == 0, done.error
        (found,) = np.load(output / "sideways_feature_val.npy")
        with load_classifier(model) as classifier:
            (expected,) = classifier.features([folder / "val.jpg"])
        np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())
        described = json.loads((output / "sideways_feature_val.json").read_text())
        assert described.get("apply_orientation", False) == (model == trained)
        invoke(convert_dataset, *data, "--num_shards=1", "--num_workers=1")
