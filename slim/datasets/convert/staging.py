"""A conversion's unfinished work, and how it is resumed and published.

Shards are collected in a hidden folder beside the images. Each is renamed from a temporary file
when it is whole, and followed by a note of what was found wrong. When all are there and nothing is
in the way, `dataset.json` is written into that folder: from then on the conversion only goes
forward. The shards are renamed into place, `dataset.json` last. Wherever a run is killed, the next
one goes on. Nothing is synced to disk, which would take longer than the conversion: after a loss of
power, the sizes in the notes and in `dataset.json` tell which shards are not whole.
"""

import hashlib
import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from slim.common.files import replacing, write_whole
from slim.datasets.images import ImageError, load_image
from slim.datasets.lists import Entry, ImageList, Problem
from slim.datasets.registry import DESCRIPTION, FORMAT, STAGING
from slim.datasets.tfrecord import LISTS, Shard, encode_example, write_record

WRITE_BUFFER = 2**20  # bytes


@dataclass(frozen=True)
class Plan:
    """What a conversion is asked to do."""

    folder: Path
    lists: dict[str, ImageList]  # by split
    num_shards: int
    seed: int
    verify: bool
    on_error: str  # "fail" | "skip"

    @cached_property
    def staging(self) -> Path:
        """The folder of unfinished work, its name fixed by all that the shards depend on."""
        hashes = [list_.sha256 for list_ in self.lists.values()]
        key = json.dumps([FORMAT, hashes, self.seed, self.num_shards])
        return self.folder / f"{STAGING}{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    @cached_property
    def shards(self) -> list[Shard]:
        """All shards to be made, in order."""
        return [Shard(s, i, self.num_shards) for s in self.lists for i in range(self.num_shards)]

    @cached_property
    def order(self) -> dict[str, list[Entry]]:
        """The images of each split in the order of the shards: training shuffled."""
        order = {split_name: list(list_.entries) for split_name, list_ in self.lists.items()}
        random.Random(self.seed).shuffle(order["train"])
        return order

    def entries(self, shard: Shard) -> list[Entry]:
        """The images of a shard: the i-th run of ceil(n / num_shards), the last ones shorter."""
        order = self.order[shard.split_name]
        length = -(-len(order) // self.num_shards)
        return order[shard.index * length : (shard.index + 1) * length]

    def job(self, shard: Shard) -> "Job":
        """What a worker needs to know to make a shard."""
        folder, staging = self.folder.absolute(), self.staging.absolute()
        return Job(folder, staging, shard, self.entries(shard), self.verify)


@dataclass(frozen=True)
class Job:
    """The making of a shard, without the rest of its conversion."""

    folder: Path
    staging: Path
    shard: Shard
    entries: list[Entry]
    verify: bool


@dataclass(frozen=True)
class Note:
    """What is kept beside a finished shard until all are finished."""

    verified: bool
    samples: int
    size: int  # in bytes
    problems: list[Problem]


def remove_staging(folder: Path, keep: Path | None = None) -> None:
    """Removes the unfinished work of all other conversions."""
    for path in folder.glob(f"{STAGING}*"):
        if path != keep:
            shutil.rmtree(path)


def remove_half_written(plan: Plan) -> None:
    """Removes the temporary files of a run that was stopped."""
    for path in plan.staging.glob("*.tmp"):
        path.unlink()


def make_shard(job: Job, count_image: Callable[[], None]) -> None:
    """Makes a shard in the staging folder, and a note on it.

    Args:
        job: The shard and its images.
        count_image: Is called after each image.

    Raises:
        OSError: It cannot be written.
    """
    shard, note = job.shard, note_path(job.staging, job.shard)
    note.unlink(missing_ok=True)  # of an earlier, less thorough run
    samples, problems = 0, []
    # A worker on a machine that is out of reach may be at the same shard still.
    writer = f"{socket.gethostname()}-{os.getpid()}"
    with (
        replacing(job.staging / shard.file_name, writer) as temporary,
        temporary.open("wb", buffering=WRITE_BUFFER) as file,
    ):
        for entry in job.entries:
            try:
                jpeg, height, width = load_image(job.folder / entry.path, job.verify)
            except ImageError as error:
                text = f"{entry.path}: {error}"
                problems.append(Problem(LISTS[shard.split_name], entry.line, text))
            else:
                write_record(file, encode_example(jpeg, entry.label, height=height, width=width))
                samples += 1
            count_image()
    size = (job.staging / shard.file_name).stat().st_size
    write_whole(note, json.dumps(asdict(Note(job.verify, samples, size, problems))), writer)


def note_path(staging: Path, shard: Shard) -> Path:
    """Where the note on a shard is. It appears after the shard: what has a note is finished."""
    return staging / f"{shard.file_name}.json"


def read_note(plan: Plan, shard: Shard) -> Note | None:
    """The note on a shard, None where the shard is not finished, or not as thoroughly as asked."""
    staged = plan.staging / shard.file_name
    try:
        note = Note(**json.loads(note_path(plan.staging, shard).read_bytes()))
        if note.size != staged.stat().st_size or (plan.verify and not note.verified):
            return None
    except (FileNotFoundError, ValueError):  # empty, for one, after a loss of power
        return None
    return replace(note, problems=[Problem(*problem) for problem in note.problems])


def publish(plan: Plan) -> None:
    """Renames the shards into place, if `dataset.json` says that all are there."""
    description = plan.staging / DESCRIPTION
    if not description.exists():
        return
    (plan.folder / DESCRIPTION).unlink(missing_ok=True)
    for shard in plan.shards:
        staged = plan.staging / shard.file_name
        if staged.exists():  # else an earlier run has renamed it
            staged.replace(plan.folder / shard.file_name)
    description.replace(plan.folder / DESCRIPTION)
    shutil.rmtree(plan.staging)
