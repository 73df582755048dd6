"""TFRecord files without TensorFlow, which takes seconds to load.

A record has the format of `tensorflow/core/lib/io/record_writer.h`: the length, its masked CRC-32C,
the data, and their masked CRC-32C. The data is a `tf.train.Example`, whose features are encoded in
alphabetical order. Equal inputs thus give equal bytes, which protocol buffer libraries do not
guarantee.
"""

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import google_crc32c

LISTS = {"train": "train.txt", "validation": "val.txt"}  # by split

_HEADER = struct.Struct("<QI")  # length and its checksum
_CRC_BYTES = 4
_SHARD = re.compile(r"(train|validation)_([0-9]{5,})-of-([0-9]{5,})\.tfrecord")


class RecordError(Exception):
    """A file has no records of this kind."""


class Shard(NamedTuple):
    """A shard of a split."""

    split_name: str  # "train" | "validation"
    index: int
    count: int  # number of shards of the split

    @property
    def file_name(self) -> str:
        """The file name, such as `train_00000-of-00010.tfrecord`."""
        return f"{self.split_name}_{self.index:05d}-of-{self.count:05d}.tfrecord"


def find_shards(folder: Path) -> list[Shard]:
    """Returns all shards in a folder, sorted."""
    matches = (_SHARD.fullmatch(path.name) for path in folder.iterdir())
    return sorted(Shard(m[1], int(m[2]), int(m[3])) for m in matches if m)


def write_record(file: BinaryIO, data: bytes) -> None:
    """Appends a record to a TFRecord file."""
    length = struct.pack("<Q", len(data))
    file.write(length + _masked_crc(length))
    file.write(data)
    file.write(_masked_crc(data))


def read_records(paths: Iterable[str | Path], indices: Iterable[int]) -> dict[int, bytes]:
    """Returns some records of shards by their number, which counts over all shards from 0.

    Numbers beyond the last record are left out.
    """
    wanted, found, index = set(indices), {}, 0
    for path in paths:
        for read in iterate_records(Path(path)):
            if index in wanted:
                found[index] = read()
            index += 1
    return found


def iterate_records(path: Path) -> Iterator[Callable[[], bytes]]:
    """Yields a function per record that reads it; others are skipped without being read.

    Raises:
        RecordError: The file is no TFRecord file, is damaged, or ends within a record.
    """
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        position = 0

        def read() -> bytes:
            file.seek(start)
            data = file.read(length)
            if file.read(_CRC_BYTES) != _masked_crc(data):
                raise RecordError(f"{path} is damaged at byte {start}")
            return data

        while position < size:
            file.seek(position)
            header = file.read(_HEADER.size)
            if _masked_crc(header[:-_CRC_BYTES]) != header[-_CRC_BYTES:]:
                raise RecordError(f"{path} has no record at byte {position}")
            (length, _), start = _HEADER.unpack(header), position + _HEADER.size
            position = start + length + _CRC_BYTES
            if position > size:
                raise RecordError(f"{path} ends within a record")
            yield read


def count_records(path: Path) -> int:
    """Returns the number of records of a TFRecord file."""
    return sum(1 for _ in iterate_records(path))


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    rotated = crc >> 15 | crc << 17
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def encode_example(jpeg: bytes, label: int, *, height: int, width: int) -> bytes:
    """Encodes an image and its label as a serialized `tf.train.Example`."""
    features = (
        _feature(b"image/class/label", _int64_list(label)),
        _feature(b"image/encoded", _bytes_list(jpeg)),
        _feature(b"image/format", _bytes_list(b"jpg")),
        _feature(b"image/height", _int64_list(height)),
        _feature(b"image/width", _int64_list(width)),
    )
    return b"".join(_field(1, list(chain.from_iterable(features))))  # Example.features


# Messages are nested five levels deep. They are lists of pieces, so that the image is copied once.


def _feature(key: bytes, value: list[bytes]) -> list[bytes]:
    return _field(1, _field(1, [key]) + _field(2, value))  # entry of Features.feature


def _bytes_list(value: bytes) -> list[bytes]:
    return _field(1, _field(1, [value]))  # Feature.bytes_list, BytesList.value


def _int64_list(value: int) -> list[bytes]:
    return _field(3, _field(1, [_varint(value)]))  # Feature.int64_list, Int64List.value


def _field(number: int, pieces: list[bytes]) -> list[bytes]:
    length_delimited = 2
    return [bytes((number << 3 | length_delimited,)), _varint(sum(map(len, pieces))), *pieces]


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
