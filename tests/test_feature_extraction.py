"""Feature extraction: values, order, kinds of images, interruptions, errors."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slim import feature_extraction as extraction
from slim.common.command_line import run_command
from slim.common.compat import slim, tf
from slim.features.files import checkpoint_name
from slim.nets.nets_factory import NETWORKS, get_network_fn
from tests.conftest import NUM_TRAIN, NUM_VALIDATION, ROOT, draw_images, recipe_weights, run

SIZE = 75


def write_checkpoint(path: Path, weights, averages: bool) -> str:
    """An Inception-V3 without its classifiers: plain variables are half of their averages."""
    with tf.Graph().as_default(), tf.Session() as session:
        get_network_fn("inception_v3", None)(tf.zeros([1, SIZE, SIZE, 3]))
        variables = slim.get_model_variables()
        stored = {v.op.name: weights(v.op.name, v.shape.as_list()) for v in variables}
        if averages:
            stored = {
                **{f"{name}/ExponentialMovingAverage": value for name, value in stored.items()},
                **{name: value / 2 for name, value in stored.items()},
            }
        names, values = list(stored), [tf.constant(value) for value in stored.values()]
        path.parent.mkdir(parents=True, exist_ok=True)
        session.run(tf.raw_ops.SaveV2(
            prefix=str(path), tensor_names=names, shape_and_slices=[""] * len(names),
            tensors=values,
        ))  # fmt: skip
    return str(path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """The recipe weights of the reference figures, times 0.98, as moving averages."""
    return write_checkpoint(
        tmp_path_factory.mktemp("checkpoint") / "net.ckpt",
        lambda name, shape: recipe_weights(name, shape) * np.float32(0.98),
        averages=True,
    )


def extract(capsys, *arguments: object) -> tuple[int, str, str]:
    """Runs the command in this process, which has TensorFlow loaded."""
    with pytest.raises(SystemExit) as stopped:
        run_command(extraction.define_flags, extraction.main, ["extract", *map(str, arguments)])
    return stopped.value.code, *capsys.readouterr()


def arguments(data: Path, checkpoint: str, output: Path, *more: object) -> list[object]:
    return [
        f"--dataset_dir={data}",
        "--dataset_name=colours",
        f"--checkpoint_path={checkpoint}",
        f"--image_size={SIZE}",
        f"--output_dir={output}",
        *more,
    ]


def test_features_of_photographs_equal_the_published_ones(
    reference, birds, checkpoint, tmp_path, capsys
):
    expected = np.load(reference / "features_inception_v3.npz")
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "images").symlink_to(birds / "images")
    lines = [f"{path}: {index}\n" for index, path in enumerate(expected["paths"])]
    (folder / "train.txt").write_text("".join(lines))
    (folder / "val.txt").write_text("".join(reversed(lines)))
    common = [f"--dataset_dir={tmp_path}", "--dataset_name=photographs"]
    common += [f"--checkpoint_path={checkpoint}", "--merge_splits"]
    for batch_size in (1, 2):
        output = tmp_path / f"feature_{batch_size}"
        code, out, error = extract(
            capsys, *common, f"--output_dir={output}", f"--batch_size={batch_size}"
        )
        assert code == 0, error
        assert "moving averages" in out
        found = np.load(output / "photographs_feature_train.npy")
        assert (found.shape, found.dtype) == ((3, 2048), np.float32)
        scale = expected["features"].std()
        np.testing.assert_allclose(found, expected["features"], atol=1e-4 * scale)
        share = np.abs(found - expected["features"]).max() / scale
        print(f"features differ by {share:.1e} of their standard deviation at most")
        merged = np.load(output / "photographs_feature.npy")
        np.testing.assert_allclose(merged, np.concatenate([found, found[::-1]]), atol=1e-4 * scale)
        labels = np.load(output / "photographs_label.npy")
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, [0, 1, 2, 2, 1, 0])


def test_labels_are_those_of_the_lists_and_done_is_not_done_again(
    colours, checkpoint, tmp_path, capsys
):
    flags = arguments(colours, checkpoint, tmp_path)
    code, out, _ = extract(capsys, *flags)
    assert code == 0
    for split, count in (("train", NUM_TRAIN), ("val", NUM_VALIDATION)):
        features = np.load(tmp_path / f"colours_feature_{split}.npy")
        assert features.shape == (count, 2048)
        labels = np.load(tmp_path / f"colours_label_{split}.npy")
        np.testing.assert_array_equal(labels, np.arange(count) % 3)
    # Two datasets in one run are the same as each alone.
    both = arguments(colours, checkpoint, tmp_path / "both", "--dataset_name=colours,again")
    if not (colours / "again").exists():
        shutil.copytree(colours / "colours", colours / "again")
    assert extract(capsys, *both)[0] == 0
    for name in ("colours", "again"):
        found = np.load(tmp_path / f"both/{name}_feature_val.npy")
        np.testing.assert_allclose(found, features, atol=1e-4 * features.std())
    shutil.rmtree(tmp_path / "both")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    code, out, _ = extract(capsys, *flags)
    assert code == 0
    assert out.count("nothing to do") == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    # Another size is another feature: that is not taken for done.
    code, out, _ = extract(capsys, *flags, "--image_size=80", "--splits=val")
    assert "nothing to do" not in out


def test_every_kind_of_image_that_conversion_takes(checkpoint, tmp_path, capsys):
    """The same pixels as PNG under a lying name, with a palette, and as JPEG."""
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
    code, _, error = extract(capsys, *arguments(tmp_path, checkpoint, tmp_path / "out"))
    assert code == 0, error
    a, b = np.load(tmp_path / "out/colours_feature_train.npy")
    (c,) = np.load(tmp_path / "out/colours_feature_val.npy")
    np.testing.assert_allclose(b, a, atol=0.02 * a.std())
    np.testing.assert_allclose(c, a, atol=0.02 * a.std())


def test_plain_variables_where_there_are_no_averages(colours, tmp_path, capsys):
    plain = write_checkpoint(tmp_path / "plain.ckpt", recipe_weights, averages=False)
    flags = arguments(colours, plain, tmp_path / "out", "--splits=val")
    code, out, _ = extract(capsys, *flags)
    assert code == 0
    assert "plain variables" in out
    code, _, error = extract(capsys, *flags, "--moving_average_decay=0.9999")
    assert code == 1
    assert "has no moving averages; leave the flag out" in error


def test_precision_and_xla(colours, checkpoint, tmp_path, capsys):
    """bfloat16 has 8 bits of mantissa, float16 has 11; the layers' errors add up to a few times."""
    found = {}
    for name, flags in {
        "bfloat16": ["--precision=bfloat16"],
        "float16": ["--precision=float16", "--xla"],
        "float32": [],
    }.items():
        flags = arguments(colours, checkpoint, tmp_path, "--splits=val", *flags)
        code, out, error = extract(capsys, *flags)
        assert code == 0, error
        # Features of another precision are not taken for done, those of the same one are.
        assert "nothing to do" not in out
        assert "nothing to do" in extract(capsys, *flags)[1]
        found[name] = np.load(tmp_path / "colours_feature_val.npy")
        assert found[name].dtype == np.float32
    exact = found.pop("float32")
    errors = {
        name: np.linalg.norm(features - exact) / np.linalg.norm(exact)
        for name, features in found.items()
    }
    assert 2**-11 < errors["bfloat16"] < 2**-6
    assert 2**-14 < errors["float16"] < 2**-9


