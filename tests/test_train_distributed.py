"""Tests of training with parameter servers and workers, each in a process of its own."""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from slim.checkpoints.reading import read_step
from slim.common.compat import tf
from tests.support import SMALL_NETWORK, SMALL_SIZE, TIMEOUT, Process, free_addresses, wait_until

ENDLESS = 1_000_000


class Machines:
    """The parameter servers and workers of a cluster, which are started one by one."""

    def __init__(
        self,
        running: ExitStack,
        data: Path,
        folder: Path,
        num_workers: int,
        *flags: str,
        num_ps: int = 1,
    ) -> None:
        self._running = running
        self._folder = folder
        self._numbers = count()
        addresses = free_addresses(num_ps + num_workers)
        self._flags = [
            f"--dataset_dir={data}",
            "--dataset_name=colours",
            f"--train_dir={folder / 'run'}",
            f"--model_name={SMALL_NETWORK}",
            f"--train_image_size={SMALL_SIZE}",
            "--batch_size=8",
            "--weight_decay=0",
            "--batch_norm_decay=0.9",
            "--log_every_n_steps=1",
            f"--cluster_timeout_secs={TIMEOUT // 2}",
            f"--ps_hosts={','.join(addresses[:num_ps])}",
            f"--worker_hosts={','.join(addresses[num_ps:])}",
            *flags,
        ]

    def start(self, job: str, task: int, *flags: str) -> Process:
        log = self._folder / f"{job}_{task}_{next(self._numbers)}.log"
        flags = (*self._flags, f"--job_name={job}", f"--task={task}", *flags)
        return self._running.enter_context(Process("slim.train_image_classifier", *flags, log=log))

    def latest(self) -> str | None:
        return tf.train.latest_checkpoint(str(self._folder / "run"))


@pytest.fixture
def machines(colours, tmp_path) -> Iterator[Callable[..., Machines]]:
    """A function that makes `Machines`, whose processes are killed after the test."""
    with ExitStack() as running:
        yield partial(Machines, running, colours, tmp_path)


def losses(process: Process) -> dict[int, float]:
    """Returns the losses that a worker has logged, by step."""
    logged = re.findall(r"^step (\d+) .*?loss ([\d.]+)", process.output, re.M)
    return {int(step): float(loss) for step, loss in logged}


def learns(losses: dict[int, float], share: float) -> bool:
    """Returns whether the last five losses are below a share of the first five."""
    ordered = [losses[step] for step in sorted(losses)]
    return sum(ordered[-5:]) < share * sum(ordered[:5])


def test_asynchronous_training_learns_and_ends_in_every_process(machines):
    cluster = machines(
        2,
        "--nosync_replicas",
        "--max_number_of_steps=60",
        "--trainable_scopes=logits",
        "--learning_rate=0.003",
    )
    ps, chief, worker = (cluster.start(*who) for who in (("ps", 0), ("worker", 0), ("worker", 1)))
    # The first worker to take a step waits for the other, so that it does not take all of them.
    wait_until(lambda: losses(chief) or losses(worker), chief)
    first = chief if losses(chief) else worker
    first.send(signal.SIGSTOP)
    for process in (chief, worker):
        process.wait_for("^step ")
    first.send(signal.SIGCONT)
    assert [process.wait() for process in (chief, worker, ps)] == [0, 0, 0], (
        chief.output + worker.output + ps.output
    )
    # The other worker may be within a step when the last one is taken. It may end before the
    # checkpoint is named, while the checkpoint is written, or after that.
    assert re.search(rf"^done: step 6[01], {cluster.latest()}\n", chief.output, re.M)
    assert read_step(cluster.latest()) in (60, 61)
    assert learns(losses(chief) | losses(worker), 0.7), chief.output + worker.output
    assert not re.search("Traceback|ERROR|WARNING", chief.output + worker.output + ps.output)


def test_a_synchronous_run_survives_killed_workers_and_a_killed_chief(machines):
    cluster = machines(
        2,
        "--replicas_to_aggregate=2",
        "--trainable_scopes=logits",
        "--learning_rate=0.003",
        "--moving_average_decay=0.9",
    )
    endless = f"--max_number_of_steps={ENDLESS}"
    ps = cluster.start("ps", 0)
    worker = cluster.start("worker", 1, endless)
    chief = cluster.start("worker", 0, endless)
    worker.wait_for("^step [1-9]")
    chief.wait_for("^step [1-9]")
    chief.kill()
    saved = read_step(cluster.latest())
    last = saved + 100
    chief = cluster.start("worker", 0, f"--max_number_of_steps={last}")
    chief.wait_for(f"^resuming from step {saved} ")
    chief.wait_for("^step ")
    assert worker.code is None, worker.output
    chief.send(signal.SIGSTOP)  # until the other worker has joined again
    worker.kill()
    worker = cluster.start("worker", 1, f"--max_number_of_steps={last}")
    worker.wait_for("running the first step")
    chief.send(signal.SIGCONT)
    assert [process.wait() for process in (chief, worker, ps)] == [0, 0, 0], (
        chief.output + worker.output + ps.output
    )
    assert f"done: step {last}, {cluster.latest()}" in chief.output
    assert f"done: step {last}\n" in worker.output
    assert read_step(cluster.latest()) == last
    assert not re.search("Traceback|ERROR|WARNING", chief.output + worker.output + ps.output)


def test_a_lost_parameter_server_is_an_error_of_one_line(machines):
    cluster = machines(1, f"--max_number_of_steps={ENDLESS}", "--trainable_scopes=logits")
    ps, chief = cluster.start("ps", 0), cluster.start("worker", 0)
    chief.wait_for("^step [2-9]")
    ps.kill()
    assert chief.wait() == 1, chief.output
    assert re.search(
        r"^step \d+ .*\nerror: lost the parameter server at 127.0.0.1:\d+: start every.*\n\Z",
        chief.output,
        re.M,
    ), chief.output


def test_all_reduce_takes_equal_steps_and_resumes_after_a_lost_worker(machines):
    cluster = machines(
        2, "--all_reduce", "--trainable_scopes=logits", "--learning_rate=0.003", num_ps=0
    )
    workers = [cluster.start("worker", task, f"--max_number_of_steps={ENDLESS}") for task in (0, 1)]
    workers[0].wait_for("^step [2-9]")
    workers[1].kill()
    assert workers[0].wait() == 1, workers[0].output
    assert re.search(
        r"^error: lost the worker at 127.0.0.1:\d+: start every process again.*\n\Z",
        workers[0].output,
        re.M,
    )
    last = read_step(cluster.latest()) + 40
    workers = [cluster.start("worker", task, f"--max_number_of_steps={last}") for task in (0, 1)]
    assert [worker.wait() for worker in workers] == [0, 0], workers[0].output + workers[1].output
    assert read_step(cluster.latest()) == last
    found = losses(workers[0])
    assert found == losses(workers[1])  # the mean of both
    assert len(found) == 40
    assert learns(found, 0.8), found
