"""Work on the machines of a Ray cluster, through Ray Data.

Ray is imported only where it is used; a single machine does not need it. The package `slim` is
copied to the workers. The files that they read and write must have the same path on all machines.
"""

import itertools
import logging
import os
import pickle
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slim
from slim.common.command_line import FlagSet
from slim.common.errors import UserError
from slim.common.workers import Work, WorkerError

RETRIES = 3  # per job whose worker was killed
CONNECT_SECONDS = 5


@dataclass(frozen=True)
class Pool:
    """The workers that fit on a cluster, each with the same share of a machine."""

    num_workers: int
    num_cpus: int
    num_gpus: int


def define_ray_flags(define: FlagSet) -> None:
    """Adds the flags for work on a cluster."""
    define.boolean(
        "ray", False, "Work on the Ray cluster at $RAY_ADDRESS, or start one on this machine."
    )
    define.string(
        "ray_address", None, "Work on this Ray cluster: host:port, or auto for this machine's."
    )


@contextmanager
def connected(address: str | None) -> Iterator[Pool]:
    """Connects to a Ray cluster, or starts one on this machine.

    Args:
        address: `host:port`, or `auto` for the cluster that this machine belongs to. Default: the
            environment variable RAY_ADDRESS, else a new cluster on this machine.

    Yields:
        The workers that fit on the cluster, see `find_room`.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray sends them to its makers
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError(
            "--ray: ray is not installed: run 'pip install -r requirements-cluster.txt'"
        ) from None
    _check_reachable(address or os.environ.get("RAY_ADDRESS", ""))
    try:
        ray.init(
            address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={
                "py_modules": [str(Path(slim.__file__).parent)],
                "excludes": ["__pycache__"],
            },
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster at {address or 'this machine'}: {error}; connect this machine "
            "to it with 'ray start --address=host:port'"
        ) from error
    try:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        yield find_room([node["Resources"] for node in ray.nodes() if node["Alive"]])
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Checks that a server listens at an address: Ray tries for minutes, then ends the process."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster at {address} ({error.strerror or error}): start one with "
            f"'ray start --head', or give the address that it printed"
        ) from None


def find_room(machines: Sequence[dict[str, float]]) -> Pool:
    """Returns the workers that fit on a cluster.

    Args:
        machines: The numbers "CPU" and "GPU" of each machine.

    Returns:
        One worker per GPU if there are GPUs, else workers with all CPUs of the smallest machine.
    """
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
    """Runs jobs on a Ray cluster with one CPU per job.

    If a worker is killed, another one repeats its job.

    Args:
        address: Address of the cluster, see `connected`.
        work: Runs one job; must allow repetition. An `OSError` that it raises is raised here.
        jobs: The jobs.
        num_workers: Maximum number of jobs at the same time.
        report: Called in this process with the number of steps of each finished job.

    Raises:
        WorkerError: Workers were killed repeatedly.
        UserError: There is no such cluster.
    """

    def count_steps(job: Any) -> int:
        steps = itertools.count()
        work(job, steps.__next__)
        return next(steps)

    def answer(row: dict[str, bytes]) -> dict[str, bytes]:
        return _answer(count_steps, row)

    jobs = list(jobs)
    if not jobs:
        return
    with connected(address):
        options = {"concurrency": num_workers, "num_cpus": 1}
        remote_args = {"max_retries": RETRIES}
        for steps in _results(answer, jobs, remote_args, ordered=False, **options):
            report(steps)


def map_in_order(
    pool: Pool, make_work: Callable[[], Callable[[Any], Any]], items: Sequence
) -> Iterator[Any]:
    """Maps items to results on a connected cluster, and yields the results in order.

    Args:
        pool: The workers of the cluster.
        make_work: Called once per worker; returns the function from an item to its result. An
            `OSError` or a `UserError` that this function raises is raised here.
        items: The items.

    Raises:
        WorkerError: Workers were killed repeatedly.
    """
    import ray

    stored = ray.put(make_work)  # once, because it may be large

    class Worker:
        def __init__(self) -> None:
            self._work = None

        def work(self, item: Any) -> Any:
            self._work = self._work or ray.get(stored)()
            return self._work(item)

        def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
            return _answer(self.work, row)

    # Ray would wait for a lost machine to come back. New workers use the remaining machines.
    once = {"max_restarts": 0, "max_task_retries": 0}
    options = {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus}
    done = failures = 0
    while done < len(items):
        options["concurrency"] = min(pool.num_workers, len(items) - done)
        try:
            for result in _results(Worker, items[done:], once, ordered=True, **options):
                yield result
                done, failures = done + 1, 0
        except WorkerError:
            failures += 1
            if failures > RETRIES:
                raise


def _answer(work: Callable[[Any], Any], row: dict[str, bytes]) -> dict[str, bytes]:
    """Processes one row in a worker and returns the result or an error that a user can fix."""
    try:
        result = work(pickle.loads(row["item"]))
    except UserError as error:
        result = UserError(f"{error} (on {socket.gethostname()})")
    except OSError as error:
        result = error
    return {"result": pickle.dumps(result)}


def _results(
    work: Callable, items: Iterable, remote_args: dict[str, int], *, ordered: bool, **options: Any
) -> Iterator[Any]:
    """Maps items with Ray Data, one item per block.

    Items are pickled, because file names are not always valid text.
    """
    from ray.data import from_items
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

    rows = [{"item": pickle.dumps(item)} for item in items]
    data = from_items(rows, override_num_blocks=len(rows))
    data.context.enable_progress_bars = False
    data.context.execution_options.preserve_order = ordered
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray 2.64 replaces this argument
        data = data.map(work, ray_remote_args_fn=lambda: remote_args, **options)
    try:
        for row in data.iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, (OSError, UserError)):
                raise result
            yield result
    except (NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError) as error:
        raise WorkerError(type(error).__name__) from error
