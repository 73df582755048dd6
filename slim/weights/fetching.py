"""From an address to files in their place: an archive is downloaded, checked, unpacked and placed.

Nothing here requires TensorFlow, except the check of a model.
"""

import filecmp
import json
import shlex
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from slim.checkpoints.description import (
    ModelDescription,
    has_names,
    read_model_description,
    shift_names,
    write_model_description,
)
from slim.checkpoints.finding import checkpoint_files, checkpoints_in, is_complete
from slim.common.downloads import check_hash, fetch, hash_file
from slim.common.errors import UserError
from slim.common.files import replacing, write_whole, writing_to
from slim.common.unpacking import unpack
from slim.weights.catalogue import (
    CLASSES,
    DATA,
    DRIVE_IDS,
    ReleasedModel,
    background_offset,
    published_address,
)

_HASHES = "fetched.json"  # the SHA-256 of each archive when it was first fetched
_LISTING = "published.txt"  # the files that came from an archive
_TIMEOUT = 60  # seconds without a byte


def provide_model(
    model: ReleasedModel, folder: Path, address: str, mirrors: Sequence[str] = ()
) -> None:
    """Fetches, checks and places a model, unless it is there, and prints an example of its use.

    Args:
        model: The model.
        folder: Receives the model, in a subfolder of its name.
        address: The address of Google Drive, with `{id}` for the id.
        mirrors: Addresses to try before, in order, with `{name}` for the name.
    """
    # 1. The files.
    checkpoint = find_placed(model, folder)
    if checkpoint:
        print(f"{model.name} exists already")
        shutil.rmtree(folder / f"{model.name}.unpacked", ignore_errors=True)  # of a killed run
    else:
        with writing_to(folder, "checkpoints_dir"):
            archive = fetch_archive(model.name, folder, address, mirrors)
            # Another process may have placed it while this one waited for the lock.
            checkpoint = find_placed(model, folder) or _place_model(model, folder, archive)
    # 2. The names of its classes, also when an earlier run could not fetch them.
    _describe(model, checkpoint)
    # 3. An example with the settings that differ from the defaults of train.sh.
    logits = "logits" if model.kind == "resnet" else "Logits"
    settings = {
        "MODEL_NAME": (model.network, "inception_v3"),
        "CHECKPOINT_EXCLUDE_SCOPES": (logits, "Logits"),
        "TRAINABLE_SCOPES": (logits, "Logits"),
        "TRAIN_IMAGE_SIZE": (model.sizes[-1], 299),
    }
    chosen = [f"{key}={value}" for key, (value, usual) in settings.items() if value != usual]
    example = [f"CHECKPOINT_PATH={shlex.quote(str(checkpoint))}", *chosen, "./train.sh"]
    print(f"path: {checkpoint}")
    print(f"for example: {' '.join(example)}", flush=True)


def find_placed(model: ReleasedModel, folder: Path) -> Path | None:
    """Returns the prefix of a model's checkpoint in a folder, if it is there."""
    published = folder / f"{model.name}.ckpt"
    if is_complete(published):
        return published
    return next(iter(checkpoints_in(folder / model.name)), None)


def _place_model(model: ReleasedModel, folder: Path, archive: Path) -> Path:
    """Moves the checkpoint of an archive to the model's subfolder, without renaming its files."""
    with unpacked_beside(archive) as contents:
        found = checkpoints_in(contents)
        # Of several checkpoints, the one with the published name counts.
        named = [prefix for prefix in found if prefix.name == f"{model.name}.ckpt"]
        if len(named or found) != 1:
            held = [str(path.relative_to(contents)) for path in found or _visible_files(contents)]
            raise UserError(
                f"{archive} holds {len(found)} checkpoints, expected one (.index and .data- "
                f"files): it has {', '.join(held)}; unpack it by hand and pass the path of a "
                "checkpoint"
            )
        checkpoint = (named or found)[0]
        classes = _check_checkpoint(model, checkpoint, archive)
        record_hash(model.name, archive)
        target = folder / model.name
        _place({path: target / path.name for path in checkpoint_files(checkpoint)})
    print(f"{model.name} is {model.network} with {classes:,} classes, as expected")
    print(f"the archive is no longer needed: {archive}")
    return target / checkpoint.name


def _check_checkpoint(model: ReleasedModel, checkpoint: Path, archive: Path) -> int:
    """Checks the network of a checkpoint and returns its number of classes."""
    print(f"inspecting {checkpoint.name}", flush=True)
    from slim.checkpoints.choosing import classifier_size, identify, sort_variables
    from slim.checkpoints.reading import check_readable, read_shapes

    try:
        contents = sort_variables(read_shapes(str(checkpoint)))
        check_readable(str(checkpoint))
    except UserError as error:
        raise UserError(
            f"{archive} is damaged ({error}): move it away to fetch it again"
        ) from error
    held, network, _ = identify(contents)
    classes = classifier_size(held, contents) if held else None
    expected = CLASSES[model.trained_on]
    if network != model.network or classes not in expected:
        raise UserError(
            f"{archive} holds another model than {model.name}: found {network}, "
            f"{classes or 'no'} classes; expected {model.network}, "
            f"{' or '.join(map(str, expected))} classes; unpack it by hand to use its checkpoint, "
            "or move it away to fetch it again"
        )
    return classes


