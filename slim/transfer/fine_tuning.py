"""Fine-tuning in a transfer study by the commands of training and evaluation, each a process."""

import asyncio
import fcntl
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path
from typing import IO, Any

from absl import flags

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.input import get_dataset
from slim.deployment.cluster import find_cluster
from slim.evaluation.predictions import read_results
from slim.transfer.study_steps import Cell, Cells, StudySource, Target

TRAIN = "slim.train_image_classifier"
EVAL = "eval"  # folder of evaluation in the folder of training
EPOCHS = 30  # as in the published recipe
# Includes AuxLogits. No other variable of any network has such a name.
CLASSIFIERS = "Logits,logits"
CHOSEN = ("train_dir", "dataset_dir", "dataset_name", "checkpoint_path", "max_number_of_steps")
# Flags of training that evaluation needs, too.
SHARED = ("preprocessing_name", "labels_offset", "renamed_classes")
SHARED += ("moving_average_decay", "precision", "xla")
PYTHON = sys.executable
LOCK = ".study.lock"  # in the folder of a training
LOCK_SECONDS = 1  # between two attempts


@dataclass(frozen=True)
class Training:
    cell: Cell
    train_dir: Path  # for checkpoints, log.txt, eval.txt, and results in eval/
    steps: int
    num_clones: int
    train_flags: Sequence[str]
    eval_flags: Sequence[str]


def plan_trainings(
    sources: Sequence[StudySource],
    targets: Sequence[Target],
    values: flags.FlagValues,
    define_training_flags: Callable[[flags.FlagValues], None],
) -> list[Training]:
    """Returns the fine-tuning of all layers of each source's network on each target."""
    numbers = [int(number) for number in values.fine_tune_steps] or [None]
    numbers = numbers * len(targets) if len(numbers) == 1 else numbers
    trainings = []
    for source, (target, steps) in product(sources, list(zip(targets, numbers, strict=True))):
        # 1. The flags of training: those of the study, then the user's, which take precedence.
        defaults = [
            f"--model_name={source.settings.model_name}",
            f"--batch_size={values.batch_size}",
            f"--train_image_size={source.settings.image_size}",
            f"--checkpoint_exclude_scopes={CLASSIFIERS}",
            "--learning_rate_decay_type=polynomial",
        ]
        if (preprocessing := source.settings.preprocessing) != "inception":
            defaults.append(f"--preprocessing_name={preprocessing}")
        # They are parsed here already, so that errors come before the first step of the study.
        chosen = flags.FlagValues()
        define_training_flags(chosen)
        own = parse_training_flags(chosen, defaults, values.fine_tune_flags)
        cluster = find_cluster(chosen, os.environ)
        if cluster.master or not cluster.is_alone:
            raise UserError(
                "--fine_tune trains on this machine alone: omit the flags of a cluster in "
                "--fine_tune_flags, and unset TF_CONFIG"
            )
        num_images = get_dataset(target.name, "train", values.dataset_dir).num_samples
        get_dataset(target.name, "validation", values.dataset_dir)  # fails if there is none
        steps = steps or math.ceil(EPOCHS * num_images / (chosen.batch_size * chosen.num_clones))
        # The learning rate decays linearly over all steps.
        decay = f"--num_epochs_per_decay={steps * chosen.batch_size / num_images}"
        dataset = f"--dataset_name={target.name}"
        train = [*defaults, decay, *own, dataset, f"--max_number_of_steps={steps}"]

        # 2. The flags of evaluation follow.
        evaluate = [
            f"--model_name={chosen.model_name}",
            dataset,
            f"--eval_image_size={chosen.train_image_size}",
            f"--batch_size={chosen.batch_size}",
            *(f"--{flag}={chosen[flag].value}" for flag in SHARED if chosen[flag].present),
        ]

        # 3. The result depends on these flags. Paths are added afterwards, so that moved files do
        #    not change its key, which keeps another checkpoint or other flags from resuming it.
        settings = {
            "checkpoint_hash": source.settings.checkpoint_hash,
            "lists": target.hashes,
            "train": [*train],
            "evaluate": [*evaluate],
        }
        cell = Cell("fine_tuned", source.name, target.name, settings)
        folder = Path(values.output_dir, "fine_tuned", source.name, f"{target.name}-{cell.key}")
        data = f"--dataset_dir={values.dataset_dir}"
        train += [data, f"--train_dir={folder}", f"--checkpoint_path={source.checkpoint}"]
        evaluate += [data, f"--eval_dir={folder / EVAL}", f"--checkpoint_path={folder}"]
        evaluate += ["--max_number_of_evaluations=1"]
        trainings.append(Training(cell, folder, steps, chosen.num_clones, train, evaluate))
    return trainings


