"""Prepares a dataset from an official archive, folders of images, or TensorFlow Datasets (TFDS).

    python -m slim.datasets.prepare --dataset_name=cub_200 --archive_dir=/path/to/unpacked
    python -m slim.datasets.prepare --dataset_name=my_set --from_folders=/path/to/folders
    python -m slim.datasets.prepare --from_tfds=oxford_flowers102

writes `data/<name>/train.txt`, `val.txt` and `classes.txt` and links `images`. The lists are
written last, each whole. They depend on the archive only: the same archive gives the same bytes.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError, did_you_mean
from slim.datasets.registry import KNOWN, new_dataset_folder
from slim.datasets.tfrecord import LISTS

if TYPE_CHECKING:
    from slim.datasets.listed import ListedDataset


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.string("dataset_name", None, "The dataset: a folder in --dataset_dir.")
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    define.string(
        "archive_dir",
        None,
        "The folder of the unpacked official archive. Default: archive in the dataset's folder.",
    )
    define.boolean("download", False, "Download and unpack the archive first.")
    define.string("minival_path", "./inat_minival.txt", "The list of inat2017's validation images.")
    define.boolean("allow_partial", False, "Warn of missing parts rather than stop.")
    define.boolean("copy", False, "Copy the listed images rather than link to them.")
    define.string("from_folders", None, "A folder with one subfolder of images per class.")
    fraction = "The fraction of --from_folders to validate on."
    define.real("val_fraction", 0.2, fraction, above=0, below=1)
    define.integer("seed", 0, "The seed of the choice of that fraction.")
    define.string("from_tfds", None, "A dataset of TensorFlow Datasets, such as oxford_flowers102.")
    splits = (
        "The training and validation splits of --from_tfds, such as train+validation,test. "
        "Default: train and validation, or test if there is no validation."
    )
    define.words("tfds_splits", [], splits)
    define.boolean("stats", False, "Print and plot the numbers of images per class.")


def main(values: flags.FlagValues) -> None:
    """Prepares a dataset from its archive, folders of images, or TensorFlow Datasets."""
    from slim.datasets.prepare.checks import check_dataset
    from slim.datasets.prepare.statistics import report_statistics
    from slim.datasets.prepare.tfds import dataset_name
    from slim.datasets.prepare.writing import summarize_dataset, write_dataset

    if values.from_tfds and not values.dataset_name:
        values.dataset_name = dataset_name(values.from_tfds)
    folder = new_dataset_folder(values.dataset_name or "", values.dataset_dir, "dataset_name")
    is_prepared = all((folder / list_name).is_file() for list_name in LISTS.values())
    other_flags = ("archive_dir", "download", "from_folders", "from_tfds", "copy")
    asks_for_more = any(values[name].value for name in other_flags)
    stats_only = values.stats and is_prepared and not asks_for_more
    _check_flags(values, stats_only)
    try:
        if not stats_only:
            dataset = _gather(values, folder)
            dataset = check_dataset(dataset, values.dataset_name, values.allow_partial)
            write_dataset(folder, dataset, values.copy)
            print(summarize_dataset(folder, dataset), flush=True)
        if values.stats:
            report_statistics(folder)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror}: fix this, then run the command again "
            "to resume"
        ) from error


def _check_flags(values: flags.FlagValues, stats_only: bool) -> None:
    """Checks the flags before anything is read."""
    name = values.dataset_name or ""
    own = "for images of your own set --from_folders"
    if not name:
        raise UserError(f"--dataset_name is missing: {did_you_mean('', list(KNOWN))}; {own}")
    if values.tfds_splits and not (values.from_tfds and len(values.tfds_splits) == 2):
        raise UserError("--tfds_splits requires --from_tfds, and two splits with a comma between")
    source = "from_tfds" if values.from_tfds else "from_folders"
    if values[source].value:
        if name in KNOWN:
            raise UserError(f"--dataset_name={name} is one of the paper's: choose another name")
        if values.archive_dir or values.download or (values.from_tfds and values.from_folders):
            other = "from_folders" if values.from_tfds else "from_tfds"
            raise UserError(f"--{source} excludes --archive_dir, --download and --{other}")
    elif name not in KNOWN and not stats_only:
        raise UserError(
            f"--dataset_name={name} has no official archive: {did_you_mean(name, list(KNOWN))}; "
            f"{own}"
        )


def _gather(values: flags.FlagValues, folder: Path) -> "ListedDataset":
    """Reads a dataset from the source that the flags name, after downloading it on request."""
    from slim.datasets.prepare.archives import MINIVAL, download
    from slim.datasets.prepare.folders import read_folders
    from slim.datasets.prepare.layouts import read_archive
    from slim.datasets.prepare.minival import hold_out, read_minival
    from slim.datasets.prepare.tfds import read_tfds

    name, allow_partial = values.dataset_name, values.allow_partial
    if values.from_folders:
        root = Path(values.from_folders)
        return read_folders(root, values.val_fraction, values.seed, allow_partial=allow_partial)
    archive_dir = Path(values.archive_dir or folder / "archive")
    if values.from_tfds:
        return read_tfds(values.from_tfds, values.tfds_splits, archive_dir)
    if values.download:
        download(name, archive_dir)
    dataset = read_archive(name, archive_dir)
    if name == "inat2017":
        minival = Path(values.minival_path)
        if not minival.exists():
            MINIVAL.fetch(minival)
        dataset = hold_out(dataset, read_minival(minival, allow_other=allow_partial))
    return dataset


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
