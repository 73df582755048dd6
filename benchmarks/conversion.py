"""Conversion: image files to TFRecord shards."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.measure import LIMIT, PEER, THIS, Comparison, Settings, Task, alternate
from benchmarks.photographs import NAME, convert_folder, image_files
from benchmarks.processes import other_process
from slim.common.command_line import available_cores
from slim.datasets.tfrecord import LISTS


def measure(settings: Settings) -> list[Comparison]:
    """Compares conversion with the published loop and with a copy of the files."""
    paths = image_files(settings.folder)
    output = settings.folder / "converted"

    def empty() -> None:
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        (output / "images").symlink_to(settings.folder / NAME / "images")
        for name in LISTS.values():
            shutil.copy(settings.folder / NAME / name, output)

    def convert() -> int:
        convert_folder(output)
        return len(paths)

    def copy() -> int:
        with ThreadPoolExecutor(available_cores()) as pool:
            list(pool.map(lambda path: shutil.copyfile(path, output / path.name), paths))
        return len(paths)

    # This process is forked for the workers and must not load TensorFlow.
    with other_process() as process:
        tasks = [
            Task("convert_dataset.py", THIS, convert, empty),
            Task(
                "one image at a time",
                PEER,
                lambda: process.submit(one_at_a_time, paths, output).result(),
                empty,
            ),
            Task("file copy", LIMIT, copy, empty),
        ]
        figures = alternate(tasks, settings)
    return [Comparison(f"{len(paths):,} photographs to shards", "images/s", figures)]


def one_at_a_time(paths: list[Path], output: Path) -> int:
    """Converts as the published script does: in one process, decoding images to find their size.

    Args:
        paths: The images.
        output: The folder of the shard.

    Returns:
        The number of images.
    """
    from slim.common.compat import tf

    def integer(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    def text(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    with (
        tf.Graph().as_default(),
        tf.Session() as session,
        tf.io.TFRecordWriter(str(output / "one_at_a_time.tfrecord")) as writer,
    ):
        encoded = tf.placeholder(tf.string)
        image = tf.image.decode_jpeg(encoded, channels=3)
        for label, path in enumerate(paths):
            content = path.read_bytes()
            height, width, _ = session.run(image, {encoded: content}).shape
            feature = {
                "image/encoded": text(content),
                "image/format": text(b"jpg"),
                "image/class/label": integer(label),
                "image/height": integer(height),
                "image/width": integer(width),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    return len(paths)
