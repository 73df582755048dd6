"""Conversion and extraction on a Ray cluster of two nodes, whose processes are killed."""

import re
import shutil
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from slim import feature_extraction
from slim.common import ray_cluster
from slim.common.ray_cluster import Pool
from tests.conftest import draw_images, recipe_weights
from tests.datasets.conftest import (
    Trap,
    check,
    contents,
    convert,
    flags_of,
    leftovers,
)
from tests.support import (
    ROOT,
    SMALL_SIZE,
    TIMEOUT,
    Process,
    variable_shapes,
    wait_until,
    write_checkpoint,
)

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="ray is not installed: see requirements-cluster.txt"
)
DEPTH = 256  # features per image
# Ray gives its own processes 5 to 60 seconds; a slow machine needs more. Not so the timeout of
# connecting to the raylet: Ray sleeps for as long before it tries again.
PATIENCE = {
    f"RAY_{name}": str(factor * TIMEOUT)
    for factor, names in (
        (
            1,
            "raylet_start_wait_time_s worker_register_timeout_seconds py_gcs_connect_timeout_s "
            "gcs_server_request_timeout_seconds gcs_rpc_server_connect_timeout_s "
            "gcs_rpc_server_reconnect_timeout_s",
        ),
        (
            1000,
            "agent_register_timeout_ms health_check_timeout_ms grpc_keepalive_timeout_ms "
            "grpc_client_keepalive_timeout_ms",
        ),
    )
    for name in names.split()
}


# Processes with Ray in them are not to be forked: all that use it here are processes of their own.
@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """The address of a cluster of two nodes with one CPU each on this machine."""
    folder = tmp_path_factory.mktemp("ray")
    # Workers start in half the time without this module, which they can do without.
    (folder / "rfc3987_syntax.py").write_text("raise ImportError")
    shutil.copy(ROOT / "tests/traps.py", folder / "sitecustomize.py")
    env = {**PATIENCE, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(folder)}
    with Process("tests.common.ray_nodes", log=folder / "log", env=env) as process:
        yield process.wait_for(r"^cluster at (\S+)$")[1]
        process.send(signal.SIGUSR1)
        assert process.wait() == 0, process.output


def copy_images(folder: Path, target: Path) -> Path:
    made = shutil.ignore_patterns("*.tfrecord", "*.json")
    return Path(shutil.copytree(folder, target / folder.name, ignore=made))


@needs_ray
def test_conversion_whose_worker_is_killed(address, make_dataset, tmp_path):
    folder = make_dataset(train=20, validation=8)
    (folder / "images/0011.jpg").write_bytes(b"no image")
    options = ("--num_shards=3", "--on_error=skip")
    expected = convert(folder, *options)
    copy = copy_images(folder, tmp_path / "copy")
    trap = Trap(copy / "images/0007.jpg")
    flags = flags_of(copy, *options, f"--ray_address={address}")
    with Process("convert_dataset", *flags, log=tmp_path / "log", env=PATIENCE) as process:
        trap.kill()
        trap.serve()
        assert process.wait() == 0, process.output
    assert "27 images, 3 classes, 6 shards, 1 line skipped; read 28 images in" in process.output
    problems = [line for line in expected.error.splitlines() if "0011" in line]
    assert problems == [line for line in process.output.splitlines() if "0011" in line]
    assert contents(copy) == contents(folder)
    assert leftovers(copy) == []


@needs_ray
def test_interrupted_conversion_is_finished_on_one_machine(address, make_dataset, tmp_path):
    folder = make_dataset(train=20, validation=8)
    convert(folder, "--num_shards=2")
    copy = copy_images(folder, tmp_path / "copy")
    trap = Trap(copy / "images/0007.jpg")
    flags = flags_of(copy, "--num_shards=2", f"--ray_address={address}")
    with Process("convert_dataset", *flags, log=tmp_path / "log", env=PATIENCE) as process:
        trap.wait()
        wait_until(lambda: len(list(copy.glob(".conversion-*/*.json"))) == 3)
        process.send(signal.SIGINT)
        assert process.wait() == 130, process.output
        assert "stopped: 3 of 4 shards are finished and kept" in process.output
        assert process.output.endswith("interrupted\n")
        assert "Traceback" not in process.output
    trap.remove()
    convert(copy, "--num_shards=2")
    assert contents(copy) == contents(folder)


