"""Datasets as lists of images, and datasets derived from them, whose images are linked or copied.

A line of a derived dataset, as `inat2017/images/0001.jpg: 0`, begins with the name of a source. In
the folder of the dataset, this is a link to `../inat2017`, or a folder of copies.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slim.common.command_line import FlagSet
from slim.common.errors import UserError, warn
from slim.common.files import make_link, removing_empty, replacing, write_whole, writing_to
from slim.common.progress import progress
from slim.datasets.lists import CLASSES, Entry, ImageList, count_classes
from slim.datasets.registry import (
    Sizes,
    conversion_command,
    dataset_folder,
    listed_splits,
    pixel_settings,
    read_class_names,
    read_converted_list,
    read_dataset_description,
)
from slim.datasets.tfrecord import LISTS


@dataclass(frozen=True)
class ListedDataset:
    """The images, labels and class names of a dataset."""

    folder: Path  # the base of the relative image paths
    splits: Mapping[str, Sequence[Entry]]  # "train" and "validation", which may be empty
    class_names: Sequence[str]  # in the order of the labels

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def sizes(self) -> Sizes:
        return Sizes(len(self.splits["train"]), len(self.splits["validation"]), self.num_classes)

    @property
    def images(self) -> list[Entry]:
        """The images of both splits."""
        return [*self.splits["train"], *self.splits["validation"]]

    def count_images(self) -> dict[str, np.ndarray]:
        """Returns the number of images of each class, `[num_classes]`, by split with images."""
        return {
            split_name: np.bincount([image.label for image in images], minlength=self.num_classes)
            for split_name, images in self.splits.items()
            if images
        }


def read_dataset(name: str, dataset_dir: str | Path) -> ListedDataset:
    """Reads the lists of a dataset, without the lines that its conversion has skipped.

    Classes without names are called `<dataset>_<label>`.
    """
    folder = dataset_folder(name, dataset_dir)
    lists = {name: read_converted_list(folder, LISTS[name]) for name in listed_splits(folder)}
    splits = {name: lists[name].entries if name in lists else [] for name in LISTS}
    num_classes = count_listed_classes(folder, lists)
    names = read_class_names(folder / CLASSES, num_classes)
    return ListedDataset(
        folder,
        splits,
        names or [f"{folder.name}_{label}" for label in range(num_classes)],
    )


def count_listed_classes(folder: Path, lists: Mapping[str, ImageList]) -> int:
    """Returns the number of classes over all lists of a dataset, with those of skipped lines."""
    found = count_classes({name: list_.entries for name, list_ in lists.items()})
    if any(list_.skipped_lines for list_ in lists.values()):  # the only ones of a class, perhaps
        return max(found, read_dataset_description(folder).classes)
    return found


def compose_files(
    splits: Mapping[str, Iterable[tuple[str, int]]], classes: str | None
) -> dict[str, str]:
    """Returns the texts of the files by name, in order of writing; "" stands for no such file."""
    lists = {
        LISTS[name]: "".join(f"{path}: {label}\n" for path, label in splits[name])
        for name in ("validation", "train")
    }
    return ({} if classes is None else {CLASSES: classes}) | lists


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Writes texts by name; removes a file whose text is empty."""
    for name, text in files.items():
        if text:
            write_whole(folder / name, text)
        else:
            (folder / name).unlink(missing_ok=True)


def differs(path: Path, text: str) -> bool:
    """Returns whether a file, which is empty if it does not exist, has another text."""
    content = path.read_bytes() if path.exists() else b""
    return content != text.encode("utf-8", "surrogateescape")


def define_output_flags(define: FlagSet, default_name: str | None = None) -> None:
    """Adds the flags that name the dataset to write."""
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    default = f" Default: {default_name}." if default_name else ""
    define.string("output_name", None, f"The dataset to write, a folder in --dataset_dir.{default}")
    define.boolean("copy", False, "Copy the images rather than link to them.")


