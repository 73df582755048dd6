"""Saves checkpoints with finite values only."""

import re

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.training.graph import RunSettings


def not_finite(subject: str, step: int, settings: RunSettings) -> UserError:
    """Returns the error about a loss, gradient or variable that is not finite at a step."""
    good, hint = f"the last good checkpoint is {settings.latest_checkpoint}", ""
    if settings.latest_checkpoint is None:
        good, hint = "there is no checkpoint yet", ", or another --checkpoint_path"
    return UserError(
        f"{subject} is not finite at step {step}; {good}; try a smaller --learning_rate{hint}"
    )


class FiniteVariables(tf.train.CheckpointSaverListener):
    """Checks before each checkpoint that all variables are finite.

    The last step may have made them overflow, although its loss and gradients were finite. The
    checkpoint is not written then, and none of the earlier ones is deleted.
    """

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings

    def begin(self) -> None:
        """Builds the check."""
        checks = []
        for variable in tf.global_variables():
            if variable.dtype.is_floating:
                with tf.device(variable.device):
                    value = variable.read_value()
                    checks.append(tf.debugging.check_numerics(value, variable.op.name).op)
        self._check = tf.group(*checks)

    def before_save(self, session: tf.Session, step: int) -> None:
        """Checks the variables at a step.

        Raises:
            UserError: A variable is not finite.
        """
        try:
            session.run(self._check)
        except tf.errors.InvalidArgumentError as error:
            name = re.search(r"(\S+) : Tensor had", error.message)
            variable, latest = name[1] if name else "a variable", self._settings.latest_checkpoint
            if latest and latest.endswith(f"-{step}"):
                raise UserError(
                    f"{latest} cannot be resumed, {variable} is not finite; to resume from the "
                    f"checkpoint before it, delete {latest}.*; try a smaller --learning_rate"
                ) from error
            raise not_finite(variable, step, self._settings) from error


class FinalCheckpoint(tf.train.CheckpointSaverHook):
    """Saves one checkpoint, at the end of a run."""

    def after_create_session(self, session: tf.Session, _: tf.train.Coordinator) -> None:
        """Checks the variables that the run begins with."""
        for listener in self._listeners:
            listener.before_save(session, session.run(tf.train.get_global_step()))

    before_run = after_run = staticmethod(lambda *_: None)  # no checkpoints in between


def checkpoint_hook(settings: RunSettings, saver: tf.train.Saver) -> tf.train.SessionRunHook:
    """Returns the hook that saves checkpoints."""
    hook = tf.train.CheckpointSaverHook if settings.save_interval_secs else FinalCheckpoint
    return hook(
        str(settings.train_dir),
        save_secs=settings.save_interval_secs or 1,
        saver=saver,
        listeners=[FiniteVariables(settings)],
        save_graph_def=False,
    )