def test_killed_it_goes_on_where_it_was(checkpoint, tmp_path, capsys):
    draw_images(tmp_path / "colours", seed=1)
    lines = (tmp_path / "colours/train.txt").read_text()
    (tmp_path / "colours/train.txt").write_text("".join(f"{line}\n" for line in lines.splitlines()))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = ["--splits=train", "--batch_size=2"]
    assert extract(capsys, *arguments(tmp_path, checkpoint, whole, *flags))[0] == 0
    command = [sys.executable, "feature_extraction.py"]
    command += map(str, arguments(tmp_path, checkpoint, killed, *flags))
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    limit = time.monotonic() + 60

    def part_size() -> int:
        return sum(path.stat().st_size for path in killed.glob(".*.part"))

    while part_size() < 3 * 2048 * 4 and time.monotonic() < limit:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "colours_feature_train.npy").exists()
    (part,) = killed.glob(".*.part")
    with part.open("ab") as file:
        file.write(b"half a row")
    kept = part.read_bytes()[: 128 + 2 * 2048 * 4]
    assert extract(capsys, *arguments(tmp_path, checkpoint, killed, *flags))[0] == 0
    found = (killed / "colours_feature_train.npy").read_bytes()
    assert found.startswith(kept)
    found = np.load(killed / "colours_feature_train.npy")
    expected = np.load(whole / "colours_feature_train.npy")
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())
    assert not list(killed.glob(".*"))


