"""Errors that a user can mend: one line, exit code 1, no traceback."""

import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from absl import flags

SHOWN_PROBLEMS = 20
INTERRUPTED = 130  # what a shell reports for Ctrl-C: 128 + SIGINT
NOBODY_READS = 141  # and where output goes to a process that has ended: 128 + SIGPIPE


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


def run_command(
    define: Callable[[flags.FlagValues], None],
    main: Callable[[flags.FlagValues], None],
    argv: Sequence[str] | None = None,
    description: str | None = None,
    positional: str | None = None,
) -> None:
    """Parses a command line, runs `main` on its flags, and exits.

    Flags live in an object of their own rather than in `absl.flags.FLAGS`, so that commands can be
    imported side by side.

    Args:
        define: Adds the command's flags to an empty `FlagValues`.
        main: The command; it raises `UserError` for what the user can mend.
        argv: The command line, the program's name first. Default: `sys.argv`.
        description: The first line of `--help`.
        positional: A flag that may be given without its name, as the one word among the flags;
            where its value is a list, as all of them.

    Raises:
        SystemExit: 0 when done, 1 with one line on stderr after a `UserError` or a wrong flag,
            130 after Ctrl-C, 141 when what the output is piped to has ended.
    """
    argv = list(sys.argv if argv is None else argv)
    values = flags.FlagValues()
    define(values)
    try:
        if any(argument in ("-h", "--help", "-help", "--helpfull") for argument in argv[1:]):
            print(description or main.__doc__)
            print(values.main_module_help() or values.get_help(), flush=True)
            raise SystemExit(0)
        unused = values(argv)[1:]
        if positional and unused:
            if isinstance(values[positional].value, list):
                values[positional].value, unused = unused, []
            else:
                values[positional].value = unused.pop(0)
        if unused:
            raise UserError(f"unexpected argument '{unused[0]}': flags are given as --name=value")
        main(values)
        sys.stdout.flush()
    except BrokenPipeError:  # such as of `... | head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(NOBODY_READS) from None
    except (UserError, flags.Error) as error:
        message = " ".join(str(error).split())
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    raise SystemExit(0)
