"""Writing of the toy domains, resumed where an earlier run was interrupted."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from slim.common.command_line import check_words
from slim.common.cores import available_cores
from slim.common.errors import UserError
from slim.common.files import replacing, write_whole, writing_to
from slim.common.progress import progress
from slim.common.workers import Work, WorkerError, run_jobs
from slim.datasets.listed import compose_files
from slim.datasets.lists import compose_class_names
from slim.datasets.toy.domains import DOMAINS, draw_image

VERSION = 2  # must change when the same seed gives other images
NOTE = "toy.json"  # the settings that a folder was drawn with


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
        _run(name, draw, images, num_workers or available_cores())
        for file, text in lists.items():
            write_whole(folder / file, text)
    return True


def _run(name: str, draw: Work, images: Sequence[str], num_workers: int) -> None:
    """Draws images in worker processes, with a progress bar."""
    try:
        with progress(name, len(images), " images") as shown:
            run_jobs(draw, images, num_workers=num_workers, report=shown.update)
    except WorkerError as error:
        raise UserError(
            f"a process that draws {name} ended early ({error}), possibly out of memory: run "
            "the command again to resume"
        ) from error


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
