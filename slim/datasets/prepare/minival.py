"""The list of the images that validate iNaturalist 2017."""

import hashlib
import sys
from pathlib import Path

from slim.common.downloads import fetch
from slim.common.errors import UserError
from slim.datasets.prepare.archives import MINIVAL, Archive


def fetch_minival(path: Path, source: Archive = MINIVAL) -> None:
    """Fetches the list, unless it is there and right.

    Args:
        path: The file.
        source: Its address and hash.

    Raises:
        UserError: It cannot be fetched, or there is another file, which is left as it is.
    """
    fetch(source.address, path, source.known_hash)


def read_minival(
    path: Path, allow_other: bool = False, source: Archive = MINIVAL
) -> frozenset[str]:
    """Reads the list.

    Args:
        path: The file.
        allow_other: Whether a list with another hash is only warned of, on stderr.
        source: The list's address and hash.

    Returns:
        The images' names: `train_val_images/Aves/Corvus cornix/....jpg`.

    Raises:
        UserError: There is no such file, or it is another list.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}: python -m slim.datasets.minival --path={path} fetches it"
        ) from error
    found = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if found != source.known_hash:
        problem = f"{path} is not the published list: {found}, expected {source.known_hash}"
        if not allow_other:
            raise UserError(
                f"{problem}: move it away, and python -m slim.datasets.minival --path={path} "
                "fetches that"
            )
        print(f"warning: {problem}", file=sys.stderr)
    return frozenset(content.decode(errors="surrogateescape").splitlines())
