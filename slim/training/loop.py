"""The loop of training: steps, checkpoints, summaries, the log, and the end of a run."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import numpy as np

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.signals import stop_signals
from slim.common.summaries import describe, scalar
from slim.datasets.input import EXPLAINED_ERRORS, explain_input_error
from slim.deployment.cluster import Cluster
from slim.deployment.membership import wait_for_chief
from slim.deployment.replicas import Replicas
from slim.training.graph import NOT_FINITE, RunSettings, TrainingGraph
from slim.training.phases import Phases
from slim.training.saving import CheckpointHook, not_finite
from slim.training.summaries import DESCRIPTIONS, VARIABLE, summarize_flags

MOST_STEPS_LEFT = 10**9  # in an estimate of the time


class _Progress:
    """Counts, times and logs the steps of a run, and writes their summaries."""

    def __init__(
        self, settings: RunSettings, writer: tf.summary.FileWriter | None, phases: Phases
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._phases = phases
        self._summarized: tuple[float, int] | None = None  # time and step of the last summary
        self.step = 0

    def begin(self, step: int) -> None:
        """Starts the clock at a step, before the first step of this process."""
        if not self._settings.ends_at(step):
            self._phases.begin("running the first step")
        self.step = self._logged = step
        self._time, self._waited = time.monotonic(), 0.0

    @property
    def wants_summary(self) -> bool:
        """Returns whether the next step is to return its summary."""
        if not (self._writer and self._summarized):
            return self._writer is not None
        return time.monotonic() > self._summarized[0] + self._settings.save_summaries_secs

    def add(self, done: Mapping[str, np.ndarray]) -> None:
        """Adds a step that was run; writes its summary, if it has one, and a line if one is due."""
        self._phases.begin(None)
        self._waited += done["waited"]
        self.step = step = int(done["step"])
        if done["summary"]:
            self._summarize(done["summary"])
        every = self._settings.log_every_n_steps
        if not every:
            return
        # Other workers may have taken steps in between.
        due = step // every != self._logged // every
        if due or (step == self._settings.last_step and step != self._logged):
            self._log(done["loss"])

    def _summarize(self, summary: bytes) -> None:
        now = time.monotonic()
        if self._summarized:
            before, step = self._summarized
            self._write({"global_step/sec": (self.step - step) / (now - before)})
        else:
            begun = tf.SessionLog(status=tf.SessionLog.START)
            self._writer.add_session_log(begun, self.step)
            self._writer.add_summary(summarize_flags(self._settings.flags), self.step)
        self._writer.add_summary(describe(summary, DESCRIPTIONS, VARIABLE), self.step)
        self._summarized = now, self.step

    def _log(self, loss: float) -> None:
        settings, now = self._settings, time.monotonic()
        seconds = now - self._time
        seconds_per_step = seconds / (self.step - self._logged)
        scalars = {
            "images_per_second": settings.images_per_step / seconds_per_step,
            "input_share": self._waited / seconds,
        }
        parts = [
            f"step {self.step}" + (f" of {settings.last_step}" if settings.last_step else ""),
            f"loss {loss:.4f}",
            f"{scalars['images_per_second']:.1f} images/s",
            f"input {scalars['input_share']:.0%}",
        ]
        if settings.last_step:
            left = min(settings.last_step - self.step, MOST_STEPS_LEFT)
            parts.append(f"{timedelta(seconds=round(left * seconds_per_step))} left")
        print(", ".join(parts), flush=True)
        if self._writer:
            self._write(scalars)
        self._logged, self._time, self._waited = self.step, now, 0.0

    def _write(self, scalars: Mapping[str, float]) -> None:
        values = [scalar(tag, value, DESCRIPTIONS[tag]) for tag, value in scalars.items()]
        self._writer.add_summary(tf.Summary(value=values), self.step)


def train(
    graph: TrainingGraph,
    settings: RunSettings,
    replicas: Replicas,
    *,
    phases: Phases,
    cluster: Cluster,
    target: str,
    session_options: tf.ConfigProto,
    set_variables: Callable[[tf.Session], None] | None,
) -> None:
    """Runs steps until the last one, Ctrl-C or SIGTERM, and writes a checkpoint at the end.

    Args:
        graph: The tensors of the run.
        settings: Settings of the run; a checkpoint in `train_dir` is resumed.
        replicas: The replicas that train.
        phases: The phases of the start; the first step ends them.
        cluster: The cluster. Its chief initializes the variables and writes checkpoints and
            summaries; the other workers wait for it.
        target: The target of the session.
        session_options: The options of the session.
        set_variables: Sets the chief's variables if there is no checkpoint to resume.

    Raises:
        UserError: A loss, gradient or variable is not finite, or an image cannot be read.
        SystemExit: After Ctrl-C or SIGTERM and the checkpoint, with 128 + the signal.
    """
    latest = settings.latest_checkpoint if cluster.is_chief else None
    if cluster.is_chief:
        phases.begin(f"{'restoring' if latest else 'initializing'} the variables")
        scaffold, hooks, writer = _chief_session(graph, settings, set_variables)
    else:
        phases.begin("waiting for the variables of the chief")
        scaffold, hooks, writer = _wait_for_variables(cluster, target), [], None
    progress, stopping = _Progress(settings, writer, phases), False
    try:
        with (
            stop_signals("stopping after this step and a checkpoint") as received,
            tf.train.SingularMonitoredSession(
                hooks=replicas.around(hooks),
                scaffold=scaffold,
                master=target,
                config=session_options,
                checkpoint_dir=str(settings.train_dir) if latest else None,
            ) as session,
        ):
            progress.begin(int(session.raw_session().run(graph.global_step)))
            feeds = graph.begin_input(session.raw_session(), progress.step)
            while not (stopping or session.should_stop() or settings.ends_at(progress.step)):
                feed = {**next(feeds), graph.wants_summary: progress.wants_summary}
                done, stopping = replicas.run_step(session, graph.step, feed, received)
                progress.add(done)
    except EXPLAINED_ERRORS as error:
        raise _explain(error, settings, progress.step) from error
    finally:
        if writer:
            writer.close()
    saved = settings.latest_checkpoint if cluster.is_chief else None
    _end(progress.step, saved, received, stopping)


def _wait_for_variables(cluster: Cluster, target: str) -> tf.train.Scaffold:
    """Returns the scaffold of a worker that waits for the variables of the chief."""
    if not cluster.num_ps_tasks:
        return tf.train.Scaffold()  # all-reduce copies the variables later
    wait_for_chief(cluster, target)
    return tf.train.Scaffold(init_op=tf.no_op())


def _chief_session(
    graph: TrainingGraph, settings: RunSettings, set_variables: Callable[[tf.Session], None]
) -> tuple[tf.train.Scaffold, list[tf.train.SessionRunHook], tf.summary.FileWriter | None]:
    """Returns the scaffold and the hooks of the chief's session, and the writer of summaries."""
    writer, saver = None, tf.train.Saver(max_to_keep=5, save_relative_paths=True)
    if settings.save_summaries_secs:
        writer = tf.summary.FileWriter(str(settings.train_dir))
        if not settings.latest_checkpoint:  # a resumed run has its graph already
            writer.add_graph(tf.get_default_graph())
    # The step comes last: once it has a value, other workers find all variables initialized.
    others = [variable for variable in tf.global_variables() if variable is not graph.global_step]

    def set_all_variables(_: tf.train.Scaffold, session: tf.Session) -> None:
        set_variables(session)
        session.run(graph.global_step.initializer)

    scaffold = tf.train.Scaffold(
        saver=saver,
        init_op=tf.variables_initializer(others),
        init_fn=set_all_variables,
        summary_op=tf.constant(""),  # summaries are part of the steps
    )
    return scaffold, [CheckpointHook(settings, saver, writer)], writer


def _explain(error: tf.errors.OpError, settings: RunSettings, step: int) -> Exception:
    """Returns the error to raise for one that a step raised."""
    if "No space left on device" in str(error):
        return UserError(
            f"cannot write to {settings.train_dir}: no space left on device; free some space or "
            "choose another --train_dir, then run the command again"
        )
    if NOT_FINITE not in str(error):
        return explain_input_error(error)
    return not_finite("the loss or a gradient", step + 1, settings)


def _end(step: int, checkpoint: str | None, received: Sequence[int], stopping: bool) -> None:
    """Prints how a run ended, and exits after a signal."""
    if received:
        name = signal.Signals(received[0]).name
        saved = f"{checkpoint} is saved" if checkpoint else "the chief saves"
        print(f"stopped by {name} at step {step}; {saved}, the same command resumes", flush=True)
        raise SystemExit(128 + received[0])
    ended = "stopped with another worker" if stopping else "done"
    print(f"{ended}: step {step}" + (f", {checkpoint}" if checkpoint else ""), flush=True)
