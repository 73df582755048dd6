"""The loop of training: steps, checkpoints, summaries, the log, and the end of a run."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import numpy as np

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.signals import stop_signals
from slim.datasets.input import explain_input_error
from slim.deployment.cluster import Cluster
from slim.deployment.membership import wait_for_chief
from slim.deployment.replicas import Replicas
from slim.training.graph import NOT_FINITE, RunSettings, TrainingGraph


class _Progress:
    """Counts, times and logs the steps of a run."""

    def __init__(self, settings: RunSettings, writer: tf.summary.FileWriter | None) -> None:
        self._settings = settings
        self._writer = writer
        self.step = 0

    def begin(self, step: int) -> None:
        """Starts the clock at a step."""
        self.step = self._logged = step
        self._time, self._waited = time.monotonic(), 0.0

    def add(self, done: Mapping[str, np.ndarray]) -> None:
        """Adds a step that was run, and logs it if a line is due."""
        self._waited += done["waited"]
        self.step = step = int(done["step"])
        every = self._settings.log_every_n_steps
        # Other workers may have taken steps in between.
        due = step // every != self._logged // every
        if due or (step == self._settings.last_step and step != self._logged):
            self._log(done["loss"])

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
            left = round((settings.last_step - self.step) * seconds_per_step)
            parts.append(f"{timedelta(seconds=left)} left")
        print(", ".join(parts), flush=True)
        if self._writer:
            values = [tf.Summary.Value(tag=tag, simple_value=v) for tag, v in scalars.items()]
            self._writer.add_summary(tf.Summary(value=values), self.step)
        self._logged, self._time, self._waited = self.step, now, 0.0


def train(
    graph: TrainingGraph,
    settings: RunSettings,
    replicas: Replicas,
    *,
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
        cluster: The cluster. Its chief initializes the variables and writes checkpoints and
            summaries; the other workers wait for it.
        target: The target of the session.
        session_options: The options of the session.
        set_variables: Sets the chief's variables if there is no checkpoint to resume.

    Raises:
        UserError: The loss or a gradient is not finite, or a shard or an image cannot be read.
        SystemExit: After Ctrl-C or SIGTERM and the checkpoint, with 128 + the signal.
    """
    writer, hooks, scaffold = None, [], tf.train.Scaffold()
    if cluster.is_chief:
        writer = tf.summary.FileWriterCache.get(str(settings.train_dir))
        scaffold, hooks = _chief_session(graph, settings, writer, set_variables)
    elif cluster.num_ps_tasks:
        scaffold = tf.train.Scaffold(init_op=tf.no_op())
        wait_for_chief(cluster, target)
    progress, stopping = _Progress(settings, writer), False
    try:
        with (
            stop_signals("stopping after this step and a checkpoint") as received,
            tf.train.SingularMonitoredSession(
                hooks=replicas.around(hooks),
                scaffold=scaffold,
                master=target,
                config=session_options,
                checkpoint_dir=str(settings.train_dir) if cluster.is_chief else None,
            ) as session,
        ):
            progress.begin(int(session.raw_session().run(graph.global_step)))
            while not (stopping or session.should_stop() or settings.ends_at(progress.step)):
                feed = next(graph.feeds)
                done, stopping = replicas.run_step(session, graph.step, feed, received)
                progress.add(done)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise _explain(error, settings, progress.step) from error
    _end(
        progress.step, settings.latest_checkpoint if cluster.is_chief else None, received, stopping
    )


def _chief_session(
    graph: TrainingGraph,
    settings: RunSettings,
    writer: tf.summary.FileWriter,
    set_variables: Callable[[tf.Session], None],
) -> tuple[tf.train.Scaffold, list[tf.train.SessionRunHook]]:
    """Returns the scaffold and the hooks of the chief's session."""
    folder, saver = str(settings.train_dir), tf.train.Saver(max_to_keep=5, save_relative_paths=True)
    # The step comes last: once it has a value, other workers find all variables initialized.
    others = [variable for variable in tf.global_variables() if variable is not graph.global_step]

    def set_all_variables(_: tf.train.Scaffold, session: tf.Session) -> None:
        set_variables(session)
        session.run(graph.global_step.initializer)

    scaffold = tf.train.Scaffold(
        saver=saver,
        init_op=tf.variables_initializer(others),
        init_fn=set_all_variables,
        summary_op=graph.summary,
    )
    return scaffold, [
        tf.train.CheckpointSaverHook(
            folder, save_secs=settings.save_interval_secs, saver=saver, save_graph_def=False
        ),
        tf.train.SummarySaverHook(
            save_secs=settings.save_summaries_secs, summary_writer=writer, summary_op=graph.summary
        ),
    ]


def _explain(error: tf.errors.OpError, settings: RunSettings, step: int) -> Exception:
    """Returns the error to raise for one that a step raised."""
    if NOT_FINITE not in str(error):
        return explain_input_error(error)
    return UserError(
        f"the loss or a gradient is not finite at step {step + 1}; the last good checkpoint is "
        f"{settings.latest_checkpoint}; try a smaller --learning_rate"
    )


def _end(step: int, checkpoint: str | None, received: Sequence[int], stopping: bool) -> None:
    """Prints how a run ended, and exits after a signal."""
    if received:
        name = signal.Signals(received[0]).name
        saved = f"{checkpoint} is saved" if checkpoint else "the chief saves"
        print(f"stopped by {name} at step {step}; {saved}, the same command resumes", flush=True)
        raise SystemExit(128 + received[0])
    ended = "stopped with another worker" if stopping else "done"
    print(f"{ended}: step {step}" + (f", {checkpoint}" if checkpoint else ""), flush=True)
