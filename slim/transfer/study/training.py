"""Fine-tuning in a transfer study: through the commands that a user runs, each a process."""

import asyncio
import fcntl
import math
import re
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from absl import flags

from slim import train_image_classifier
from slim.common.errors import UserError
from slim.datasets.registry import get_dataset
from slim.transfer.study.cells import Cell, Cells, StudySource, Target

EPOCHS = 30  # as the published recipe
# AuxLogits among them; no other variable of any network has such a name.
CLASSIFIERS = "Logits,logits"
CHOSEN = ("train_dir", "dataset_dir", "dataset_name", "checkpoint_path", "max_number_of_steps")
# Flags of training that evaluation must have as well.
SHARED = ("preprocessing_name", "labels_offset", "moving_average_decay", "precision", "xla")
LOCK_SECONDS = 1  # between two looks at whether an earlier run has ended


@dataclass(frozen=True)
class Training:
    """A network to fine-tune and to evaluate.

    Attributes:
        cell: What it is for.
        train_dir: Receives checkpoints, `log.txt` and `eval.txt`.
        steps: To train for.
        train_flags: Of `slim.train_image_classifier`.
        eval_flags: Of `slim.eval_image_classifier`.
    """

    cell: Cell
    train_dir: Path
    steps: int
    train_flags: Sequence[str]
    eval_flags: Sequence[str]


def plan_training(
    source: StudySource,
    name: str,
    target: Target,
    dataset_dir: str,
    output_dir: Path,
    steps: int | None,
    batch_size: int,
    user_flags: str,
) -> Training:
    """What it takes to fine-tune a source's network on a target, every layer of it.

    The rate falls linearly to its end over all steps; the other flags are training's own defaults
    (momentum 0.9 and a rate of 0.01), unless given.

    Args:
        source: What to begin with.
        name: The target.
        target: Its lists.
        dataset_dir: The folder that holds the datasets.
        output_dir: Of the study.
        steps: To train for; None for 30 epochs.
        batch_size: Images a step, unless `user_flags` say.
        user_flags: Flags of training, as on a command line.

    Raises:
        UserError: A flag is wrong, or the target's shards are not there.
    """
    model_name, image_size = source.settings.model_name, source.settings.image_size
    defaults = [
        f"--model_name={model_name}",
        f"--batch_size={batch_size}",
        f"--train_image_size={image_size}",
        f"--checkpoint_exclude_scopes={CLASSIFIERS}",
        "--learning_rate_decay_type=polynomial",
    ]
    chosen, given = parse_training_flags(defaults, user_flags)
    num_images = get_dataset(name, "train", dataset_dir).num_samples
    get_dataset(name, "validation", dataset_dir)
    steps = steps or math.ceil(EPOCHS * num_images / chosen.batch_size)
    decay = f"--num_epochs_per_decay={steps * chosen.batch_size / num_images}"
    own = [*defaults, decay, *given, f"--dataset_name={name}", f"--max_number_of_steps={steps}"]
    evaluation = [
        f"--model_name={chosen.model_name}",
        f"--dataset_name={name}",
        f"--eval_image_size={chosen.train_image_size}",
        f"--batch_size={chosen.batch_size}",
        *(f"--{flag}={chosen[flag].value}" for flag in SHARED if chosen[flag].present),
    ]
    settings = {
        "checkpoint_hash": source.settings.checkpoint_hash,
        "lists": {split: target[split].image_list.sha256 for split in target},
        "train": own,
        "evaluate": evaluation,
    }
    cell = Cell("fine_tuned", source.name, name, settings)
    # Another checkpoint or other flags must not go on from what was trained before.
    train_dir = output_dir / "fine_tuned" / source.name / f"{name}-{cell.key}"
    folders = [f"--train_dir={train_dir}", f"--checkpoint_path={source.checkpoint}"]
    data = f"--dataset_dir={dataset_dir}"
    return Training(
        cell,
        train_dir,
        steps,
        [*own, data, *folders],
        [*evaluation, data, f"--checkpoint_path={train_dir}", "--max_number_of_evaluations=1"],
    )


