"""Answers of the workers of the Ray cluster at an address, some of which are killed.

Arguments: the address, and an empty folder.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from slim.common import ray_cluster
from slim.common.errors import UserError
from slim.common.workers import WorkerError

folder = Path(sys.argv[-1])


def make_work() -> Callable[[int], int]:
    def work(number: int) -> int:
        if number == 13:
            raise UserError("thirteen is not a number")
        if number == 14 or (number == 8 and not (folder / "killed").exists()):
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return -number

    return work


def show(error: Exception) -> None:
    print(f"{type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    try:
        with ray_cluster.connected("127.0.0.1:1"):
            pass
    except UserError as error:
        show(error)
    ray_cluster.RETRIES = 1
    with ray_cluster.connected(sys.argv[1]) as pool:
        print(pool, flush=True)
        for numbers in ([*range(9), 13], [14]):
            try:
                for answer in ray_cluster.map_items(pool, make_work, numbers, ordered=True):
                    print(answer, flush=True)
            except (UserError, WorkerError) as error:
                show(error)
