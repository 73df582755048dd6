"""Models and archives to fetch: those of the authors on Google Drive, and TF-Slim's models.

Nothing here requires TensorFlow.
"""

import filecmp
import json
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slim.checkpoints.files import checkpoint_files, is_complete
from slim.common.downloads import check_hash, fetch, hash_file
from slim.common.errors import UserError, did_you_mean
from slim.common.files import replacing, write_whole
from slim.common.unpacking import unpack

ADDRESS = "https://drive.google.com/uc?id={id}"
BROWSER = "https://drive.google.com/open?id={id}"  # for browsers
TF_SLIM_ADDRESS = "http://download.tensorflow.org/models/{name}.tar.gz"
CHECKPOINTS = "checkpoints"  # the default folder of all models
_HASHES = "fetched.json"  # the SHA-256 of each archive when it was first fetched
_TIMEOUT = 60  # seconds without a byte
_LISTING = "published.txt"  # the files that came from an archive


@dataclass(frozen=True)
class ReleasedModel:
    """A model in an archive.

    Attributes:
        name: The published name; the file in the archive may have another.
        network: The network, a value of `--model_name`.
        trained_on: A key of `CLASSES`.
        sizes: Successive heights and widths of its training images, in pixels.
    """

    name: str
    network: str
    trained_on: str
    sizes: tuple[int, ...]

    @property
    def kind(self) -> str:
        """The published folder in `checkpoints/`."""
        return self.name.partition("_")[0]


IMAGENET, INAT, BOTH = "ImageNet", "iNat2017", "ImageNet + iNat2017"
# The union has the classes of both; the larger numbers include a background class.
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
    # TF-Slim's, with a background class.
    ReleasedModel("inception_v3_2016_08_28", "inception_v3", IMAGENET, (299,)),
    ReleasedModel("inception_v4_2016_09_09", "inception_v4", IMAGENET, (299,)),
    ReleasedModel("inception_resnet_v2_2016_08_30", "inception_resnet_v2", IMAGENET, (299,)),
    ReleasedModel("resnet_v2_50_2017_04_14", "resnet_v2_50", IMAGENET, (299,)),
    ReleasedModel("resnet_v2_101_2017_04_14", "resnet_v2_101", IMAGENET, (299,)),
    ReleasedModel("resnet_v2_152_2017_04_14", "resnet_v2_152", IMAGENET, (299,)),
)
# Networks and image sizes by the name in keras.applications, with weights of ImageNet.
KERAS_MODELS = {
    "InceptionV3": ("inception_v3", 299),
    "InceptionResNetV2": ("inception_resnet_v2", 299),
    "ResNet50V2": ("resnet_v2_50_keras", 224),
    "ResNet101V2": ("resnet_v2_101_keras", 224),
    "ResNet152V2": ("resnet_v2_152_keras", 224),
}
# Networks without classifier in SavedModels, by name: the network, the data, the size of its images
# and the address of an archive.
HUB_MODELS = {
    "inaturalist_inception_v3": (
        "inception_v3",
        INAT,
        299,
        "https://tfhub.dev/google/inaturalist/inception_v3/feature_vector/5"
        "?tf-hub-format=compressed",
    )
}
KERAS, HUB = "keras", "hub"  # folders, and prefixes of names on the command line
CONVERTED = "model.ckpt-0"  # the checkpoint of a converted model
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
    """Returns a model by name.

    Raises:
        UserError: The name is unknown.
    """
    models = {model.name: model for model in MODELS}
    if name not in models:
        raise UserError(f"unknown model '{name}'; {did_you_mean(name, list(models))}")
    return models[name]


def find_placed(model: ReleasedModel, folder: Path) -> Path | None:
    """Returns the prefix of a model's checkpoint in a folder, if it is there."""
    placed = [folder / f"{model.name}.ckpt", *find_checkpoints(folder / model.name)]
    return next((prefix for prefix in placed if is_complete(prefix)), None)


