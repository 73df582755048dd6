"""Runs `./demo.sh` with several seeds, and prints how its claims vary.

    python -m demo.seeds --seeds=8 --full_seeds=4 --num_workers=2

Each seed has a folder with links to the files of the project, such as `runs/seed_1`, and its own
checkpoints and features; the toy datasets are shared. The table is also written to
`runs/claims.md`. Finished seeds are skipped; interrupted ones resume. Ctrl-C ends the demos, whose
trainings save a checkpoint.
"""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import IO, Any, NamedTuple

from absl import flags

from demo.claims import CLAIMS, DATA, FORMS, SOURCES, TARGETS, read_claims
from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.common.files import make_folder, make_link, write_whole
from slim.common.tables import Table

ROOT = Path(__file__).absolute().parent.parent
OWN = ("data", "checkpoints", "feature", "study")  # folders that each demo writes
LOG = "demo.log"
SHARDS = 4  # as in demo.sh
LOCK_SECONDS = 5  # between attempts to lock the log of a demo


class Demo(NamedTuple):
    """A run of the demo with a seed in a folder."""

    seed: int
    full: bool
    folder: Path

    @property
    def claims(self) -> dict[str, dict[str, Any]] | None:
        """The claims by key, None if the demo has not finished."""
        return read_claims(self.folder / CLAIMS, full=self.full)


def define_flags(values: flags.FlagValues) -> None:
    define = FlagSet(values)
    define.integer("seeds", 8, "Number of seeds, from 1.", 2)
    define.integer("full_seeds", 4, "Number of these, the first ones, with ./demo.sh --full.", 0)
    define.string("folder", "./runs", "Receives a folder per seed.")
    define.integer("num_workers", 2, "Demos to run in parallel, each on its share of the cores.", 1)


def main(values: flags.FlagValues) -> None:
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
        asyncio.run(run_demos(to_do, values.num_workers))
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
    names = [*SOURCES, *TARGETS]
    convert = ["slim.convert_dataset", f"--num_shards={SHARDS}"]
    for command in (
        ["demo.toy", f"--domains={','.join(names)}"],
        *([*convert, f"--dataset_name={name}"] for name in names),
    ):
        command = [sys.executable, "-m", *command, f"--dataset_dir={folder}"]
        if subprocess.run(command, cwd=ROOT).returncode:
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
        make_link(link, target, "set --folder to a folder on another file system")


async def run_demos(demos: Sequence[Demo], num_workers: int) -> None:
    workers = asyncio.Queue()
    for cores in share_cores(num_workers):
        workers.put_nowait(cores)

    async def work(demo: Demo) -> None:
        cores = await workers.get()
        try:
            with (demo.folder / LOG).open("a") as log:
                await run_demo(demo, cores, log)
        finally:
            workers.put_nowait(cores)

    # With return_exceptions, one cancelled task does not end the wait for the others.
    for error in await asyncio.gather(*map(work, demos), return_exceptions=True):
        if error:
            raise error


def share_cores(num_workers: int) -> list[set[int]]:
    """Returns the cores of each worker; workers share a core if there are too few."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [
        set(cores[worker::num_workers] or cores[worker % len(cores) :][:1]) if cores else set()
        for worker in range(num_workers)
    ]


async def run_demo(demo: Demo, cores: set[int], log: IO[str]) -> None:
    """Runs a demo on some cores, and appends its output to a file."""
    # The processes of the demo inherit this lock. If a call of this command was killed, the next
    # one waits for the demo that it left behind.
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        await asyncio.sleep(LOCK_SECONDS)
    if demo.claims is not None:
        return
    command = ["./demo.sh", *["--full"] * demo.full]
    print(f"seed {demo.seed}: {' '.join(command)}, {log.name}", flush=True)
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=demo.folder,
        env={**os.environ, "SEED": str(demo.seed)},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        # Ctrl-C in a terminal would reach training twice, which ends it without a checkpoint.
        start_new_session=True,
    )
    with suppress(ProcessLookupError):  # it has ended
        if cores:
            os.sched_setaffinity(process.pid, cores)
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        print(f"seed {demo.seed}: interrupted, training saves a checkpoint", flush=True)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        await process.wait()
        raise
    print(f"seed {demo.seed}: {f'failed with exit code {code}' if code else 'done'}", flush=True)


def claims_table(found: Sequence[dict[str, dict[str, Any]]]) -> Table:
    """Returns a table of claims over the seeds, given the claims of each seed by key."""
    header = ["claim", "mean", "SD", "smallest", "largest", "margin / SD", "true", "verdicts"]
    rows = []
    for key, first in {key: claim for claims in found for key, claim in claims.items()}.items():
        claims = [claims[key] for claims in found if key in claims]
        values, margins = ([claim[name] for claim in claims] for name in ("value", "margin"))
        form = FORMS[first["unit"]]
        spread, noise = (stdev(numbers) if len(claims) > 1 else 0 for numbers in (values, margins))
        verdicts = Counter(claim["verdict"] for claim in claims)
        rows.append(
            [
                f"{first['statement']} ({first['unit']})",
                f"{mean(values):{form}}",
                f"{spread:{form.removeprefix('+')}}" if spread else "-",
                f"{min(values):{form}}",
                f"{max(values):{form}}",
                f"{mean(margins) / noise:.1f}" if noise else "-",
                f"{sum(margin >= 0 for margin in margins)} of {len(claims)}",
                ", ".join(f"{times} {verdict}" for verdict, times in verdicts.most_common()),
            ]
        )
    return Table(header, rows, numeric=range(1, 7))


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
