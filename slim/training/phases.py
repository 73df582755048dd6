"""The phases of a slow start, with their times."""

import time


class Phases:
    """Prints which phase begins, and how long the previous one took."""

    def __init__(self) -> None:
        self._phase: str | None = None

    def begin(self, phase: str | None) -> None:
        """Ends the previous phase, if any, and begins another one; None begins none."""
        if not (phase or self._phase):
            return
        now = time.monotonic()
        parts = [f"{self._phase} took {now - self._begun:.1f} s"] if self._phase else []
        parts += [f"{phase} ..."] if phase else []
        print("; ".join(parts), flush=True)
        self._phase, self._begun = phase, now
