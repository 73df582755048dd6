"""TFRecord files as TensorFlow reads them, written without waiting for TensorFlow to start.

A record is framed as `tensorflow/core/lib/io/record_writer.h` describes: its length, the masked
CRC-32C of the length, the data, the masked CRC-32C of the data. The data is a `tf.train.Example`, a
small protocol buffer, encoded here with its features in alphabetical order: equal inputs give
equal bytes, which protocol buffer libraries do not promise for maps.
"""

import re
import struct
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import google_crc32c

LISTS = {"train": "train.txt", "validation": "val.txt"}  # of each split

_SHARD = re.compile(r"(train|validation)_([0-9]{5,})-of-([0-9]{5,})\.tfrecord")


class Shard(NamedTuple):
    """One file of a split."""

    split_name: str  # "train" | "validation"
    index: int
    count: int  # of the split's shards

    @property
    def file_name(self) -> str:
        """Such as `train_00000-of-00010.tfrecord`."""
        return f"{self.split_name}_{self.index:05d}-of-{self.count:05d}.tfrecord"


def find_shards(folder: Path) -> list[Shard]:
    """The shards of all splits and counts that lie in a folder, sorted."""
    matches = (_SHARD.fullmatch(path.name) for path in folder.iterdir())
    return sorted(Shard(m[1], int(m[2]), int(m[3])) for m in matches if m)


def write_record(file: BinaryIO, data: bytes) -> None:
    """Appends one record to a TFRecord file."""
    length = struct.pack("<Q", len(data))
    file.write(length + _masked_crc(length))
    file.write(data)
    file.write(_masked_crc(data))


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    rotated = crc >> 15 | crc << 17
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def encode_example(jpeg: bytes, label: int, *, height: int, width: int) -> bytes:
    """Encodes one image as a serialized `tf.train.Example`.

    Args:
        jpeg: An encoded RGB image.
        label: From 0.
        height: In pixels, as the image decodes.
        width: In pixels, as the image decodes.

    Returns:
        `image/encoded` and `image/format` (bytes), `image/class/label`, `image/height` and
        `image/width` (int64).
    """
    features = (
        _feature(b"image/class/label", _int64_list(label)),
        _feature(b"image/encoded", _bytes_list(jpeg)),
        _feature(b"image/format", _bytes_list(b"jpg")),
        _feature(b"image/height", _int64_list(height)),
        _feature(b"image/width", _int64_list(width)),
    )
    return b"".join(_field(1, list(chain.from_iterable(features))))  # Example.features


# Messages are nested five deep. They are lists of pieces, so that an image is copied once only.


def _feature(key: bytes, value: list[bytes]) -> list[bytes]:
    return _field(1, _field(1, [key]) + _field(2, value))  # an entry of Features.feature


def _bytes_list(value: bytes) -> list[bytes]:
    return _field(1, _field(1, [value]))  # Feature.bytes_list, BytesList.value


def _int64_list(value: int) -> list[bytes]:
    return _field(3, _field(1, [_varint(value)]))  # Feature.int64_list, Int64List.value


def _field(number: int, pieces: list[bytes]) -> list[bytes]:
    length_delimited = 2
    return [bytes((number << 3 | length_delimited,)), _varint(sum(map(len, pieces))), *pieces]


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
