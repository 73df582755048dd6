"""A conversion, one of whose processes is killed when it renames a file.

Arguments: the beginning of the name of the folder, and the end of the name of the file, that the
renaming leads to; which of them, from 1; "before" or "after" it; the conversion's flags.
"""

import os
import signal
import sys
from pathlib import Path

from slim import convert_dataset as convert

if __name__ == "__main__":
    place, ending, count, moment = sys.argv[1:5]
    main, rename, seen = os.getpid(), Path.replace, 0

    def replace(self: Path, target: Path) -> None:
        global seen
        hit = target.name.endswith(ending) and target.parent.name.startswith(place)
        seen += hit
        if moment == "after":
            rename(self, target)
        if hit and seen == int(count):
            os.kill(main, signal.SIGKILL)
        if moment == "before":
            rename(self, target)

    Path.replace = replace
    convert.command(["convert_dataset.py", *sys.argv[5:]])
