"""Errors that a user can mend: one line, exit code 1, no traceback."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches

SHOWN_PROBLEMS = 20


class UserError(Exception):
    """What is wrong, where, what was expected, and what to do, in one line."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows."""
        return [f"error: {self}"]


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The known names nearest to a mistyped one, else all of them, to end a `UserError` with."""
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"


def show_problems(problems: Sequence[object]) -> None:
    """Prints problems on stderr, a line each: the first 20, and how many more there are."""
    for problem in problems[:SHOWN_PROBLEMS]:
        print(problem, file=sys.stderr)
    if len(problems) > SHOWN_PROBLEMS:
        print(f"... and {len(problems) - SHOWN_PROBLEMS} more", file=sys.stderr)


def warn(text: str) -> None:
    """Writes a warning."""
    print(f"warning: {text}", file=sys.stderr)
