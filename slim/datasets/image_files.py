"""Image files in folders."""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from slim.common.errors import UserError
from slim.datasets.images import FORMATS

# What archive programs, network drives and file managers add: damaged copies, thumbnails, settings.
_SYSTEM = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"}


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder is hidden, or one that a system adds to folders."""
    return name.startswith(".") or name in _SYSTEM


def subfolders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder that are not hidden, sorted."""
    # Faster than with `Path`: ImageNet has folders of 50,000 images.
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not is_hidden(e.name) and e.is_dir())
    return []


@cache
def image_endings() -> frozenset[str]:
    """Returns the extensions of the formats that conversion reads, such as `.jpg`."""
    from PIL import Image

    extensions = Image.registered_extensions()
    return frozenset(ending for ending, name in extensions.items() if name in FORMATS)


def find_image_files(top: Path) -> tuple[list[Path], list[Path]]:
    """Returns the image files in a folder and below it, and what else there is, both sorted.

    Hidden files are ignored. Links to folders are followed, but no folder is read twice, and none
    that contains `top`: links may form circles.
    """

    def fail(error: OSError) -> None:
        reason = f"cannot be read ({error.strerror}): make it readable or move it away"
        raise UserError(f"{error.filename} {reason}") from error

    images, others = [], []
    above = top.absolute().parent.resolve()
    read = {above, *above.parents, *top.resolve().parents}
    for folder, folders, files in os.walk(top, onerror=fail, followlinks=True):
        if (target := Path(folder).resolve()) in read:
            folders.clear()
            others.append(Path(folder))
            continue
        read.add(target)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for path in (Path(folder, name) for name in sorted(files) if not is_hidden(name)):
            (images if path.suffix.lower() in image_endings() else others).append(path)
    return sorted(images), sorted(others)
