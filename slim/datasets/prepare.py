"""A dataset's official archive, or folders of one's own images, to lists that convert takes.

    python -m slim.datasets.prepare --dataset_name=cub_200 --archive_dir=/path/to/unpacked
    python -m slim.datasets.prepare --dataset_name=my_set --from_folders=/path/to/folders

writes `data/<name>/train.txt`, `val.txt` and `classes.txt`, and links `images`. The lists appear
last, each whole, and depend on the archive alone: the same one gives the same bytes.
"""

import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from absl import flags
from tqdm import tqdm

from slim.datasets.archives import download, where_to_get
from slim.datasets.convert import warn
from slim.datasets.folders import read_folders
from slim.datasets.layouts import Layout, hold_out, read_archive
from slim.datasets.minival import fetch_minival, read_minival
from slim.datasets.registry import KNOWN, Sizes
from slim.datasets.staging import exclusive
from slim.datasets.statistics import report_statistics
from slim.datasets.tfrecord import LISTS
from slim.errors import UserError, did_you_mean, run_command
from slim.files import replacing, write_whole
from slim.flags import FlagSet

IMAGES = "images"  # the link, or the folder of copies; begins every line of a list
COPYING = ".images"  # copies, until all are there
BAR_SECONDS = 1  # shorter work gets no progress bar
SHOWN = 3  # names in an error

Item = TypeVar("Item")


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.string("dataset_name", None, "The dataset: becomes a folder in --dataset_dir.")
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    define.string(
        "archive_dir",
        None,
        "What the official archive was unpacked to. Default: archive in the dataset's folder.",
    )
    define.boolean("download", False, "Download and unpack the archive first.")
    define.string("minival_path", "./inat_minival.txt", "The list of inat2017's validation images.")
    define.boolean("allow_partial", False, "Go on with a part of an archive.")
    define.boolean("copy", False, "Copy the listed images rather than link to them.")
    define.string("from_folders", None, "A folder of one's own images, a folder a class.")
    define.real("val_fraction", 0.2, "The part of one's own images to validate on.")
    define.integer("seed", 0, "Of the choice of that part.")
    define.boolean("stats", False, "Print and plot how many images the classes have.")


def main(values: flags.FlagValues) -> None:
    """Makes train.txt, val.txt, classes.txt and images of a dataset from its official archive."""
    folder = Path(values.dataset_dir, values.dataset_name or "")
    done = values.stats and is_prepared(folder) and not asks_to_prepare(values)
    check_flags(values, done)
    try:
        if not done:
            if values.from_folders:
                layout = gather_folders(
                    Path(values.from_folders),
                    values.val_fraction,
                    values.seed,
                    values.allow_partial,
                )
            else:
                layout = gather_archive(
                    values.dataset_name,
                    Path(values.archive_dir or folder / "archive"),
                    values.download,
                    Path(values.minival_path),
                    values.allow_partial,
                )
            layout = check_layout(layout, values.dataset_name, values.allow_partial)
            write_dataset(folder, layout, values.copy)
            print(summarize(folder, layout), flush=True)
        if values.stats:
            report_statistics(folder)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror}: once that is mended, the same command "
            f"goes on from here"
        ) from error


def is_prepared(folder: Path) -> bool:
    """Whether both lists are there."""
    return all((folder / list_name).is_file() for list_name in LISTS.values())


def asks_to_prepare(values: flags.FlagValues) -> bool:
    """Whether more is asked for than statistics of what is there."""
    return bool(values.archive_dir or values.download or values.from_folders or values.copy)


def check_flags(values: flags.FlagValues, done: bool) -> None:
    """Refuses what cannot work before anything is read.

    Args:
        values: The flags.
        done: Whether nothing is to be prepared.

    Raises:
        UserError: Naming the flag.
    """
    name = values.dataset_name or ""
    own = "images of your own are given with --from_folders"
    if not name:
        raise UserError(f"--dataset_name is missing: {did_you_mean('', list(KNOWN))}; {own}")
    if name == ".." or PurePosixPath(name).name != name:
        raise UserError(f"--dataset_name={name}: expected the name of a folder, without '/'")
    if values.from_folders:
        if name in KNOWN:
            raise UserError(f"--dataset_name={name} is one of the paper's: choose another name")
        if values.archive_dir or values.download:
            raise UserError("--from_folders goes without --archive_dir and --download")
        if not 0 < values.val_fraction < 1:
            raise UserError(f"--val_fraction={values.val_fraction}: expected more than 0, below 1")
    elif name not in KNOWN and not done:
        raise UserError(
            f"--dataset_name={name} is none with an official archive: "
            f"{did_you_mean(name, list(KNOWN))}; {own}"
        )


def gather_archive(
    name: str, archive_dir: Path, fetch: bool, minival_path: Path, allow_partial: bool
) -> Layout:
    """Reads an official archive, downloaded before where that is asked for.

    Args:
        name: One of the nine datasets.
        archive_dir: Where the archive is unpacked.
        fetch: Download it to there.
        minival_path: The list of the validation images of inat2017, which is fetched where it is
            not there.
        allow_partial: Take another list than that, with a warning.

    Raises:
        UserError: The archive or a part of it is missing or unreadable.
    """
    if fetch:
        download(name, archive_dir)
    layout = read_archive(name, archive_dir)
    if name == "inat2017":
        if not minival_path.exists():
            fetch_minival(minival_path)
        layout = hold_out(layout, read_minival(minival_path, allow_other=allow_partial))
    return layout


