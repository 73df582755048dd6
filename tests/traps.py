"""Files that are traps: a process that opens `FILE` waits until `FILE.trap`, a named pipe, closes.

Importing this module installs the traps in the process; as `sitecustomize`, in every Python. See
`tests.datasets.conftest.Trap`.
"""

import os
import sys


def _wait(event: str, arguments: tuple) -> None:
    """Implements an audit hook."""
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        trap = f"{os.fspath(arguments[0])}.trap"
        if os.path.exists(trap):  # noqa: PTH110, pathlib may not be imported yet
            with open(trap, "rb") as pipe:  # noqa: PTH123
                pipe.read()


sys.addaudithook(_wait)
