"""Work over the machines of a Ray cluster, through Ray Data.

Ray is imported when it is asked for: one machine does without. The package `slim` is sent to the
workers; what they read and write must lie under the same path on all machines.
"""

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

RETRIES = 3  # of a job, when its worker was killed
CONNECT_SECONDS = 5


@dataclass(frozen=True)
class Pool:
    """The workers that a cluster has room for, each with the same share of a machine."""

    num_workers: int
    num_cpus: int
    num_gpus: int


def define_ray_flags(define: FlagSet) -> None:
    """Adds the flags that say whether to work on a cluster, and on which.

    Args:
        define: Receives the flags.
    """
    define.boolean("ray", False, "Work on the Ray cluster at $RAY_ADDRESS, or on one started here.")
    define.string("ray_address", None, "That Ray cluster: host:port, or auto for this machine's.")


@contextmanager
def connected(address: str | None) -> Iterator[Pool]:
    """Connects to a Ray cluster, or starts one on this machine.

    Args:
        address: As `host:port`, `auto` for the one that this machine is part of; None for that of
            the environment variable RAY_ADDRESS, else one on this machine.

    Yields:
        What it has room for: a worker a GPU where there are GPUs, else a worker a machine.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which would be sent to its makers
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError(
            "--ray: the package ray is not installed: pip install -r requirements-cluster.txt"
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
            f"no Ray cluster at {address or 'this machine'}: {error}; this machine must be part of "
            f"it: ray start --address=host:port"
        ) from error
    try:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        yield find_room([node["Resources"] for node in ray.nodes() if node["Alive"]])
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Sees that somebody listens at an address: Ray would try for minutes, then end the process.

    Raises:
        UserError: Nobody does.
    """
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
    """The workers that machines have room for.

    Args:
        machines: The number of each one's "CPU" and "GPU".

    Returns:
        A worker a GPU where there are GPUs, else one for as many CPUs as the smallest machine has.
    """
    with_gpus = [machine for machine in machines if machine.get("GPU")]
    if with_gpus:
        num_cpus = min(machine.get("CPU", 0) // machine["GPU"] for machine in with_gpus)
        return Pool(int(sum(machine["GPU"] for machine in with_gpus)), int(num_cpus), 1)
    cpus = [int(machine["CPU"]) for machine in machines if machine.get("CPU")]
    cpus = cpus or [1]  # a cluster that grows when there is work
    return Pool(sum(count // min(cpus) for count in cpus), min(cpus), 0)


def run_jobs(
    address: str | None,
    work: Work,
    jobs: Iterable,
    *,
    num_workers: int,
    report: Callable[[int], None],
) -> None:
    """Does jobs on a Ray cluster, a CPU each; what a killed worker was doing is done by another.

    Args:
        address: Of the cluster, see `connected`.
        work: Does a job, and may do it again. An `OSError` that it raises is raised here.
        jobs: What to call it with.
        num_workers: Jobs at a time, if there are so many CPUs.
        report: Is called here with the number of steps of each finished job.

    Raises:
        WorkerError: Workers were killed again and again.
        UserError: There is no such cluster.
    """

    def count_steps(job: Any) -> int:
        steps = 0

        def count_step() -> None:
            nonlocal steps
            steps += 1

        work(job, count_step)
        return steps

    def answer(row: dict[str, bytes]) -> dict[str, bytes]:
        return _answer(count_steps, row)

    jobs = list(jobs)
    if not jobs:
        return
    with connected(address):
        options = {"concurrency": num_workers, "num_cpus": 1}
        for steps in _results(answer, jobs, {"max_retries": RETRIES}, False, **options):
            report(steps)


def map_in_order(
    pool: Pool, make_work: Callable[[], Callable[[Any], Any]], items: Sequence
) -> Iterator[Any]:
    """Yields what the workers of a connected cluster make of items, in the items' order.

    Args:
        pool: The cluster's.
        make_work: Is called once in each worker; gives the function from an item to its result.
            An `OSError` or a `UserError` that this raises is raised here.
        items: What to call it with.

    Raises:
        WorkerError: Workers were killed again and again.
    """
    import ray

    stored = ray.put(make_work)  # once, for it may be large

    class Worker:
        def __init__(self) -> None:
            self._work = None

        def work(self, item: Any) -> Any:
            self._work = self._work or ray.get(stored)()
            return self._work(item)

        def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
            return _answer(self.work, row)

    options = {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus}
    done = failures = 0
    while done < len(items):
        concurrency = min(pool.num_workers, len(items) - done)
        # Ray would wait for a lost machine to come back; new workers stand on those that are left.
        once = {"max_restarts": 0, "max_task_retries": 0}
        try:
            for result in _results(
                Worker, items[done:], once, True, concurrency=concurrency, **options
            ):
                yield result
                done, failures = done + 1, 0
        except WorkerError:
            failures += 1
            if failures > RETRIES:
                raise


def _answer(work: Callable[[Any], Any], row: dict[str, bytes]) -> dict[str, bytes]:
    """Does the work of one row in a worker; errors that a user can mend are answers, too."""
    try:
        result = work(pickle.loads(row["item"]))
    except UserError as error:
        result = UserError(f"{error} (on {socket.gethostname()})")
    except OSError as error:
        result = error
    return {"result": pickle.dumps(result)}


def _results(
    work: Callable, items: Iterable, remote_args: dict[str, int], ordered: bool, **options: Any
) -> Iterator[Any]:
    """Maps items, a block each, with Ray Data. They are pickled: file names are not always text."""
    from ray.data import from_items
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

    rows = [{"item": pickle.dumps(item)} for item in items]
    data = from_items(rows, override_num_blocks=len(rows))
    data.context.enable_progress_bars = False
    data.context.execution_options.preserve_order = ordered
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray 2.64 will have another way
        data = data.map(work, ray_remote_args_fn=lambda: remote_args, **options)
    try:
        for row in data.iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, (OSError, UserError)):
                raise result
            yield result
    except (NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError) as error:
        raise WorkerError(type(error).__name__) from error
