"""Fine-tuning in a transfer study by the commands of training and evaluation, each a process."""

import asyncio
import fcntl
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import IO, Any

from absl import flags

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.registry import get_dataset
from slim.evaluation.predictions import read_results
from slim.training.flags import define_training_flags
from slim.transfer.study.cells import Cell, Cells
from slim.transfer.study.settings import StudySettings
from slim.transfer.study.sources import StudySource, Target

EVAL = "eval"  # folder of evaluation in the folder of training
EPOCHS = 30  # as in the published recipe
# Includes AuxLogits. No other variable of any network has such a name.
CLASSIFIERS = "Logits,logits"
CHOSEN = ("train_dir", "dataset_dir", "dataset_name", "checkpoint_path", "max_number_of_steps")
# Flags of training that evaluation needs, too.
SHARED = ("preprocessing_name", "labels_offset", "moving_average_decay", "precision", "xla")
PYTHON = sys.executable
LOCK = ".study.lock"  # in the folder of a training
LOCK_SECONDS = 1  # between two attempts


@dataclass(frozen=True)
class Training:
    """A network to fine-tune and to evaluate."""

    cell: Cell
    train_dir: Path  # for checkpoints, log.txt, eval.txt, and results in eval/
    steps: int
    num_clones: int
    train_flags: Sequence[str]
    eval_flags: Sequence[str]


def plan_trainings(
    sources: Sequence[StudySource],
    targets: Sequence[Target],
    study: StudySettings,
) -> list[Training]:
    """Returns the fine-tuning of each source's network on each target.

    Raises:
        UserError: A flag is invalid, or a target has no shards.
    """
    steps = [int(number) for number in study.fine_tune_steps] or [None]
    steps = steps * len(targets) if len(steps) == 1 else steps
    return [
        plan_training(source, target, study, steps=number)
        for source in sources
        for target, number in zip(targets, steps, strict=True)
    ]


def plan_training(
    source: StudySource,
    target: Target,
    study: StudySettings,
    *,
    steps: int | None,
) -> Training:
    """Returns the fine-tuning of all layers of a network, see `plan_trainings`.

    The learning rate decays linearly over all steps. Other flags have the defaults of training.
    """
    defaults = [
        f"--model_name={source.settings.model_name}",
        f"--batch_size={study.batch_size}",
        f"--train_image_size={source.settings.image_size}",
        f"--checkpoint_exclude_scopes={CLASSIFIERS}",
        "--learning_rate_decay_type=polynomial",
    ]
    if (preprocessing := source.settings.preprocessing) != "inception":
        defaults.append(f"--preprocessing_name={preprocessing}")
    chosen, given = parse_training_flags(defaults, study.fine_tune_flags)
    num_images = get_dataset(target.name, "train", study.dataset_dir).num_samples
    get_dataset(target.name, "validation", study.dataset_dir)  # fails if there is none
    steps = steps or math.ceil(EPOCHS * num_images / chosen.batch_size)
    decay = f"--num_epochs_per_decay={steps * chosen.batch_size / num_images}"
    dataset = f"--dataset_name={target.name}"
    train = [*defaults, decay, *given, dataset, f"--max_number_of_steps={steps}"]
    evaluate = [
        f"--model_name={chosen.model_name}",
        dataset,
        f"--eval_image_size={chosen.train_image_size}",
        f"--batch_size={chosen.batch_size}",
        *(f"--{flag}={chosen[flag].value}" for flag in SHARED if chosen[flag].present),
    ]
    settings = {
        "checkpoint_hash": source.settings.checkpoint_hash,
        "lists": target.hashes,
        "train": train,
        "evaluate": evaluate,
    }
    cell = Cell("fine_tuned", source.name, target.name, settings)
    # The key keeps a run with another checkpoint or other flags from resuming this one.
    folder = Path(study.output_dir, "fine_tuned", source.name, f"{target.name}-{cell.key}")
    train_flags = [f"--train_dir={folder}", f"--checkpoint_path={source.checkpoint}"]
    eval_flags = [f"--eval_dir={folder / EVAL}", f"--checkpoint_path={folder}"]
    data = f"--dataset_dir={study.dataset_dir}"
    return Training(
        cell,
        folder,
        steps,
        chosen.num_clones,
        [*train, data, *train_flags],
        [*evaluate, data, *eval_flags, "--max_number_of_evaluations=1"],
    )


def parse_training_flags(defaults: Sequence[str], text: str) -> tuple[flags.FlagValues, list[str]]:
    """Parses flags of training, given as on a command line, after defaults.

    Returns:
        The values of all flags, and the given flags one by one.

    Raises:
        UserError: A flag is unknown, invalid, or chosen by the study.
    """
    values = flags.FlagValues()
    define_training_flags(values)
    try:
        given = shlex.split(text)
        rest = values(["train", *defaults, *given])[1:]
    except (flags.Error, ValueError) as error:
        raise UserError(f"--fine_tune_flags: {error}") from error
    if rest:
        raise UserError(f"--fine_tune_flags: unexpected '{rest[0]}': pass flags as --name=value")
    for name in CHOSEN:
        if values[name].present:
            to_do = "give --fine_tune_steps" if name == "max_number_of_steps" else "leave it out"
            raise UserError(f"--fine_tune_flags: --{name} is chosen by the study; {to_do}")
    return values, given


