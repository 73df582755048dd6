"""What the paper's authors offer on Google Drive: which files there are, fetching, placing them.

Nothing here needs TensorFlow.
"""

import filecmp
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slim.common.errors import UserError, did_you_mean
from slim.common.files import replacing, write_whole
from slim.common.unpacking import unpack

ADDRESS = "https://drive.google.com/uc?id={id}"
BROWSER = "https://drive.google.com/open?id={id}"  # a page for people
_TIMEOUT = 60  # seconds without a byte
_LISTING = "published.txt"  # the files that came from an archive


@dataclass(frozen=True)
class ReleasedModel:
    """A released model.

    Attributes:
        name: What to call it; its file may be called otherwise.
        network: The network, as `--model_name` takes it.
        trained_on: A key of `CLASSES`.
        sizes: Height and width of the images that it was trained on, in pixels, one after another.
    """

    name: str
    network: str
    trained_on: str
    sizes: tuple[int, ...]

    @property
    def kind(self) -> str:
        """The folder of `checkpoints/` that it belongs in, as published."""
        return self.name.partition("_")[0]


IMAGENET, INAT, BOTH = "ImageNet", "iNat2017", "ImageNet + iNat2017"
# The paper trains on the classes of both side by side; the greater number has a background class.
CLASSES = {IMAGENET: (1000, 1001), INAT: (5089,), BOTH: (6089, 6090)}
MODELS = (
    ReleasedModel("inception_v3_ILSVRC_299", "inception_v3", IMAGENET, (299,)),
    ReleasedModel("inception_v3_iNat_299", "inception_v3", INAT, (299,)),
    ReleasedModel("inception_v3_iNat_448", "inception_v3", INAT, (448,)),
    ReleasedModel("inception_v3_iNat_560_ft", "inception_v3", INAT, (299, 560)),
    ReleasedModel("inception_v3_ILSVRC_iNat_299", "inception_v3", BOTH, (299,)),
    ReleasedModel("inception_v3_se_ILSVRC_iNat_299", "inception_v3_se", BOTH, (299,)),
    ReleasedModel("inception_v4_iNat_448", "inception_v4", INAT, (448,)),
    ReleasedModel("inception_v4_iNat_560_ft", "inception_v4", INAT, (448, 560)),
    ReleasedModel("inception_resnet_v2_ILSVRC_iNat_299", "inception_resnet_v2", BOTH, (299,)),
    ReleasedModel("inception_resnet_v2_se_ILSVRC_iNat_299", "inception_resnet_v2_se", BOTH, (299,)),
    ReleasedModel("resnet_50_ILSVRC_iNat_299", "resnet_v2_50", BOTH, (299,)),
    ReleasedModel("resnet_101_ILSVRC_iNat_299", "resnet_v2_101", BOTH, (299,)),
    ReleasedModel("resnet_152_ILSVRC_iNat_299", "resnet_v2_152", BOTH, (299,)),
)
DATA, FEATURES = "data", "feature"  # the folders that the other two archives fill, as published
DRIVE_IDS = {
    "inception_v3_ILSVRC_299": "1Djydji-QnJOQ93dWYw-4yVLSP4-TAXHy",
    "inception_v3_iNat_299": "1g3bsmBrKPRbah4EDNnC_IgDk8N4uAZaY",
    "inception_v3_iNat_448": "1RWr2I1mOV6l5VNIZrIhwnAMtggfMaeMf",
    "inception_v3_iNat_560_ft": "1ocJALCYcsM6Ym2DWV-B6GYmUHVshd8lF",
    "inception_v3_ILSVRC_iNat_299": "1EUNR4o77lNt0fN5Bi4lKxTZnFhghILRw",
    "inception_v3_se_ILSVRC_iNat_299": "11T9ogOdoG0Qu2rBNKQ1hNcHq3rAQ1F-Q",
    "inception_v4_iNat_448": "1zV0n1qAQ9rDoNMHvRP488mes018BOqs0",
    "inception_v4_iNat_560_ft": "13IkVGfjxQKMpN6OFHpqLoIiM92FMJ-o8",
    "inception_resnet_v2_ILSVRC_iNat_299": "1l-7ZidrlG8UeS8E21tcWzke5JmaTR7mF",
    "inception_resnet_v2_se_ILSVRC_iNat_299": "1XvF8rDCJEeOMowy6JlRaNDOUD51KajpR",
    "resnet_50_ILSVRC_iNat_299": "1F9e5kFhwthf-h7CSMKW3aatPcRY0o4qs",
    "resnet_101_ILSVRC_iNat_299": "1eoOfsMRdgrLxkoEw0e3Za0aPvSBzkCE2",
    "resnet_152_ILSVRC_iNat_299": "1VvMGQIDNsxs1H9lnfTWXiikbcF1EOQ7N",
    DATA: "1-FJlSj0Qa8pYvp_5PbMKw4piu7Qt5qfE",
    FEATURES: "1vOHKuqt7XgROo9t5cblJvGf0kGpiFaF1",
}


