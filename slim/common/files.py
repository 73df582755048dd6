"""Folders, locks, and files that are written as a whole or not at all."""

import csv
import errno
import fcntl
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slim.common.errors import UserError

LOCK = ".lock"
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}  # of a file system without links
LOCK_SECONDS = 5  # workers of a killed run stop after the current image
STALE_SECONDS = 3600  # a temporary file that has not changed for so long has no writer


def check_local(path: str | Path, flag: str) -> None:
    """Refuses an address such as `gs://bucket/run`, which the system takes for a local name."""
    if re.match(r"[a-zA-Z][\w+.-]+:/", str(path)):
        raise UserError(
            f"{flag}={path}: expected a local file or folder; copy the files here, or mount the "
            "bucket and pass the folder it is mounted at"
        )


def this_process() -> str:
    """Returns a name of this process, for temporary files in a folder that others write to."""
    return f"{socket.gethostname()}-{os.getpid()}"


@contextmanager
def replacing(path: Path, writer: str = "") -> Iterator[Path]:
    """Yields a temporary path ending in `.tmp`, and renames it to `path` on success.

    `writer` distinguishes the temporary files of several writers; see `this_process`. An existing
    path that is not a file, such as a device, is refused.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "Exists but is not a file", str(path))
    temporary = path.with_name(f"{path.name}{writer and f'.{writer}'}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_stale(folder: Path, pattern: str) -> None:
    """Removes old temporary files of `replacing`, whose writers were killed."""
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):  # another process removes it, or its writer renames it
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def write_whole(path: Path, text: str, writer: str = "") -> None:
    """Writes a text file as a whole or not at all; for `writer` see `replacing`."""
    with replacing(path, writer) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_csv(path: Path, rows: Iterable[Iterable[str | float]], writer: str = "") -> None:
    """Writes a CSV file: text in quotes, bytes of names as they are, fractions with six digits."""
    with (
        replacing(path, writer) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        table = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        for row in rows:
            table.writerow(c if isinstance(c, (str, int)) else float(f"{c:.6g}") for c in row)


def valid_text(text: str) -> str:
    """Returns a text as UTF-8 can have it: bytes of names that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def make_folder(path: Path, flag: str) -> None:
    """Makes the folder of a flag, and its parents, if they do not exist."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--{flag}={path}: cannot make the folder ({error.strerror}); choose another one"
        ) from error
    if not os.access(path, os.W_OK):
        raise UserError(f"--{flag}={path}: no permission to write; choose another folder")


def make_link(link: Path, target: Path, advice: str) -> None:
    """Makes a symbolic link; where the file system has none, the error gives the advice."""
    try:
        link.symlink_to(target, target_is_directory=True)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise OSError(error.errno, error.strerror, str(link)) from error
        raise UserError(
            f"{link} cannot be a link ({error.strerror}): its file system may have none; {advice}"
        ) from error


@contextmanager
def removing_empty(folder: Path) -> Iterator[None]:
    """Removes a folder that did not exist if an error leaves it empty."""
    is_new = not folder.exists()
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def exclusive(folder: Path, seconds: float | None = None, *, name: str = LOCK) -> Iterator[None]:
    """Locks a folder against other runs, on this machine and on others that share the folder.

    The lock is a file, which names the process that has it, for the error of a run that waits in
    vain. It ends with its process. Worker processes inherit it: after a run is killed, the lock is
    released when its workers notice that.
    """
    path = folder / name
    deadline = time.monotonic() + (LOCK_SECONDS if seconds is None else seconds)
    while True:
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise UserError(
                        f"{folder} is in use by {file.read() or 'another process'}: wait until it "
                        "ends, or stop it"
                    ) from None
                time.sleep(0.1)
                continue
            except OSError:
                pass  # not every network file system has locks
            try:
                if not os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    continue
            except FileNotFoundError:
                continue  # the previous holder has just removed this file
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


@contextmanager
def writing_to(folder: Path, flag: str, seconds: float | None = None) -> Iterator[None]:
    """Makes the folder of a flag and keeps other processes out while files are written to it.

    Errors of the system become a `UserError` that names the flag.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder, seconds):
            yield
    except BrokenPipeError:  # of the output
        raise
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or folder}: {error.strerror}; fix this or choose "
            f"another --{flag}, then run the command again"
        ) from error
