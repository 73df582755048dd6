"""Unfinished conversions, and how they are resumed and published.

Shards are collected in a hidden folder next to the images. A worker writes a shard to a temporary
file, renames it when it is complete, and adds a note with the problems that it found. When all
shards exist and no problem stops the conversion, `dataset.json` is written to the hidden folder.
From then on the conversion can only be completed: the shards are renamed to their place, and
`dataset.json` last. A killed run is resumed from any point.

Files are not synced to disk, which would take longer than the conversion. After a power loss, the
sizes in the notes and in `dataset.json` reveal incomplete shards.
"""

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from google_crc32c import value as crc32c

from slim.common.files import replacing, this_process, write_whole
from slim.datasets.images import ImageError, load_image
from slim.datasets.lists import Entry, ImageList, Problem
from slim.datasets.registry import DESCRIPTION, FORMAT, PIXEL_SETTINGS, STAGING, shard_order
from slim.datasets.tfrecord import LISTS, Shard, encode_example, write_record

WRITE_BUFFER = 2**20  # bytes
# The digest of an image: the CRCs of all of it and of its second half, which take a tenth of the
# time of a cryptographic one. Among a million images, chance makes two equal once in 10^7 times.
_DIGEST = struct.Struct("<II")


class Place(NamedTuple):
    """An image and the list that it is in."""

    list_name: str
    entry: Entry

    def __str__(self) -> str:
        path, label, line = self.entry
        return f"{path} ({self.list_name} line {line}, label {label})"


class Job(NamedTuple):
    """The part of a plan that a worker needs to make one shard."""

    folder: Path
    staging: Path
    shard: Shard
    entries: list[Entry]
    loading: dict[str, Any]  # keyword arguments of `load_image`


