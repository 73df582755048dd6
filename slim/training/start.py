"""The start of a training run: its folder, its last step, its first values."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from slim.checkpoints.finding import find_checkpoint, latest_checkpoint, repair_state
from slim.checkpoints.reading import by_name, check_fits, read_shapes, read_step
from slim.common.compat import slim, tf
from slim.common.files import make_folder, writing_to
from slim.deployment.all_reduce import AllReduce
from slim.deployment.cluster import Cluster
from slim.deployment.replicas import Replicas
from slim.deployment.synchronous import SynchronousReplicas
from slim.training.graph import Averages, RunSettings
from slim.training.networks import classifier_scope, split_scopes


@dataclass(frozen=True, kw_only=True)
class StartSettings:
    """The flags of the same names."""

    checkpoint_path: str | None
    checkpoint_exclude_scopes: str | None = None
    ignore_missing_vars: bool = False


def choose_replicas(cluster: Cluster, sync_replicas: bool, replicas_to_aggregate: int) -> Replicas:
    """Returns the replicas with their synchronization; the flags hold for parameter servers."""
    if cluster.all_reduce:
        return AllReduce(cluster.worker_replicas, cluster.task)
    if sync_replicas and max(cluster.worker_replicas, replicas_to_aggregate) > 1:
        return SynchronousReplicas(cluster.worker_replicas, replicas_to_aggregate, cluster.is_chief)
    return Replicas()


def find_last_step(
    max_number_of_steps: int | None,
    max_number_of_epochs: float | None,
    num_samples: int,
    images_per_step: int,
) -> int | None:
    """Returns the step that completes the steps or the epochs, whichever is first."""
    if max_number_of_epochs is None:
        return max_number_of_steps
    # 1.1 epochs of 50 images are 55 images, not 55.00000000000001.
    images = Fraction(str(max_number_of_epochs)) * num_samples
    return min(max_number_of_steps or math.inf, math.ceil(images / images_per_step))


@contextmanager
def begin_run(settings: RunSettings, checkpoint_path: str | None, is_chief: bool) -> Iterator[int]:
    """Makes and locks the folder of a run, and prints whether the run resumes or is complete.

    Only the chief does so, since only the chief writes to the folder.

    Yields:
        The step to begin or resume at; 0 for the other workers.

    Raises:
        UserError: The run begins and there is no checkpoint to fine-tune from, or another process
            trains in the folder.
    """
    if not is_chief:
        yield 0
        return
    if checkpoint_path and settings.latest_checkpoint is None:
        find_checkpoint(checkpoint_path)
    make_folder(settings.train_dir, "train_dir")
    with writing_to(settings.train_dir, "train_dir", seconds=0):
        yield _find_first_step(settings)


def _find_first_step(settings: RunSettings) -> int:
    for leftover in settings.train_dir.glob("model.ckpt-*.tempstate*"):
        leftover.unlink()  # of a run that was killed
    repair_state(settings.train_dir)
    latest = settings.latest_checkpoint
    if latest is None:
        return 0
    step = read_step(latest)
    if settings.ends_at(step):
        print(
            f"nothing to do: {latest} is at step {step} of {settings.last_step}; to continue give "
            "a larger --max_number_of_steps or --max_number_of_epochs, to start over another "
            "--train_dir"
        )
    else:
        print(f"resuming from step {step} ({latest})", flush=True)
    return step


def start_from(
    train_dir: Path, settings: StartSettings, averages: Averages
) -> Callable[[tf.Session], None]:
    """Chooses and checks the checkpoint whose values the variables start from.

    Args:
        train_dir: The folder of the run; a checkpoint in it takes precedence.
        settings: The checkpoint to fine-tune from.
        averages: Model variables with their moving averages, which start from the variables.

    Returns:
        A function that sets the initialized variables of a session that is not resumed.

    Raises:
        UserError: The checkpoint is missing or does not fit.
    """
    checkpoint_path = settings.checkpoint_path
    latest = latest_checkpoint(train_dir)
    if latest is not None:
        if checkpoint_path:
            print(f"ignoring --checkpoint_path={checkpoint_path}: {train_dir} has a checkpoint")
        hint = (
            f"{train_dir} belongs to a run with another network, dataset or optimizer: give "
            "another --train_dir, or the flags of that run"
        )
        check_fits(latest, by_name(tf.global_variables()), hint, hint)

    restore = None
    if checkpoint_path and latest is None:
        source = find_checkpoint(checkpoint_path)
        excluded = split_scopes(settings.checkpoint_exclude_scopes)
        wanted = {
            name: variable
            for name, variable in by_name(slim.get_model_variables()).items()
            if not any(scope in name for scope in excluded)
        }
        if settings.ignore_missing_vars:
            stored = read_shapes(source)
            wanted = {name: variable for name, variable in wanted.items() if name in stored}
        check_fits(
            source,
            wanted,
            "does it match --model_name? Skip the variables with --checkpoint_exclude_scopes or "
            "--ignore_missing_vars",
            "skip the classifier of other classes with --checkpoint_exclude_scopes="
            + classifier_scope(),
        )
        print(f"fine-tuning from {source}: {len(wanted)} variables", flush=True)
        restore = tf.train.Saver(wanted)
    begin_averages = tf.group(*[average.assign(variable) for variable, average in averages])

    def set_variables(session: tf.Session) -> None:
        if restore is not None:
            restore.restore(session, source)
        session.run(begin_averages)

    return set_variables
