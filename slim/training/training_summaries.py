"""What TensorBoard shows of a training run."""

import os
from collections.abc import Mapping

from tensorboard.plugins.hparams import api as hparams

from slim.common.compat import slim, tf
from slim.common.summaries import text
from slim.common.tables import Table
from slim.deployment.model_deploy import Clone

IMAGES_SHOWN = 4
ACTIVATIONS, SPARSITY = "activations", "sparsity"
DESCRIPTIONS = {
    "total_loss": "The mean of the losses of all clones, with regularization.",
    "learning_rate": "The learning rate of the step.",
    "epoch": "Images trained on so far, divided by the training images of the dataset.",
    "train/Accuracy": "The fraction of the first clone's batch whose likeliest class is correct. "
    "The batch is distorted, and dropout and batch norm work as in training.",
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


def build_summary(
    clone: Clone, scalars: Mapping[str, tf.Tensor], histograms: bool, wanted: tf.Tensor
) -> tf.Tensor:
    """Builds the summary of scalars, and of the input, the accuracy and the losses of a clone.

    Steps with and without a summary run the same tensors, since TensorFlow takes seconds to prepare
    each set of tensors. Without one, large tensors are cut to no rows; a conditional would slow
    down every operation of the step.

    Returns:
        The serialized summary, a string scalar; empty unless wanted.
    """
    share = tf.cast(wanted, tf.int32)
    outputs = clone.outputs
    correct = tf.equal(tf.argmax(outputs.logits, 1), tf.cast(outputs.labels, tf.int64))
    scalars = {**scalars, "train/Accuracy": tf.reduce_mean(tf.cast(correct, tf.float32))}
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


def summarize_flags(values: Mapping[str, object]) -> tf.Summary:
    """Returns a table of all flags by name, and those that runs are compared by."""
    rows = [(name, "" if value in (None, "") else f"`{value}`") for name, value in values.items()]
    table = str(Table(("flag", "value"), rows))
    summary = tf.Summary(value=[text("flags", table, DESCRIPTIONS["flags"])])
    compared = {n: v for n, v in values.items() if n not in NOT_COMPARED and v not in (None, "")}
    # TensorBoard has its own class of the same message.
    trial = os.path.normpath(str(values["train_dir"]))
    message = hparams.hparams_pb(compared, trial_id=trial)
    summary.MergeFromString(message.SerializeToString())
    return summary
