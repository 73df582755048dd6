"""Small datasets, the conversion command, and shards as TensorFlow reads them."""

import errno
import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from slim import convert_dataset as conversion
from tests.support import Process, Result, invoke, wait_until

BYTES = ("encoded", "format")
NUMBERS = ("class/label", "height", "width")


class Record(NamedTuple):
    jpeg: bytes
    format: bytes
    label: int
    height: int
    width: int


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth coloured picture that compresses like a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    output = BytesIO()
    image.save(output, kind, **options)
    return output.getvalue()


def oriented(image: Image.Image, kind: str, orientation: int, order: str = "<") -> bytes:
    """Encodes an image with an orientation in its EXIF, in one of its two byte orders."""
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0112] = "a maker", orientation
    return encode(image, kind, exif=exif if kind == "TIFF" else exif.tobytes())


def read_records(paths: Iterable[str | Path]) -> list[Record]:
    """All records of some shards, read and parsed by TensorFlow."""
    from slim.common.compat import tf

    records = []
    for path in paths:
        for serialized in tf.io.tf_record_iterator(str(path)):
            features = tf.train.Example.FromString(serialized).features.feature
            assert set(features) == {f"image/{key}" for key in (*BYTES, *NUMBERS)}
            values = [features[f"image/{key}"].bytes_list.value for key in BYTES]
            values += [features[f"image/{key}"].int64_list.value for key in NUMBERS]
            records.append(Record(*(value for (value,) in values)))
    return records


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the files of a conversion by name."""
    kept = [*folder.glob("*.tfrecord"), *folder.glob("dataset.json")]
    return {path.name: path.read_bytes() for path in kept}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Makes a dataset of small JPEG files, labels 0, 1, 2 in turn."""

    def make(name: str = "things", train: int = 12, validation: int = 6) -> Path:
        folder = tmp_path / "data" / name
        (folder / "images").mkdir(parents=True)
        for list_name, indices in (
            ("train.txt", range(train)),
            ("val.txt", range(train, train + validation)),
        ):
            lines = []
            for index in indices:
                path = f"images/{index:04d}.jpg"
                (folder / path).write_bytes(encode(picture(index), quality=85))
                lines.append(f"{path}: {index % 3}\n")
            (folder / list_name).write_text("".join(lines))
        return folder

    return make


def flags_of(folder: Path, *options: str) -> list[str]:
    """Returns the flags that convert a dataset's folder."""
    return [f"--dataset_name={folder.name}", f"--dataset_dir={folder.parent}", *options]


def check(command: ModuleType, *flags: object, code: int = 0) -> Result:
    """Runs a command in this process and checks its exit code."""
    done = invoke(command, *flags)
    assert done.code == code, done.output + done.error
    assert "Traceback" not in done.error
    return done


def convert(folder: Path, *options: str, code: int = 0) -> Result:
    """Converts a dataset's folder in this process and checks the exit code."""
    return check(conversion, *flags_of(folder, *options), code=code)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Makes files of this process and its workers fail beyond a size, as on a full disk."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


@contextmanager
def no_links(number: int = errno.EOPNOTSUPP) -> Iterator[None]:
    """Makes symbolic links fail, as on a mounted Google Drive or an exFAT disk."""

    def refuse(target: Path, link: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), target, None, link)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "symlink", refuse)
        yield


class Trap:
    """Makes readers of a file wait until they are killed or let go, see `tests.traps`."""

    def __init__(self, path: Path) -> None:
        self._path, self._end = path.with_name(f"{path.name}.trap"), None
        os.mkfifo(self._path)

    def wait(self) -> None:
        """Waits for a reader, and keeps it waiting."""
        wait_until(self._catch)

    def _catch(self) -> bool:
        """Returns whether there is a reader, which waits until the pipe is closed."""
        if self._end is None:
            try:
                self._end = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                assert error.errno == errno.ENXIO, error
        return self._end is not None

    def kill(self) -> None:
        """Kills the reader and waits until it is gone; the next reader takes longer to start."""
        self.wait()
        wait_until(lambda: set(self._readers()))  # it has yet to return from opening
        (reader,) = set(self._readers())
        os.kill(reader, signal.SIGKILL)
        # A zombie may still have the pipe open.
        wait_until(lambda: not Path(f"/proc/{reader}").exists())
        self.close()

    def serve(self) -> None:
        """Lets the reader go when there is one."""
        self.wait()
        self.close()

    def close(self) -> None:
        """Lets the present reader go, if there is one."""
        if self._end is not None:
            os.close(self._end)
            self._end = None

    def remove(self) -> None:
        """Lets all readers go."""
        self.close()
        self._path.unlink()

    def _readers(self) -> Iterator[int]:
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            with suppress(OSError):  # has just ended
                for link in list((process / "fd").iterdir()):
                    with suppress(OSError):
                        if link.readlink() == self._path:
                            yield int(process.name)


def is_running(pid: int) -> bool:
    """Returns whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def workers_of(process: Process) -> list[int]:
    """Returns the processes that a command has forked."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # has just ended
            if int(stat.read_text().rpartition(")")[2].split()[1]) == process.pid:
                found.append(int(stat.parent.name))
    return found


def add_line(folder: Path, line: str, list_name: str = "train.txt") -> None:
    with (folder / list_name).open("a", encoding="utf-8") as file:
        file.write(line + os.linesep)
