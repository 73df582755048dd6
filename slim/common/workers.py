"""Worker processes that end when they are stopped, and when their parent is killed.

`concurrent.futures` ends neither the workers of a killed parent, which would keep its lock, nor
those in the middle of a job when one of them fails.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from typing import Any

REPORT_SECONDS = 0.1  # minimum time between two progress reports of a worker

# A function of a job and of a callback, which it calls after each step.
Work = Callable[[Any, Callable[[], None]], None]


class WorkerError(Exception):
    """A worker process ended before its work was done."""


def run_jobs(
    work: Work, jobs: Iterable, *, num_workers: int, report: Callable[[int], None]
) -> None:
    """Runs jobs in worker processes, each as soon as a worker is free.

    Workers are forked, so that they start at once and inherit the memory and the locks of the
    parent. All have ended when this function returns or raises: the `OSError` of a job, or a
    `WorkerError` if a worker crashed or was killed. `report` is called in this process with the
    number of steps since its last call.
    """
    queue = iter(jobs)
    workers = {}
    try:
        for _ in range(num_workers):
            pipe, process = _start(work)
            workers[pipe] = process
        busy = set(workers)
        while busy:
            for pipe in connection.wait(busy):
                try:
                    message = pipe.recv()
                except (EOFError, ConnectionError):
                    workers[pipe].join()
                    raise WorkerError(f"exit code {workers[pipe].exitcode}") from None
                if isinstance(message, OSError):
                    raise message
                if message is not None:
                    report(message)
                elif (job := next(queue, None)) is not None:
                    pipe.send(job)
                else:
                    busy.remove(pipe)
    finally:
        for process in workers.values():
            process.terminate()
        for process in workers.values():
            process.join()


def _start(work: Work) -> tuple[connection.Connection, BaseProcess]:
    """Starts a worker; returns the parent's end of a pipe to it, and its process."""
    context = get_context("fork")
    pipe, worker_pipe = context.Pipe()
    arguments = (work, worker_pipe, pipe, os.getpid())
    process = context.Process(target=_serve, args=arguments, daemon=True)
    # Ctrl-C reaches all processes of the group, but only the parent must react.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    worker_pipe.close()
    return pipe, process


def _serve(
    work: Work, pipe: connection.Connection, parent_pipe: connection.Connection, parent: int
) -> None:
    """Requests jobs by sending None and runs them, until terminated or orphaned."""
    parent_pipe.close()  # or the pipe would stay open after the parent is gone
    steps, reported = 0, time.monotonic()

    def count_step() -> None:
        nonlocal steps, reported
        if os.getppid() != parent:
            raise EOFError
        steps += 1
        if (now := time.monotonic()) - reported > REPORT_SECONDS:
            pipe.send(steps)
            steps, reported = 0, now

    try:
        while True:
            pipe.send(None)
            work(pipe.recv(), count_step)
            pipe.send(steps)
            steps = 0
    except (EOFError, ConnectionError):
        pass  # the parent was killed
    except OSError as error:
        pipe.send(error)
