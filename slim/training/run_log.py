"""What a training run prints, and what TensorBoard shows of it."""

import math
import os
import time
from collections.abc import Mapping
from datetime import timedelta

import numpy as np
from absl import flags
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalars
from tensorboard.plugins.hparams import api as hparams

from slim.common.compat import slim, tf
from slim.common.summaries import describe, scalar, text
from slim.deployment.model_deploy import Clone
from slim.training.start import Run

MOST_STEPS_LEFT = 10**9  # in an estimate of the time
IMAGES_SHOWN = 4
SLOW_LINES = 5  # after so many lines in a row with slow input, the log recommends settings
# Summaries per summary with images, which would otherwise be 99.9 % of an event file.
SUMMARIES_PER_IMAGE = 100
ACTIVATIONS, SPARSITY = "activations", "sparsity"
DESCRIPTIONS = {
    "total_loss": "The mean of the losses of all clones, with regularization.",
    "learning_rate": "The learning rate of the step.",
    "epoch": "Images trained on so far, divided by the training images of the dataset.",
    "train/Accuracy": "The fraction of the first clone's batch whose likeliest class is correct. "
    "The batch is distorted, and dropout and batch norm work as in training.",
    "train/Loss": "The cross entropy of the batch, without regularization and label smoothing.",
    "augmented_images": "Images of the first clone's batch, as the network sees them.",
    "losses": "A part of the loss of the first clone.",
    "global_step/sec": "Steps per second since the previous summary.",
    "images_per_second": "Images of all clones and workers per second since the previous line of "
    "the log.",
    "input_share": "The fraction of the time in which steps waited for their images.",
    ACTIVATIONS: "The values of an end point of the first clone.",
    SPARSITY: "The fraction of the values of an end point that are 0.",
    "flags": "The flags of the command; once for every start of the run.",
}
VARIABLE = "The values of a variable."  # the tag is its name
# All other flags that are set are columns of the HParams tab, which compares runs.
NOT_COMPARED = (
    "cluster_timeout_secs",
    "dataset_dir",
    "histograms",
    "job_name",
    "log_every_n_steps",
    "master",
    "num_preprocessing_threads",
    "num_readers",
    "ps_hosts",
    "quantize_delay",
    "save_interval_secs",
    "save_summaries_secs",
    "task",
    "train_dir",
    "worker_hosts",
)


class RunLog:
    """Counts, times and logs the steps of a run, and writes their summaries."""

    def __init__(self, values: flags.FlagValues, run: Run, images_per_step: int) -> None:
        self._values = values
        self._run = run
        self._images_per_step = images_per_step
        self._phase: str | None = None
        self._summarized: tuple[float, int] | None = None  # time and step of the last summary
        self._summaries = 0  # written by this process
        self._slow_lines = 0  # in a row; minus infinity after the recommendation
        self.step = 0  # the last one
        self.writer: tf.summary.FileWriter | None = None  # None without summaries

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
        """Opens the event file, unless there are no summaries; a new run writes its graph once."""
        if self._values.save_summaries_secs:
            self.writer = tf.summary.FileWriter(self._values.train_dir)
            if not self._run.latest_checkpoint:
                self.writer.add_graph(tf.get_default_graph())
                self.writer.add_summary(layout_charts(), 0)

    def close(self) -> None:
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
        # The first summary of a start comes with its flags, later ones with the speed since then.
        if self._summarized:
            before, step = self._summarized
            self._write({"global_step/sec": (self.step - step) / (now - before)})
        else:
            begun = tf.SessionLog(status=tf.SessionLog.START)
            self.writer.add_session_log(begun, self.step)
            self.writer.add_summary(summarize_flags(self._values.flag_values_dict()), self.step)
        described = describe(summary, DESCRIPTIONS, VARIABLE)
        if self._summaries % SUMMARIES_PER_IMAGE:
            values = [value for value in described.value if not value.HasField("image")]
            described = tf.Summary(value=values)
        self.writer.add_summary(described, self.step)
        self._summaries += 1
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
        is_slow = scalars["input_share"] > 0.5
        self._slow_lines = self._slow_lines + 1 if is_slow else min(self._slow_lines, 0)
        if self._slow_lines == SLOW_LINES:
            self._slow_lines = -math.inf
            print(
                "note: steps wait for their images more than half of the time: shrink large ones "
                "with convert_dataset.py --max_side=512, say, or raise --num_preprocessing_threads",
                flush=True,
            )
        self._logged, self._time, self._waited = self.step, now, 0.0

    def _write(self, scalars: Mapping[str, float]) -> None:
        values = [scalar(tag, value, DESCRIPTIONS[tag]) for tag, value in scalars.items()]
        self.writer.add_summary(tf.Summary(value=values), self.step)


