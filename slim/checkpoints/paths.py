"""The files of checkpoints. Nothing here requires TensorFlow."""

import re
from pathlib import Path

STATE = "checkpoint"  # the file that names the latest checkpoint of a folder


def checkpoint_files(prefix: Path) -> list[Path]:
    """Returns the files of a checkpoint, the index last; one of format V1 is a single file."""
    if prefix.is_file():
        return [prefix]
    files = [path for path in prefix.parent.glob("*") if path.name.startswith(f"{prefix.name}.")]
    return sorted(files, key=lambda path: (path.suffix == ".index", path))


def is_complete(prefix: Path) -> bool:
    """Returns whether a checkpoint has an index and all of its data, or is a file of format V1."""
    if prefix.is_file():
        return True
    endings = [path.name.removeprefix(prefix.name) for path in checkpoint_files(prefix)]
    shards = [found for end in endings if (found := re.fullmatch(r"\.data-\d+-of-(\d+)", end))]
    return ".index" in endings and bool(shards) and len(shards) == int(shards[0][1])


def checkpoints_in(folder: Path) -> list[Path]:
    """Returns the prefixes of the complete checkpoints in a folder and its subfolders.

    Hidden files, as macOS adds them to archives, are passed over.
    """
    files = sorted(path for path in folder.rglob("[!.]*") if path.is_file())
    found = [path.with_suffix("") for path in files if path.suffix == ".index"]
    found += [path for path in files if path.suffix == ".ckpt"]  # of format V1
    return [prefix for prefix in found if is_complete(prefix)]
