"""The phases of a slow start, with their times."""

import time


class Phases:
    """Says which phase begins, and how long the previous one took.

    Args:
        phase: The first phase, such as "building the graph".
    """

    def __init__(self, phase: str) -> None:
        self._begin(phase, "")

    def next(self, phase: str) -> None:
        """Ends a phase and begins the next one."""
        self._begin(phase, f"{self._took()}; ")

    def end(self) -> None:
        """Ends the last phase; has no effect after it."""
        if self._phase:
            print(self._took(), flush=True)
            self._phase = None

    def _begin(self, phase: str, previous: str) -> None:
        print(f"{previous}{phase} ...", flush=True)
        self._phase, self._time = phase, time.monotonic()

    def _took(self) -> str:
        return f"{self._phase} took {time.monotonic() - self._time:.1f} s"
