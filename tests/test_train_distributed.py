"""Training on several machines: parameter servers and workers, each a process of the command."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slim.checkpoints import read_step
from slim.compat import tf
from tests.conftest import ROOT

SECONDS = 180  # for anything to happen, on a machine that is busy with other things
ENDLESS = 1_000_000


def free_addresses(number: int) -> list[str]:
    """Addresses of this machine that nothing listens at, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return addresses


class Machines:
    """A parameter server or none and some workers, which are started and killed one by one."""

    def __init__(
        self, data: Path, folder: Path, num_workers: int, *flags: str, num_ps: int = 1
    ) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen] = []
        addresses = free_addresses(num_ps + num_workers)
        self.command = [
            sys.executable,
            "-m",
            "slim.train_image_classifier",
            f"--dataset_dir={data}",
            "--dataset_name=colours",
            f"--train_dir={folder / 'run'}",
            "--model_name=resnet_v2_50",
            "--train_image_size=32",
            "--batch_size=8",
            "--weight_decay=0",
            "--batch_norm_decay=0.9",
            "--log_every_n_steps=1",
            f"--ps_hosts={','.join(addresses[:num_ps])}",
            f"--worker_hosts={','.join(addresses[num_ps:])}",
            *flags,
        ]

    def start(self, job: str, task: int, *flags: str) -> "Process":
        log = self.folder / f"{job}_{task}_{len(self.processes)}.log"
        process = Process([*self.command, f"--job_name={job}", f"--task={task}", *flags], log)
        self.processes.append(process.popen)
        return process

    def latest(self) -> str | None:
        return tf.train.latest_checkpoint(str(self.folder / "run"))


class Process:
    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            self.popen = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)

    @property
    def output(self) -> str:
        return self.log.read_text()

    def until(self, pattern: str) -> None:
        limit = time.monotonic() + SECONDS
        while not re.search(pattern, self.output, re.MULTILINE):
            assert self.popen.poll() is None, self.output
            assert time.monotonic() < limit, self.output
            time.sleep(0.1)

    def kill(self) -> None:
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()

    def end(self) -> int:
        self.popen.wait(SECONDS)
        return self.popen.returncode

    def losses(self) -> list[float]:
        return [float(loss) for loss in re.findall(r"^step \d+.*?loss ([\d.]+)", self.output, re.M)]


@pytest.fixture
def machines(colours, tmp_path) -> Iterator:
    """Makes `Machines`; what still runs when the test is over is killed."""
    made: list[Machines] = []

    def make(num_workers: int, *flags: str, num_ps: int = 1) -> Machines:
        made.append(Machines(colours, tmp_path, num_workers, *flags, num_ps=num_ps))
        return made[-1]

    yield make
    for process in (process for one in made for process in one.processes):
        if process.poll() is None:
            process.kill()
            process.wait()


def test_asynchronous_training_learns_and_ends_everywhere(machines):
    cluster = machines(2, "--nosync_replicas", "--max_number_of_steps=60", "--learning_rate=0.0003")
    ps, chief, worker = (cluster.start(*who) for who in (("ps", 0), ("worker", 0), ("worker", 1)))
    assert [process.end() for process in (chief, worker, ps)] == [0, 0, 0], (
        chief.output + worker.output + ps.output
    )
    # The other worker may be in a step of its own when the last one is made.
    step = int(re.search(r"done: step (\d+), ", chief.output)[1])
    assert step in (60, 61)
    assert f"done: step {step}, {cluster.latest()}" in chief.output
    assert read_step(cluster.latest()) == step
    losses = chief.losses() + worker.losses()
    first, last = chief.losses()[:5], chief.losses()[-5:]
    assert sum(last) < 0.7 * sum(first), losses
    assert re.search(r"^step \d+", worker.output, re.M)
    assert not re.search("Traceback|ERROR|WARNING", chief.output + worker.output + ps.output)


def test_killed_workers_and_chief_come_back_to_a_synchronous_run(machines):
    cluster = machines(
        2,
        "--replicas_to_aggregate=2",
        "--trainable_scopes=logits",
        "--learning_rate=0.003",
        "--moving_average_decay=0.9",
        "--save_interval_secs=1",
    )
    endless = f"--max_number_of_steps={ENDLESS}"
    ps = cluster.start("ps", 0)
    worker = cluster.start("worker", 1, endless)
    chief = cluster.start("worker", 0, endless)
    worker.until("^step [1-9]")
    chief.until("^step [1-9]")
    chief.kill()
    saved = read_step(cluster.latest())
    last = saved + 30
    chief = cluster.start("worker", 0, f"--max_number_of_steps={last}")
    chief.until(f"^resuming from step {saved} ")
    chief.until("^step ")
    assert worker.popen.poll() is None, worker.output
    worker.kill()
    worker = cluster.start("worker", 1, f"--max_number_of_steps={last}")
    assert [process.end() for process in (chief, worker, ps)] == [0, 0, 0], (
        chief.output + worker.output + ps.output
    )
    assert f"done: step {last}, {cluster.latest()}" in chief.output
    assert f"done: step {last}\n" in worker.output
    assert read_step(cluster.latest()) == last
    assert not re.search("Traceback|ERROR|WARNING", chief.output + worker.output + ps.output)


def test_a_lost_parameter_server_is_one_line(machines):
    cluster = machines(1, f"--max_number_of_steps={ENDLESS}", "--trainable_scopes=logits")
    ps, chief = cluster.start("ps", 0), cluster.start("worker", 0)
    chief.until("^step [2-9]")
    ps.kill()
    assert chief.end() == 1, chief.output
    errors = [line for line in chief.output.splitlines() if not line.startswith("step ")]
    assert len(errors) == 1, chief.output
    assert re.match(r"error: lost the parameter server at 127.0.0.1:\d+: start every", errors[0])


def test_all_reduce_takes_the_same_steps_everywhere_and_goes_on_after_a_lost_worker(machines):
    cluster = machines(
        2, "--all_reduce", "--trainable_scopes=logits", "--learning_rate=0.003", num_ps=0
    )
    workers = [cluster.start("worker", task, f"--max_number_of_steps={ENDLESS}") for task in (0, 1)]
    workers[0].until("^step [2-9]")
    workers[1].kill()
    assert workers[0].end() == 1, workers[0].output
    assert re.search(
        r"^error: lost the worker at 127.0.0.1:\d+: start every process again.*\n\Z",
        workers[0].output,
        re.M,
    )
    last = read_step(cluster.latest()) + 40
    workers = [cluster.start("worker", task, f"--max_number_of_steps={last}") for task in (0, 1)]
    assert [worker.end() for worker in workers] == [0, 0], workers[0].output + workers[1].output
    assert read_step(cluster.latest()) == last
    losses = workers[0].losses()
    assert losses == workers[1].losses()  # the mean of both
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), losses
