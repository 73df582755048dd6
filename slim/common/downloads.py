"""Downloads that are checked and go on where they stopped, and archives unpacked safely."""

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
from slim.common.files import exclusive, write_whole

PART = ".part"  # ends the name of the folder beside a file that has not come whole yet
_BEGUN = ".begun"  # in that folder: what has come
_NOTE = ".note"  # in that folder: which version of the file that is, and how long it will be

_CHUNK = 1 << 16  # bytes at a time: what is lost at most when the connection breaks
_TIMEOUT = (30, 120)  # seconds until connected, and without a byte
_LARGE = 10**9  # bytes of which the hash takes its time
_AGAIN = "run this again, it goes on where it stopped"


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
        with exclusive(part):
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