def get_model(name: str) -> ReleasedModel:
    """Looks a model up.

    Raises:
        UserError: There is none of that name.
    """
    models = {model.name: model for model in MODELS}
    if name not in models:
        raise UserError(f"unknown model '{name}'; {did_you_mean(name, list(models))}")
    return models[name]


def find_placed(model: ReleasedModel, folder: Path) -> Path | None:
    """The prefix of a model's checkpoint where `place_checkpoint`, or a person, has put it."""
    placed = [folder / f"{model.name}.ckpt", *find_checkpoints(folder / model.name)]
    return next((prefix for prefix in placed if is_complete(prefix)), None)


def find_checkpoints(folder: Path) -> list[Path]:
    """The prefixes of all checkpoints in and below a folder, by their index files."""
    return [path.with_suffix("") for path in visible_files(folder) if path.suffix == ".index"]


def visible_files(folder: Path) -> list[Path]:
    """All files in and below a folder but hidden ones, such as macOS packs beside each file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))


def checkpoint_files(prefix: Path) -> list[Path]:
    """The files of a checkpoint, its index last."""
    files = [path for path in prefix.parent.glob("*") if path.name.startswith(f"{prefix.name}.")]
    return sorted(files, key=lambda path: (path.suffix == ".index", path))


def is_complete(prefix: Path) -> bool:
    """Whether a checkpoint has both an index and data."""
    endings = [path.name.removeprefix(prefix.name) for path in checkpoint_files(prefix)]
    return ".index" in endings and any(ending.startswith(".data-") for ending in endings)


def fetch_archive(name: str, folder: Path, address: str) -> Path:
    """Downloads an archive, or what an earlier call left of it; one that is there is taken.

    Args:
        name: A key of `DRIVE_IDS`.
        folder: Where the archive goes.
        address: Where from, `{id}` standing for the id on Google Drive.

    Returns:
        The archive, `<name>.archive`.

    Raises:
        UserError: The download broke off, or there is something else than an archive.
    """
    archive = folder / f"{name}.archive"
    by_hand = f"fetch {BROWSER.format(id=DRIVE_IDS[name])} in a browser and save it as {archive}"
    if not archive.exists():
        _download(name, address.replace("{id}", DRIVE_IDS[name]), archive, by_hand)
    if not is_archive(archive):
        raise UserError(f"{archive} is no tar or zip archive: delete it; then {by_hand}")
    return archive


def _download(name: str, address: str, archive: Path, by_hand: str) -> None:
    import gdown  # only what downloads needs it

    a_page = f"{name}: Google Drive gives a page instead of the file (its quota, or permission)"
    with replacing(archive) as unchecked:
        try:
            archive.parent.mkdir(parents=True, exist_ok=True)
            messages = {"start": f"fetching {name}\n", "output": ""}
            gdown.download(
                address, str(unchecked), resume=True, timeout=_TIMEOUT, log_messages=messages
            )
        except gdown.FileURLRetrievalError as error:
            raise UserError(f"{a_page}: try again tomorrow, or {by_hand}") from error
        except (gdown.DownloadError, OSError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise UserError(
                f"{name}: cannot be fetched ({reason}); run the command again, it goes on where it "
                f"stopped (to start over, delete {unchecked}*.part), or {by_hand}"
            ) from error
        if not is_archive(unchecked):
            unchecked.unlink()
            raise UserError(f"{a_page}: try again tomorrow, or {by_hand}")


def is_archive(path: Path) -> bool:
    """Whether a file begins as a tar, compressed or not, or a zip archive does."""
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except EOFError:  # compressed, and cut off early
        return False


@contextmanager
def unpacked_beside(archive: Path) -> Iterator[Path]:
    """A folder beside an archive with its contents, until the context is left.

    Raises:
        UserError: The archive is broken or unsafe.
    """
    folder = archive.with_suffix(".unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        unpack(archive, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def choose_checkpoint(model: ReleasedModel, folder: Path, archive: Path) -> Path:
    """The checkpoint of an unpacked archive: the only one, or the one with the model's name.

    Raises:
        UserError: There is none, or there are several.
    """
    found = [prefix for prefix in find_checkpoints(folder) if is_complete(prefix)]
    named = [prefix for prefix in found if prefix.name == f"{model.name}.ckpt"]
    if len(named or found) != 1:
        held = [str(path.relative_to(folder)) for path in found or visible_files(folder)]
        raise UserError(
            f"{archive} holds {len(found)} checkpoints, expected one (.index and .data- files): "
            f"it has {', '.join(held)}; unpack it by hand, and give the path of the one to use"
        )
    return (named or found)[0]


def place_checkpoint(model: ReleasedModel, checkpoint: Path, folder: Path) -> Path:
    """Moves a checkpoint to where `find_placed` finds it, its file names as they are.

    A file that is not called as the model goes into a folder that is, apart from other models'.

    Args:
        model: The model.
        checkpoint: The prefix in the unpacked archive.
        folder: The models' folder.

    Returns:
        The new prefix.

    Raises:
        UserError: Another file is in the way.
    """
    if checkpoint.name != f"{model.name}.ckpt":
        folder = folder / model.name
    place({path: folder / path.name for path in checkpoint_files(checkpoint)})
    return folder / checkpoint.name


def place(moves: Mapping[Path, Path]) -> None:
    """Moves files to where they belong: all, or where another file is in the way, none.

    Args:
        moves: New paths by the present ones, in the order to go by.

    Raises:
        UserError: Naming the files in the way, those that are the same excepted.
    """
    there = {old: new for old, new in moves.items() if new.exists()}
    if other := [new for old, new in there.items() if not filecmp.cmp(old, new, shallow=False)]:
        raise UserError(
            f"{len(other)} files are there already and differ from the published ones, "
            f"{other[0]} first: move them away, and run the command again; nothing was changed"
        )
    for old, new in moves.items():
        new.parent.mkdir(parents=True, exist_ok=True)
        old.replace(new)


def place_files(name: str, contents: Path, folder: Path) -> int:
    """Moves the contents of an archive that fills a folder there, and lists them.

    Args:
        name: Of the folder, as published: what is in the archive's folder of that name, or, where
            it has none, all that is in the archive.
        contents: The unpacked archive.
        folder: Receives the files, and their list.

    Returns:
        How many files there are.

    Raises:
        UserError: Other files are in the way.
    """
    top = contents / name if (contents / name).is_dir() else contents
    names = [path.relative_to(top) for path in visible_files(top)]
    place({top / path: folder / path for path in names})
    write_whole(folder / _LISTING, "".join(f"{path}\n" for path in names))
    return len(names)


def count_files(folder: Path) -> int:
    """How many files `place_files` put into a folder; 0 when any of them is there no more."""
    listing = folder / _LISTING
    if not listing.exists():
        return 0
    names = listing.read_text("utf-8", errors="surrogateescape").splitlines()
    return len(names) if all((folder / name).exists() for name in names) else 0
