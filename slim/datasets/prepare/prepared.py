"""The last steps of preparation: checks, lists, and links to the images or copies of them."""

import os
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from slim.common.errors import UserError, count_some, warn
from slim.common.files import removing_empty, writing_to
from slim.common.progress import progress
from slim.datasets.listed import ListedDataset, compose_files, differs, place_images, write_files
from slim.datasets.lists import compose_class_names
from slim.datasets.prepare.archives import where_to_get
from slim.datasets.registry import KNOWN

IMAGES = "images"  # the link or the folder of copies, the first part of every path in the lists


def report_faults(
    faults: Sequence[str], subject: str, allow_partial: bool, *, origin: str = ""
) -> None:
    """Warns of faults if `allow_partial`; otherwise raises an error, which tells the origin."""
    if faults and not allow_partial:
        raise UserError(
            f"{subject}: {'; '.join(faults)}; nothing was written: complete it{origin}, or set "
            "--allow_partial to use it as it is"
        )
    for fault in faults:
        warn(f"{subject}: {fault}")


def check_dataset(dataset: ListedDataset, name: str, allow_partial: bool) -> ListedDataset:
    """Checks a dataset, and returns it without images that are missing or cannot be listed.

    The numbers of images and classes are checked if the dataset is one of the paper's nine.
    """
    subject = f"{name} in {dataset.folder}"
    # 1. Omit the images that cannot be used.
    missing = find_missing(dataset.folder, (image.path for image in dataset.images))
    unlistable = [image.path for image in dataset.images if "\n" in image.path]
    omitted = {*missing, *unlistable}
    splits = {
        split_name: [image for image in images if image.path not in omitted]
        for split_name, images in dataset.splits.items()
    }
    kept = replace(dataset, splits=splits)
    # 2. Collect the faults, and stop for them unless they are allowed.
    labels, used = ({image.label for image in some.images} for some in (dataset, kept))
    valid = range(dataset.num_classes)
    groups = {
        f"labels that are not 0 to {valid.stop - 1}": sorted(labels - set(valid)),
        "missing images": missing,
        "file names with a line break": unlistable,
        "classes without images": [dataset.class_names[i] for i in valid if i not in used],
    }
    faults = [count_some(what, names) for what, names in groups.items() if names]
    if (expected := KNOWN.get(name, dataset.sizes)) != dataset.sizes:
        faults.insert(0, f"found {dataset.sizes}, expected {expected}")
    origin = f" ({where_to_get(name)})" if name in KNOWN else ""
    report_faults(faults, subject, allow_partial, origin=origin)
    required = splits if name in KNOWN else [n for n in splits if n == "train" or dataset.splits[n]]
    if empty := [split_name for split_name in required if not splits[split_name]]:
        raise UserError(f"{subject}: no images for {' and '.join(empty)}: add some there")
    return kept


def find_missing(root: Path, paths: Iterable[str]) -> list[str]:
    """Returns the images that do not exist, sorted; lists each folder once, which is faster."""
    expected = defaultdict(set)
    for path in paths:
        folder, _, name = path.rpartition("/")
        expected[folder].add(name)
    missing = []
    items = expected.items()
    for folder, names in progress("checking images", len(items), " folders", items=items, delay=1):
        with suppress(FileNotFoundError, NotADirectoryError):
            names = names.difference(os.listdir(root / folder))  # noqa: PTH208
        missing += [f"{folder}/{name}" if folder else name for name in names]
    return sorted(missing)


def write_dataset(folder: Path, dataset: ListedDataset, copy: bool) -> None:
    """Links to the images or copies them, then writes the lists; `train.txt` comes last."""
    # 1. Compose the lists. Names of classes may hold any character.
    names = (
        " ".join(name.encode("utf-8", "replace").decode().split()) for name in dataset.class_names
    )
    splits = {
        split_name: [(f"{IMAGES}/{image.path}", image.label) for image in images]
        for split_name, images in dataset.splits.items()
    }
    lists = compose_files(splits, compose_class_names(names))

    # 2. Keep out of the archive, which may have files of the same names.
    source = dataset.folder.resolve()
    aside = f"move the content of {folder} to another folder, such as {folder / 'archive'}"
    if folder.resolve() == source:
        raise UserError(
            f"{dataset.folder} is where the lists of {folder.name} and a link to its images go; "
            f"nothing was written: {aside}"
        )
    in_archive = folder.name in KNOWN and folder.resolve() == source.parent

    # 3. Write, unless this would change an existing list.
    with removing_empty(folder), writing_to(folder, "dataset_dir"):
        for list_name, text in lists.items():
            path = folder / list_name
            if path.exists() and differs(path, text):
                move = shlex.join(["mv", str(path), f"{path}.before"])
                away = f"move it away ({move}) or set another --dataset_dir"
                raise UserError(
                    f"{path} exists with other content; nothing was written: "
                    f"{aside if in_archive else away}"
                )
        # A link to images in the dataset's folder is relative.
        within = source.is_relative_to(folder.resolve())
        place_images(
            folder / IMAGES,
            dataset.folder,
            [image.path for image in dataset.images],
            target=source.relative_to(folder.resolve()) if within else source,
            copy=copy,
            flag="dataset_dir",
        )
        write_files(folder, lists)