def parse_training_flags(values: flags.FlagValues, defaults: Sequence[str], text: str) -> list[str]:
    """Parses all flags of training, and returns those of `--fine_tune_flags` one by one."""
    try:
        own = shlex.split(text)
        rest = values(["train", *defaults, *own])[1:]
    except (flags.Error, ValueError) as error:
        raise UserError(f"--fine_tune_flags: {error}") from error
    if rest:
        raise UserError(f"--fine_tune_flags: unexpected '{rest[0]}': pass flags as --name=value")
    for name in CHOSEN:
        if values[name].present:
            to_do = "pass --fine_tune_steps" if name == "max_number_of_steps" else "omit it"
            raise UserError(f"--fine_tune_flags: --{name} is chosen by the study; {to_do}")
    return own


def fine_tune(cells: Cells, trainings: Sequence[Training], num_workers: int) -> None:
    """Fine-tunes and evaluates networks, several at a time, and stores their results."""
    to_do = [training for training in trainings if not cells.find(training.cell)]
    if not to_do:
        return

    async def work(training: Training, workers: asyncio.Queue) -> None:
        gpus = await workers.get()
        try:
            cells.add(training.cell, await _train_and_evaluate(training, gpus))
        except UserError as error:
            cells.fail(training.cell, error)
        finally:
            workers.put_nowait(gpus)

    async def work_on_all() -> None:
        # 1. Ctrl-C and SIGTERM cancel all tasks. Each training then saves a checkpoint, from which
        #    the next run resumes.
        stop = asyncio.current_task().cancel
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        # 2. A worker is a share of the GPUs. Each task takes a free one from the queue.
        workers = asyncio.Queue()
        shares = share_gpus(to_do[0].num_clones)
        for _, gpus in zip(range(num_workers), cycle(shares), strict=False):
            workers.put_nowait(gpus)
        tasks = [work(training, workers) for training in to_do]
        # 3. With return_exceptions, one cancelled task does not end the wait for the others.
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            if error:
                raise error

    try:
        asyncio.run(work_on_all())
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None


def share_gpus(num_clones: int) -> list[str | None]:
    """Returns a value of `CUDA_VISIBLE_DEVICES` per worker; None if all workers share the GPUs."""
    # The shares are disjoint, with a GPU for each clone of a training.
    count = len(tf.config.list_physical_devices("GPU"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(gpu) for gpu in range(count)] if visible is None else visible.split(",")[:count]
    starts = range(0, count - num_clones + 1, num_clones)
    shares = [",".join(gpus[start : start + num_clones]) for start in starts]
    return shares if len(shares) > 1 else [None]


async def _train_and_evaluate(training: Training, gpus: str | None) -> dict[str, Any]:
    folder = training.train_dir
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    with (folder / LOCK).open("w") as lock:
        # 1. Training locks the folder itself, once it has started. This lock is held from before
        #    on. A training that a killed study has left running has inherited it.
        waiting = False
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if not waiting:
                running = "waiting for the training that an earlier run started"
                print(f"{training.cell}: {running}", flush=True)
            waiting = True
            await asyncio.sleep(LOCK_SECONDS)
        # 2. Train and evaluate.
        place = f" on GPU {gpus}" if gpus else ""
        print(f"{training.cell}: {training.steps} steps{place}, {log}", flush=True)
        started = time.monotonic()
        with log.open("a") as output:
            await _run(TRAIN, training.train_flags, output, lock, gpus)
        with (folder / "eval.txt").open("w") as output:
            await _run("slim.eval_image_classifier", training.eval_flags, output, lock, gpus)
        seconds = round(time.monotonic() - started, 1)
    # 3. Keep only the last checkpoint, because five per training would fill disks.
    results = read_results(folder / EVAL)
    for path in folder.glob("model.ckpt-*"):
        if not path.name.startswith(f"model.ckpt-{results['step']}."):
            path.unlink()
    return {
        "accuracy": results["accuracy"],
        "recall_5": results["recall_5"],
        "images": results["num_images"],
        "step": results["step"],
        "seconds": seconds,
        "train_dir": str(folder),
    }


async def _run(
    module: str, arguments: Sequence[str], output: IO[str], lock: IO[str], gpus: str | None
) -> None:
    """Runs a command; stops it if this task is cancelled."""
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
    if code:  # the last line of the output says why
        text = Path(output.name).read_text(errors="replace")
        lines = text.strip().splitlines() or [f"exit code {code}"]
        reason = lines[-1].removeprefix("error: ") if code == 1 else f"exit code {code}"
        raise UserError(f"{reason} ({output.name})")
