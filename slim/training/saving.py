"""The variables of a training session: their first values, and checkpoints with finite values."""

import re
import time
from collections.abc import Callable

from absl import flags

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.input import explain_input_error
from slim.training.start import Run

NOT_FINITE = "training is not finite"  # in the message of the assertion that ends a run


def chief_variables(
    run: Run,
    set_variables: Callable[[tf.Session], None],
    values: flags.FlagValues,
    writer: tf.summary.FileWriter | None,
) -> tuple[tf.train.Scaffold, list[tf.train.SessionRunHook]]:
    """Returns the scaffold that restores or sets the variables, and the hook that saves them."""
    # A session restores the latest checkpoint; otherwise it runs the initializers and `init_fn`.
    saver = tf.train.Saver(max_to_keep=values.keep_checkpoints, save_relative_paths=True)
    global_step = tf.train.get_global_step()
    # The step comes last: once it has a value, other workers find all variables initialized.
    others = [variable for variable in tf.global_variables() if variable is not global_step]

    def set_all_variables(_: tf.train.Scaffold, session: tf.Session) -> None:
        set_variables(session)
        session.run(global_step.initializer)

    scaffold = tf.train.Scaffold(
        saver=saver,
        init_op=tf.variables_initializer(others),
        init_fn=set_all_variables,
        summary_op=tf.constant(""),  # summaries are part of the steps
    )
    return scaffold, [CheckpointHook(run, saver, values.save_interval_secs, writer)]


def worker_variables(run: Run) -> tf.train.Scaffold:
    """Waits until the chief has set all variables; returns the scaffold of another worker."""
    if not run.cluster.num_ps_tasks:
        return tf.train.Scaffold()  # all-reduce copies the variables later
    ready = tf.report_uninitialized_variables(tf.global_variables())
    manager = tf.train.SessionManager(ready_op=ready, recovery_wait_secs=1)
    config, seconds = run.cluster.session_config(), run.cluster.timeout_secs
    manager.wait_for_session(run.target, config, max_wait_secs=seconds).close()
    return tf.train.Scaffold(init_op=tf.no_op())


def explain_step_error(error: tf.errors.OpError, run: Run, step: int) -> Exception:
    """Converts an error of a training step into a user-facing one, if a user can fix it."""
    if "No space left on device" in str(error):
        return UserError(
            f"cannot write to {run.train_dir}: no space left on device; free some space or choose "
            "another --train_dir, then run the command again"
        )
    if NOT_FINITE in str(error):
        return _not_finite("the loss or a gradient", step, run)
    return explain_input_error(error)


def _not_finite(subject: str, step: int, run: Run) -> UserError:
    good, hint = f"the last good checkpoint is {run.latest_checkpoint}", ""
    if run.latest_checkpoint is None:
        good, hint = "there is no checkpoint yet", ", or another --checkpoint_path"
    return UserError(
        f"{subject} is not finite at step {step}; {good}; try a smaller --learning_rate{hint}"
    )


class CheckpointHook(tf.train.SessionRunHook):
    """Saves checkpoints with finite values: at the beginning, at intervals, and at the end.

    An interval of 0 means one checkpoint, at the end.
    """

    # The last step may have made variables overflow, although its loss and gradients were finite.
    # The checkpoint is not written then, and none of the earlier ones is deleted. Unlike
    # `tf.train.CheckpointSaverHook`, this one does not write the graph, which has megabytes, to the
    # event file at every start.

    def __init__(
        self,
        run: Run,
        saver: tf.train.Saver,
        interval_secs: int,
        writer: tf.summary.FileWriter | None,
    ) -> None:
        self._run = run
        self._saver = saver
        self._interval = interval_secs
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
        if self._interval:
            self._save(session)
        else:
            self._check_variables(session, session.run(self._global_step))

    def after_run(self, context: tf.train.SessionRunContext, _: tf.train.SessionRunValues) -> None:
        if self._interval and time.monotonic() >= self._saved_at + self._interval:
            self._save(context.session)

    def end(self, session: tf.Session) -> None:
        if session.run(self._global_step) != self._saved_step:
            self._save(session)

    def _save(self, session: tf.Session) -> None:
        step = int(session.run(self._global_step))
        self._check_variables(session, step)
        prefix = str(self._run.train_dir / "model.ckpt")
        path = self._saver.save(session, prefix, global_step=step)
        if self._writer:
            log = tf.SessionLog(status=tf.SessionLog.CHECKPOINT, checkpoint_path=path)
            self._writer.add_session_log(log, step)
        self._saved_step, self._saved_at = step, time.monotonic()

    def _check_variables(self, session: tf.Session, step: int) -> None:
        try:
            session.run(self._check)
        except tf.errors.InvalidArgumentError as error:
            name = re.search(r"(\S+) : Tensor had", error.message)
            variable, latest = name[1] if name else "a variable", self._run.latest_checkpoint
            if latest and latest.endswith(f"-{step}"):
                raise UserError(
                    f"{latest} cannot be resumed, {variable} is not finite; to resume from the "
                    f"checkpoint before it, delete {latest}.*; try a smaller --learning_rate"
                ) from error
            raise _not_finite(variable, step, self._run) from error
