"""Tests of batches: records, their order and number, and errors about broken shards."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets import input as module
from slim.datasets.input import (
    Dataset,
    InputSettings,
    evaluation_batches,
    explain_input_error,
    next_batch,
    training_batches,
)
from slim.preprocessing.decoding import decode_image
from slim.preprocessing.preprocessing_factory import get_preprocessing


def grey(encoded: tf.Tensor, height: int, width: int, seed: tf.Tensor | None = None) -> tf.Tensor:
    """Preprocessing that keeps an image's brightness, which identifies it in these tests."""
    mean = tf.round(tf.reduce_mean(tf.cast(decode_image(encoded), tf.float32)))
    return tf.fill([height, width, 3], mean)


def with_seed(encoded: tf.Tensor, height: int, width: int, seed: tf.Tensor) -> tf.Tensor:
    """Preprocessing that is its seed."""
    return tf.fill([height, width, 3], tf.random.stateless_uniform([], seed))


def write_shards(
    folder: Path, labels: list[int], num_shards: int, kind: str = "PNG", num_classes: int = 3
) -> Dataset:
    """Shards whose image i is a plane of brightness i, written with TensorFlow's own classes."""
    files = []
    for shard in range(num_shards):
        files.append(str(folder / f"train_{shard:05d}-of-{num_shards:05d}.tfrecord"))
        with tf.python_io.TFRecordWriter(files[-1]) as writer:
            for index in range(shard, len(labels), num_shards):
                buffer = io.BytesIO()
                Image.new("RGB", (9, 8), (index,) * 3).save(buffer, kind)
                writer.write(example(buffer.getvalue(), labels[index]))
    return made(files, len(labels), num_classes)


def made(files: list[str], num_samples: int, num_classes: int = 3) -> Dataset:
    return Dataset(
        name="made",
        split_name="train",
        files=tuple(files),
        num_samples=num_samples,
        num_classes=num_classes,
    )


def settings(batch_size: int, **options: int) -> InputSettings:
    return InputSettings(image_size=4, batch_size=batch_size, num_classes=3, **options)


