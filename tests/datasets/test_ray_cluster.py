"""Conversion and extraction on a Ray cluster of two nodes: the same bytes, whoever is killed."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from slim import convert_dataset as conversion
from slim.common import ray_cluster
from slim.common.command_line import run_command
from slim.common.errors import UserError
from slim.common.ray_cluster import Pool
from slim.common.workers import WorkerError
from tests.conftest import draw_images, recipe_weights
from tests.datasets.conftest import REPOSITORY, command, contents, leftovers
from tests.test_feature_extraction import arguments, extract, write_checkpoint

STORE = 150 * 2**20  # bytes
SECONDS = 300  # on a busy machine


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes with a CPU each, on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    pytest.importorskip("ray", reason="ray is not installed: see requirements-cluster.txt")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(**node)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def start(cluster) -> Iterator[Callable[[list[str]], subprocess.Popen]]:
    """Starts commands on the cluster; none outlives its test, or the next would find no CPU."""
    started = []

    def start_it(line: list[str]) -> subprocess.Popen:
        process = subprocess.Popen(
            [*line, f"--ray_address={cluster.address}"],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_it
    for process in started:
        process.kill()
        process.communicate()


class Trap:
    """Makes an image file a pipe: who reads it waits, until killed or served."""

    def __init__(self, path: Path) -> None:
        self._path, self._content = path, path.read_bytes()
        path.unlink()
        os.mkfifo(path)

    def wait(self) -> int:
        """Waits for a reader; returns the end to write to."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                return os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                assert error.errno == errno.ENXIO, error
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def kill(self) -> None:
        """Kills the reader, and waits until it is gone: the next one takes seconds to start."""
        end = self.wait()
        while not (readers := set(self._readers())):  # it is still to return from opening
            time.sleep(0.01)
        (reader,) = readers
        os.kill(reader, signal.SIGKILL)
        while Path(f"/proc/{reader}").exists():
            time.sleep(0.01)
        os.close(end)

    def serve(self) -> None:
        """Gives the next reader the image."""
        end = self.wait()
        os.set_blocking(end, True)
        os.write(end, self._content)
        os.close(end)

    def remove(self) -> None:
        """Puts the image back."""
        self._path.unlink()
        self._path.write_bytes(self._content)

    def _readers(self) -> Iterator[int]:
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            with suppress(OSError):  # of what has just ended
                for link in list((process / "fd").iterdir()):
                    with suppress(OSError):
                        if link.readlink() == self._path:
                            yield int(process.name)


def copy_images(folder: Path, target: Path) -> Path:
    made = shutil.ignore_patterns("*.tfrecord", "*.json")
    return Path(shutil.copytree(folder, target / folder.name, ignore=made))


def test_conversion_whose_worker_is_killed(start, make_dataset, convert, tmp_path):
    folder = make_dataset(train=20, validation=8)
    (folder / "images/0011.jpg").write_bytes(b"no image")
    options = ("--num_shards=3", "--on_error=skip")
    expected = convert(folder, *options)
    copy = copy_images(folder, tmp_path / "copy")
    trap = Trap(copy / "images/0007.jpg")
    process = start(command(copy, *options))
    trap.kill()
    trap.serve()
    out, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, error
    assert "27 images, 3 classes, 6 shards, 1 lines skipped, in" in out
    problems = [line for line in expected.stderr.splitlines() if "0011" in line]
    assert problems == [line for line in error.splitlines() if "0011" in line]
    assert contents(copy) == contents(folder)
    assert leftovers(copy) == []


