"""Archives that are unpacked as a whole or not at all."""

import gzip
import json
import platform
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from slim.common.errors import UserError
from slim.common.files import write_whole
from slim.common.progress import progress

# Raised by tarfile, zipfile and the decompressors for broken or encrypted archives.
_UNREADABLE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)
_UNREADABLE += (RuntimeError, ValueError)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a .tar, compressed or not, or a .zip into a folder, completely or not at all.

    A hidden file `.<archive>.unpacked` marks success, so that another call does nothing, even
    without the archive. After a call was killed, the next one starts over or completes the move.
    """
    if unpacked(archive, folder):
        return
    aside, stamp = _hidden(archive, folder)
    try:
        # 1. Unpack to a hidden folder. tarfile and zipfile could do it with one call each, but
        # 199 GB need progress, and zipfile renames unsafe members without a word.
        stamp.unlink(missing_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        if tarfile.is_tarfile(archive):
            _unpack_tar(archive, aside)
        else:
            with zipfile.ZipFile(archive) as members:
                for member in members.infolist():
                    _check_paths(archive, member.filename)
                    kind = stat.S_IFMT(member.external_attr >> 16)
                    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                        raise _unsafe(archive, f"'{member.filename}' is not a file or folder")
                    members.extract(member, aside)
        # 2. Note its names, then move it to its place: from here on, another call can complete it.
        names = sorted(path.name for path in aside.iterdir())
        for name in names:
            refuse_existing(folder / name, archive.name)
        write_whole(stamp, json.dumps(names))
    except _UNREADABLE as error:
        raise UserError(
            f"{archive} cannot be unpacked ({error}), expected a complete .tar, .tar.gz or .zip: "
            "move it away, then run this again"
        ) from error
    except OSError as error:
        raise UserError(
            f"{error.filename or aside}: {error.strerror}: fix this, then run this again"
        ) from error
    finally:
        if not stamp.exists():
            shutil.rmtree(aside, ignore_errors=True)
    unpacked(archive, folder)


def unpacked(archive: Path, folder: Path) -> bool:
    """Returns whether an archive was unpacked; completes the move of a call that was killed."""
    aside, stamp = _hidden(archive, folder)
    if not stamp.exists():
        return False
    paths = [folder / name for name in json.loads(stamp.read_text())]
    for path in paths:
        if (aside / path.name).exists():
            (aside / path.name).replace(path)
    shutil.rmtree(aside, ignore_errors=True)
    return all(path.exists() for path in paths)


def _hidden(archive: Path, folder: Path) -> tuple[Path, Path]:
    """Returns the folder to unpack to, and the mark of success."""
    return folder / f".{archive.name}.unpacking", folder / f".{archive.name}.unpacked"


def refuse_existing(path: Path, archive: str) -> None:
    """Checks that unpacking does not overwrite a file or add to a folder."""
    if path.exists():
        raise UserError(
            f"{path} exists already and was not unpacked from {archive} here: use it without "
            "downloading, or move it away and run this again"
        )


def _unpack_tar(archive: Path, folder: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise UserError(
            f"{archive}: Python {platform.python_version()} cannot unpack tar files safely: "
            "update to Python 3.10.12, 3.11.4, 3.12 or newer, or unpack it by hand"
        )
    size, position = archive.stat().st_size, 0
    with (
        archive.open("rb") as raw,
        tarfile.open(fileobj=raw) as tar,
        progress(f"unpacking {archive.name}", size, "B") as shown,
    ):
        for member in tar:
            _check_paths(archive, member.name, member.linkname)
            try:
                tar.extract(member, folder, filter="data")
            except tarfile.FilterError as error:
                raise _unsafe(archive, str(error)) from None
            shown.update(raw.tell() - position)
            position = raw.tell()


def _check_paths(archive: Path, *paths: str) -> None:
    """Checks that neither the name of a member nor its link target is absolute or contains `..`.

    Early versions of tarfile's `data` filter follow some such links (CVE-2025-4517).
    """
    if any(path.startswith("/") or ".." in PurePosixPath(path).parts for path in paths):
        named = "' -> '".join(filter(None, paths))
        raise _unsafe(archive, f"'{named}' leads out of the folder")


def _unsafe(archive: Path, problem: str) -> UserError:
    return UserError(
        f"{archive}: its member {problem}: nothing was unpacked; get the archive from its source"
    )