def gather_folders(root: Path, val_fraction: float, seed: int, allow_partial: bool) -> Layout:
    """Reads folders of one's own images, and says what is left out.

    Raises:
        UserError: As `read_folders`, or a class is in one of `train` and `val` only and
            `allow_partial` is false.
    """
    layout, ignored, one_sided = read_folders(root, val_fraction, seed)
    if ignored:
        print(
            f"note: {len(ignored)} files or folders in {root} are no images and left out, "
            f"{name_some(ignored)}"
        )
    if one_sided:
        judge(
            [f"{len(one_sided)} classes are in one of train and val only, {name_some(one_sided)}"],
            f"the folders in {root}",
            allow_partial,
        )
    return layout


def name_some(names: Sequence[object]) -> str:
    """The first few of some names, as a clause."""
    shown = ", ".join(map(str, names[:SHOWN]))
    return f"the first {shown}" if len(names) > SHOWN else f"namely {shown}"


def judge(faults: Sequence[str], subject: str, allow_partial: bool, origin: str = "") -> None:
    """Warns of what is wrong, where a part is allowed.

    Args:
        faults: What is wrong.
        subject: With what.
        allow_partial: Whether that is allowed.
        origin: Where to get it anew, where that is known.

    Raises:
        UserError: Something is wrong and a part is not allowed.
    """
    if faults and not allow_partial:
        raise UserError(
            f"{subject}: {'; '.join(faults)}; nothing was written: complete it{origin}, or go on "
            "with what is there by --allow_partial"
        )
    for fault in faults:
        warn(f"{subject}: {fault}")


def check_layout(layout: Layout, name: str, allow_partial: bool) -> Layout:
    """Checks counts, labels, and that all images are there.

    Args:
        layout: The dataset.
        name: Its name; the counts of the paper's nine are known.
        allow_partial: Warn of what differs, rather than refuse it.

    Returns:
        The layout, without images that are missing or cannot be listed.

    Raises:
        UserError: Something differs and is not allowed to, or a split is left without images.
    """
    paths = [image.path for images in layout.splits.values() for image in images]
    missing = find_missing(layout.images, paths)
    unlistable = [path for path in paths if "\n" in path]
    left_out = {*missing, *unlistable}
    splits = {
        split_name: [image for image in images if image.path not in left_out]
        for split_name, images in layout.splits.items()
    }
    faults = find_miscounts(layout, KNOWN.get(name))
    if missing:
        faults.append(f"{len(missing)} images are missing, {name_some(missing)}")
    if unlistable:
        faults.append(f"{len(unlistable)} file names have a line break, {name_some(unlistable)}")
    used = {image.label for images in splits.values() for image in images}
    if unused := [c for label, c in enumerate(layout.class_names) if label not in used]:
        faults.append(f"{len(unused)} classes have no images, {name_some(unused)}")
    origin = f" ({where_to_get(name)})" if name in KNOWN else ""
    judge(faults, f"{name} in {layout.images}", allow_partial, origin)
    if empty := [split_name for split_name, images in splits.items() if not images]:
        raise UserError(f"{name} in {layout.images}: no images for {' and '.join(empty)} are there")
    return replace(layout, splits=splits)


def find_miscounts(layout: Layout, expected: Sizes | None) -> list[str]:
    """What is wrong with the numbers of images and classes, and with the labels.

    Args:
        layout: The dataset.
        expected: What is known of it, None for nothing.
    """
    labels = {image.label for images in layout.splits.values() for image in images}
    sizes = Sizes(*(len(images) for images in layout.splits.values()), len(layout.class_names))
    faults = []
    if sizes != (expected or sizes):
        faults.append(f"found {sizes}, expected {expected}")
    if strange := sorted(labels - set(range(sizes.classes))):
        faults.append(f"labels are not 0 to {sizes.classes - 1}, {name_some(strange)}")
    return faults


def find_missing(root: Path, paths: Iterable[str]) -> list[str]:
    """The files that are not there, sorted. Each folder is listed once, which takes seconds."""
    names = defaultdict(set)
    for path in paths:
        folder, _, name = path.rpartition("/")
        names[folder].add(name)
    missing = []
    for folder, expected in show_progress(names.items(), "checking images", "folders"):
        try:
            lacking = expected.difference(os.listdir(root / folder))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            lacking = expected
        missing += [f"{folder}/{name}" if folder else name for name in lacking]
    return sorted(missing)


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
    lists = {"classes.txt": "".join(f"{label} {name}\n" for label, name in enumerate(names))}
    for split_name in ("validation", "train"):
        lines = [f"{IMAGES}/{path}: {label}\n" for path, label in layout.splits[split_name]]
        lists[LISTS[split_name]] = "".join(lines)
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


def summarize(folder: Path, layout: Layout) -> str:
    """What was prepared, and what to do next."""
    sizes = Sizes(*(len(images) for images in layout.splits.values()), len(layout.class_names))
    images = folder / IMAGES
    origin = f"linked to {images.readlink()}" if images.is_symlink() else "copied"
    command = f"python convert_dataset.py --dataset_name={folder.name}"
    if folder.parent != Path("data"):
        command += f" --dataset_dir={folder.parent}"
    return f"{folder}: {sizes}, images {origin}\nnext: {command}"


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