def test_interrupted_conversion_is_finished_on_one_machine(start, make_dataset, convert, tmp_path):
    folder = make_dataset(train=20, validation=8)
    convert(folder, "--num_shards=2")
    copy = copy_images(folder, tmp_path / "copy")
    trap = Trap(copy / "images/0007.jpg")
    process = start(command(copy, "--num_shards=2"))
    end = trap.wait()
    deadline = time.monotonic() + SECONDS
    while len(list(copy.glob(".conversion-*/*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=SECONDS)
    os.close(end)
    assert process.returncode == 130, error
    assert "stopped: 3 of 4 shards are finished and kept" in error
    assert error.endswith("interrupted\n")
    assert "Traceback" not in error
    trap.remove()
    convert(copy, "--num_shards=2")
    assert contents(copy) == contents(folder)


def test_extraction_whose_worker_and_then_itself_is_killed(start, tmp_path, capsys):
    draw_images(tmp_path / "colours", seed=1)
    checkpoint = write_checkpoint(tmp_path / "net.ckpt", recipe_weights, averages=False)
    one, many = (
        [*arguments(tmp_path, checkpoint, tmp_path / name), "--batch_size=2", "--splits=train"]
        for name in ("one", "many")
    )
    assert extract(capsys, *one)[0] == 0
    # A worker is given four batches at a time: the images from 0, 8, 16 and 24.
    first, last = (Trap(tmp_path / f"colours/images/train_{n}.jpg") for n in ("002", "026"))
    process = start([sys.executable, "feature_extraction.py", *map(str, many)])
    first.kill()
    first.serve()
    end = last.wait()
    rows, deadline = 0, time.monotonic() + SECONDS
    while rows < 16 and time.monotonic() < deadline:
        (part,) = (tmp_path / "many").glob(".*.part")
        rows = (part.stat().st_size - 128) // (2048 * 4)
        time.sleep(0.05)
    process.kill()
    process.communicate()
    os.close(end)
    assert rows in (16, 24)
    first.remove()
    last.remove()
    code, _, error = extract(capsys, *many)
    assert code == 0, error
    assert f" {rows}/30 " in error
    for name in ("colours_feature_train.npy", "colours_label_train.npy"):
        np.testing.assert_array_equal(
            np.load(tmp_path / "many" / name), np.load(tmp_path / "one" / name)
        )


def test_answers_errors_and_workers_that_always_crash(cluster):
    def make_work():
        def work(number: int) -> int:
            if number == 13:
                raise UserError("thirteen is not a number")
            if number == 14:
                os._exit(1)
            return -number

        return work

    with ray_cluster.connected(cluster.address) as pool:
        assert pool == Pool(2, 1, 0)
        answers = list(ray_cluster.map_in_order(pool, make_work, range(9)))
        assert answers == [0, -1, -2, -3, -4, -5, -6, -7, -8]
        with pytest.raises(UserError, match=r"thirteen is not a number \(on .+\)"):
            list(ray_cluster.map_in_order(pool, make_work, [13]))
        with pytest.raises(WorkerError, match="ActorDiedError"):
            list(ray_cluster.map_in_order(pool, make_work, [14]))


def test_workers_share_machines():
    small, large = {"CPU": 16.0}, {"CPU": 64.0, "GPU": 8.0}
    assert ray_cluster.find_room([{}]) == Pool(1, 1, 0)
    assert ray_cluster.find_room([small, small]) == Pool(2, 16, 0)
    assert ray_cluster.find_room([small, {"CPU": 40.0}, {}]) == Pool(3, 16, 0)
    assert ray_cluster.find_room([small, large, {"CPU": 24.0, "GPU": 2.0}]) == Pool(10, 8, 1)


def refused(*flags: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command(conversion.define_flags, conversion.main, ["convert", *flags])
    assert stopped.value.code == 1


def test_without_ray_or_a_cluster(make_dataset, monkeypatch, capsys):
    folder = make_dataset()
    flags = [f"--dataset_dir={folder.parent}", f"--dataset_name={folder.name}"]
    pytest.importorskip("ray", reason="ray is not installed: see requirements-cluster.txt")
    refused(*flags, "--ray_address=127.0.0.1:1")
    error = capsys.readouterr().err
    assert "error: no Ray cluster at 127.0.0.1:1 (Connection refused): start one with" in error
    monkeypatch.setitem(sys.modules, "ray", None)
    refused(*flags, "--ray")
    error = capsys.readouterr().err
    assert "ray is not installed: run 'pip install -r requirements-cluster.txt'\n" in error
    assert contents(folder) == {}
