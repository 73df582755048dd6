"""Runs a command that may be killed at one of its file operations.

The arguments are the command's module and flags. Environment variables control the kill; only paths
below `FOLDER` count. `REPORT` receives the number of file operations of the main process once the
command has ended, `BEGUN` appears at the first one, and `KILL_AT` is the number of the operation
before which the main process is killed, or the whole group of processes if `WHOLE_GROUP` is set.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Operations:
    """Counts the file operations below a folder in this process and those that it forks."""

    def __init__(self, folder: str, kill_at: int, whole_group: bool, begun: str) -> None:
        self.count = 0
        self._folder, self._kill_at, self._begun = folder, kill_at, begun
        self._main = os.getpid()
        self._kill = os.killpg if whole_group else os.kill

    def __call__(self, event: str, arguments: tuple) -> None:
        """Receives an audit event of Python before its operation."""
        if event == "open":
            if not arguments[2] & WRITING:
                return
        elif event not in CHANGES:
            return
        paths = [os.fsdecode(a) for a in arguments if isinstance(a, (str, bytes, os.PathLike))]
        if not any(path.startswith(self._folder) for path in paths):
            return
        self.count += 1
        if self.count == 1:
            Path(self._begun).touch()  # is not below the folder
        if self.count == self._kill_at:
            self._kill(self._main, signal.SIGKILL)


def main() -> None:
    """Runs the command in a process group of its own."""
    os.setpgid(0, 0)
    take = os.environ.pop
    operations = Operations(
        take("FOLDER"), int(take("KILL_AT")), bool(take("WHOLE_GROUP")), take("BEGUN")
    )
    sys.executable = os.environ.get("SMALL_PYTHON", sys.executable)
    sys.argv = sys.argv[1:]
    report = Path(take("REPORT"))
    sys.addaudithook(operations)
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        report.write_text(str(operations.count))


if __name__ == "__main__":
    main()