def test_all_unreadable_images_are_listed(checkpoint, tmp_path, capsys):
    draw_images(tmp_path / "colours", seed=1)
    (tmp_path / "colours/images/train_003.jpg").write_bytes(b"no image")
    (tmp_path / "colours/images/train_021.jpg").unlink()
    flags = arguments(tmp_path, checkpoint, tmp_path / "out", "--batch_size=4")
    code, _, error = extract(capsys, *flags)
    assert code == 1
    assert "2 images cannot be read" in error
    assert "train_003.jpg: not an image" in error
    assert "train_021.jpg: missing" in error
    assert not list((tmp_path / "out").glob("*.npy"))
    draw_images(tmp_path / "colours", seed=1)
    code, _, error = extract(capsys, *flags)
    assert code == 0, error
    assert len(np.load(tmp_path / "out/colours_feature_train.npy")) == NUM_TRAIN


def test_default_output_is_named_after_the_checkpoint():
    for path, name in (
        ("./checkpoints/inception/inception_v3_iNat_299.ckpt", "inception_v3_iNat_299"),
        ("checkpoints/toy_inat/model.ckpt-600", "toy_inat"),
    ):
        assert checkpoint_name(path) == name


def test_errors(colours, checkpoint, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    good = {
        "dataset_dir": colours,
        "dataset_name": "colours",
        "checkpoint_path": checkpoint,
        "image_size": SIZE,
        "output_dir": tmp_path / "out",
    }
    for changed, message in (
        ({"dataset_name": "colour"}, "no dataset 'colour'.*did you mean colours"),
        ({"splits": "train,test"}, "--splits=train,test: known: train, val"),
        ({"model_name": "InceptionV5"}, "unknown network 'InceptionV5'; did you mean"),
        ({"checkpoint_path": tmp_path / "none"}, "no checkpoint at .*none"),
        ({"image_size": 60}, "60x60 is too small for inception_v3, .* at least 75x75"),
        ({"endpoint": "Mixed_7d"}, "--endpoint=Mixed_7d: did you mean Mixed_7"),
        ({"output_dir": tmp_path / "file"}, "--output_dir=.*file: cannot make the folder"),
    ):
        flags = [f"--{name}={value}" for name, value in {**good, **changed}.items()]
        code, _, error = extract(capsys, *flags)
        assert code == 1, changed
        assert re.fullmatch(f"error: .*{message}.*\n", error), (changed, error)


def test_a_list_with_bad_lines_is_refused(colours, checkpoint, tmp_path, capsys):
    shutil.copytree(colours / "colours", tmp_path / "colours")
    with (tmp_path / "colours/val.txt").open("a") as file:
        file.write("no label here\n")
    code, _, error = extract(capsys, *arguments(tmp_path, checkpoint, tmp_path / "out"))
    assert code == 1
    assert "val.txt has 1 unusable lines, the first is line 15" in error


def test_published_names_of_networks():
    assert set(extraction.ALIASES.values()) <= set(NETWORKS)


def test_the_command_stands_at_the_top():
    done = run("python", "feature_extraction.py", "--help")
    assert done.returncode == 0
    assert "inception_v3_iNat_299.ckpt" in done.stdout
