"""Downloads that resume after an interruption and are checked against a hash.

An archive of up to 199 GB has to survive a broken connection. pooch and similar libraries start
over; here, the rest of the file is requested as an HTTP range.
"""

import hashlib
import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from slim.common.errors import UserError
from slim.common.files import exclusive, write_whole
from slim.common.progress import progress

_PART = ".part"  # suffix of the folder that holds an incomplete download
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
    """
    # 1. A file that exists is not downloaded again.
    if path.exists():
        if not path.is_file():
            raise UserError(f"{path} exists but is not a file: pass the path of a file")
        if known_hash is not None:
            check_hash(path, known_hash, address)
        return
    # 2. Receive the rest of the data, check all of it, and only then move it to its place.
    part = path.with_name(path.name + _PART)
    begun = part / _BEGUN
    try:
        part.mkdir(parents=True, exist_ok=True)
        with exclusive(part):
            _receive(address, path, begun, part / _NOTE)
            if known_hash is not None:
                algorithm = known_hash.partition(":")[0]
                found = f"{algorithm}:{hash_file(begun, algorithm, name=path.name)}"
                if found != known_hash:
                    shutil.rmtree(part)
                    raise UserError(
                        f"{address}: the file there has the hash {found}, expected {known_hash}: "
                        "run this again to download it from the start"
                    )
            begun.replace(path)
            shutil.rmtree(part)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        root = error  # the first error of the chain, such as "connection refused"
        while inner := root.__cause__ or root.__context__:
            root = inner
        received = _bytes(_size(begun))
        raise UserError(
            f"{address}: the connection failed after {received} ({root}): {_RESUME}"
        ) from error
    except OSError as error:
        if path.exists():  # another process has just fetched it and removed its folder
            fetch(address, path, known_hash)
            return
        raise UserError(
            f"{error.filename or part}: {error.strerror}: fix this, then {_RESUME}"
        ) from error
    finally:
        with suppress(OSError):
            part.rmdir()  # if nothing was received


def check_hash(path: Path, known_hash: str, source: str) -> None:
    """Checks the hash of a file, which comes from `source`, against `sha256:...` or `md5:...`."""
    algorithm, _, expected = known_hash.partition(":")
    found = hash_file(path, algorithm)
    if found != expected:
        raise UserError(
            f"{path} differs from {source}: its {algorithm} is {found}, expected {expected}: "
            "move it away, then run this again to download the right file"
        )


def hash_file(path: Path, algorithm: str = "sha256", *, name: str | None = None) -> str:
    """Returns the hash of a file in hexadecimal digits; a note on stderr announces long work."""
    if (size := _size(path)) > _LARGE:
        print(f"checking {name or path.name} ({_bytes(size)})", file=sys.stderr)
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _receive(address: str, path: Path, begun: Path, note: Path) -> None:
    """Appends to `begun` until it has the size that the server announced."""
    seen = json.loads(note.read_text()) if note.exists() else {}
    while not (seen and begun.exists() and _size(begun) == seen["size"]):
        # 1. Ask for the rest, if what is here can be told from other versions of the file.
        have = _size(begun) if any(seen.values()) else 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            headers |= {"If-Range": seen["version"]} if seen["version"] else {}
        with requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT) as reply:
            tag, length = (reply.headers.get(key, "") for key in ("ETag", "Content-Length"))
            weak = not tag or tag.startswith("W/")
            version = reply.headers.get("Last-Modified") if weak else tag
            length = int(length) if length.isdigit() else None

            # 2. Start over if the file has changed: some servers ignore If-Range.
            if have and reply.status_code in (206, 416):
                start, _, total = reply.headers.get("Content-Range", "").partition("/")
                if not (
                    start.startswith(f"bytes {have}-")
                    and total == str(seen["size"] or total)
                    and version in (seen["version"], None)
                ):
                    begun.unlink()
                    continue
            elif reply.status_code == 200:
                have = 0
                begun.unlink(missing_ok=True)  # before the note describes another version
                seen = {"version": version, "size": length}
                write_whole(note, json.dumps(seen))
            else:
                raise UserError(
                    f"{address}: the server answered {reply.status_code} {reply.reason}: try again "
                    f"later, or get the file in another way and put it at {path}"
                )

            # 3. Append what comes.
            free = shutil.disk_usage(begun.parent).free
            if length and length > free:
                raise UserError(
                    f"{path} needs {_bytes(length)} more, {_bytes(free)} are free: make room, then "
                    f"{_RESUME}"
                )
            total = None if length is None else have + length
            with progress(path.name, total, "B", initial=have) as shown, begun.open("ab") as file:
                # Not decoded: some servers send a .tar.gz as a .tar with Content-Encoding: gzip.
                for chunk in reply.raw.stream(_CHUNK, decode_content=False):
                    file.write(chunk)
                    shown.update(len(chunk))
        if seen["size"] is None:
            return


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _bytes(count: int) -> str:
    return f"{tqdm.format_sizeof(count)}B"