def find_by_name(path: str) -> Path | None:
    """Returns the checkpoint of a model that is there, by its name or its published path.

    Args:
        path: Such as `inception_v3_iNat_299`, or
            `checkpoints/inception/inception_v3_iNat_299.ckpt`, although the file in the archive
            has another name.
    """
    name = Path(path).name.removesuffix(".ckpt")
    for model in MODELS:
        if model.name == name:
            parent = Path(path).parent if "/" in path else Path(CHECKPOINTS, model.kind)
            return find_placed(model, parent)
    return None


def find_checkpoints(folder: Path) -> list[Path]:
    """Returns the prefixes of all checkpoints in a folder and its subfolders."""
    files = visible_files(folder)
    found = [path.with_suffix("") for path in files if path.suffix == ".index"]
    return found + [path for path in files if path.suffix == ".ckpt"]  # of format V1


def visible_files(folder: Path) -> list[Path]:
    """Returns the files in a folder and its subfolders, without hidden ones as macOS adds."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))


def fetch_archive(name: str, folder: Path, address: str, mirrors: Sequence[str] = ()) -> Path:
    """Downloads an archive, resuming an earlier download, unless it is there.

    Args:
        name: The name of a model in `MODELS` or `HUB_MODELS`, or `DATA` or `FEATURES`.
        folder: Receives the archive.
        address: The address of Google Drive, with `{id}` for the id.
        mirrors: Addresses to try before, in order, with `{name}` for the name.

    Returns:
        The path, `<name>.archive`.

    Raises:
        UserError: The download failed, the file is not an archive, or it differs from the one that
            was fetched first.
    """
    archive, known_hash = folder / f"{name}.archive", _read_hashes(folder).get(name)
    if not (archive.exists() or _fetch_from_mirrors(name, archive, mirrors, known_hash)):
        if name in DRIVE_IDS:
            _download(name, address.replace("{id}", DRIVE_IDS[name]), archive)
        else:
            fetch(_published_address(name), archive, known_hash)
    if not is_archive(archive):
        raise UserError(
            f"{archive} is not a tar or zip archive: delete it, then {_by_hand(name, archive)}"
        )
    if known_hash:
        check_hash(archive, known_hash, f"the archive that was fetched first ({folder / _HASHES})")
    return archive


def record_hash(name: str, archive: Path) -> None:
    """Records the hash of an archive that has the right contents, unless one is recorded."""
    hashes = _read_hashes(archive.parent)
    if name not in hashes:
        hashes[name] = f"sha256:{hash_file(archive)}"
        write_whole(archive.parent / _HASHES, json.dumps(hashes, indent=2) + "\n")


def _read_hashes(folder: Path) -> dict[str, str]:
    path = folder / _HASHES
    try:
        return dict(json.loads(path.read_bytes())) if path.exists() else {}
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not valid ({error}): delete it, and fetch again") from None


def _fetch_from_mirrors(
    name: str, archive: Path, mirrors: Sequence[str], known_hash: str | None
) -> bool:
    """Returns whether a mirror had the archive; says on stderr why the others had not."""
    for mirror in mirrors:
        try:
            fetch(mirror.replace("{name}", name), archive, known_hash)
            return True
        except UserError as error:
            print(f"note: {error}", file=sys.stderr, flush=True)
    return False


def _by_hand(name: str, archive: Path) -> str:
    """Returns how to get an archive without this command, as text."""
    return f"fetch {_published_address(name)} in a browser and save it as {archive}"


def _published_address(name: str) -> str:
    """Returns the address of an archive, for a browser if it is on Google Drive."""
    if name in DRIVE_IDS:
        return BROWSER.format(id=DRIVE_IDS[name])
    if name in HUB_MODELS:
        return HUB_MODELS[name][3]
    return TF_SLIM_ADDRESS.replace("{name}", name)


def _download(name: str, address: str, archive: Path) -> None:
    import gdown  # slow to import, and needed for downloads only

    by_hand = _by_hand(name, archive)
    a_page = f"{name}: Google Drive sent a page instead of the file (quota or permission)"
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
                f"{name}: cannot be fetched ({reason}); run the command again, it resumes "
                f"(to start over, delete {unchecked}*.part), or {by_hand}"
            ) from error
        if not is_archive(unchecked):
            raise UserError(f"{a_page}: try again tomorrow, or {by_hand}")


def is_archive(path: Path) -> bool:
    """Returns whether a file is a zip archive or a tar archive, compressed or not."""
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except EOFError:  # compressed, and cut off early
        return False


@contextmanager
def unpacked_beside(archive: Path) -> Iterator[Path]:
    """Yields a temporary folder with the contents of an archive.

    Raises:
        UserError: The archive is damaged or unsafe.
    """
    folder = archive.with_suffix(".unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        unpack(archive, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_unpacked(name: str, folder: Path) -> None:
    """Removes the unpacked files of a run that was killed after it had placed them."""
    shutil.rmtree(folder / f"{name}.unpacked", ignore_errors=True)


def choose_checkpoint(model: ReleasedModel, folder: Path, archive: Path) -> Path:
    """Returns the checkpoint with the model's name in an unpacked archive, or the only one.

    Raises:
        UserError: There is none, or there are several.
    """
    found = [prefix for prefix in find_checkpoints(folder) if is_complete(prefix)]
    named = [prefix for prefix in found if prefix.name == f"{model.name}.ckpt"]
    if len(named or found) != 1:
        held = [str(path.relative_to(folder)) for path in found or visible_files(folder)]
        raise UserError(
            f"{archive} holds {len(found)} checkpoints, expected one (.index and .data- files): "
            f"it has {', '.join(held)}; unpack it by hand and give the path of a checkpoint"
        )
    return (named or found)[0]


def place_checkpoint(model: ReleasedModel, checkpoint: Path, folder: Path) -> Path:
    """Moves a checkpoint to the model's subfolder, without renaming its files.

    Args:
        model: The model.
        checkpoint: The prefix in the unpacked archive.
        folder: The folder of the models.

    Returns:
        The new prefix.

    Raises:
        UserError: A different file is in the way.
    """
    folder = folder / model.name
    place({path: folder / path.name for path in checkpoint_files(checkpoint)})
    return folder / checkpoint.name


def place(moves: Mapping[Path, Path]) -> None:
    """Moves all files to their places, or none if a different file is in the way.

    Args:
        moves: New paths by present paths, in the order of moving.

    Raises:
        UserError: Different files are in the way.
    """
    there = {old: new for old, new in moves.items() if new.exists()}
    if other := [new for old, new in there.items() if not filecmp.cmp(old, new, shallow=False)]:
        raise UserError(
            f"{len(other)} existing files differ from the published ones, the first is {other[0]}: "
            "move them away and run the command again; nothing was changed"
        )
    for old, new in moves.items():
        new.parent.mkdir(parents=True, exist_ok=True)
        old.replace(new)


def place_files(name: str, contents: Path, folder: Path) -> int:
    """Moves the contents of an archive to a folder and lists them.

    Args:
        name: The published name of the folder; if the archive has such a folder, its contents are
            moved, else those of the archive.
        contents: The unpacked archive.
        folder: Receives the files and their list.

    Returns:
        The number of files.

    Raises:
        UserError: Different files are in the way.
    """
    top = contents / name if (contents / name).is_dir() else contents
    names = [path.relative_to(top) for path in visible_files(top)]
    place({top / path: folder / path for path in names})
    write_whole(folder / _LISTING, "".join(f"{path}\n" for path in names))
    return len(names)


def count_files(folder: Path) -> int:
    """Returns the number of files that `place_files` moved, or 0 if one of them is missing."""
    listing = folder / _LISTING
    if not listing.exists():
        return 0
    names = listing.read_text("utf-8", errors="surrogateescape").splitlines()
    return len(names) if all((folder / name).exists() for name in names) else 0
