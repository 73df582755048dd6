"""Files that are there whole or not at all."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slim.common.errors import UserError


@contextmanager
def replacing(path: Path, writer: str = "") -> Iterator[Path]:
    """Gives a temporary path, and renames it to the path meant when all has gone well.

    Args:
        path: The file meant.
        writer: Keeps the temporary files of several writers apart.

    Yields:
        A path that ends in `.tmp`, in the same folder.
    """
    temporary = path.with_name(f"{path.name}{writer and f'.{writer}'}.tmp")
    yield temporary
    temporary.replace(path)


def make_folder(path: Path, flag: str) -> None:
    """Makes a folder and its parents unless it exists.

    Args:
        path: The folder.
        flag: The flag that names it, for the error.

    Raises:
        UserError: The folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--{flag}={path}: cannot make the folder ({error.strerror}); give another one"
        ) from error


def write_whole(path: Path, text: str, writer: str = "") -> None:
    """Writes a text file whole or not at all; `writer` as in `replacing`."""
    with replacing(path, writer) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


LOCK = ".conversion.lock"
LOCK_SECONDS = 5  # workers of a killed run stop after the image at hand


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Locks a folder against other runs, on other machines too where the file system has locks.

    Worker processes inherit the lock. After a run is killed, the folder is free once its workers
    have noticed.

    Raises:
        UserError: Another run holds the lock and does not release it within `LOCK_SECONDS`.
    """
    path = folder / LOCK
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"{folder} is in use by another process: wait until it ends"
                    ) from None
                time.sleep(0.1)
                continue
            except OSError:
                pass  # the file system has no locks
            if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                continue  # the previous holder has just removed this file
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


@contextmanager
def writing_to(folder: Path, flag: str) -> Iterator[None]:
    """Makes a folder and keeps other processes out while files are written to it.

    Args:
        folder: The folder.
        flag: The flag that decides where it is, for the error.

    Raises:
        UserError: Another process writes to the folder, or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder):
            yield
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or folder}: {error.strerror}; free some space or choose "
            f"another --{flag}, then run the command again"
        ) from error
