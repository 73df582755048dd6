"""What is measured on: photographs, drawn or one's own, as a converted dataset."""

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

from slim.common.errors import UserError
from slim.common.workers import available_cores
from slim.datasets.convert.conversion import convert
from slim.datasets.convert.staging import Plan
from slim.datasets.images import ENDINGS, ImageError, load_image
from slim.datasets.lists import read_list
from slim.datasets.tfrecord import LISTS

NAME = "photographs"  # of the dataset
NUM_CLASSES = 200  # of the networks, as CUB-200-2011 has
NUM_SHARDS = 10  # of a split, what convert_dataset.py makes
_LABELS = 2  # that occur
_DRAWN = 100  # different photographs
_WIDTH, _HEIGHT, _QUALITY = 500, 375, 90  # as those of CUB-200-2011 and ImageNet are


def draw_photograph(seed: int) -> Image.Image:
    """Draws what costs as much as a photograph to decode: 0.3 bytes a pixel, as they take.

    Like theirs, amplitudes fall as a power of the frequency (Field, Relations between the
    statistics of natural images and the response properties of cortical cells, 1987), in colour
    less than in brightness.

    Args:
        seed: Of the noise.

    Returns:
        RGB, 500 x 375 pixels.
    """
    random = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(_HEIGHT)[:, np.newaxis], np.fft.rfftfreq(_WIDTH))
    frequencies[0, 0] = np.inf
    spectra = np.fft.rfft2(random.standard_normal((3, _HEIGHT, _WIDTH))) / frequencies**1.5
    brightness, red, blue = np.fft.irfft2(spectra, (_HEIGHT, _WIDTH))
    channels = np.stack([brightness + red / 3, brightness, brightness + blue / 3], axis=-1)
    pixels = 128 + 55 * channels / channels.std()
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_photographs(folder: Path, count: int) -> list[Path]:
    """Draws photographs into a folder, JPEG, and returns their files."""
    folder.mkdir()
    paths = [folder / f"{seed:05d}.jpg" for seed in range(min(count, _DRAWN))]
    for seed, path in enumerate(paths):
        draw_photograph(seed).save(path, quality=_QUALITY)
    return paths


def find_photographs(folder: Path, count: int) -> list[Path]:
    """The images in a folder and those below, `count` at the most.

    Raises:
        UserError: There are none, or one cannot be read.
    """
    found = [
        Path(parent, name).resolve()
        for parent, _, names in sorted(os.walk(folder))
        for name in sorted(names)
        if name.lower().endswith(ENDINGS)
    ][:count]
    if not found:
        raise UserError(f"--images={folder}: no images there; expected {' '.join(ENDINGS)}")
    for path in found:
        try:
            load_image(path, verify=True)
        except ImageError as error:
            raise UserError(f"--images: {path} {error}; take it out of the folder") from None
    return found


def make_dataset(data: Path, photographs: list[Path], count: int) -> None:
    """Makes the dataset `photographs`: half to train on, half to validate on, and its shards.

    Args:
        data: The folder that receives it.
        photographs: Its images, again and again where they are fewer than `count`.
        count: Images; of an odd number, one less.
    """
    count -= count % 2
    folder = data / NAME
    (folder / "images").mkdir(parents=True)
    lines = []
    for index in range(count):
        source = photographs[index % len(photographs)]
        name = f"images/{index:06d}_{source.name}"
        (folder / name).symlink_to(source)
        lines.append(f"{name}: {index % _LABELS}\n")
    for number, list_name in enumerate(LISTS.values()):
        half = slice(number * (count // 2), (number + 1) * (count // 2))
        (folder / list_name).write_text("".join(lines[half]), errors="surrogateescape")
    convert_folder(folder)


def convert_folder(folder: Path) -> None:
    """Converts as `convert_dataset.py` does by default, on all cores, and says nothing."""
    lists = {split_name: read_list(folder / LISTS[split_name]) for split_name in LISTS}
    settings = {"num_shards": NUM_SHARDS, "seed": 0, "verify": True, "on_error": "fail"}
    plan = Plan(folder=folder, lists=lists, **settings)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        convert(plan, available_cores())


def image_files(data: Path) -> list[Path]:
    """The dataset's images."""
    return sorted((data / NAME / "images").iterdir())