def build_summary(
    clone: Clone, scalars: Mapping[str, tf.Tensor], histograms: bool, wanted: tf.Tensor
) -> tf.Tensor:
    """Builds the summary of scalars and of a clone, a string scalar that is empty unless wanted."""
    # Steps with and without a summary run the same tensors, since TensorFlow takes seconds to
    # prepare each set of tensors. Without one, large tensors are cut to no rows; a conditional
    # would slow down every operation of the step.
    share = tf.cast(wanted, tf.int32)
    outputs = clone.outputs
    correct = tf.equal(tf.argmax(outputs.logits, 1), tf.cast(outputs.labels, tf.int64))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(outputs.labels, outputs.logits)
    scalars = {**scalars, "train/Accuracy": tf.reduce_mean(tf.cast(correct, tf.float32))}
    scalars["train/Loss"] = tf.reduce_mean(losses)
    summaries = [tf.summary.scalar(name, value) for name, value in scalars.items()]
    if (images := outputs.end_points.get("images")) is not None:
        # The darkest value of the batch becomes 0, the brightest 255.
        images = images[: share * tf.shape(images)[0]]
        darkest, brightest = tf.reduce_min(images), tf.reduce_max(images)
        images = tf.saturate_cast(255 * (images - darkest) / (brightest - darkest), tf.uint8)
        summaries.append(tf.summary.image("augmented_images", images, IMAGES_SHOWN))
    for loss in tf.losses.get_losses(clone.scope or None):
        summaries.append(tf.summary.scalar(f"losses/{loss.op.name}", loss))
    regularization_loss = tf.losses.get_regularization_loss()
    summaries.append(tf.summary.scalar("losses/regularization_loss", regularization_loss))
    if histograms:
        for name, end_point in outputs.end_points.items():
            values = tf.reshape(end_point, [-1])[: share * tf.size(end_point)]
            zeros = tf.reduce_mean(tf.cast(tf.equal(values, 0), tf.float32))
            summaries.append(tf.summary.histogram(f"{ACTIVATIONS}/{name}", values))
            summaries.append(tf.summary.scalar(f"{SPARSITY}/{name}", zeros))
        for variable in slim.get_model_variables():
            values = tf.reshape(variable, [-1])[: share * tf.size(variable)]
            summaries.append(tf.summary.histogram(variable.op.name, values))
    summary = tf.summary.merge(summaries)
    return tf.strings.substr(summary, 0, share * tf.strings.length(summary))


def layout_charts() -> tf.Summary:
    """Returns charts of training and evaluation together, for the tab *Custom Scalars*."""
    charts = [
        {"title": name, "multiline": {"tag": [f"train/{name}$", f"eval/{name}$"]}}
        for name in ("Loss", "Accuracy")
    ]
    category = {"title": "training and evaluation", "chart": charts}
    return custom_scalars.pb(layout_pb2.Layout(category=[category]))


def summarize_flags(values: Mapping[str, object]) -> tf.Summary:
    """Returns a table of all flags by name, and those that runs are compared by."""
    used = {name: value for name, value in values.items() if value not in (None, "")}
    rows = [f"| {name} | {f'`{used[name]}`' if name in used else ''} |" for name in values]
    table = "\n".join(["| flag | value |", "| --- | --- |", *rows])
    summary = tf.Summary(value=[text("flags", table, DESCRIPTIONS["flags"])])
    compared = {name: value for name, value in used.items() if name not in NOT_COMPARED}
    # TensorBoard has its own class of the same message.
    trial = os.path.normpath(str(values["train_dir"]))
    message = hparams.hparams_pb(compared, trial_id=trial)
    summary.MergeFromString(message.SerializeToString())
    return summary
