"""Large photographs, which conversion shrinks with --max_side."""

import json
from io import BytesIO

import numpy as np
from PIL import Image

from slim.datasets import balance
from slim.datasets.images import convert_image
from slim.datasets.input import get_dataset
from slim.datasets.registry import conversion_command
from tests.datasets.conftest import (
    add_line,
    check,
    contents,
    convert,
    encode,
    oriented,
    picture,
    read_records,
)


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(jpeg)), np.float64)


def test_larger_images_are_shrunk_and_others_kept(make_dataset):
    folder = make_dataset(train=2)  # of 40 x 30 pixels
    large = {
        "wide.jpg": (picture(7, (300, 90)), "JPEG", (80, 24)),
        "tall.jpg": (picture(8, (90, 300)), "JPEG", (24, 80)),
        "little.jpg": (picture(9, (81, 20)), "JPEG", (80, 20)),
        "palette.png": (picture(10, (300, 200)).quantize(), "PNG", (80, 53)),
    }
    for index, (name, (image, kind, _)) in enumerate(large.items()):
        options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
        (folder / name).write_bytes(encode(image, kind, **options))
        add_line(folder, f"{name}: {index % 3}")
    (folder / "turned.jpg").write_bytes(oriented(picture(11, (400, 200)), "JPEG", 6))
    add_line(folder, "turned.jpg: 0")
    convert(folder, "--num_shards=1", "--max_side=80", "--apply_orientation")

    records = read_records([folder / "train_00000-of-00001.tfrecord"])
    found = {(record.width, record.height): record.jpeg for record in records}
    assert all(pixels(jpeg).shape == (h, w, 3) for (w, h), jpeg in found.items())
    assert sum((folder / f"images/000{i}.jpg").read_bytes() == found[40, 30] for i in (0, 1)) == 1
    assert found.keys() == {(40, 30), (40, 80), *(size for _, _, size in large.values())}
    # Antialiased: close to a mean over the area that each pixel covers, not to single pixels.
    for image, _, size in large.values():
        expected = image.convert("RGB").resize(size, Image.Resampling.BOX)
        assert np.abs(pixels(found[size]) - np.asarray(expected)).mean() < 3


def test_a_fraction_of_the_decoding_gives_the_same_image():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 20, (1000, 1500, 1))
    image = Image.fromarray((picture(3, (1500, 1000)) + noise).clip(0, 255).astype(np.uint8))
    for options in ({}, {"progressive": True}):
        content = encode(image, quality=95, **options)
        found = convert_image(content, True, max_side=100)
        whole = Image.open(BytesIO(content)).resize((100, 67), Image.Resampling.BICUBIC)
        assert (found.width, found.height) == (100, 67)
        assert np.abs(pixels(found.jpeg) - np.asarray(whole)).mean() < 3  # single pixels: 16


def test_the_description_records_it_and_other_values_are_refused(make_dataset):
    folder = make_dataset()
    convert(folder, "--max_side=32")
    before = contents(folder)
    assert json.loads(before["dataset.json"])["max_side"] == 32
    assert "nothing to do" in convert(folder, "--max_side=32").output
    error = convert(folder, "--max_side=20", code=1).error
    assert "shards made with --max_side=32, not 20: delete them" in error
    error = convert(folder, code=1).error
    assert "shards made with --max_side=32, not None: delete them" in error
    assert contents(folder) == before
    assert "max_side" in convert(folder, "--max_side=0", code=1).error
    # Commands that advise a conversion keep it.
    named = [f"--dataset_dir={folder.parent}", f"--dataset_name={folder.name}"]
    assert check(balance, *named, "--max_per_class=2").output.rstrip().endswith(" --max_side=32")
    assert get_dataset(folder.name, "train", folder.parent).num_samples == 12
    assert conversion_command("a", "data", apply_orientation=True, max_side=32).endswith(
        "convert_dataset.py --dataset_name=a --apply_orientation --max_side=32"
    )


def test_a_damaged_large_photograph_is_found(make_dataset):
    folder = make_dataset()
    (folder / "large.jpg").write_bytes(encode(picture(5, (600, 400)))[:-200])
    add_line(folder, "large.jpg: 0")
    error = convert(folder, "--max_side=80", "--noverify", code=1).error
    assert "train.txt line 13: large.jpg: cannot be decoded" in error
