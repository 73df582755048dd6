"""The start of a training run: its folder, its last step, its first values."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from slim.checkpoints.reading import by_name, check_fits, find_checkpoint, read_shapes, read_step
from slim.common.compat import slim, tf
from slim.common.errors import UserError


def prepare_train_dir(train_dir: Path) -> None:
    """Makes the folder, and removes what a killed run left half-written in it.

    Raises:
        UserError: The path is no folder and cannot become one.
    """
    try:
        train_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--train_dir={train_dir}: cannot make the folder ({error.strerror}); give another one"
        ) from error
    for leftover in train_dir.glob("model.ckpt-*.tempstate*"):
        leftover.unlink()


def find_last_step(
    max_number_of_steps: int | None,
    max_number_of_epochs: float | None,
    num_samples: int,
    images_per_step: int,
) -> int | None:
    """The step to stop at: as given, or that with which the epochs are full, if that is earlier.

    Args:
        max_number_of_steps: Steps, None for no end.
        max_number_of_epochs: Epochs, None for no end.
        num_samples: Images of an epoch.
        images_per_step: Images of a step, over all clones and replicas.

    Raises:
        UserError: The epochs are not a number above 0.
    """
    if max_number_of_epochs is None:
        return max_number_of_steps
    if not 0 < max_number_of_epochs < math.inf:
        raise UserError(f"--max_number_of_epochs={max_number_of_epochs}: expected more than 0")
    # 1.1 epochs of 50 images are 55 images, and not 55.00000000000001.
    images = Fraction(str(max_number_of_epochs)) * num_samples
    return min(max_number_of_steps or math.inf, math.ceil(images / images_per_step))


def announce_start(train_dir: Path, max_number_of_steps: int | None) -> int:
    """Says whether a run begins, goes on, or is done already, and returns its step."""
    latest = tf.train.latest_checkpoint(str(train_dir))
    if latest is None:
        return 0
    step = read_step(latest)
    if max_number_of_steps and step >= max_number_of_steps:
        print(
            f"nothing to do: {latest} is at step {step} of {max_number_of_steps}; to go on give a "
            "larger --max_number_of_steps or --max_number_of_epochs, to begin anew another "
            "--train_dir"
        )
    else:
        print(f"resuming from step {step} ({latest})", flush=True)
    return step


def start_from(
    train_dir: Path,
    checkpoint_path: str | None,
    exclude_scopes: Sequence[str],
    ignore_missing_vars: bool,
    averages: Sequence[tuple[tf.Variable, tf.Variable]],
) -> Callable[[tf.Session], None]:
    """Chooses where the first step's variables come from, and checks that they fit.

    Args:
        train_dir: A checkpoint in it wins: the run is resumed.
        checkpoint_path: The checkpoint, or the folder of them, to fine-tune from.
        exclude_scopes: Variables whose name contains one of these keep their initial values.
        ignore_missing_vars: So do variables that the checkpoint lacks.
        averages: Model variables and their moving averages, which begin at the variables' values.

    Returns:
        Sets the variables of a session whose variables are initialized and that is not resumed.

    Raises:
        UserError: The checkpoint is missing or does not fit.
    """
    latest = tf.train.latest_checkpoint(str(train_dir))
    if latest is not None:
        if checkpoint_path:
            print(f"ignoring --checkpoint_path={checkpoint_path}: {train_dir} has a checkpoint")
        hint = (
            f"{train_dir} holds a run with another network, dataset or optimizer: give another "
            "--train_dir, or the flags of that run"
        )
        check_fits(latest, by_name(tf.global_variables()), hint, hint)

    restore = None
    if checkpoint_path and latest is None:
        source = find_checkpoint(checkpoint_path)
        wanted = {
            name: variable
            for name, variable in by_name(slim.get_model_variables()).items()
            if not any(scope in name for scope in exclude_scopes)
        }
        if ignore_missing_vars:
            stored = read_shapes(source)
            wanted = {name: variable for name, variable in wanted.items() if name in stored}
        check_fits(
            source,
            wanted,
            "is it of --model_name? Leave them out with --checkpoint_exclude_scopes or "
            "--ignore_missing_vars",
            "a classifier for other classes is left out with --checkpoint_exclude_scopes=Logits",
        )
        print(f"fine-tuning from {source}: {len(wanted)} variables", flush=True)
        restore = tf.train.Saver(wanted)
    begin_averages = tf.group(*[average.assign(variable) for variable, average in averages])

    def set_variables(session: tf.Session) -> None:
        if restore is not None:
            restore.restore(session, source)
        session.run(begin_averages)

    return set_variables
