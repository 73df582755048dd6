"""Work on the machines of a Ray cluster, for conversion and feature extraction.

Ray is imported only where it is used; a single machine does not need it. The package `slim` is
copied to the workers. The files that they read and write must have the same path on all machines.
"""

import itertools
import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import slim
from slim.common.command_line import FlagSet
from slim.common.errors import UserError
from slim.common.workers import Work, WorkerError

RETRIES = 3  # per item whose worker was killed
CONNECT_SECONDS = 5
MAX_WORKERS = 1000  # some may wait until the cluster grows


class Pool(NamedTuple):
    """The workers to start on a cluster, each with the same share of a machine."""

    num_workers: int
    num_cpus: int
    num_gpus: int


def define_ray_flags(define: FlagSet) -> None:
    define.boolean(
        "ray", False, "Work on the Ray cluster at $RAY_ADDRESS, or start one on this machine."
    )
    define.string(
        "ray_address", None, "Work on this Ray cluster: host:port, or auto for this machine's."
    )


@contextmanager
def connected(address: str | None) -> Iterator[Pool]:
    """Connects to a Ray cluster, or starts one here; yields the workers that fit on it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray sends them to its makers
    try:
        import ray
    except ImportError:
        raise UserError(
            "--ray: ray is not installed: run 'pip install -r requirements-cluster.txt'"
        ) from None
    address = address or os.environ.get("RAY_ADDRESS")
    host, _, port = (address or "").rpartition(":")
    code = {"py_modules": [str(Path(slim.__file__).parent)], "excludes": ["__pycache__"]}
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if port.isdecimal():  # Ray would try for minutes, then end the process
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address, runtime_env=code, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster at {address or 'this machine'} ({error}): start one with 'ray start "
            "--head', or connect this machine to it with 'ray start --address=host:port'"
        ) from error
    try:
        yield find_room([node["Resources"] for node in ray.nodes() if node["Alive"]])
    finally:
        ray.shutdown()


def find_room(machines: Sequence[dict[str, float]]) -> Pool:
    """Returns one worker per GPU of the machines, or workers with the CPUs of the smallest one."""
    with_gpus = [machine for machine in machines if machine.get("GPU")]
    if with_gpus:
        num_cpus = min(machine.get("CPU", 0) // machine["GPU"] for machine in with_gpus)
        return Pool(int(sum(machine["GPU"] for machine in with_gpus)), int(num_cpus), 1)
    cpus = [int(machine["CPU"]) for machine in machines if machine.get("CPU")]
    cpus = cpus or [1]  # a cluster may add machines when there is work
    return Pool(sum(count // min(cpus) for count in cpus), min(cpus), 0)


def run_jobs(
    address: str | None,
    work: Work,
    jobs: Iterable,
    *,
    num_workers: int,
    report: Callable[[int], None],
) -> None:
    """Runs jobs on a Ray cluster with one CPU per worker; otherwise like `workers.run_jobs`."""

    def count_steps(job: Any) -> int:
        steps = itertools.count()
        work(job, steps.__next__)
        return next(steps)

    if jobs := list(jobs):
        pool = Pool(min(num_workers, MAX_WORKERS), 1, 0)
        with connected(address):
            for steps in map_items(pool, lambda: count_steps, jobs, ordered=False):
                report(steps)


def map_items(
    pool: Pool, make_work: Callable[[], Callable[[Any], Any]], items: Sequence, *, ordered: bool
) -> Iterator[Any]:
    """Yields the results of items, in their order or as they come, from a connected cluster.

    `make_work`, called once per worker, returns the function from an item to its result, whose
    `OSError` or `UserError` is raised here. If a worker is killed, another one repeats its item; if
    that happens repeatedly, a `WorkerError` is raised.
    """
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError

    worker_class = ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus)(_Worker)
    stored = ray.put(make_work)  # once, because it may be large
    waiting, idle, results = deque(range(len(items))), [], {}
    running = {}  # by the reference of a result: the worker and the item; None while it starts
    failures, done = Counter(), 0

    def start() -> None:
        worker = worker_class.remote(stored)
        running[worker.start.remote()] = worker, None

    for _ in range(min(pool.num_workers, len(items))):
        start()
    while done < len(items):
        # Few results wait for an earlier one.
        while idle and waiting and (not ordered or waiting[0] < done + 2 * pool.num_workers):
            worker, index = idle.pop(), waiting.popleft()
            running[worker.work.remote(items[index])] = worker, index
        (finished,), _ = ray.wait(list(running))
        worker, index = running.pop(finished)
        try:
            result = ray.get(finished)
        except (NodeDiedError, OutOfMemoryError, RayActorError) as error:
            failures[index] += 1
            if failures[index] > RETRIES * (pool.num_workers if index is None else 1):
                raise WorkerError(type(error).__name__) from error
            if index is not None:
                waiting.appendleft(index)
            start()  # on a remaining machine, as soon as one has room
            continue
        idle.append(worker)
        if index is not None:
            results[index if ordered else done] = result
        while done in results:
            result = results.pop(done)
            if isinstance(result, (OSError, UserError)):
                raise result
            done += 1
            yield result


class _Worker:
    def __init__(self, make_work: Callable[[], Callable[[Any], Any]]) -> None:
        self._make_work, self._work = make_work, None

    def start(self) -> None:
        """Shows by its result that the cluster has room for this worker."""

    def work(self, item: Any) -> Any:
        """Returns the result of an item, or an error that a user can fix."""
        try:
            self._work = self._work or self._make_work()
            return self._work(item)
        except UserError as error:
            return UserError(f"{error} (on {socket.gethostname()})")
        except OSError as error:
            return error