@needs_ray
def test_killed_extraction_is_finished_on_one_machine(address, tmp_path, monkeypatch):
    draw_images(tmp_path / "colours", seed=1)
    used = ("resnet_v2_50/conv1/", "resnet_v2_50/block1/")
    values = {
        name: recipe_weights(name, shape) if name.startswith(used) else np.zeros(shape, np.float32)
        for name, shape in variable_shapes("resnet_v2_50", None).items()
    }
    checkpoint = write_checkpoint(tmp_path / "net.ckpt", values)

    def flags(output: str) -> list[str]:
        return [
            f"--dataset_dir={tmp_path}",
            "--dataset_name=colours",
            "--splits=train",
            f"--checkpoint_path={checkpoint}",
            "--model_name=resnet_v2_50",
            "--endpoint=resnet_v2_50/block1",
            f"--image_size={SMALL_SIZE}",
            "--batch_size=2",
            f"--output_dir={tmp_path / output}",
        ]

    check(feature_extraction, *flags("one"))
    # A worker is given four batches at a time: the images from 0, 8, 16 and 24.
    trap = Trap(tmp_path / "colours/images/train_026.jpg")

    def rows() -> int:
        (part,) = (tmp_path / "many").glob(".*.part")
        return (part.stat().st_size - 128) // (DEPTH * 4)

    line = (*flags("many"), f"--ray_address={address}")
    with Process("feature_extraction", *line, log=tmp_path / "log", env=PATIENCE) as process:
        trap.wait()
        wait_until(lambda: rows() == 24)
        process.kill()
    trap.remove()
    monkeypatch.setattr("slim.common.progress.LINE_SECONDS", 0)
    shown = re.findall(r" (\d+)/30 ", check(feature_extraction, *flags("many")).error)
    assert int(shown[0]) == 24
    for name in ("colours_feature_train.npy", "colours_label_train.npy"):
        found = np.load(tmp_path / "many" / name)
        np.testing.assert_allclose(found, np.load(tmp_path / "one" / name), rtol=1e-4, atol=1e-6)
    assert len(np.unique(np.load(tmp_path / "one/colours_feature_train.npy"), axis=0)) == 30


@needs_ray
def test_answers_errors_and_workers_that_are_killed_once_or_always(address, tmp_path):
    log = tmp_path / "log"
    with Process("tests.common.ray_answers", address, tmp_path, log=log, env=PATIENCE) as process:
        assert process.wait() == 0, process.output
    # Ray writes to the same file.
    printed = re.findall(r"^(?:Pool|-?\d|UserError|WorkerError).*$", process.output, re.MULTILINE)
    refusal, pool, *answers, error, crash = printed
    expected = (
        r"UserError: no Ray cluster at 127\.0\.0\.1:1 \(.*Connection refused\): start one with"
    )
    assert re.match(expected, refusal)
    assert pool == str(Pool(2, 1, 0))
    assert list(map(int, answers)) == [0, -1, -2, -3, -4, -5, -6, -7, -8]
    assert re.fullmatch(r"UserError: thirteen is not a number \(on .+\)", error)
    assert crash == "WorkerError: ActorDiedError"


def test_workers_share_machines():
    small, large = {"CPU": 16.0}, {"CPU": 64.0, "GPU": 8.0}
    assert ray_cluster.find_room([{}]) == Pool(1, 1, 0)
    assert ray_cluster.find_room([small, small]) == Pool(2, 16, 0)
    assert ray_cluster.find_room([small, {"CPU": 40.0}, {}]) == Pool(3, 16, 0)
    assert ray_cluster.find_room([small, large, {"CPU": 24.0, "GPU": 2.0}]) == Pool(10, 8, 1)


def test_without_ray(make_dataset, monkeypatch):
    folder = make_dataset()
    monkeypatch.setitem(sys.modules, "ray", None)
    error = convert(folder, "--ray", code=1).error
    assert "ray is not installed: run 'pip install -r requirements-cluster.txt'\n" in error
    assert contents(folder) == {}
