"""Errors that a user can fix: one line, exit code 1, no traceback."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches

SHOWN_NAMES, SHOWN_PROBLEMS = 3, 20


class UserError(Exception):
    """An error that a user can fix.

    Its message is one line that says where the problem is, what was found, what was expected, and
    what to do.
    """

    def _render_traceback_(self) -> list[str]:
        """Returns the lines that a notebook shows instead of a traceback."""
        return [f"error: {self}"]


def did_you_mean(name: str, known: Sequence[str], *, otherwise: str | None = None) -> str:
    """Returns the end of an error about an unknown name: similar names, `otherwise` all names."""
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return otherwise or f"known: {', '.join(known)}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Returns a number with its noun, whose plural ends in `s` by default."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def count_some(what: str, names: Sequence[object]) -> str:
    """Returns a phrase with the number of names and the first few of them."""
    shown = [str(name) for name in names[:SHOWN_NAMES]] + ["..."] * (len(names) > SHOWN_NAMES)
    return f"{what} ({len(names)}): {', '.join(shown)}"


def show_problems(problems: Sequence[object]) -> None:
    """Prints the first 20 problems to stderr, one per line, and the number of the others."""
    for problem in problems[:SHOWN_PROBLEMS]:
        print(problem, file=sys.stderr)
    if len(problems) > SHOWN_PROBLEMS:
        print(f"... and {len(problems) - SHOWN_PROBLEMS} more", file=sys.stderr)


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
