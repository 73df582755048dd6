"""Downloads that are checked and go on where they stopped, and archives unpacked safely."""

import fcntl
import gzip
import json
import os
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import pooch
import requests
import urllib3
from tqdm import tqdm

from slim.errors import UserError
from slim.files import write_whole

PART = ".part"  # ends the name of the folder beside a file that has not come whole yet
_BEGUN = ".begun"  # in that folder: what has come
_NOTE = ".note"  # in that folder: which version of the file that is, and how long it will be

_CHUNK = 1 << 16  # bytes at a time: what is lost at most when the connection breaks
_TIMEOUT = (30, 120)  # seconds until connected, and without a byte
_LARGE = 10**9  # bytes of which the hash takes its time
_AGAIN = "run this again, it goes on where it stopped"

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


def fetch(address: str, path: Path, known_hash: str | None = None) -> None:
    """Downloads a file, or the rest of it after an earlier call, and checks it.

    Args:
        address: Where from: http or https.
        path: The file to make, and its folder. It appears whole or not at all: what has come is
            in the folder `<path>.part` until then, and the next call asks for the rest only.
        known_hash: What the file is checked against: `sha256:...` or `md5:...`. A file that is
            there already is checked in the same way, and not fetched.

    Raises:
        UserError: The address does not answer or has no such file, the connection broke, the disk
            is full, or what came or lies there is another file than the expected one.
    """
    if path.exists():
        _check_existing(address, path, known_hash)
        return
    part = path.with_name(path.name + PART)

    def download(address: str, output: str, _pooch: pooch.Pooch | None) -> None:
        """Is what pooch calls a downloader; pooch then checks the hash of what is at `output`."""
        _fetch_rest(address, path, Path(output))
        _announce_check(Path(output), path.name)

    pooch.get_logger().setLevel("WARNING")
    try:
        part.mkdir(parents=True, exist_ok=True)
        with alone(part):
            pooch.retrieve(address, known_hash, path.name, part, downloader=download)
            (part / path.name).replace(path)
            shutil.rmtree(part)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        came = _size(part / _BEGUN)
        raise UserError(
            f"{address}: the connection failed after {_bytes(came)} ({_root(error)}): {_AGAIN}"
        ) from error
    except ValueError as error:  # by pooch, with both hashes; it has removed what came
        shutil.rmtree(part)
        raise UserError(f"{address}: {error} Run this again to fetch it anew") from error
    except OSError as error:
        raise UserError(
            f"{error.filename or part}: {error.strerror}: once that is mended, {_AGAIN}"
        ) from error
    finally:
        with suppress(OSError):
            part.rmdir()  # where nothing has come


def _check_existing(address: str, path: Path, known_hash: str | None) -> None:
    """Refuses a file with another hash, rather than overwrite it."""
    if known_hash is None:
        return
    _announce_check(path, path.name)
    algorithm, _, expected = known_hash.partition(":")
    found = pooch.file_hash(str(path), alg=algorithm)
    if found != expected:
        raise UserError(
            f"{path} is another file than {address}: its {algorithm} is {found}, expected "
            f"{expected}: move it away, and run this again to fetch the right one"
        )


def _announce_check(path: Path, name: str) -> None:
    """Says that a large file is being read, which takes minutes."""
    if (size := _size(path)) > _LARGE:
        print(f"checking {name} ({_bytes(size)})", file=sys.stderr)


def _root(error: BaseException) -> BaseException:
    """What an error began with: "connection refused" rather than what was made of it."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error


def _fetch_rest(address: str, path: Path, output: Path) -> None:
    """Downloads what is lacking of a file, and moves the whole to the output."""
    begun, note = output.parent / _BEGUN, output.parent / _NOTE
    for left in output.parent.iterdir():
        # A run that was killed while pooch took the hash has left it under a name of pooch's.
        if left not in (begun, note, output) and _size(left):
            left.replace(begun)
    while not _is_whole(begun, note):
        seen = json.loads(note.read_text()) if note.exists() else {}
        have = _size(begun) if any(seen.values()) else 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            headers |= {"If-Range": seen["version"]} if seen["version"] else {}
        with requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT) as reply:
            if have and reply.status_code in (206, 416) and not _goes_on(reply, have, seen):
                begun.unlink()  # the file there is not the one that was begun
                continue
            if reply.status_code == 200:
                have = 0
                begun.unlink(missing_ok=True)  # before the note is another one's
                seen = {"version": _version(reply), "size": _length(reply)}
                write_whole(note, json.dumps(seen))
            elif not have or reply.status_code != 206:
                raise UserError(
                    f"{address}: the server answered {reply.status_code} {reply.reason}: try again "
                    f"later, or get the file in another way and put it at {path}"
                )
            _append(reply, begun, have, path)
        if seen["size"] is None:
            break  # nobody knows how long it should be
    begun.replace(output)


def _is_whole(begun: Path, note: Path) -> bool:
    """Whether as much has come as the server announced."""
    if not begun.exists() or not note.exists():
        return False
    return _size(begun) == json.loads(note.read_text())["size"]


def _goes_on(reply: requests.Response, have: int, seen: dict) -> bool:
    """Whether a partial answer continues what was begun, and not another version of the file.

    A server may ignore If-Range, hence the comparison here.
    """
    start, _, total = reply.headers.get("Content-Range", "").partition("/")
    return (
        start.startswith(f"bytes {have}-")
        and (not seen["size"] or total == str(seen["size"]))
        and _version(reply) in (seen["version"], None)
    )


def _version(reply: requests.Response) -> str | None:
    """What If-Range takes: a strong entity tag, else the date of the last change."""
    tag = reply.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else reply.headers.get("Last-Modified")


def _length(reply: requests.Response) -> int | None:
    """The bytes that the server is going to send, where it says that."""
    return int(length) if (length := reply.headers.get("Content-Length", "")).isdigit() else None


def _append(reply: requests.Response, begun: Path, have: int, path: Path) -> None:
    """Appends what the server sends.

    Raises:
        UserError: There is no room for it, or less came than announced.
    """
    length = _length(reply)
    total = None if length is None else have + length
    free = shutil.disk_usage(begun.parent).free
    if length and length > free:
        raise UserError(
            f"{path} needs {_bytes(length)} more, {_bytes(free)} are free: make room, and {_AGAIN}"
        )
    bar = tqdm(total=total, initial=have, desc=path.name, unit="B", unit_scale=True, disable=None)
    with bar, begun.open("ab") as file:
        # As it comes: some servers call a .tar.gz a .tar with Content-Encoding: gzip.
        for chunk in reply.raw.stream(_CHUNK, decode_content=False):
            file.write(chunk)
            bar.update(len(chunk))
    came = _size(begun)
    if total is not None and came != total:
        raise UserError(
            f"{reply.url}: the connection broke after {_bytes(came)} of {_bytes(total)}: {_AGAIN}"
        )


def _size(path: Path) -> int:
    """The bytes of a file; none where there is none."""
    return path.stat().st_size if path.exists() else 0


def _bytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{tqdm.format_sizeof(count)}B"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; the lock ends with the process, however it ends.

    Raises:
        UserError: Another run is in it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder} is in use by another download: wait for its end") from None
        except OSError:
            pass  # not every network file system has locks
        yield
    finally:
        os.close(handle)


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
