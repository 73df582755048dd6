"""The command that fetches inat_minival.txt, the images of iNaturalist 2017 that validate."""

from functools import partial
from pathlib import Path

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.datasets.prepare.archives import MINIVAL
from slim.datasets.prepare.minival import fetch_minival, read_minival


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    FlagSet(values).string("path", f"./{MINIVAL.name}", "The list: fetched, or checked if there.")


def main(values: flags.FlagValues) -> None:
    """Fetches the list of iNaturalist 2017's validation images, or checks the one there."""
    path = Path(values.path)
    fetch_minival(path)
    print(f"{path}: {len(read_minival(path)):,} images, as published")


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
