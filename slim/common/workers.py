"""Worker processes that end when they are told to, and when nobody is left to tell them."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from typing import Any

REPORT_SECONDS = 0.1  # between a worker's reports of progress

Work = Callable[[Any, Callable[[], None]], None]  # of a job; calls its second argument every step


class WorkerError(Exception):
    """A worker has ended before its work did."""


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    work: Work, jobs: Iterable, *, num_workers: int, report: Callable[[int], None]
) -> None:
    """Does jobs in worker processes, each as soon as a worker is free.

    Workers are forked: they start at once, and share what the parent has read and locked. None is
    left when this returns or raises.

    Args:
        work: Does a job in a worker. An `OSError` that it raises is raised here.
        jobs: What to call it with.
        num_workers: Processes.
        report: Is called here with the number of steps done since the last call.

    Raises:
        WorkerError: A worker crashed or was killed.
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
    """Starts a worker; returns this end of the pipe to it, and its process."""
    context = get_context("fork")
    pipe, its_end = context.Pipe()
    process = context.Process(target=_serve, args=(work, its_end, pipe, os.getpid()), daemon=True)
    # Ctrl-C reaches the whole group of processes, and the parent alone shall answer.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    its_end.close()
    return pipe, process


def _serve(
    work: Work, pipe: connection.Connection, parents_end: connection.Connection, parent: int
) -> None:
    """Asks for jobs (by None) and does them, until told to stop or until the parent is gone."""
    parents_end.close()  # left open, it would keep the pipe alive without the parent
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
