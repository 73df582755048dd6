"""Archives that are unpacked whole or not at all."""

import gzip
import json
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from slim.common.errors import UserError
from slim.common.files import write_whole

# What tarfile, zipfile and the decompressors raise for archives that are broken or encrypted.
_UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    RuntimeError,
    ValueError,
)


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpacks an archive into a folder, all of it or nothing.

    It is unpacked beside and then moved into place. A hidden file `.<archive>.unpacked` in the
    folder remembers that, so that another call does nothing, even without the archive; after a
    call that was killed, the next one starts over or ends the moving.

    Args:
        archive: A .tar, compressed or not, or a .zip.
        folder: Where to; it is made where there is none.

    Returns:
        The files and folders at the archive's top, sorted.

    Raises:
        UserError: The archive is unreadable, a member would leave the folder, or what the archive
            holds is there already.
    """
    if found := unpacked(archive, folder):
        return found
    aside, stamp = _aside(archive, folder), _stamp(archive, folder)
    try:
        stamp.unlink(missing_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        if tarfile.is_tarfile(archive):
            _extract_tar(archive, aside)
        else:
            _extract_zip(archive, aside)
        names = sorted(path.name for path in aside.iterdir())
        for name in names:
            refuse_existing(folder / name, archive.name)
        write_whole(stamp, json.dumps(names))
    except _UNREADABLE as error:
        raise UserError(
            f"{archive} cannot be unpacked ({error}), expected a whole .tar, .tar.gz or .zip: "
            "remove it, and run this again"
        ) from error
    except OSError as error:
        raise UserError(
            f"{error.filename or aside}: {error.strerror}: once that is mended, run this again"
        ) from error
    finally:
        if not stamp.exists():
            shutil.rmtree(aside, ignore_errors=True)
    return unpacked(archive, folder)


def unpacked(archive: Path, folder: Path) -> list[Path] | None:
    """What `unpack` has returned for an archive, which may be gone; None where it is to be called.

    Ends what a killed call has left to do.
    """
    aside, stamp = _aside(archive, folder), _stamp(archive, folder)
    if not stamp.exists():
        return None
    paths = [folder / name for name in json.loads(stamp.read_text())]
    for path in paths:
        if (aside / path.name).exists():
            (aside / path.name).replace(path)
    shutil.rmtree(aside, ignore_errors=True)
    return paths if all(path.exists() for path in paths) else None


def _aside(archive: Path, folder: Path) -> Path:
    return folder / f".{archive.name}.unpacking"


def _stamp(archive: Path, folder: Path) -> Path:
    return folder / f".{archive.name}.unpacked"


def refuse_existing(path: Path, archive: str) -> None:
    """Keeps what is there from being overwritten or mixed with what an archive holds.

    Raises:
        UserError: There is such a file or folder.
    """
    if path.exists():
        raise UserError(
            f"{path} is there already, and not by unpacking {archive} here: use it without "
            "downloading, or move it away and run this again"
        )


def _extract_tar(archive: Path, folder: Path) -> None:
    """Extracts a tar file; raises UserError for a member that leaves the folder."""
    # Releases of Python before June 2023 have no filters, and some filters have had holes: the
    # members are judged here as well.
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with (
        archive.open("rb") as raw,
        tarfile.open(fileobj=raw) as tar,
        _progress(archive, archive.stat().st_size) as bar,
    ):
        for member in tar:
            link = member.linkname if member.issym() or member.islnk() else None
            plain = member.isreg() or member.isdir() or link is not None
            _refuse_unsafe(archive, member.name, link, plain)
            member.mode = 0o755 if member.isdir() or member.mode & stat.S_IXUSR else 0o644
            member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
            tar.extract(member, folder, **safely)
            bar.update(raw.tell() - bar.n)


def _extract_zip(archive: Path, folder: Path) -> None:
    """Extracts a zip file; raises UserError for a member that leaves the folder."""
    with (
        zipfile.ZipFile(archive) as members,
        _progress(archive, sum(member.compress_size for member in members.infolist())) as bar,
    ):
        for member in members.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            _refuse_unsafe(archive, member.filename, None, kind in (0, stat.S_IFREG, stat.S_IFDIR))
            members.extract(member, folder)
            bar.update(member.compress_size)


def _progress(archive: Path, size: int) -> tqdm:
    """A bar in bytes of the archive."""
    text = f"unpacking {archive.name}"
    return tqdm(total=size, desc=text, unit="B", unit_scale=True, disable=None)


def _refuse_unsafe(archive: Path, name: str, link: str | None, plain: bool) -> None:
    """Judges a member by its name and, of a link, its target: neither may be absolute or go up.

    Where no path goes up, a chain of links cannot leave the folder either.

    Raises:
        UserError: The member is not to be unpacked.
    """
    for path in (name, link or ""):
        if path.startswith("/") or ".." in PurePosixPath(path).parts:
            target = f" -> '{link}'" if link is not None else ""
            problem = f"its member '{name}'{target} leads out of the folder"
            break
    else:
        if plain:
            return
        problem = f"its member '{name}' is no file, folder or link"
    raise UserError(f"{archive}: {problem}: nothing was unpacked; get the archive from its source")