def example(encoded: bytes, label: int) -> bytes:
    feature = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
        "image/format": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"png"])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def take(make_batches, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The first batches: the brightness of each image, and its label."""
    with tf.Graph().as_default(), tf.Session() as session:
        iterator = tf.data.make_initializable_iterator(make_batches())
        session.run(iterator.initializer)
        images, labels = iterator.get_next()
        batches = []
        for _ in range(count):
            try:
                batches.append(session.run([images[:, 0, 0, 0], labels]))
            except tf.errors.OutOfRangeError:
                break
        return batches


def test_evaluation_reads_each_image_once_in_order_and_the_last_batch_is_smaller(tmp_path):
    dataset = write_shards(tmp_path, [index % 3 for index in range(14)], num_shards=2)
    batches = take(lambda: evaluation_batches(dataset, grey, settings(4)), 99)
    assert [len(labels) for _, labels in batches] == [4, 4, 4, 2]
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    np.testing.assert_allclose(images, [*range(0, 14, 2), *range(1, 14, 2)])
    np.testing.assert_array_equal(labels, images % 3)


def test_training_reads_each_image_once_an_epoch_in_another_order(tmp_path):
    dataset = write_shards(tmp_path, [index % 3 for index in range(30)], num_shards=3)
    batches = take(lambda: training_batches(dataset, grey, settings(5, num_readers=3)), 12)
    images = np.concatenate([images for images, _ in batches]).round().astype(int)
    labels = np.concatenate([labels for _, labels in batches])
    assert all(len(labels) == 5 for _, labels in batches)
    np.testing.assert_array_equal(labels, images % 3)
    first, second = images[:30].tolist(), images[30:].tolist()
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second
    assert first != sorted(first)


@pytest.mark.parametrize("num_shards", [4, 3], ids=["by shards", "by records"])
def test_workers_share_the_images_among_them(tmp_path, num_shards):
    dataset = write_shards(tmp_path, [index % 3 for index in range(24)], num_shards)
    epochs = []
    for worker in (0, 1):
        share = take(
            lambda worker=worker: training_batches(
                dataset, grey, settings(4, num_workers=2, worker=worker)
            ),
            6,
        )
        images = np.concatenate([images for images, _ in share])
        assert sorted(images[:12]) == sorted(images[12:])  # two epochs of its own
        epochs.append(images[:12])
    assert sorted(np.concatenate(epochs)) == list(range(24))


def test_seed_repeats_order_and_distortions_with_any_number_of_threads(tmp_path):
    dataset = write_shards(tmp_path, [0] * 20, num_shards=4)
    for preprocess in (grey, with_seed):
        first, again, other = (
            np.concatenate(
                [
                    images
                    for images, _ in take(
                        lambda p=preprocess, s=seed, n=threads: training_batches(
                            dataset, p, settings(5, seed=s, num_threads=n)
                        ),
                        8,
                    )
                ]
            )
            for seed, threads in ((1, 1), (1, 5), (2, 5))
        )
        np.testing.assert_array_equal(first, again)
        assert list(first) != list(other)
    assert len(set(first)) == 40  # every image of both epochs has a seed of its own


def test_labels_offset(tmp_path):
    dataset = write_shards(tmp_path, [1, 2, 3, 1], num_shards=1, num_classes=4)
    batches = take(lambda: evaluation_batches(dataset, grey, settings(4, labels_offset=1)), 1)
    np.testing.assert_array_equal(batches[0][1], [0, 1, 2, 0])


@pytest.mark.parametrize(
    ("labels", "offset", "message"),
    [
        (
            [0, 1, 7],
            0,
            r"label 7 in a shard is out of range with --labels_offset=0, .* 3 classes \(0 to",
        ),
        (
            [1, 2, 0],
            1,
            r"label 0 in a shard is out of range with --labels_offset=1, the network has 3",
        ),
        (
            [0, -2, 1],
            0,
            r"label -2 in a shard is out of range with --labels_offset=0, the network has 3",
        ),
    ],
)
def test_label_beyond_the_classes(tmp_path, labels, offset, message):
    dataset = write_shards(tmp_path, labels, num_shards=1)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        take(lambda: evaluation_batches(dataset, grey, settings(4, labels_offset=offset)), 1)
    explained = explain_input_error(caught.value)
    assert isinstance(explained, UserError)
    with pytest.raises(UserError, match=message):
        raise explained


def test_damaged_shard(tmp_path):
    dataset = write_shards(tmp_path, [0, 1, 2], num_shards=1)
    content = bytearray(Path(dataset.files[0]).read_bytes())
    content[40] ^= 255
    Path(dataset.files[0]).write_bytes(content)
    with pytest.raises(tf.errors.DataLossError) as caught:
        take(lambda: evaluation_batches(dataset, grey, settings(4)), 1)
    assert "a shard is damaged" in str(explain_input_error(caught.value))


@pytest.mark.parametrize("content", [b"no image", b"", b"\xff\xd8\xff\xe0 no JPEG either"])
@pytest.mark.parametrize("is_training", [True, False])
def test_record_that_is_no_image(tmp_path, content, is_training):
    path = tmp_path / "train_00000-of-00001.tfrecord"
    with tf.python_io.TFRecordWriter(str(path)) as writer:
        writer.write(example(content, 0))
    dataset = made([str(path)], 1)
    preprocess = get_preprocessing("inception", is_training)
    batches = training_batches if is_training else evaluation_batches
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        take(lambda: batches(dataset, preprocess, settings(1)), 1)
    assert "an image in a shard cannot be read" in str(explain_input_error(caught.value))


def test_other_errors_are_unchanged():
    error = tf.errors.InvalidArgumentError(None, None, "Incompatible shapes: [2] vs. [3]")
    assert explain_input_error(error) is error


@pytest.mark.parametrize("make_batches", [training_batches, evaluation_batches])
def test_images_are_prepared_by_one_thread_per_core_and_two_batches_ahead_per_clone(
    make_batches, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "available_cores", lambda: 3)
    dataset = write_shards(tmp_path, [0], num_shards=1)
    for more, threads, ahead in (({}, 3, 2), ({"num_threads": 2, "num_clones": 4}, 2, 8)):
        with tf.Graph().as_default() as graph:
            make_batches(dataset, grey, settings(1, **more))
            found = {op.type: op.inputs[-1] for op in graph.get_operations() if op.inputs}
        assert tf.get_static_value(found["ParallelMapDatasetV2"]) == threads
        if make_batches is training_batches:  # evaluation has no clones
            assert tf.get_static_value(found["PrefetchDataset"]) == ahead


def test_waiting_for_a_batch_is_measured(monkeypatch):
    """By a clock that only goes on, by a second, while every other batch is made."""
    now = 0.0

    def work(index: np.ndarray) -> np.ndarray:
        nonlocal now
        now += index % 2
        return index

    def batch(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        index = tf.ensure_shape(tf.numpy_function(work, [index], tf.int64), [])
        return tf.cast(index, tf.float32), index

    def timestamp() -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(lambda: now, [], tf.float64), [])

    monkeypatch.setattr(module.tf, "timestamp", timestamp)
    with tf.Graph().as_default(), tf.Session() as session:
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False  # no batch is made ahead
        batches = tf.data.Dataset.range(4).map(batch).with_options(options)
        iterator = tf.data.make_initializable_iterator(batches)
        step = next_batch(iterator)
        session.run(iterator.initializer)
        assert [session.run(step) for _ in range(4)] == [(i, i, i % 2) for i in range(4)]
