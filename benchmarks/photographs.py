"""The photographs to measure on, drawn or given, as a converted dataset."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

from slim.common.command_line import available_cores
from slim.common.errors import UserError
from slim.convert_dataset import convert
from slim.datasets.image_files import find_image_files
from slim.datasets.images import ImageError, load_image
from slim.datasets.lists import read_list
from slim.datasets.staging import Plan
from slim.datasets.tfrecord import LISTS

NAME = "photographs"  # the dataset
NUM_CLASSES = 200  # classes of the networks, as in CUB-200-2011
NUM_SHARDS = 10  # per split, the default of convert_dataset.py
_LABELS = 2  # labels that occur
_DRAWN = 100  # different photographs
_WIDTH, _HEIGHT, _QUALITY = 500, 375, 90  # as in CUB-200-2011 and ImageNet


def draw_photograph(seed: int) -> Image.Image:
    """Draws an image that costs as much to decode as a photograph, about 0.3 bytes per pixel.

    As in photographs, amplitudes fall as a power of the frequency (Field, Relations between the
    statistics of natural images and the response properties of cortical cells, 1987), and are
    smaller in colour than in brightness.

    Args:
        seed: The seed of the noise.

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
    """Draws JPEG photographs into a folder, and returns their files."""
    folder.mkdir()
    paths = [folder / f"{seed:05d}.jpg" for seed in range(min(count, _DRAWN))]
    for seed, path in enumerate(paths):
        draw_photograph(seed).save(path, quality=_QUALITY)
    return paths


def find_photographs(folder: Path, count: int) -> list[Path]:
    """Returns at most `count` images in a folder and its subfolders.

    Raises:
        UserError: There is none, or one cannot be read.
    """
    found = [path.resolve() for path in find_image_files(folder)[0]][:count]
    if not found:
        raise UserError(f"--images={folder}: no images found; expected files as .jpg or .png")
    for path in found:
        try:
            load_image(path, verify=True)
        except ImageError as error:
            raise UserError(f"--images: {path} {error}; remove it from the folder") from None
    return found


def make_dataset(data: Path, photographs: list[Path], count: int) -> None:
    """Makes the dataset `photographs`, half for training and half for validation, and its shards.

    Args:
        data: The folder that receives the dataset.
        photographs: The images, repeated if there are fewer than `count`.
        count: Number of images, rounded down to an even number.
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
    """Converts with the defaults of `convert_dataset.py`, on all cores, without output."""
    lists = {split_name: read_list(folder / LISTS[split_name]) for split_name in LISTS}
    settings = {"num_shards": NUM_SHARDS, "seed": 0, "verify": True, "on_error": "fail"}
    plan = Plan(folder=folder, lists=lists, **settings)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        convert(plan, available_cores())


def image_files(data: Path) -> list[Path]:
    """Returns the images of the dataset."""
    return sorted((data / NAME / "images").iterdir())