def place_images(
    place: Path, source: Path, paths: Sequence[str], *, target: Path, copy: bool, flag: str
) -> None:
    """Makes a link to a folder of images, or a folder of copies of some of them.

    Copying resumes where it stopped. `flag` names the flag to change if something else is there.
    """

    def is_copied(path: str, to: Path) -> bool:
        copied = to / path
        return copied.is_file() and copied.stat().st_size == (source / path).stat().st_size

    # 1. An earlier run has placed them, or something else is there.
    if not copy and place.is_dir() and place.resolve() == source.resolve():
        return
    if place.is_symlink():
        found = f"a link to {place.readlink()}"
    elif place.is_dir():
        if all(is_copied(path, place) for path in paths):
            return
        found = "a folder of other images"
    else:
        found = "a file" if place.exists() else None
    if found:
        expected = "a folder of copies" if copy else f"a link to {source.resolve()}"
        raise UserError(
            f"{place} is {found}, expected {expected} or nothing; nothing was written: move it "
            f"away or set another --{flag}"
        )

    # 2. Link, or copy what is not there yet to a hidden folder until all exist.
    if not copy:
        make_link(place, target, "nothing was written; set --copy to copy the images")
        return
    copies = place.with_name(f".{place.name}")
    copies.mkdir(exist_ok=True)
    for path in progress("copying", len(paths), " images", items=paths, delay=1):
        original = source / path
        if not original.is_file():
            problem = "not a regular file: remove it" if original.exists() else "missing: add it"
            raise UserError(f"{original} is {problem}, then run this again")
        if not is_copied(path, copies):
            (copies / path).parent.mkdir(parents=True, exist_ok=True)
            with replacing(copies / path) as temporary:
                shutil.copyfile(original, temporary)
    copies.rename(place)


def write_derived(
    folder: Path,
    sources: Sequence[ListedDataset],
    origins: Sequence[tuple[str, int]],
    class_names: Sequence[str],
    *,
    kind: str,
    table: str,
    columns: Mapping[str, Sequence],
    classes: str | None,
    copy: bool,
) -> None:
    """Writes a dataset to a folder next to the folders of its sources; replaces an earlier one.

    Args:
        folder: The folder. It is an error if it holds something else.
        sources: The sources. Images of other classes than the origins are omitted.
        origins: The source and the label there of each class.
        class_names: The name of each class.
        kind: The kind of the dataset, for errors.
        table: The name of the file that lists the classes. Only datasets of this kind have it.
        columns: The columns of that file after label and name, with a value per class.
        classes: The text of `classes.txt`; None for no such file.
        copy: Copies the images rather than link to them.
    """
    # 1. Compose the files, in the order of writing.
    header = ("label", "name", *columns)
    labels = range(len(class_names))
    rows = [header, *zip(labels, class_names, *columns.values(), strict=True)]
    label_of = {origin: label for label, origin in enumerate(origins)}
    splits = {
        split_name: [
            (f"{source.name}/{image.path}", label_of[source.name, image.label])
            for source in sources
            for image in source.splits[split_name]
            if (source.name, image.label) in label_of
        ]
        for split_name in LISTS
    }
    files = {table: "".join("\t".join(map(str, row)) + "\n" for row in rows)}
    files |= compose_files(splits, classes)

    def refuse_others() -> None:
        # A run that was killed before its first file leaves a lock, images or a temporary file.
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        own = [source.name for source in sources]
        others = [n for n in names if not (n.startswith(".") or n.endswith(".tmp") or n in own)]
        if folder.name in own or (others and table not in names):
            raise UserError(f"{folder} exists but is not a {kind}: set another --output_name")

    # 2. Place the images and write the files, unless the folder holds something else, perhaps since
    #    a moment ago.
    refuse_others()
    with removing_empty(folder), writing_to(folder, "output_name"):
        refuse_others()
        listed = [path for images in splits.values() for path, _ in images]
        for source in sources:
            place, target = folder / source.name, Path("..", source.name)
            if place.is_symlink() and place.readlink() != target:
                place.unlink()
            prefix = f"{source.name}/"
            paths = [path.removeprefix(prefix) for path in listed if path.startswith(prefix)]
            place_images(place, source.folder, paths, target=target, copy=copy, flag="output_name")
        train = folder / LISTS["train"]
        if train.exists() and any(differs(folder / name, text) for name, text in files.items()):
            warn(f"replacing another {kind} in {folder}")
            train.unlink()  # there is no dataset until all lists are replaced
        write_files(folder, files)


def print_next(folder: Path, sources: Sequence[ListedDataset]) -> None:
    """Prints the command that converts a derived dataset, with the settings of its sources."""
    settings = pixel_settings(source.folder for source in sources)
    print(f"\nnext: {conversion_command(folder.name, folder.parent, **settings)}")
