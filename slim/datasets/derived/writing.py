"""Datasets composed of the lists of other datasets, whose images stay where they are.

A line such as `inat2017/images/0001.jpg: 0` begins with the name of a source. A link of that name
in the folder of the derived dataset leads to `../inat2017`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slim.common.command_line import FlagSet
from slim.common.errors import UserError, warn
from slim.common.files import write_whole, writing_to
from slim.datasets.listed import ListedDataset, compose_files
from slim.datasets.tfrecord import LISTS


@dataclass(frozen=True, kw_only=True)
class DerivedDataset:
    """A dataset composed of classes of other datasets.

    Attributes:
        kind: The kind of the dataset, for errors.
        table: The name of the file that lists the classes. Only datasets of this kind have it.
        origins: The source and the label there of each class.
        sources: The sources. Images of other classes than these are left out.
        class_names: The names of the classes.
        columns: The columns of the table after label and name, with a value per class.
        classes: The text of `classes.txt`, None for no such file.
    """

    kind: str
    table: str
    origins: Sequence[tuple[str, int]]
    sources: Sequence[ListedDataset]
    class_names: Sequence[str]
    columns: Mapping[str, Sequence]
    classes: str | None

    def compose_files(self) -> dict[str, str]:
        """Returns the text of each file by name, in the order of writing."""
        rows = [("label", "name", *self.columns)]
        columns = zip(self.class_names, *self.columns.values(), strict=True)
        rows += [(label, *row) for label, row in enumerate(columns)]
        table = "".join("\t".join(map(str, row)) + "\n" for row in rows)
        label_of = {origin: label for label, origin in enumerate(self.origins)}
        splits = {
            split_name: [
                (f"{source.name}/{image.path}", label_of[source.name, image.label])
                for source in self.sources
                for image in source.splits[split_name]
                if (source.name, image.label) in label_of
            ]
            for split_name in LISTS
        }
        return {self.table: table, **compose_files(splits, self.classes)}


def define_output_flags(define: FlagSet, default_name: str | None = None) -> None:
    """Adds the flags that name the dataset to write."""
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    default = f" Default: {default_name}." if default_name else ""
    define.string("output_name", None, f"The dataset to write, a folder in --dataset_dir.{default}")


def write_derived(folder: Path, dataset: DerivedDataset) -> None:
    """Writes a dataset to a folder beside the folders of its sources; replaces an earlier one.

    Raises:
        UserError: The folder holds something else, or cannot be written.
    """
    _refuse_others(folder, dataset)
    files, train = dataset.compose_files(), folder / LISTS["train"]
    with writing_to(folder, "output_name"):
        _refuse_others(folder, dataset)  # written by another process meanwhile
        if train.exists() and any(_differs(folder / file, text) for file, text in files.items()):
            warn(f"replacing another {dataset.kind} in {folder}")
            train.unlink()  # there is no dataset until all lists are replaced
        for file, text in files.items():
            write_whole(folder / file, text)
        for source in dataset.sources:
            _link(folder / source.name, Path("..", source.name))


def _refuse_others(folder: Path, dataset: DerivedDataset) -> None:
    """Checks that a folder is not that of a source or of a dataset of another kind."""
    is_source = folder.name in [source.name for source in dataset.sources]
    if is_source or (_is_used(folder) and not (folder / dataset.table).exists()):
        raise UserError(f"{folder} exists but is not a {dataset.kind}: set another --output_name")


def _differs(path: Path, text: str) -> bool:
    """Returns whether a file is missing or has other content."""
    return not path.exists() or path.read_bytes() != text.encode("utf-8", "surrogateescape")


def _is_used(folder: Path) -> bool:
    """Returns whether a folder holds more than a run killed before its first file leaves."""
    if not folder.is_dir():
        return False
    names = [path.name for path in folder.iterdir()]
    return any(not name.startswith(".") and not name.endswith(".tmp") for name in names)


def _link(link: Path, target: Path) -> None:
    """Links to a folder unless the link exists."""
    if link.is_symlink() and link.readlink() == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target, target_is_directory=True)
