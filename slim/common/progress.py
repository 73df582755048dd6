"""Progress of long work: a bar in a terminal; otherwise a plain line now and then."""

import io
import sys
from collections.abc import Iterable

from tqdm import tqdm

LINE_SECONDS = 30  # minimum time between two lines


def progress(
    task: str,
    total: int | None,
    unit: str,
    *,
    items: Iterable | None = None,
    initial: int = 0,
    delay: float = 0,
) -> tqdm:
    """Shows on stderr how much of some work is done: a context to iterate over, or to `update`.

    Args:
        task: The text before the figures.
        total: The number of items; None if unknown.
        unit: The unit of the figures, such as ` images`; `B` for bytes.
        items: Iterated over by iterating over the result; None to call `update` instead.
        initial: The number of items that an earlier run has finished.
        delay: Seconds before a bar appears.
    """
    form = {"initial": initial, "unit": unit, "unit_scale": unit == "B"}
    if sys.stderr.isatty():
        return tqdm(items, task, total, delay=delay, **form)
    wait = {"delay": LINE_SECONDS, "mininterval": LINE_SECONDS, "miniters": 1}
    # Messages of `tqdm.write` would clear and repeat a bar on stderr; lines stay as they are.
    return _Lines(items, task, total, ncols=0, smoothing=0, file=io.StringIO(), **wait, **form)


class _Lines(tqdm):
    """Prints plain lines instead of a bar."""

    monitor_interval = 0  # no thread, which a fork would not survive

    def display(self, *_: object) -> None:
        print(self, file=sys.stderr, flush=True)

    def close(self) -> None:
        self.disable = True