@dataclass(frozen=True)
class Note:
    """Facts about a finished shard, kept until all shards are finished."""

    verified: bool
    samples: int
    size: int  # in bytes
    problems: list[Problem]
    digests: str  # of the images in hexadecimal; zeros where one has a problem
    oriented: int  # images that EXIF does not call upright


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a conversion, and its unfinished work."""

    folder: Path
    lists: dict[str, ImageList]  # by split
    num_shards: int
    seed: int
    verify: bool
    on_error: str  # "fail" | "skip"
    apply_orientation: bool = False
    max_side: int | None = None

    @cached_property
    def entries(self) -> dict[str, list[Entry]]:
        """The images of each split in the order of its list."""
        return {split_name: list_.entries for split_name, list_ in self.lists.items()}

    @cached_property
    def order(self) -> dict[str, list[Entry]]:
        """The images of each split in the order of the shards."""
        return {name: shard_order(name, found, self.seed) for name, found in self.entries.items()}

    @cached_property
    def shards(self) -> list[Shard]:
        """The shards to make, in order."""
        return [Shard(s, i, self.num_shards) for s in self.lists for i in range(self.num_shards)]

    @cached_property
    def staging(self) -> Path:
        """The folder of unfinished work, whose name is a hash of all that the shards depend on."""
        hashes = [list_.sha256 for list_ in self.lists.values()]
        key = [FORMAT, hashes, self.seed, self.num_shards, self.apply_orientation]
        content = json.dumps(key + [self.max_side] * (self.max_side is not None)).encode()
        return self.folder / f"{STAGING}{hashlib.sha256(content).hexdigest()[:16]}"

    def shard_entries(self, shard: Shard) -> list[Entry]:
        """Returns the images of a shard: ceil(n / num_shards) per shard, fewer in the last ones."""
        order = self.order[shard.split_name]
        length = -(-len(order) // self.num_shards)
        return order[shard.index * length : (shard.index + 1) * length]

    def job(self, shard: Shard) -> Job:
        folder, staging = self.folder.absolute(), self.staging.absolute()
        loading = {name: getattr(self, name) for name in ("verify", *PIXEL_SETTINGS)}
        return Job(folder, staging, shard, self.shard_entries(shard), loading)

    def read_note(self, shard: Shard) -> Note | None:
        """Reads the note on a shard; returns None if it is unfinished or must be verified."""
        try:
            note = Note(**json.loads(note_path(self.staging, shard).read_bytes()))
            size = (self.staging / shard.file_name).stat().st_size
            if note.size != size or (self.verify and not note.verified):
                return None
        except (FileNotFoundError, ValueError, TypeError):  # a power loss may leave an empty file
            return None  # and an earlier version has left no digests
        return replace(note, problems=[Problem(*problem) for problem in note.problems])

    def find_copies(self, notes: Mapping[Shard, Note]) -> list[tuple[Place, Place]]:
        """Returns pairs of images with equal bytes, each with the first of its kind."""
        digests = bytes.fromhex("".join(notes[shard].digests for shard in self.shards))
        first, copies = {}, []
        for index, (digest,) in enumerate(struct.iter_unpack("<Q", digests)):
            if (earlier := first.setdefault(digest, index)) != index and digest:
                copies.append((self._place(earlier), self._place(index)))
        return copies

    def _place(self, index: int) -> Place:
        """Returns the image at an index over all shards."""
        train = self.order["train"]
        if index < len(train):
            return Place(LISTS["train"], train[index])
        return Place(LISTS["validation"], self.order["validation"][index - len(train)])

    def remove_temporary(self) -> None:
        """Removes the temporary files of an interrupted run."""
        for path in self.staging.glob("*.tmp"):
            path.unlink()


def remove_staging(folder: Path, keep: Path | None = None) -> None:
    """Removes the unfinished work of all other conversions."""
    for path in folder.glob(f"{STAGING}*"):
        if path != keep:
            shutil.rmtree(path)


def make_shard(job: Job, count_image: Callable[[], None]) -> None:
    """Writes a shard and its note to the staging folder; calls `count_image` after each image."""
    shard, note = job.shard, note_path(job.staging, job.shard)
    note.unlink(missing_ok=True)  # of an earlier run without --verify
    samples, problems, digests, oriented = 0, [], [], 0
    writer = this_process()  # a worker on a lost machine may still write the same shard
    # 1. Write the images that can be used; the others become problems.
    with (
        replacing(job.staging / shard.file_name, writer) as temporary,
        temporary.open("wb", buffering=WRITE_BUFFER) as file,
    ):
        for entry in job.entries:
            try:
                loaded = load_image(job.folder / entry.path, **job.loading)
            except ImageError as error:
                text = f"{entry.path}: {error}"
                problems.append(Problem(LISTS[shard.split_name], entry.line, text))
                digests.append(bytes(_DIGEST.size))
            else:
                jpeg, height, width, is_oriented = loaded
                write_record(file, encode_example(jpeg, entry.label, height=height, width=width))
                samples += 1
                digests.append(_DIGEST.pack(*map(crc32c, (jpeg, jpeg[len(jpeg) // 2 :]))))
                oriented += is_oriented
            count_image()
    # 2. Write the note last, because a shard without it counts as unfinished.
    size = (job.staging / shard.file_name).stat().st_size
    found = Note(job.loading["verify"], samples, size, problems, b"".join(digests).hex(), oriented)
    write_whole(note, json.dumps(asdict(found)), writer)


def publish(plan: Plan) -> None:
    """Moves the shards to their place if the staging folder has a `dataset.json`."""
    description = plan.staging / DESCRIPTION
    if not description.exists():
        return
    # The earlier description goes first and the new one comes last: in between, a killed run leaves
    # no description that does not match the shards.
    (plan.folder / DESCRIPTION).unlink(missing_ok=True)
    for shard in plan.shards:
        staged = plan.staging / shard.file_name
        if staged.exists():  # otherwise an earlier run has moved it
            staged.replace(plan.folder / shard.file_name)
    description.replace(plan.folder / DESCRIPTION)
    shutil.rmtree(plan.staging)


def note_path(staging: Path, shard: Shard) -> Path:
    return staging / f"{shard.file_name}.json"
