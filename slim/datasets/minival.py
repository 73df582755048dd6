"""Fetches inat_minival.txt, the list of images that validate iNaturalist 2017.

    python -m slim.datasets.minival --path=./inat_minival.txt

An existing file is checked and left as it is.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.datasets.prepare.archives import MINIVAL, read_minival


def define_flags(values: flags.FlagValues) -> None:
    FlagSet(values).string("path", f"./{MINIVAL.name}", "The file to fetch, or to check.")


def main(values: flags.FlagValues) -> None:
    path = Path(values.path)
    MINIVAL.fetch(path)
    print(f"{path}: {len(read_minival(path)):,} images, as published")


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
