"""Lists, links and copies of a prepared dataset."""

import shutil
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from slim.common.errors import UserError
from slim.common.files import exclusive, replacing, write_whole
from slim.datasets.lists import CLASSES, compose_class_names, compose_list
from slim.datasets.prepare.layouts import Layout
from slim.datasets.registry import KNOWN
from slim.datasets.tfrecord import LISTS

IMAGES = "images"  # the link, or the folder of copies; begins every line of a list
COPYING = ".images"  # copies, until all are there
BAR_SECONDS = 1  # shorter work gets no progress bar

Item = TypeVar("Item")


def write_dataset(folder: Path, layout: Layout, copy: bool) -> None:
    """Links or copies the images, and then writes the lists, train.txt last.

    Args:
        folder: The dataset's.
        layout: What to list.
        copy: Copy the images.

    Raises:
        UserError: The folder has other lists or images, or another process is writing there.
        OSError: Something cannot be written.
    """
    lists = compose_lists(layout)
    folder.mkdir(parents=True, exist_ok=True)
    refuse_archive_within(folder, layout)
    with exclusive(folder):
        refuse_other_lists(folder, lists)
        if copy:
            copy_images(folder, layout)
        else:
            link_images(folder, layout)
        for list_name, text in lists.items():
            write_whole(folder / list_name, text)


def compose_lists(layout: Layout) -> dict[str, str]:
    """The text of each list, in the order in which they are to appear."""
    names = (
        " ".join(name.encode("utf-8", "replace").decode().split()) for name in layout.class_names
    )
    lists = {CLASSES: compose_class_names(names)}
    for split_name in ("validation", "train"):
        images = ((f"{IMAGES}/{path}", label) for path, label in layout.splits[split_name])
        lists[LISTS[split_name]] = compose_list(images)
    return lists


def refuse_other_lists(folder: Path, lists: Mapping[str, str]) -> None:
    """Keeps lists that would change from being overwritten.

    Raises:
        UserError: There is one.
    """
    for list_name, text in lists.items():
        path = folder / list_name
        if path.exists() and path.read_bytes() != text.encode("utf-8", "surrogateescape"):
            raise UserError(
                f"{path} is there and says something else than would be written: move it away (mv "
                f"{path} {path}.before) or set another --dataset_dir; nothing was written"
            )


def refuse_archive_within(folder: Path, layout: Layout) -> None:
    """Keeps the lists of a dataset out of its own archive, which may have files of their names.

    Raises:
        UserError: They would go there.
    """
    source = layout.images.resolve()
    if folder.resolve() == source or (folder.name in KNOWN and folder.resolve() == source.parent):
        raise UserError(
            f"{layout.images} lies where the lists of {folder.name} go: move what {folder} "
            f"holds to a folder of its own, such as {folder / 'archive'}; nothing was written"
        )


def link_images(folder: Path, layout: Layout) -> None:
    """Links `images` to the layout's; relative, where those are in the dataset's folder.

    Raises:
        UserError: `images` is there and something else.
    """
    link, source = folder / IMAGES, layout.images.resolve()
    if (link.is_dir() and link.resolve() == source) or has_copies(link, layout):
        return
    refuse_other_images(link, f"a link to {source}")
    within = source.is_relative_to(folder.resolve())
    link.symlink_to(source.relative_to(folder.resolve()) if within else source)


def copy_images(folder: Path, layout: Layout) -> None:
    """Copies the listed images to `images`, or those that an earlier run has not yet.

    Raises:
        UserError: `images` is there and something else.
    """
    if has_copies(folder / IMAGES, layout):
        return
    refuse_other_images(folder / IMAGES, "a folder of copies")
    paths = [image.path for images in layout.splits.values() for image in images]
    for path in show_progress(paths, "copying", "images"):
        source, copy = layout.images / path, folder / COPYING / path
        if not is_copy(copy, source):
            copy.parent.mkdir(parents=True, exist_ok=True)
            with replacing(copy) as temporary:
                shutil.copyfile(source, temporary)
    (folder / COPYING).rename(folder / IMAGES)


def has_copies(images: Path, layout: Layout) -> bool:
    """Whether a folder, no link, has all of a layout's images."""
    if images.is_symlink() or not images.is_dir():
        return False
    splits = layout.splits.values()
    return all(is_copy(images / i.path, layout.images / i.path) for split in splits for i in split)


def is_copy(copy: Path, source: Path) -> bool:
    """Whether a file is there and as large as another."""
    return copy.is_file() and copy.stat().st_size == source.stat().st_size


def refuse_other_images(images: Path, expected: str) -> None:
    """Keeps what is there from being replaced.

    Raises:
        UserError: Something is.
    """
    if images.is_symlink():
        found = f"a link to {images.readlink()}"
    elif images.exists():
        found = "a folder of other images" if images.is_dir() else "a file"
    else:
        return
    raise UserError(
        f"{images} is {found}, expected {expected} or nothing: move it away or set another "
        f"--dataset_dir; nothing was written"
    )


def show_progress(items: Collection[Item], task: str, unit: str) -> Iterable[Item]:
    """Shows a progress bar for work that takes a while, rarely where there is no terminal."""
    interval = 0.1 if sys.stderr.isatty() else 10
    return tqdm(items, task, unit=f" {unit}", mininterval=interval, delay=BAR_SECONDS)
