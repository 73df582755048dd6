"""The steps of a training run: checkpoints, summaries, the log, and how a run ends."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.signals import stop_signals
from slim.datasets.input import explain_input_error
from slim.deployment.all_reduce import AllReduce
from slim.deployment.cluster import Cluster, wait_for_chief
from slim.deployment.synchronous import SynchronousReplicas

NOT_FINITE = "training is not finite"  # in the message of the assertion that ends a run


class _Speed(NamedTuple):
    """How fast steps were between two lines of the log."""

    images_per_second: float
    input_share: float  # of the time, that steps waited for their batches
    left: timedelta | None  # until the last step


class _Throughput:
    """Measures the steps between two lines of the log."""

    def __init__(self, images_per_step: int, max_number_of_steps: int | None) -> None:
        self._images_per_step = images_per_step
        self._max_number_of_steps = max_number_of_steps
        self._step: int | None = None
        self._time = 0.0
        self._waited = 0.0

    def add_wait(self, seconds: float) -> None:
        """Counts what a step waited for its batch."""
        self._waited += seconds

    def measure(self, step: int) -> _Speed | None:
        """The speed since the last call."""
        now, before, started = time.monotonic(), self._step, self._time
        waited, self._waited = self._waited, 0.0
        self._step, self._time = step, now
        if before is None or step == before:
            return None
        seconds_per_step = (now - started) / (step - before)
        left = None
        if self._max_number_of_steps:
            seconds = (self._max_number_of_steps - step) * seconds_per_step
            left = timedelta(seconds=round(seconds))
        return _Speed(self._images_per_step / seconds_per_step, waited / (now - started), left)


def train(
    train_op: Mapping[str, tf.Tensor],
    feeds: Iterator[Mapping[tf.Tensor, np.ndarray]],
    global_step: tf.Variable,
    summary_op: tf.Tensor,
    train_dir: Path,
    images_per_step: int,
    max_number_of_steps: int | None,
    log_every_n_steps: int,
    save_summaries_secs: int,
    save_interval_secs: int,
    set_variables: Callable[[tf.Session], None] | None,
    cluster: Cluster,
    target: str,
    replicas: SynchronousReplicas | AllReduce | None,
    session_options: tf.ConfigProto,
) -> None:
    """Runs steps until the last one, Ctrl-C or SIGTERM, each of which leaves a checkpoint.

    Args:
        train_op: Carries out a step; its `loss`, the `step` after it, and the seconds that it
            `waited` for input.
        feeds: What each step is fed.
        global_step: The step.
        summary_op: A serialized summary.
        train_dir: Where checkpoints and event files go; a checkpoint there is resumed from.
        images_per_step: Images that a step sees.
        max_number_of_steps: The last step; None for no end.
        log_every_n_steps: Steps between two lines of the log.
        save_summaries_secs: Seconds between two summaries.
        save_interval_secs: Seconds between two checkpoints.
        set_variables: Sets the chief's variables where there is nothing to resume from.
        cluster: Its chief initializes, saves and summarizes; the others wait for it, then train.
        target: What the session connects to.
        replicas: As it is in `train_op`.
        session_options: What the session is configured with.

    Raises:
        UserError: A loss or gradient is not finite, or a shard or an image cannot be read.
        SystemExit: After Ctrl-C or SIGTERM, once the checkpoint is written: 128 + the signal.
    """
    writer, hooks, scaffold = None, [], tf.train.Scaffold()
    if cluster.is_chief:
        writer = tf.summary.FileWriterCache.get(str(train_dir))
        saver = tf.train.Saver(max_to_keep=5, save_relative_paths=True)
        # The step comes last: when it has a value, other workers find all variables set.
        others = [variable for variable in tf.global_variables() if variable is not global_step]

        def set_all_variables(_: tf.train.Scaffold, session: tf.Session) -> None:
            set_variables(session)
            session.run(global_step.initializer)

        scaffold = tf.train.Scaffold(
            saver=saver,
            init_op=tf.variables_initializer(others),
            init_fn=set_all_variables,
            summary_op=summary_op,
        )
        hooks = [
            tf.train.CheckpointSaverHook(
                str(train_dir), save_secs=save_interval_secs, saver=saver, save_graph_def=False
            ),
            tf.train.SummarySaverHook(
                save_secs=save_summaries_secs, summary_writer=writer, summary_op=summary_op
            ),
        ]
    elif cluster.num_ps:
        scaffold = tf.train.Scaffold(init_op=tf.no_op())
        wait_for_chief(cluster, target)
    if replicas:
        hooks = replicas.around(hooks)
    throughput = _Throughput(images_per_step, max_number_of_steps)
    step = 0
    try:
        with (
            stop_signals("stopping: this step, then a checkpoint") as stopped_by,
            tf.train.SingularMonitoredSession(
                hooks=hooks,
                scaffold=scaffold,
                master=target,
                config=session_options,
                checkpoint_dir=str(train_dir) if cluster.is_chief else None,
            ) as session,
        ):
            step = logged = int(session.raw_session().run(global_step))
            throughput.measure(step)
            stopping = False
            while not (
                stopping
                or session.should_stop()
                or (max_number_of_steps and step >= max_number_of_steps)
            ):
                feed = next(feeds)
                if isinstance(replicas, AllReduce):
                    done = session.run(train_op, {**feed, replicas.stop: bool(stopped_by)})
                    stopping = done["stopping"]
                else:
                    done = session.run(train_op, feed)
                    stopping = bool(stopped_by)
                throughput.add_wait(done["waited"])
                step = int(done["step"])
                # Steps of other workers lie between two of this one's.
                due = step // log_every_n_steps != logged // log_every_n_steps
                if due or (step == max_number_of_steps and step != logged):
                    speed = throughput.measure(step)
                    _log(writer, step, max_number_of_steps, done["loss"], speed)
                    logged = step
    except tf.errors.InvalidArgumentError as error:
        if NOT_FINITE not in str(error):
            raise explain_input_error(error) from error
        raise UserError(
            f"the loss or a gradient is not finite at step {step + 1}; stopped, the last good "
            f"checkpoint is {tf.train.latest_checkpoint(str(train_dir))}; try a smaller "
            "--learning_rate"
        ) from error
    except tf.errors.DataLossError as error:
        raise explain_input_error(error) from error
    latest = tf.train.latest_checkpoint(str(train_dir)) if cluster.is_chief else None
    if stopped_by:
        name = signal.Signals(stopped_by[0]).name
        saved = f"{latest} is saved" if latest else "the chief saves"
        print(f"stopped by {name} at step {step}; {saved}, the same command goes on", flush=True)
        raise SystemExit(128 + stopped_by[0])
    ended = "stopped with another worker" if stopping else "done"
    print(f"{ended}: step {step}" + (f", {latest}" if latest else ""), flush=True)


def _log(
    writer: tf.summary.FileWriter | None,
    step: int,
    last_step: int | None,
    loss: float,
    speed: _Speed | None,
) -> None:
    parts = [f"step {step}" + (f" of {last_step}" if last_step else ""), f"loss {loss:.4f}"]
    if speed:
        parts.append(f"{speed.images_per_second:.1f} images/s")
        parts.append(f"input {speed.input_share:.0%}")
        if speed.left is not None:
            parts.append(f"{speed.left} left")
        if writer:
            scalars = {
                "images_per_second": speed.images_per_second,
                "input_share": speed.input_share,
            }
            values = [tf.Summary.Value(tag=tag, simple_value=v) for tag, v in scalars.items()]
            writer.add_summary(tf.Summary(value=values), step)
    print(", ".join(parts), flush=True)
