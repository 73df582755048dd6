"""Datasets composed of classes of other datasets, whose images stay where they are.

A line such as `inat2017/images/0001.jpg: 0` begins with the name of a source. A link of that name
in the folder of the derived dataset leads to `../inat2017`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from slim.common.command_line import FlagSet
from slim.common.errors import UserError, warn
from slim.common.files import write_whole, writing_to
from slim.datasets.listed import ListedDataset, compose_files
from slim.datasets.tfrecord import LISTS


def define_output_flags(define: FlagSet, default_name: str | None = None) -> None:
    """Adds the flags that name the dataset to write."""
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    default = f" Default: {default_name}." if default_name else ""
    define.string("output_name", None, f"The dataset to write, a folder in --dataset_dir.{default}")


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
) -> None:
    """Writes a dataset to a folder next to the folders of its sources; replaces an earlier one.

    Args:
        folder: The folder.
        sources: The sources. Images of other classes than the origins are omitted.
        origins: The source and the label there of each class.
        class_names: The name of each class.
        kind: The kind of the dataset, for errors.
        table: The name of the file that lists the classes. Only datasets of this kind have it.
        columns: The columns of that file after label and name, with a value per class.
        classes: The text of `classes.txt`; None for no such file.

    Raises:
        UserError: The folder holds something else, or cannot be written.
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
        # A run that was killed before its first file leaves a lock or a temporary file.
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        used = any(not name.startswith(".") and not name.endswith(".tmp") for name in names)
        if folder.name in [source.name for source in sources] or (used and table not in names):
            raise UserError(f"{folder} exists but is not a {kind}: set another --output_name")

    # 2. Write them unless the folder holds something else, perhaps since a moment ago.
    refuse_others()
    with writing_to(folder, "output_name"):
        refuse_others()
        train = folder / LISTS["train"]
        changed = any(
            not (folder / name).exists()
            or (folder / name).read_bytes() != text.encode("utf-8", "surrogateescape")
            for name, text in files.items()
        )
        if train.exists() and changed:
            warn(f"replacing another {kind} in {folder}")
            train.unlink()  # there is no dataset until all lists are replaced
        for name, text in files.items():
            write_whole(folder / name, text)

        # 3. Link to the sources.
        for source in sources:
            link, target = folder / source.name, Path("..", source.name)
            if not (link.is_symlink() and link.readlink() == target):
                link.unlink(missing_ok=True)
                link.symlink_to(target, target_is_directory=True)
