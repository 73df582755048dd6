"""Lists, links and copies of a prepared dataset."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from slim.common.errors import UserError
from slim.common.files import exclusive, replacing, write_whole
from slim.common.progress import progress
from slim.datasets.listed import ListedDataset, compose_files
from slim.datasets.lists import compose_class_names
from slim.datasets.registry import KNOWN, conversion_command

IMAGES = "images"  # the link or the folder of copies, the first part of every path in the lists
COPYING = ".images"  # the folder of copies until all exist


def write_dataset(folder: Path, dataset: ListedDataset, copy: bool) -> None:
    """Links to the images or copies them, then writes the lists; `train.txt` comes last.

    Raises:
        UserError: The folder has other lists or images, or another process writes to it.
        OSError: A file cannot be written.
    """
    lists = _compose_lists(dataset)
    folder.mkdir(parents=True, exist_ok=True)
    _check_outside_archive(folder, dataset)
    with exclusive(folder):
        _check_lists(folder, lists)
        if copy:
            _copy_images(folder, dataset)
        else:
            _link_images(folder, dataset)
        for list_name, text in lists.items():
            write_whole(folder / list_name, text)


def summarize_dataset(folder: Path, dataset: ListedDataset) -> str:
    """Returns the size of a written dataset and the command to run next."""
    images = folder / IMAGES
    origin = f"linked to {images.readlink()}" if images.is_symlink() else "copied"
    command = conversion_command(folder.name, folder.parent)
    return f"{folder}: {dataset.sizes}, images {origin}\nnext: {command}"


def _compose_lists(dataset: ListedDataset) -> dict[str, str]:
    """Returns the text of each list by file name, in the order of writing."""
    names = (
        " ".join(name.encode("utf-8", "replace").decode().split()) for name in dataset.class_names
    )
    splits = {
        split_name: [(f"{IMAGES}/{image.path}", image.label) for image in images]
        for split_name, images in dataset.splits.items()
    }
    return compose_files(splits, compose_class_names(names))


def _check_lists(folder: Path, lists: Mapping[str, str]) -> None:
    """Checks that no existing list would change."""
    for list_name, text in lists.items():
        path = folder / list_name
        if path.exists() and path.read_bytes() != text.encode("utf-8", "surrogateescape"):
            raise UserError(
                f"{path} exists with other content; nothing was written: move it away (mv {path} "
                f"{path}.before) or set another --dataset_dir"
            )


def _check_outside_archive(folder: Path, dataset: ListedDataset) -> None:
    """Checks that the lists do not go into the archive, which may have files of the same names."""
    source = dataset.folder.resolve()
    if folder.resolve() == source or (folder.name in KNOWN and folder.resolve() == source.parent):
        raise UserError(
            f"{dataset.folder} is where the lists of {folder.name} go; nothing was written: move "
            f"the content of {folder} to another folder, such as {folder / 'archive'}"
        )


def _link_images(folder: Path, dataset: ListedDataset) -> None:
    """Links `images` to the images, with a relative path if they are in the dataset's folder."""
    link, source = folder / IMAGES, dataset.folder.resolve()
    if (link.is_dir() and link.resolve() == source) or _has_copies(link, dataset):
        return
    _check_absent(link, f"a link to {source}")
    within = source.is_relative_to(folder.resolve())
    link.symlink_to(source.relative_to(folder.resolve()) if within else source)


def _copy_images(folder: Path, dataset: ListedDataset) -> None:
    """Copies the listed images to `images`; resumes an interrupted run."""
    if _has_copies(folder / IMAGES, dataset):
        return
    _check_absent(folder / IMAGES, "a folder of copies")
    images = progress("copying", len(dataset.images), " images", items=dataset.images, delay=1)
    for image in images:
        source, copy = dataset.folder / image.path, folder / COPYING / image.path
        if not source.is_file():
            raise UserError(f"{source} is not a regular file: remove it, then run this again")
        if not _is_copy(copy, source):
            copy.parent.mkdir(parents=True, exist_ok=True)
            with replacing(copy) as temporary:
                shutil.copyfile(source, temporary)
    (folder / COPYING).rename(folder / IMAGES)


def _has_copies(images: Path, dataset: ListedDataset) -> bool:
    """Returns whether a folder that is not a link has copies of all images."""
    if images.is_symlink() or not images.is_dir():
        return False
    return all(_is_copy(images / i.path, dataset.folder / i.path) for i in dataset.images)


def _is_copy(copy: Path, source: Path) -> bool:
    """Returns whether a file exists with the size of another file."""
    return copy.is_file() and copy.stat().st_size == source.stat().st_size


def _check_absent(images: Path, expected: str) -> None:
    """Checks that a path does not exist."""
    if images.is_symlink():
        found = f"a link to {images.readlink()}"
    elif images.exists():
        found = "a folder of other images" if images.is_dir() else "a file"
    else:
        return
    raise UserError(
        f"{images} is {found}, expected {expected} or nothing; nothing was written: move it away "
        "or set another --dataset_dir"
    )
