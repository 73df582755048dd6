import io

import pytest

from slim.common.compat import tf
from slim.datasets.tfrecord import (
    Shard,
    encode_example,
    find_shards,
    read_records,
    write_record,
)


@pytest.mark.parametrize(
    ("jpeg", "label", "height", "width"),
    [(b"", 0, 1, 1), (b"x" * 127, 127, 128, 16383), (bytes(range(256)) * 900, 999_999_999, 300, 1)],
)
def test_tensorflow_parses_examples(jpeg, label, height, width):
    example = tf.train.Example.FromString(encode_example(jpeg, label, height=height, width=width))
    feature = example.features.feature
    assert feature["image/encoded"].bytes_list.value == [jpeg]
    assert feature["image/format"].bytes_list.value == [b"jpg"]
    assert feature["image/class/label"].int64_list.value == [label]
    assert feature["image/height"].int64_list.value == [height]
    assert feature["image/width"].int64_list.value == [width]
    assert len(feature) == 5


def test_files_are_those_that_tensorflow_writes(tmp_path):
    records = [b"", b"a", bytes(100_000)]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    ours = io.BytesIO()
    for record in records:
        write_record(ours, record)
    assert ours.getvalue() == (tmp_path / "theirs").read_bytes()


def test_chosen_records_of_shards_that_tensorflow_writes(tmp_path):
    records = [b"", b"first", bytes(1000), b"last"]
    for name, part in (("a", records[:1]), ("b", []), ("c", records[1:])):
        with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
            for record in part:
                writer.write(record)
    shards = [tmp_path / name for name in "abc"]
    assert read_records(shards, [3, 0, 1, 9]) == {0: b"", 1: b"first", 3: b"last"}


def test_shard_names(tmp_path):
    shards = [Shard("train", 0, 10), Shard("train", 9, 10), Shard("validation", 0, 123456)]
    names = [shard.file_name for shard in shards]
    assert names == [
        "train_00000-of-00010.tfrecord",
        "train_00009-of-00010.tfrecord",
        "validation_00000-of-123456.tfrecord",
    ]
    for name in [*names, "train_0-of-1.tfrecord", "train_00000-of-00010.tfrecord.tmp", "a.jpg"]:
        (tmp_path / name).touch()
    assert find_shards(tmp_path) == shards