def fine_tune(cells: Cells, trainings: Sequence[Training], num_workers: int) -> None:
    """Fine-tunes and evaluates networks.

    On Ctrl-C or SIGTERM, each training saves a checkpoint, from which the next run resumes.
    """
    to_do = [training for training in trainings if not cells.find(training.cell)]
    if to_do:
        try:
            asyncio.run(_fine_tune(cells, to_do, num_workers))
        except asyncio.CancelledError:
            raise SystemExit(128 + signal.SIGTERM) from None


async def _fine_tune(cells: Cells, trainings: Sequence[Training], num_workers: int) -> None:
    stop = asyncio.current_task().cancel
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    shares = share_gpus(trainings[0].num_clones)
    workers = asyncio.Queue()
    for _, gpus in zip(range(num_workers), cycle(shares), strict=False):
        workers.put_nowait(gpus)

    async def work(training: Training) -> None:
        gpus = await workers.get()
        try:
            cells.add(training.cell, await _train_and_evaluate(training, gpus))
        except UserError as error:
            cells.fail(training.cell, error)
        finally:
            workers.put_nowait(gpus)

    # With return_exceptions, one cancelled task does not end the wait for the others.
    for error in await asyncio.gather(*map(work, trainings), return_exceptions=True):
        if error:
            raise error


def share_gpus(num_clones: int) -> list[str | None]:
    """Returns values of `CUDA_VISIBLE_DEVICES` that share the GPUs of this process among workers.

    Args:
        num_clones: GPUs per worker.

    Returns:
        Disjoint shares, or a single None if there are not enough GPUs for two workers.
    """
    count = len(tf.config.list_physical_devices("GPU"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(gpu) for gpu in range(count)] if visible is None else visible.split(",")[:count]
    starts = range(0, count - num_clones + 1, num_clones)
    shares = [",".join(gpus[start : start + num_clones]) for start in starts]
    return shares if len(shares) > 1 else [None]


async def _train_and_evaluate(training: Training, gpus: str | None) -> dict[str, Any]:
    """Trains or resumes, evaluates the last checkpoint, and returns the result."""
    folder = training.train_dir
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    # Training locks the folder itself, once it has started. This lock is held from before on.
    with (folder / LOCK).open("w") as lock:
        await _acquire(lock, training.cell)
        place = f" on GPU {gpus}" if gpus else ""
        print(f"{training.cell}: {training.steps} steps{place}, {log}", flush=True)
        started = time.monotonic()
        run = partial(_run, lock=lock, gpus=gpus)
        with log.open("a") as output:
            await run("slim.train_image_classifier", training.train_flags, output)
        with (folder / "eval.txt").open("w") as output:
            await run("slim.eval_image_classifier", training.eval_flags, output)
        seconds = round(time.monotonic() - started, 1)
    results = read_results(folder / EVAL)
    _remove_older_checkpoints(folder, results["step"])
    return {
        "accuracy": results["accuracy"],
        "recall_5": results["recall_5"],
        "images": results["num_images"],
        "step": results["step"],
        "seconds": seconds,
        "train_dir": str(folder),
    }


async def _acquire(lock: IO[str], cell: Cell) -> None:
    """Waits for a training that a killed study has left running, which inherited the lock."""
    waiting = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not waiting:
                print(f"{cell}: waiting for the training that an earlier run started", flush=True)
            waiting = True
            await asyncio.sleep(LOCK_SECONDS)


async def _run(
    module: str, arguments: Sequence[str], output: IO[str], *, lock: IO[str], gpus: str | None
) -> None:
    """Runs a command; stops it if this task is cancelled.

    Raises:
        UserError: The command failed; has the last line of its output.
    """
    process = await asyncio.create_subprocess_exec(
        *(PYTHON, "-m", module, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        # Ctrl-C in a terminal would reach it twice, and the second ends it without a checkpoint.
        start_new_session=True,
        pass_fds=[lock.fileno()],
        env={**os.environ, **({"CUDA_VISIBLE_DEVICES": gpus} if gpus else {})},
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
        text = Path(output.name).read_text(errors="replace")
        lines = text.strip().splitlines() or [f"exit code {code}"]
        reason = lines[-1].removeprefix("error: ") if code == 1 else f"exit code {code}"
        raise UserError(f"{reason} ({output.name})")


def _remove_older_checkpoints(folder: Path, step: int) -> None:
    """Keeps only the checkpoint of a step, because five per training would fill disks."""
    for path in folder.glob("model.ckpt-*"):
        if not path.name.startswith(f"model.ckpt-{step}."):
            path.unlink()
