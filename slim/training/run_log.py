"""What a training run prints, and what it writes to its event file."""

import time
from collections.abc import Mapping
from datetime import timedelta

import numpy as np
from absl import flags

from slim.common.compat import tf
from slim.common.summaries import describe, scalar
from slim.training.start import Run
from slim.training.training_summaries import DESCRIPTIONS, VARIABLE, summarize_flags

MOST_STEPS_LEFT = 10**9  # in an estimate of the time


class RunLog:
    """Counts, times and logs the steps of a run, and writes their summaries.

    Attributes:
        step: The last step.
        writer: Writes the event file; None if there are no summaries.
    """

    def __init__(self, values: flags.FlagValues, run: Run, images_per_step: int) -> None:
        self._values = values
        self._run = run
        self._images_per_step = images_per_step
        self._phase: str | None = None
        self._summarized: tuple[float, int] | None = None  # time and step of the last summary
        self.step = 0
        self.writer: tf.summary.FileWriter | None = None

    def begin_phase(self, phase: str | None) -> None:
        """Prints the next phase of a slow start, if any, and how long the previous one took."""
        if not (phase or self._phase):
            return
        now = time.monotonic()
        parts = [f"{self._phase} took {now - self._begun:.1f} s"] if self._phase else []
        parts += [f"{phase} ..."] if phase else []
        print("; ".join(parts), flush=True)
        self._phase, self._begun = phase, now

    def open_event_file(self) -> None:
        """Opens the event file, unless there are no summaries, and writes the graph to it once."""
        if self._values.save_summaries_secs:
            self.writer = tf.summary.FileWriter(self._values.train_dir)
            if not self._run.latest_checkpoint:
                self.writer.add_graph(tf.get_default_graph())

    def close(self) -> None:
        """Closes the event file."""
        if self.writer:
            self.writer.close()

    def begin(self, step: int) -> None:
        """Starts the clock at a step, before the first step of this process."""
        if not self._run.ends_at(step):
            self.begin_phase("running the first step")
        self.step = self._logged = step
        self._time, self._waited = time.monotonic(), 0.0

    @property
    def wants_summary(self) -> bool:
        """Whether the next step is to return its summary."""
        if not (self.writer and self._summarized):
            return self.writer is not None
        return time.monotonic() > self._summarized[0] + self._values.save_summaries_secs

    def add(self, done: Mapping[str, np.ndarray]) -> None:
        """Adds a step that was run; writes its summary, if it has one, and a line if one is due."""
        self.begin_phase(None)
        self._waited += done["waited"]
        self.step = step = int(done["step"])
        if done["summary"]:
            self._summarize(done["summary"])
        every = self._values.log_every_n_steps
        if not every:
            return
        # Other workers may have taken steps in between.
        due = step // every != self._logged // every
        if due or (step == self._run.last_step and step != self._logged):
            self._log(done["loss"])

    def _summarize(self, summary: bytes) -> None:
        now = time.monotonic()
        if self._summarized:
            before, step = self._summarized
            self._write({"global_step/sec": (self.step - step) / (now - before)})
        else:
            begun = tf.SessionLog(status=tf.SessionLog.START)
            self.writer.add_session_log(begun, self.step)
            self.writer.add_summary(summarize_flags(self._values.flag_values_dict()), self.step)
        self.writer.add_summary(describe(summary, DESCRIPTIONS, VARIABLE), self.step)
        self._summarized = now, self.step

    def _log(self, loss: float) -> None:
        now, last_step = time.monotonic(), self._run.last_step
        seconds = now - self._time
        seconds_per_step = seconds / (self.step - self._logged)
        scalars = {
            "images_per_second": self._images_per_step / seconds_per_step,
            "input_share": self._waited / seconds,
        }
        parts = [
            f"step {self.step}" + (f" of {last_step}" if last_step else ""),
            f"loss {loss:.4f}",
            f"{scalars['images_per_second']:.1f} images/s",
            f"input {scalars['input_share']:.0%}",
        ]
        if last_step:
            left = min(last_step - self.step, MOST_STEPS_LEFT)
            parts.append(f"{timedelta(seconds=round(left * seconds_per_step))} left")
        print(", ".join(parts), flush=True)
        if self.writer:
            self._write(scalars)
        self._logged, self._time, self._waited = self.step, now, 0.0

    def _write(self, scalars: Mapping[str, float]) -> None:
        values = [scalar(tag, value, DESCRIPTIONS[tag]) for tag, value in scalars.items()]
        self.writer.add_summary(tf.Summary(value=values), self.step)
