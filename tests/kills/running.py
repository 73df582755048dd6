"""Kills commands or starts them twice, and compares the results with undisturbed ones."""

import os
import re
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

from slim.common.compat import tf
from tests.kills.kinds import OUT, Inputs, Kind
from tests.support import POLL, TIMEOUT, Process

IN_USE = r"error: .* in use by .*"
PATIENCE = 10  # seconds, after which the rest of a cluster that lost a process is killed too
SHOWN = 1500  # last characters of an output, in a report
FEW = 10  # file operations, where moments are more interesting


@dataclass(frozen=True)
class Undisturbed:
    """A run that ended by itself.

    Attributes:
        folder: The folder of its results.
        operations: The file operations of each process.
        seconds: The time from the first file operation to the end.
    """

    folder: Path
    operations: Sequence[int]
    seconds: float


class Runs:
    """The runs of the commands of a kind in one folder.

    Args:
        kind: The kind.
        inputs: The inputs of the commands.
        folder: A new folder, for the results and for inputs that the commands change.
    """

    def __init__(self, kind: Kind, inputs: Inputs, folder: Path) -> None:
        self.kind, self.inputs, self.folder = kind, inputs, folder
        self.number = 0
        folder.mkdir(parents=True)
        kind.prepare(inputs, folder)

    def start(
        self, kill_at: Sequence[int] = (), whole_group: bool = False
    ) -> tuple[list[Process], list[Path]]:
        """Starts the commands; `kill_at` has the number of a file operation for each or 0.

        Returns:
            The processes, and files that appear at their first file operations.
        """
        self.number += 1
        commands = self.kind.commands(self.inputs, self.folder)
        processes, begun = [], []
        for index, command in enumerate(commands):
            prefix = self.folder / f"{self.number:02d}.{index}"
            environment = {
                **self.inputs.environment,
                "FOLDER": str(self.folder / OUT),
                "KILL_AT": str(kill_at[index] if kill_at else 0),
                "WHOLE_GROUP": "1" if whole_group else "",
                "BEGUN": f"{prefix}.begun",
                "REPORT": f"{prefix}.operations",
            }
            log = prefix.with_name(f"{prefix.name}.log")
            processes.append(Process("tests.kills.victim", *command, log=log, env=environment))
            begun.append(Path(environment["BEGUN"]))
        return processes, begun

    def finish(self) -> int:
        """Runs the commands until they succeed, and returns the number of runs.

        Raises:
            AssertionError: A command fails.
        """
        end = time.monotonic() + TIMEOUT
        for tried in count(1):
            processes, _ = self.start()
            codes = [process.wait() for process in processes]
            if not any(codes):
                return tried
            output = "".join(process.output[-SHOWN:] for process in processes)
            assert re.search(IN_USE, output) and "Traceback" not in output, output
            assert time.monotonic() < end, f"still in use after {tried} runs: {output}"


def run_undisturbed(kind: Kind, inputs: Inputs, folder: Path) -> Undisturbed:
    """Runs the commands of a kind once."""
    runs = Runs(kind, inputs, folder)
    processes, begun = runs.start()
    wait_for_operation(processes, begun)
    started = time.monotonic()
    for process in processes:
        assert process.wait() == 0, process.output[-SHOWN:]
    seconds = time.monotonic() - started
    reports = [folder / f"01.{index}.operations" for index in range(len(processes))]
    return Undisturbed(folder, [int(path.read_text()) for path in reports], seconds)


def wait_for_operation(processes: Sequence[Process], begun: Sequence[Path]) -> None:
    """Waits for the first file operation of any process, or for the end of one."""
    while not any(path.exists() for path in begun) and all(p.code is None for p in processes):
        time.sleep(POLL)


