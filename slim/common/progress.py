"""Progress of long work: a bar in a terminal, elsewhere a plain line now and then."""

import sys
import time
from collections.abc import Iterable, Iterator

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
) -> "tqdm | _Lines":
    """Shows on stderr how much of some work is done.

    Args:
        task: The text before the figures.
        total: The number of items; None if unknown.
        unit: The unit of the figures, such as ` images`; `B` for bytes.
        items: Iterated over by iterating over the result; None to call `update` instead.
        initial: The number of items that an earlier run has finished.
        delay: Seconds before a bar appears.

    Returns:
        A context that can be iterated over, or has `update(count)`.
    """
    form = {"initial": initial, "unit": unit, "unit_scale": unit == "B"}
    if sys.stderr.isatty():
        return tqdm(items, task, total, delay=delay, **form)
    return _Lines(items, {"prefix": task, "total": total, **form})


class _Lines:
    """Prints a line at most every `LINE_SECONDS`."""

    def __init__(self, items: Iterable | None, form: dict[str, object]) -> None:
        self._items, self._form, self._done = items, form, form["initial"]
        self._started = self._shown = time.monotonic()

    def __iter__(self) -> Iterator:
        for item in self._items:
            yield item
            self.update()

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: int = 1) -> None:
        """Adds to the number of finished items."""
        self._done += count
        now = time.monotonic()
        if now - self._shown >= LINE_SECONDS:
            self._shown = now
            line = tqdm.format_meter(self._done, elapsed=now - self._started, ncols=0, **self._form)
            print(line, file=sys.stderr, flush=True)
