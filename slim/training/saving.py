"""Saves checkpoints with finite values only."""

import re
import time

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


class CheckpointHook(tf.train.SessionRunHook):
    """Saves checkpoints with finite values: at the beginning, at intervals, and at the end.

    The last step may have made variables overflow, although its loss and gradients were finite. The
    checkpoint is not written then, and none of the earlier ones is deleted.

    Unlike `tf.train.CheckpointSaverHook`, it does not write the graph, which has megabytes, to the
    event file at every start.

    Args:
        settings: The folder, and the seconds between two checkpoints; 0 for one at the end only.
        saver: Writes the checkpoints.
        writer: Receives a log of the checkpoints, if any.
    """

    def __init__(
        self, settings: RunSettings, saver: tf.train.Saver, writer: tf.summary.FileWriter | None
    ) -> None:
        self._settings = settings
        self._saver = saver
        self._writer = writer
        self._saved_step: int | None = None

    def begin(self) -> None:
        """Builds the check of the variables."""
        checks = []
        for variable in tf.global_variables():
            if variable.dtype.is_floating:
                with tf.device(variable.device):
                    value = variable.read_value()
                    checks.append(tf.debugging.check_numerics(value, variable.op.name).op)
        self._check = tf.group(*checks)
        self._global_step = tf.train.get_global_step()

    def after_create_session(self, session: tf.Session, _: tf.train.Coordinator) -> None:
        """Checks the variables that the run begins with, and saves them unless told otherwise."""
        if self._settings.save_interval_secs:
            self._save(session)
        else:
            self._check_variables(session, session.run(self._global_step))

    def after_run(self, context: tf.train.SessionRunContext, _: tf.train.SessionRunValues) -> None:
        """Saves a checkpoint if one is due."""
        interval = self._settings.save_interval_secs
        if interval and time.monotonic() >= self._saved_at + interval:
            self._save(context.session)

    def end(self, session: tf.Session) -> None:
        """Saves the last step."""
        if session.run(self._global_step) != self._saved_step:
            self._save(session)

    def _save(self, session: tf.Session) -> None:
        step = int(session.run(self._global_step))
        self._check_variables(session, step)
        prefix = str(self._settings.train_dir / "model.ckpt")
        path = self._saver.save(session, prefix, global_step=step)
        if self._writer:
            log = tf.SessionLog(status=tf.SessionLog.CHECKPOINT, checkpoint_path=path)
            self._writer.add_session_log(log, step)
        self._saved_step, self._saved_at = step, time.monotonic()

    def _check_variables(self, session: tf.Session, step: int) -> None:
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