def kill(runs: Runs, undisturbed: Undisturbed, chance: Random) -> str | None:
    """Starts the commands and kills one or all, at a file operation or at a moment.

    Returns:
        A description of the kill; None if the commands ended before it.
    """
    number = len(undisturbed.operations)
    victims = [chance.randrange(number)] if chance.random() < 0.7 else list(range(number))
    whole_group = chance.random() < 0.5
    victim = "group" if whole_group else "main process"
    if chance.random() < (0.5 if max(undisturbed.operations) > FEW else 0.2):
        kill_at = [
            chance.randint(1, most) if most and index in victims else 0
            for index, most in enumerate(undisturbed.operations)
        ]
        processes, _ = runs.start(kill_at, whole_group)
        description = f"{victim} at a file operation ({kill_at})"
    else:
        delay = chance.uniform(0, undisturbed.seconds)
        processes, begun = runs.start()
        wait_for_operation(processes, begun)
        time.sleep(delay)
        description = f"{victim} at a moment (processes {victims} after {delay:.3f} s)"
        for index in victims:
            with suppress(ProcessLookupError):
                (os.killpg if whole_group else os.kill)(processes[index].pid, signal.SIGKILL)
    for process in processes:
        end_after_kill(process)
    return description if -signal.SIGKILL in [process.code for process in processes] else None


def end_after_kill(process: Process) -> None:
    """Waits for the end of a process after it or another one of a cluster was killed."""
    end = time.monotonic() + PATIENCE
    while process.code is None and time.monotonic() < end:
        time.sleep(POLL)
    process.kill()  # one that waits for another to join again
    output = process.output
    assert process.code in (0, 1, -signal.SIGKILL) and "Traceback" not in output, output[-SHOWN:]


def copy_latest(runs: Runs, folder: Path) -> Runs | None:
    """Returns runs in a new folder that has only the latest checkpoint of other runs."""
    latest = tf.train.latest_checkpoint(str(runs.folder / OUT))
    if latest is None:
        return None
    twin = Runs(runs.kind, runs.inputs, folder)
    (folder / OUT).mkdir(exist_ok=True)
    for path in Path(latest).parent.glob(f"{Path(latest).name}.*"):
        shutil.copy(path, folder / OUT)
    (folder / OUT / "checkpoint").write_text(f'model_checkpoint_path: "{Path(latest).name}"\n')
    return twin


def try_kills(
    runs: Runs, undisturbed: Undisturbed, chance: Random, most: int
) -> tuple[list[str], int, list[str]]:
    """Kills the commands up to `most` times in a row, reruns them, and compares the results.

    Returns:
        The kills, the number of reruns, and the differences.

    Raises:
        AssertionError: A run fails.
    """
    kills = []
    for _ in range(chance.randint(1, most)):
        description = kill(runs, undisturbed, chance)
        if description is None:
            break
        kills.append(description)
    expected = undisturbed.folder
    if runs.kind.resumes:
        twin = copy_latest(runs, runs.folder.with_name(f"{runs.folder.name}_twin"))
        if twin is not None:
            twin.finish()
            expected = twin.folder
    reruns = runs.finish()
    return kills, reruns, runs.kind.compare(expected, runs.folder)


def try_together(runs: Runs, undisturbed: Undisturbed, chance: Random) -> tuple[str, list[str]]:
    """Starts the commands twice at almost the same time.

    Returns:
        How the second ones ended, and the differences from an undisturbed result.
    """
    processes, begun = runs.start()
    if chance.random() < 0.5:
        wait_for_operation(processes, begun)
        time.sleep(chance.uniform(0, undisturbed.seconds))
    others, _ = runs.start()
    codes = [[process.wait() for process in both] for both in (processes, others)]
    differences = []
    for process in (*processes, *others):
        errors = re.findall("^error: .*", process.output, re.M)
        if process.code not in (0, 1) or "Traceback" in process.output or len(errors) > 1:
            differences.append(f"code {process.code}: {process.output[-SHOWN:]}")
    worked = [not any(part) for part in codes]
    if not any(worked):
        outputs = [process.output[-SHOWN:] for process in (*processes, *others)]
        differences.append(f"none of them worked: {' | '.join(outputs)}")
    outcome = "both worked" if all(worked) else "one was refused"
    if any(worked):
        differences += runs.kind.compare(undisturbed.folder, runs.folder)
    return outcome, differences