def _describe(model: ReleasedModel, checkpoint: Path) -> None:
    """Writes `model.json`, if need be without class names, unless the model shares its folder."""
    if checkpoint.parent.name != model.name:
        return
    described = read_model_description(checkpoint.parent)
    if described and has_names(described.class_names):
        return
    from slim.checkpoints.choosing import classifier_size, sort_variables
    from slim.checkpoints.reading import read_shapes
    from slim.weights.class_names import try_class_names

    classes = classifier_size(model.network, sort_variables(read_shapes(str(checkpoint))))
    offset = background_offset(model.trained_on, classes)
    names = try_class_names(model.trained_on, classes, checkpoint.parent.parent.parent)
    names = names or shift_names([*map(str, range(classes + offset))], offset)
    network = model.network, model.sizes[-1], "inception"
    description = ModelDescription(*network, model.trained_on, names, labels_offset=offset)
    write_model_description(checkpoint.parent, description)


def provide_files(name: str, folder: Path, address: str, mirrors: Sequence[str] = ()) -> None:
    """Fetches the archive `DATA` or `FEATURES` and places its files, unless all are there."""
    if count := count_files(folder):
        print(f"{name}: {count:,} published files are in {folder} already")
        shutil.rmtree(folder / f"{name}.unpacked", ignore_errors=True)  # of a killed run
        return
    with writing_to(folder, f"{'dataset' if name == DATA else name}_dir"):
        # Another process may have placed them while this one waited for the lock.
        if not (count := count_files(folder)):
            archive = fetch_archive(name, folder, address, mirrors)
            with unpacked_beside(archive) as contents:
                top = contents / name if (contents / name).is_dir() else contents
                names = [path.relative_to(top) for path in _visible_files(top)]
                _place({top / path: folder / path for path in names})
                write_whole(folder / _LISTING, "".join(f"{path}\n" for path in names))
            count = len(names)
            record_hash(name, archive)
            print(f"the archive is no longer needed: {archive}")
    print(f"{name}: {count:,} published files are in {folder}", flush=True)


def count_files(folder: Path) -> int:
    """Returns the number of files that came from an archive, or 0 if one of them is missing."""
    listing = folder / _LISTING
    if not listing.exists():
        return 0
    names = listing.read_text("utf-8", errors="surrogateescape").splitlines()
    return len(names) if all((folder / name).exists() for name in names) else 0


def fetch_archive(name: str, folder: Path, address: str, mirrors: Sequence[str] = ()) -> Path:
    """Downloads `<name>.archive`, resuming an earlier download, unless it is there.

    Nobody publishes hashes of these archives: the first good one decides, a later one that differs
    is refused.
    """
    archive, known_hash = folder / f"{name}.archive", _read_hashes(folder).get(name)
    # 1. Download it, from the first mirror that has it or from the published address.
    for mirror in mirrors:
        if not archive.exists():
            try:
                fetch(mirror.replace("{name}", name), archive, known_hash)
            except UserError as error:
                print(f"note: {error}", file=sys.stderr, flush=True)
    if not archive.exists():
        if name in DRIVE_IDS:
            _fetch_from_drive(name, address.replace("{id}", DRIVE_IDS[name]), archive)
        else:
            fetch(published_address(name), archive, known_hash)
    # 2. Check it.
    if not _is_archive(archive):
        raise UserError(
            f"{archive} is not a tar or zip archive: move it away, then {_by_hand(name, archive)}"
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


def _fetch_from_drive(name: str, address: str, archive: Path) -> None:
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
        if not _is_archive(unchecked):
            raise UserError(f"{a_page}: try again tomorrow, or {by_hand}")


def _by_hand(name: str, archive: Path) -> str:
    return f"fetch {published_address(name)} in a browser and save it as {archive}"


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except EOFError:  # compressed, and cut off early
        return False


@contextmanager
def unpacked_beside(archive: Path) -> Iterator[Path]:
    """Yields a temporary folder with the contents of an archive."""
    folder = archive.with_suffix(".unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        unpack(archive, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _visible_files(folder: Path) -> list[Path]:
    """Returns the files in a folder and its subfolders, without hidden ones as macOS adds."""
    return sorted(path for path in folder.rglob("[!.]*") if path.is_file())


def _place(moves: Mapping[Path, Path]) -> None:
    """Moves all files to their new paths, in order, or none if a different file is in the way."""
    # Files that are there and equal are left over from a run that was killed.
    there = {old: new for old, new in moves.items() if new.exists()}
    if other := [new for old, new in there.items() if not filecmp.cmp(old, new, shallow=False)]:
        raise UserError(
            f"{len(other)} existing files differ from the published ones, the first is {other[0]}: "
            "move them away and run the command again; nothing was changed"
        )
    for old, new in moves.items():
        new.parent.mkdir(parents=True, exist_ok=True)
        old.replace(new)
