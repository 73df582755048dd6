r"""Kills commands at random moments, reruns them, and compares the results with undisturbed ones.

    python -m tests.kills --kills=20                # kill -9, of all kinds of commands
    python -m tests.kills --together --kills=5      # two of each command at once in one folder

A command is killed before a random one of its file operations or at a random moment, alone or
with its whole group of processes, once or several times in a row. The exit code is 1 if a rerun
failed or a result differs. `--seed` and `--first` repeat a trial.
"""

import shutil
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from absl import flags

from slim.common.command_line import FlagSet, check_words, run_command
from slim.common.errors import UserError

if TYPE_CHECKING:
    from tests.kills.kinds import Inputs, Kind


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command."""
    define = FlagSet(values)
    define.words("kinds", [], "Kinds of commands, comma-separated. Default: all.")
    define.integer("kills", 20, "Kills of each kind; with --together: trials.", 1)
    define.integer("in_a_row", 4, "The most kills before a rerun to the end.", 1)
    define.boolean("together", False, "Start two of each command at once instead of killing it.")
    define.integer("seed", 0, "Seed of the moments.")
    define.integer("first", 0, "The first trial.", 0)
    define.integer("num_images", 100, "Training images to add to the first 30.", 0)
    define.integer("steps", 250, "Steps of training.", 1)
    define.string("folder", None, "Folder for results that differ. Default: a temporary one.")


def main(values: flags.FlagValues) -> None:
    """Kills commands and compares the results of their reruns with undisturbed ones."""
    from tests.kills.kinds import all_kinds, make_inputs
    from tests.loopback import Loopback

    scratch = Path(values.folder or tempfile.mkdtemp(prefix="kills-"))
    kinds = {kind.name: kind for kind in all_kinds(values.steps)}
    if values.together:
        del kinds["two_workers"]  # the worker of a chief that is refused waits for minutes
    if values.kinds:
        check_words("kinds", values.kinds, list(kinds))
    failed = []
    with Loopback() as server:
        inputs = make_inputs(scratch / "inputs", server, values.num_images)
        for name in values.kinds or kinds:
            if not try_kind(kinds[name], inputs, scratch / name, values):
                failed.append(name)
    if failed:
        raise UserError(f"differences after {', '.join(failed)}; all files are in {scratch}")
    if not values.folder:
        shutil.rmtree(scratch)


def try_kind(kind: "Kind", inputs: "Inputs", folder: Path, values: flags.FlagValues) -> bool:
    """Makes the trials of a kind, prints a line, and returns whether there was no difference."""
    from tests.kills.running import Runs, run_undisturbed, try_kills, try_together

    started = time.monotonic()
    undisturbed = run_undisturbed(kind, inputs, folder / "undisturbed")
    trial, done, wrong, reruns = values.first, 0, 0, 0
    seen: Counter[str] = Counter()
    while done < values.kills:
        chance = Random(f"{values.seed} {kind.name} {trial}")
        runs = Runs(kind, inputs, folder / f"{trial:03d}")
        try:
            if values.together:
                found, differences = try_together(runs, undisturbed, chance)
                happened = [found]
            else:
                most = min(values.in_a_row, values.kills - done)
                happened, more, differences = try_kills(runs, undisturbed, chance, most)
                reruns += more
        except AssertionError as error:
            happened, differences = ["a run failed"], [str(error)]
        seen.update(text.split(" (")[0] for text in happened)
        done += len(happened)
        if differences:
            wrong += 1
            how = "; ".join(happened) or "no kill"
            text = "\n".join(differences)
            print(f"{kind.name}, trial {trial}: {how}\n{text}", file=sys.stderr, flush=True)
        else:
            for path in folder.glob(f"{trial:03d}*"):
                shutil.rmtree(path)
        trial += 1
    counts = ", ".join(f"{number} {text}" for text, number in sorted(seen.items()))
    trials = f"{trial - values.first} trials" + ("" if values.together else f", {reruns} reruns")
    seconds = time.monotonic() - started
    result = f"{wrong} with differences" if wrong else "no difference"
    print(f"{kind.name}: {trials} ({counts}), {result}, {seconds:.0f} s", flush=True)
    return not wrong


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
