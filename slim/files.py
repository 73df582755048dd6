"""Files that are there whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def write_whole(path: Path, text: str, writer: str = "") -> None:
    """Writes a text file whole or not at all; `writer` as in `replacing`."""
    with replacing(path, writer) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