def parse_training_flags(defaults: Sequence[str], text: str) -> tuple[flags.FlagValues, list[str]]:
    """Checks flags of training before any training starts.

    Args:
        defaults: Flags that hold unless others are given.
        text: Those given, as on a command line.

    Returns:
        The values of all flags, and those given one by one.

    Raises:
        UserError: One is unknown, has a wrong value, or is not the user's to give here.
    """
    values = flags.FlagValues()
    train_image_classifier.define_flags(values)
    try:
        given = shlex.split(text)
        rest = values(["train", *defaults, *given])[1:]
    except (flags.Error, ValueError) as error:
        raise UserError(f"--fine_tune_flags: {error}") from error
    if rest:
        raise UserError(f"--fine_tune_flags: unexpected '{rest[0]}', flags are --name=value")
    for name in CHOSEN:
        if values[name].present:
            to_do = "give --fine_tune_steps" if name == "max_number_of_steps" else "leave it out"
            raise UserError(f"--fine_tune_flags: --{name} is chosen by the study; {to_do}")
    return values, given


def fine_tune(trainings: Sequence[Training], cells: Cells, num_workers: int) -> None:
    """Fine-tunes and evaluates what was not done before.

    Ctrl-C and SIGTERM let each training save a checkpoint, from which the next run goes on.

    Args:
        trainings: What to do.
        cells: Receives the results.
        num_workers: Trainings side by side.
    """
    to_do = [training for training in trainings if not cells.find(training.cell)]
    if to_do:
        try:
            asyncio.run(_fine_tune(to_do, cells, num_workers))
        except asyncio.CancelledError:
            raise SystemExit(128 + signal.SIGTERM) from None


async def _fine_tune(trainings: Sequence[Training], cells: Cells, num_workers: int) -> None:
    stop = asyncio.current_task().cancel
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    free = asyncio.Semaphore(num_workers)

    async def work(training: Training) -> None:
        async with free:
            try:
                cells.add(training.cell, await _train_and_evaluate(training))
            except UserError as error:
                cells.fail(training.cell, error)

    await asyncio.gather(*map(work, trainings))


async def _train_and_evaluate(training: Training) -> dict[str, Any]:
    """Trains, or goes on where a run was stopped, and evaluates the last checkpoint.

    Raises:
        UserError: Either ended with an error.
    """
    folder = training.train_dir
    folder.mkdir(parents=True, exist_ok=True)
    log, result = folder / "log.txt", folder / "eval.txt"
    with (folder / ".lock").open("w") as lock:
        await _acquire(lock, training.cell)
        print(f"{training.cell}: {training.steps} steps, {log}", flush=True)
        started = time.monotonic()
        with log.open("a") as file:
            await _run("slim.train_image_classifier", training.train_flags, file, log, lock)
        with result.open("w") as file:
            await _run("slim.eval_image_classifier", training.eval_flags, file, result, lock)
        seconds = round(time.monotonic() - started, 1)
    pattern = r"step (\d+): eval/Accuracy ([\d.]+), eval/Recall_5 ([\d.]+), (\d+) images"
    step, accuracy, recall_5, images = re.search(pattern, result.read_text()).groups()
    _remove_older_checkpoints(folder, int(step))
    return {
        "accuracy": float(accuracy),
        "recall_5": float(recall_5),
        "images": int(images),
        "step": int(step),
        "seconds": seconds,
        "train_dir": str(folder),
    }


async def _acquire(lock: IO[str], cell: Cell) -> None:
    """Waits for a training that a killed study has left behind: it has inherited the lock."""
    waiting = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not waiting:
                print(f"{cell}: waiting for the run that an earlier study began", flush=True)
            waiting = True
            await asyncio.sleep(LOCK_SECONDS)


async def _run(
    module: str, arguments: Sequence[str], output: IO[str], path: Path, lock: IO
) -> None:
    """Runs a command to its end; if this is stopped, the command is told to stop, too.

    Raises:
        UserError: It ended with an error; gives its last line.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        # Ctrl-C in a terminal would reach it twice, and the second ends it without a checkpoint.
        start_new_session=True,
        pass_fds=[lock.fileno()],
    )
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        print("stopping: training saves a checkpoint", flush=True)
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise
    if code:
        lines = path.read_text(errors="replace").strip().splitlines() or [f"exit code {code}"]
        reason = lines[-1].removeprefix("error: ") if code == 1 else f"exit code {code}"
        raise UserError(f"{reason} ({path})")


def _remove_older_checkpoints(folder: Path, step: int) -> None:
    """Leaves the checkpoint of a step: the five of each training would fill disks."""
    for path in folder.glob("model.ckpt-*"):
        if not path.name.startswith(f"model.ckpt-{step}."):
            path.unlink()
