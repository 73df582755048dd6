"""A dataset's official archive, or folders of one's own images, to lists that convert takes.

    python -m slim.datasets.prepare --dataset_name=cub_200 --archive_dir=/path/to/unpacked
    python -m slim.datasets.prepare --dataset_name=my_set --from_folders=/path/to/folders

writes `data/<name>/train.txt`, `val.txt` and `classes.txt`, and links `images`. The lists appear
last, each whole, and depend on the archive alone: the same one gives the same bytes.
"""

from functools import partial
from pathlib import Path, PurePosixPath

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError, did_you_mean
from slim.datasets.prepare.archives import download
from slim.datasets.prepare.checks import check_layout, judge, name_some
from slim.datasets.prepare.folders import read_folders
from slim.datasets.prepare.layouts import Layout, hold_out, read_archive
from slim.datasets.prepare.minival import fetch_minival, read_minival
from slim.datasets.prepare.statistics import report_statistics
from slim.datasets.prepare.writing import IMAGES, write_dataset
from slim.datasets.registry import KNOWN, Sizes
from slim.datasets.tfrecord import LISTS


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
