"""Computes the numbers that the published repository states, and compares them.

    python -m slim.reproduce

takes the authors' features from --feature_dir, or fetches them from Google Drive, and prints a
table: the accuracy of the linear classifier on CUB-200-2011 and 21 Earth Mover's Distances between
domains.

A distance agrees if it has the published digits after the rounding of the published solver, which
rounds the weights of the classes to millionths. The accuracy agrees within 0.15 percentage points.
The exit code is 1 if a number disagrees or if its features are missing.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError, warn
from slim.weights.catalogue import ADDRESS, FEATURES
from slim.weights.fetching import provide_files


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.string("feature_dir", "./feature/", "The folder with the authors' features.")
    define.string("address", ADDRESS, "The address of the features; {id} is their Google Drive id.")


def main(values: flags.FlagValues) -> None:
    """Compares the published numbers with those computed here."""
    from slim.transfer import reproduction

    folder = Path(values.feature_dir)
    if reproduction.find_missing(folder):
        try:
            provide_files(FEATURES, folder, values.address)
        except UserError as error:
            warn(str(error))  # other numbers may have all that they need
    reproductions = reproduction.reproduce(folder)
    print(reproduction.format_table(reproductions), flush=True)
    reproduction.require_agreement(reproductions, folder)


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
