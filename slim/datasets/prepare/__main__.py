"""Prepares a dataset from an official archive, folders, tables, or TensorFlow Datasets (TFDS).

    python -m slim.datasets.prepare --dataset_name=cub_200 --archive_dir=/path/to/unpacked
    python -m slim.datasets.prepare --dataset_name=my_set --from_folders=/path/to/folders
    python -m slim.datasets.prepare --dataset_name=my_set --from_table=train.csv --images=DIR
    python -m slim.datasets.prepare --from_tfds=oxford_flowers102

writes `data/<name>/train.txt`, `val.txt` and `classes.txt` and links `images`. The lists are
written last, each whole. They depend on the archive only: the same archive gives the same bytes.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError, did_you_mean
from slim.datasets.registry import KNOWN, conversion_command, listed_splits, new_dataset_folder
from slim.datasets.tfrecord import LISTS

SOURCES = ("from_folders", "from_table", "from_tfds")  # other than archives


def define_flags(values: flags.FlagValues) -> None:
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
    define.integer("class_depth", 1, "The depth in --from_folders of the folders of classes.", 1)
    text = "A CSV, TSV or COCO JSON file of labelled images, or two: train.csv,val.csv."
    define.words("from_table", [], text)
    text = "The folder that paths of --from_table are relative to. Default: that of the table."
    define.string("images", None, text)
    define.string("path_column", None, "The images' column of a CSV. Default: a usual name.")
    define.string("label_column", None, "The labels' column of a CSV. Default: a usual name.")
    fraction = "The fraction of folders or of one table to validate on; 0 for no validation split."
    define.real("val_fraction", 0.2, fraction, 0, below=1)
    define.integer("seed", 0, "The seed of the choice of that fraction.")
    define.string("from_tfds", None, "A dataset of TensorFlow Datasets, such as oxford_flowers102.")
    splits = (
        "The training and validation splits of --from_tfds, such as train+validation,test. "
        "Default: train and validation, or test if there is no validation."
    )
    define.words("tfds_splits", [], splits)
    define.boolean("stats", False, "Print and plot the numbers of images per class.")


def main(values: flags.FlagValues) -> None:
    from slim.datasets.prepare import archives, folders, prepared, readers, statistics, tfds
    from slim.datasets.prepare.annotations import read_tables

    # 1. Decide what to do. A dataset of TFDS gives its name: a:1.0.0 becomes a_1.0.0. --stats
    #    alone describes a dataset that is prepared already.
    if values.from_tfds and not values.dataset_name:
        values.dataset_name = values.from_tfds.replace("/", "_").replace(":", "_")
    name, allow_partial = values.dataset_name or "", values.allow_partial
    folder = new_dataset_folder(name, values.dataset_dir, "dataset_name")
    is_prepared = all((folder / LISTS[some]).is_file() for some in listed_splits(folder))
    sources = ("archive_dir", "download", *SOURCES, "copy")
    stats_only = values.stats and is_prepared and not any(values[s].value for s in sources)
    check_flags(values, stats_only)

    try:
        # 2. Read the images and labels from their source, after downloading it on request.
        archive_dir = Path(values.archive_dir or folder / "archive")
        if stats_only:
            dataset = None
        elif values.from_folders:
            dataset = folders.read_folders(
                Path(values.from_folders),
                values.val_fraction,
                values.seed,
                class_depth=values.class_depth,
                allow_partial=allow_partial,
            )
        elif values.from_table:
            dataset = read_tables(values)
        elif values.from_tfds:
            dataset = tfds.read_tfds(values.from_tfds, values.tfds_splits, archive_dir)
        else:
            if values.download:
                archives.download(name, archive_dir)
            dataset = readers.read_archive(name, archive_dir)
            if name == "inat2017":  # the paper validates on a part of the validation images
                path = Path(values.minival_path)
                if not path.exists():
                    archives.MINIVAL.fetch(path)
                minival = archives.read_minival(path, allow_other=allow_partial)
                dataset = readers.hold_out(dataset, minival)

        # 3. Check that all is there, then place the images and write the lists.
        if dataset:
            dataset = prepared.check_dataset(dataset, name, allow_partial)
            prepared.write_dataset(folder, dataset, values.copy)
            images = folder / prepared.IMAGES
            origin = f"linked to {images.readlink()}" if images.is_symlink() else "copied"
            upright = bool(values.from_folders or values.from_table)  # photographs of one's own
            command = conversion_command(name, values.dataset_dir, apply_orientation=upright)
            print(f"{folder}: {dataset.sizes}, images {origin}\nnext: {command}", flush=True)

        # 4. Describe the long tail.
        if values.stats:
            statistics.report_statistics(folder)
    except BrokenPipeError:  # of the output
        raise
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror}: fix this, then run the command again "
            "to resume"
        ) from error


def check_flags(values: flags.FlagValues, stats_only: bool) -> None:
    """Checks the flags before anything is read."""
    name = values.dataset_name or ""
    own = "for your own images, set --from_folders or --from_table"
    if not name:
        raise UserError(f"--dataset_name is missing: {did_you_mean('', list(KNOWN))}; {own}")
    if values.tfds_splits and not (values.from_tfds and len(values.tfds_splits) == 2):
        raise UserError("--tfds_splits requires --from_tfds, and two splits with a comma between")
    if len(values.from_table) > 2 or "" in values.from_table:
        raise UserError(
            "--from_table takes a table, or two with a comma between: train.csv,val.csv"
        )
    if given := [source for source in SOURCES if values[source].value]:
        if name in KNOWN:
            raise UserError(f"--dataset_name={name} is one of the paper's: choose another name")
        if values.archive_dir or values.download or len(given) > 1:
            others = ", ".join(f"--{other}" for other in SOURCES if other != given[-1])
            raise UserError(f"--{given[-1]} excludes --archive_dir, --download, {others}")
    elif name not in KNOWN and not stats_only:
        raise UserError(
            f"--dataset_name={name} has no official archive: {did_you_mean(name, list(KNOWN))}; "
            f"{own}"
        )


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
