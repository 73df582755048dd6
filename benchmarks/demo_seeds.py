"""Runs `./demo.sh` with several seeds, and prints how its claims vary.

    python -m benchmarks.demo_seeds --seeds=8 --full_seeds=4 --num_workers=2

Each seed has a folder with links to the files of the project, such as `runs/seed_1`, and its own
checkpoints and features; the toy datasets are shared. The table is also written to
`runs/claims.md`. Finished seeds are skipped; interrupted ones resume.
"""

import fcntl
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from statistics import mean, stdev
from typing import Any, NamedTuple

from absl import flags

from benchmarks.claims import FORMS
from benchmarks.demo import CLAIMS, DATA, SOURCES, TARGETS
from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.common.files import make_folder, write_whole
from slim.common.tables import Table

ROOT = Path(__file__).absolute().parent.parent
OWN = ("data", "checkpoints", "feature", "study")  # folders that each demo writes
LOG = "demo.log"
SHARDS = 4  # as in demo.sh


class Demo(NamedTuple):
    """A run of the demo with a seed in a folder."""

    seed: int
    full: bool
    folder: Path

    @property
    def claims(self) -> dict[str, dict[str, Any]] | None:
        """The claims by key, None if the demo has not finished."""
        path = self.folder / CLAIMS
        found = json.loads(path.read_text("utf-8")) if path.exists() else {"full": False}
        return found.get("claims") if found["full"] >= self.full else None


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command."""
    define = FlagSet(values)
    define.integer("seeds", 8, "Number of seeds, from 1.", 2)
    define.integer("full_seeds", 4, "Number of these that run ./demo.sh --full.", 0)
    define.string("folder", "./runs", "Receives a folder per seed.")
    define.integer("num_workers", 2, "Demos to run in parallel, each on its share of the cores.", 1)


def main(values: flags.FlagValues) -> None:
    """Runs the demos that have not finished, and prints a table of the claims of all."""
    folder = Path(values.folder).absolute()
    make_folder(folder, "folder")
    demos = [
        Demo(seed, seed <= values.full_seeds, folder / f"seed_{seed}")
        for seed in range(1, values.seeds + 1)
    ]
    if to_do := [demo for demo in demos if demo.claims is None]:
        draw_datasets(folder / DATA)
        for demo in to_do:
            link_files(demo.folder, folder)
        run_demos(to_do, values.num_workers)
    found = [demo.claims for demo in demos if demo.claims is not None]
    if found:
        table = str(claims_table(found))
        write_whole(folder / "claims.md", f"{table}\n")
        print(f"\n{table}")
    if failed := [str(demo.folder / LOG) for demo in demos if demo.claims is None]:
        raise UserError(
            f"{len(failed)} of {len(demos)} demos failed: see the end of {', '.join(failed)}, then "
            "run the command again"
        )


def draw_datasets(folder: Path) -> None:
    """Draws and converts the toy datasets unless they exist, because two demos cannot at once."""
    names = ",".join([*SOURCES, *TARGETS])
    python = [sys.executable, "-m"]
    draw = ["slim.datasets.toy", f"--dataset_dir={folder}", f"--domains={names}"]
    commands = [draw] + [
        [
            "slim.convert_dataset",
            f"--dataset_name={name}",
            f"--dataset_dir={folder}",
            f"--num_shards={SHARDS}",
        ]
        for name in names.split(",")
    ]
    for command in commands:
        if subprocess.run([*python, *command], cwd=ROOT).returncode:
            raise UserError(f"the datasets in {folder} could not be made: see the error above")


def link_files(folder: Path, runs: Path) -> None:
    """Makes a copy of the project for one demo, of links to its files and to the datasets."""
    linked = {
        folder / path.name: path
        for path in ROOT.iterdir()
        if path.name not in OWN and path != runs and (path.name[0] != "." or path.name == ".venv")
    }
    (folder / DATA).mkdir(parents=True, exist_ok=True)
    linked |= {folder / DATA / name: runs / DATA / name for name in (*SOURCES, *TARGETS)}
    for link, target in linked.items():
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def run_demos(demos: Sequence[Demo], num_workers: int) -> None:
    """Runs demos in parallel."""
    shares: SimpleQueue[set[int]] = SimpleQueue()
    for share in share_cores(num_workers):
        shares.put(share)
    with ThreadPoolExecutor(num_workers, initializer=_take_cores, initargs=[shares]) as pool:
        for _ in pool.map(run_demo, demos):
            pass


def share_cores(num_workers: int) -> list[set[int]]:
    """Returns the cores of each worker; workers share a core if there are too few."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [
        set(cores[worker::num_workers] or cores[worker % len(cores) :][:1]) if cores else set()
        for worker in range(num_workers)
    ]


def _take_cores(shares: "SimpleQueue[set[int]]") -> None:
    """Restricts this thread, and the processes that it starts, to the next share of the cores."""
    if share := shares.get():
        os.sched_setaffinity(0, share)


def run_demo(demo: Demo) -> None:
    """Runs a demo, and appends its output to `demo.log`."""
    with (demo.folder / LOG).open("a") as log:
        # The processes of the demo inherit this lock. If a call of this command was killed, the
        # next one waits for the demo that it left behind.
        fcntl.flock(log, fcntl.LOCK_EX)
        if demo.claims is not None:
            return
        command = ["./demo.sh", *["--full"] * demo.full]
        print(f"seed {demo.seed}: {' '.join(command)}, {log.name}", flush=True)
        done = subprocess.run(
            command,
            cwd=demo.folder,
            env={**os.environ, "SEED": str(demo.seed)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        outcome = f"failed with exit code {done.returncode}" if done.returncode else "done"
        print(f"seed {demo.seed}: {outcome}", flush=True)


def claims_table(found: Sequence[dict[str, dict[str, Any]]]) -> Table:
    """Returns a table of claims over the seeds.

    Args:
        found: The claims of each seed by key, see `benchmarks.claims.write_claims`.
    """
    header = ["claim", "mean", "SD", "smallest", "largest", "margin / SD", "true", "verdicts"]
    keys = {key: claim for claims in found for key, claim in claims.items()}
    rows = []
    for key, first in keys.items():
        claims = [claims[key] for claims in found if key in claims]
        values, margins = ([claim[name] for claim in claims] for name in ("value", "margin"))
        form = FORMS[first["unit"]]
        cells = [f"{each(values):{form}}" for each in (mean, min, max)]
        spread = stdev(values) if len(values) > 1 else float("nan")
        cells.insert(1, f"{spread:{form.removeprefix('+')}}")
        spread = stdev(margins) if len(margins) > 1 else 0
        true = sum(margin >= 0 for margin in margins)
        verdicts = Counter(claim["verdict"] for claim in claims)
        rows.append(
            [
                f"{first['statement']} ({first['unit']})",
                *cells,
                f"{mean(margins) / spread:.1f}" if spread else "-",
                f"{true} of {len(claims)}",
                ", ".join(f"{times} {verdict}" for verdict, times in verdicts.most_common()),
            ]
        )
    return Table(header, rows, numeric=range(1, 7))


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
