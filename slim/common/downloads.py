"""Downloads that resume after an interruption and are checked against a hash."""

import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pooch
import requests
import urllib3
from tqdm import tqdm

from slim.common.errors import UserError
from slim.common.files import LOCK, exclusive, write_whole
from slim.common.progress import progress

PART = ".part"  # suffix of the folder that holds an incomplete download
_BEGUN = ".begun"  # in that folder: the bytes received so far
_NOTE = ".note"  # in that folder: version and size of the file on the server

_CHUNK = 1 << 16  # bytes; a broken connection loses at most one chunk
_TIMEOUT = (30, 120)  # seconds to connect, and seconds without data
_LARGE = 10**9  # bytes; hashing a larger file takes a while
_RESUME = "run this again to resume"


def fetch(address: str, path: Path, known_hash: str | None = None) -> None:
    """Downloads a file, resuming an earlier download, and checks its hash.

    The file appears at `path` when it is complete. Until then, the data is in the folder
    `<path>.part`.

    Args:
        address: The http or https address.
        path: The file to write; its folder is made if necessary. An existing file is checked and
            not downloaded.
        known_hash: The expected hash, `sha256:...` or `md5:...`.

    Raises:
        UserError: The server cannot be reached or does not have the file, the connection broke,
            the disk is full, or the file at `path` or on the server has a different hash.
    """
    if path.exists():
        _check_existing(address, path, known_hash)
        return
    part = path.with_name(path.name + PART)

    def download(address: str, output: str, _pooch: pooch.Pooch | None) -> None:
        """Implements the downloader interface of pooch, which then checks the hash of `output`."""
        _fetch_rest(address, path, Path(output))
        _announce_check(Path(output), path.name)

    pooch.get_logger().setLevel("WARNING")
    try:
        part.mkdir(parents=True, exist_ok=True)
        with exclusive(part):
            pooch.retrieve(address, known_hash, path.name, part, downloader=download)
            (part / path.name).replace(path)
            shutil.rmtree(part)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        received = _bytes(_size(part / _BEGUN))
        raise UserError(
            f"{address}: the connection failed after {received} ({_root(error)}): {_RESUME}"
        ) from error
    except ValueError as error:  # pooch found a different hash and removed the file
        shutil.rmtree(part)
        raise UserError(
            f"{address}: {error} Run this again to download it from the start"
        ) from error
    except OSError as error:
        if path.exists():  # another process has just fetched it and removed its folder
            _check_existing(address, path, known_hash)
            return
        raise UserError(
            f"{error.filename or part}: {error.strerror}: fix this, then {_RESUME}"
        ) from error
    finally:
        with suppress(OSError):
            part.rmdir()  # if nothing was received


def _check_existing(address: str, path: Path, known_hash: str | None) -> None:
    """Checks the hash of an existing file, which is never overwritten."""
    if not path.is_file():
        raise UserError(f"{path} exists but is not a file: give the path of a file")
    if known_hash is not None:
        check_hash(path, known_hash, address)


def check_hash(path: Path, known_hash: str, source: str) -> None:
    """Checks the hash of a file.

    Args:
        path: The file.
        known_hash: The expected hash, `sha256:...` or `md5:...`.
        source: Where the right file comes from, for the error.

    Raises:
        UserError: The file has another hash.
    """
    algorithm, _, expected = known_hash.partition(":")
    found = hash_file(path, algorithm)
    if found != expected:
        raise UserError(
            f"{path} differs from {source}: its {algorithm} is {found}, expected {expected}: "
            "move it away, then run this again to download the right file"
        )


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Returns the hash of a file in hexadecimal digits."""
    _announce_check(path, path.name)
    return pooch.file_hash(str(path), alg=algorithm)


def _announce_check(path: Path, name: str) -> None:
    """Prints a note before a large file is hashed, which takes minutes."""
    if (size := _size(path)) > _LARGE:
        print(f"checking {name} ({_bytes(size)})", file=sys.stderr)


def _root(error: BaseException) -> BaseException:
    """Returns the first error of a chain, such as "connection refused"."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error


def _fetch_rest(address: str, path: Path, output: Path) -> None:
    """Downloads the missing part of a file, and moves the complete file to `output`."""
    begun, note = output.parent / _BEGUN, output.parent / _NOTE
    note.with_name(f"{note.name}.tmp").unlink(missing_ok=True)
    for left in output.parent.iterdir():
        # If a run is killed while pooch hashes the file, the file keeps a name chosen by pooch.
        if left not in (begun, note, output, output.parent / LOCK) and _size(left):
            left.replace(begun)
    while not _is_complete(begun, note):
        seen = json.loads(note.read_text()) if note.exists() else {}
        have = _size(begun) if any(seen.values()) else 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            headers |= {"If-Range": seen["version"]} if seen["version"] else {}
        with requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT) as reply:
            if have and reply.status_code in (206, 416) and not _continues(reply, have, seen):
                begun.unlink()  # the file on the server has changed
                continue
            if reply.status_code == 200:
                have = 0
                begun.unlink(missing_ok=True)  # before the note describes another version
                seen = {"version": _version(reply), "size": _length(reply)}
                write_whole(note, json.dumps(seen))
            elif not have or reply.status_code != 206:
                raise UserError(
                    f"{address}: the server answered {reply.status_code} {reply.reason}: try again "
                    f"later, or get the file in another way and put it at {path}"
                )
            _append(reply, begun, have, path)
        if seen["size"] is None:
            break  # the complete size is unknown
    begun.replace(output)


def _is_complete(begun: Path, note: Path) -> bool:
    """Returns whether the size is the one that the server announced."""
    if not begun.exists() or not note.exists():
        return False
    return _size(begun) == json.loads(note.read_text())["size"]


def _continues(reply: requests.Response, have: int, seen: dict) -> bool:
    """Returns whether a partial reply belongs to the same version of the file.

    This is checked here because some servers ignore If-Range.
    """
    start, _, total = reply.headers.get("Content-Range", "").partition("/")
    return (
        start.startswith(f"bytes {have}-")
        and (not seen["size"] or total == str(seen["size"]))
        and _version(reply) in (seen["version"], None)
    )


def _version(reply: requests.Response) -> str | None:
    """Returns a value for If-Range: a strong entity tag, else the date of the last change."""
    tag = reply.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else reply.headers.get("Last-Modified")


def _length(reply: requests.Response) -> int | None:
    """Returns the number of bytes in the reply, or None if the server does not announce it."""
    return int(length) if (length := reply.headers.get("Content-Length", "")).isdigit() else None


def _append(reply: requests.Response, begun: Path, have: int, path: Path) -> None:
    """Appends the content of a reply to a file of `have` bytes."""
    length = _length(reply)
    total = None if length is None else have + length
    free = shutil.disk_usage(begun.parent).free
    if length and length > free:
        raise UserError(
            f"{path} needs {_bytes(length)} more, {_bytes(free)} are free: make room, then "
            f"{_RESUME}"
        )
    with progress(path.name, total, "B", initial=have) as shown, begun.open("ab") as file:
        # Not decoded: some servers send a .tar.gz as a .tar with Content-Encoding: gzip.
        for chunk in reply.raw.stream(_CHUNK, decode_content=False):
            file.write(chunk)
            shown.update(len(chunk))
    received = _size(begun)
    if total is not None and received != total:
        raise UserError(
            f"{reply.url}: the connection broke after {_bytes(received)} of {_bytes(total)}: "
            f"{_RESUME}"
        )


def _size(path: Path) -> int:
    """Returns the size of a file in bytes, or 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def _bytes(count: int) -> str:
    return f"{tqdm.format_sizeof(count)}B"
