"""Exports that are a file, with the class names in a text file beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slim.common.errors import UserError
from slim.common.files import write_whole
from slim.datasets.lists import compose_class_names


def classes_file(path: Path) -> Path:
    """Returns the path of the class names beside an export."""
    return path.with_suffix(".classes.txt")


def check_file(path: Path, suffix: str, overwrite: bool) -> None:
    """Checks the path of an export before it is made.

    Raises:
        UserError: The path does not end in the suffix, or exists and must not be replaced.
    """
    if path.suffix != suffix:
        raise UserError(f"--output_dir={path}: expected the name of a file that ends in {suffix}")
    if path.exists() and not overwrite:
        raise UserError(
            f"{path} exists already: give --overwrite to replace it, or another --output_dir"
        )


@contextmanager
def writing_file(path: Path, class_names: tuple[str, ...]) -> Iterator[Path]:
    """Yields a temporary path; on success, renames it and writes the class names beside it.

    Args:
        path: The file.
        class_names: Names of all classes.

    Raises:
        UserError: The file cannot be written.
    """
    temporary = path.with_name(f"{path.stem}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
        write_whole(classes_file(path), compose_class_names(class_names))
    except OSError as error:
        raise UserError(f"--output_dir={path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)
