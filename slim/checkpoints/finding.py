"""Finds checkpoints: by path, by folder, and as training writes them.

TensorFlow is imported within functions: the files of checkpoints are also handled without it.
"""

import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from slim.common.errors import UserError, warn
from slim.common.files import check_local, write_whole

FOLDER = "checkpoints"  # the default folder of all models
STATE = "checkpoint"  # the file that names the latest checkpoint of a folder
DONE = "done"  # the file that names the last checkpoint of a complete run
BEST = "best"  # the folder of the best checkpoint, within that of evaluations
POLL_SECS = 1.0


def check_path(path: str | Path, flag: str) -> None:
    """Refuses a path at which TensorFlow cannot write and find checkpoints."""
    check_local(path, flag)
    if re.search(r"[*?\[\]\\]", str(path)):
        raise UserError(
            f"{flag}={path}: TensorFlow takes a path of checkpoints with * ? [ ] or \\ for a "
            "pattern of several; rename the folder, or choose another"
        )


def find_checkpoint(path: str, flag: str = "--checkpoint_path") -> str:
    """Returns the prefix of a checkpoint, or of the newest checkpoint of a folder.

    Args:
        path: A prefix (`model.ckpt-100`), a file of a checkpoint, a folder, or the name of a model
            that `python -m slim.checkpoints` has fetched, also as its published path.
        flag: The name of the path in an error.

    Raises:
        UserError: There is no checkpoint.
    """
    from slim.common.compat import tf

    check_path(path, flag)
    if Path(path).is_dir():
        if latest := latest_checkpoint(path) or _find_fetched(path):
            return latest
        raise UserError(
            f"{flag}: the folder {path} holds no checkpoint; ./train.sh writes them, and "
            "checkpoints/README.md lists released ones"
        )
    # Shells complete a prefix to one of its files.
    for prefix in (path.rpartition(".data-")[0], path.removesuffix(".index")):
        if prefix and tf.train.checkpoint_exists(prefix):
            return prefix
    if fetched := _find_fetched(path):
        return fetched
    raise UserError(
        f"{flag}: no checkpoint at {path} (expected {path}.index and its data, or a folder of "
        "checkpoints); ./train.sh writes checkpoints, and checkpoints/README.md lists released ones"
    )


def _find_fetched(path: str) -> str | None:
    """Returns the checkpoint of a fetched model by its name or its published path."""
    # `checkpoints/inception/inception_v3_iNat_299.ckpt` also stands for the only checkpoint in the
    # folder `checkpoints/inception/inception_v3_iNat_299`: in the archive it has another name.
    name = Path(path).name.removesuffix(".ckpt")
    parent = Path(path).parent if "/" in path else Path(FOLDER, name.partition("_")[0])
    if is_complete(published := parent / f"{name}.ckpt"):
        return str(published)
    # Not those in subfolders: they may be runs of their own.
    found = [prefix for prefix in checkpoints_in(parent / name) if prefix.parent == parent / name]
    return str(found[0]) if len(found) == 1 else None


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
    """Returns the prefixes of the complete checkpoints in a folder and its subfolders."""
    # macOS adds hidden files to archives.
    files = sorted(path for path in folder.rglob("[!.]*") if path.is_file())
    found = [path.with_suffix("") for path in files if path.suffix == ".index"]
    found += [path for path in files if path.suffix == ".ckpt"]  # of format V1
    return [prefix for prefix in found if is_complete(prefix)]


def latest_checkpoint(folder: str | Path) -> str | None:
    """Returns the prefix of the latest checkpoint of a folder, or None."""
    # The latest is the one that the file `checkpoint` names. A run that was killed while it saved
    # may have left a name without its files: then it is the complete `model.ckpt-<step>` of the
    # highest step, and a warning says so.
    named, state = _named_checkpoint(folder), Path(folder, STATE)
    if named and is_complete(Path(named)):
        return named
    complete = _complete_steps(folder)
    if not (complete or state.exists()):
        return None
    problem = f"names {named}, which is missing or incomplete" if named else "is not valid"
    if not state.exists():
        problem = "is missing"
    newest = complete[-1] if complete else None
    taken = f"taking the newest complete one, {newest}" if newest else "no checkpoint is complete"
    _warn_once(f"{state} {problem}: {taken}")
    return newest


_warn_once = cache(warn)


def repair_state(folder: Path) -> None:
    """Writes the file `checkpoint` of a folder again if it does not name the latest checkpoint."""
    latest = latest_checkpoint(folder)
    if latest and latest != _named_checkpoint(folder):
        names = [Path(prefix).name for prefix in _complete_steps(folder)]
        lines = [f'model_checkpoint_path: "{names[-1]}"']
        lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
        write_whole(folder / STATE, "\n".join(lines) + "\n")


def new_checkpoints(
    folder: str, interval_secs: float, *, until_done: bool = False
) -> Iterator[str]:
    """Yields the latest checkpoint of a folder, then each later one, `until_done` or endlessly.

    The folder need not exist yet. At least `interval_secs` lie between two checkpoints.
    """
    previous = None
    while True:
        begin = time.monotonic()
        latest = latest_checkpoint(folder)
        if latest not in (None, previous):
            yield latest
            previous = latest
            time.sleep(max(0.0, begin + interval_secs - time.monotonic()))
        elif until_done and latest and _is_last(Path(latest)):
            return
        else:
            time.sleep(POLL_SECS)


def _is_last(checkpoint: Path) -> bool:
    """Returns whether training has said that it is complete with a checkpoint."""
    path = checkpoint.with_name(DONE)
    return path.exists() and path.read_text().strip() == checkpoint.name


def _named_checkpoint(folder: str | Path) -> str | None:
    """Returns the prefix that the file `checkpoint` of a folder names."""
    from slim.common.compat import tf

    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except ValueError:  # the file is empty, or not text
        return None
    return state.model_checkpoint_path if state else None


def _complete_steps(folder: str | Path) -> list[str]:
    """Returns the prefixes of the complete `model.ckpt-<step>` of a folder in order."""
    steps = {}
    for index in Path(folder).glob("model.ckpt-*.index"):
        prefix = index.with_suffix("")
        step = prefix.name.removeprefix("model.ckpt-")
        if step.isdecimal() and is_complete(prefix):
            steps[int(step)] = f"{str(folder).removesuffix('/')}/{prefix.name}"
    return [steps[step] for step in sorted(steps)]
