"""The files of a checkpoint. Nothing here requires TensorFlow."""

import re
from pathlib import Path


def checkpoint_files(prefix: Path) -> list[Path]:
    """Returns the files of a checkpoint, the index last; one of format V1 is a single file."""
    files = [path for path in prefix.parent.glob("*") if path.name.startswith(f"{prefix.name}.")]
    if prefix.is_file():
        return [prefix]
    return sorted(files, key=lambda path: (path.suffix == ".index", path))


def is_complete(prefix: Path) -> bool:
    """Returns whether a checkpoint has an index and all of its data, or is a file of format V1."""
    if prefix.is_file():
        return True
    endings = [path.name.removeprefix(prefix.name) for path in checkpoint_files(prefix)]
    shards = [found for end in endings if (found := re.fullmatch(r"\.data-\d+-of-(\d+)", end))]
    return ".index" in endings and bool(shards) and len(shards) == int(shards[0][1])
