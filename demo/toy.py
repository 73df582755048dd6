"""Draws the toy domains: small stand-ins for the datasets of the paper.

    python -m demo.toy --dataset_dir=./data

The targets `toy_birds`, `toy_flowers` and `toy_cars` have 12 similar classes each. The sources for
pre-training are `toy_inat`, 28 other birds and flowers with few images of most classes, and
`toy_imagenet`, 28 everyday objects and vehicles with one bird among them. Each domain is a dataset
like any other: `data/<name>/images/<class>/0007.jpg`, `train.txt`, `val.txt` and `classes.txt`.

The same seed gives the same bytes. Complete domains are skipped; interrupted ones resume.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from absl import flags

from demo.domains import DOMAINS, draw_image
from slim.common.command_line import FlagSet, available_cores, check_words, run_command
from slim.common.errors import UserError
from slim.common.files import replacing, write_whole, writing_to
from slim.common.progress import progress
from slim.common.workers import WorkerError, run_jobs
from slim.datasets.listed import compose_files
from slim.datasets.lists import compose_class_names

VERSION = 3  # must change when the same seed gives other images
NOTE = "toy.json"  # the settings that a folder was drawn with


def define_flags(values: flags.FlagValues) -> None:
    define = FlagSet(values)
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    define.words("domains", list(DOMAINS), "The domains to draw.")
    define.integer("seed", 0, "The seed of the images.")
    define.integer("image_size", 128, "The length of the shorter side in pixels.", 32, 2048)


def main(values: flags.FlagValues) -> None:
    check_words("domains", values.domains, list(DOMAINS))
    for name in dict.fromkeys(values.domains):
        folder, domain = Path(values.dataset_dir, name), DOMAINS[name]
        drawn = draw_domain(name, folder, seed=values.seed, image_size=values.image_size)
        count = sum(map(len, domain.splits().values()))
        size = f"{count} images of {len(domain.classes)} classes"
        print(f"{name}: {size} in {folder}{'' if drawn else ', already drawn'}", flush=True)


def draw_domain(
    name: str, folder: Path, *, seed: int = 0, image_size: int = 128, num_workers: int | None = None
) -> bool:
    """Draws the images of a domain that do not exist, then writes its lists.

    Args:
        name: A name in `DOMAINS`.
        folder: The folder of the domain.
        seed: The seed; the same seed gives the same bytes with any number of workers.
        image_size: The length of the shorter side of the images in pixels.
        num_workers: The number of processes. Default: one per core.

    Returns:
        Whether anything had to be drawn.

    Raises:
        UserError: The name is unknown, or the folder holds something else or cannot be written.
    """
    check_words("domains", [name], list(DOMAINS))
    splits = DOMAINS[name].splits()
    lists = compose_files(splits, compose_class_names(DOMAINS[name].classes))
    labels = dict(splits["train"] + splits["validation"])
    note = json.dumps({"seed": seed, "image_size": image_size, "version": VERSION})

    def find_missing() -> list[str]:
        _check_folder(name, folder, note, lists)
        return [file for file in (*labels, *lists) if not (folder / file).exists()]

    def draw(file: str, count_image: Callable[[], None]) -> None:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            index = int(path.stem)
            picture = draw_image(name, labels[file], index, seed=seed, image_size=image_size)
            picture.save(temporary, "JPEG", quality=88)
        count_image()

    if not find_missing():
        return False
    with writing_to(folder, "dataset_dir"):
        if not (missing := find_missing()):  # drawn by another process meanwhile
            return False
        write_whole(folder / NOTE, note)
        for temporary in folder.glob("images/*/*.tmp"):  # of a run that was killed
            temporary.unlink()
        images = [file for file in missing if file in labels]
        try:
            with progress(name, len(images), " images") as shown:
                workers = num_workers or available_cores()
                run_jobs(draw, images, num_workers=workers, report=shown.update)
        except WorkerError as error:
            raise UserError(
                f"a process that draws {name} ended early ({error}), possibly out of memory: run "
                "the command again to resume"
            ) from error
        # The lists come last, so that a folder with lists has all images.
        for file, text in lists.items():
            write_whole(folder / file, text)
    return True


def _check_folder(name: str, folder: Path, note: str, lists: Mapping[str, str]) -> None:
    """Checks that a folder is new or holds this domain with the same settings."""
    remedy = "move the folder away or choose another --dataset_dir"
    drawn = folder / NOTE
    if drawn.exists() and (found := drawn.read_text()) != note:
        raise UserError(
            f"{drawn} has {found.strip()}, expected {note}: {remedy}, or use the flags that the "
            "domain was drawn with"
        )
    for file, text in lists.items():
        path = folder / file
        if path.exists() and not (drawn.exists() and path.read_bytes() == text.encode()):
            raise UserError(f"{path} is not the file that is written for {name}: {remedy}")
    if (folder / "images").exists() and not drawn.exists():
        raise UserError(f"{folder / 'images'} was not drawn for {name}: {remedy}")


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
