"""Trains an image classifier: `python -m slim.train_image_classifier --train_dir=...`.

The flags and their meanings are those of the published script; docs/training.md lists new ones.
Those of a cluster take precedence over `TF_CONFIG`.
"""

# The file reads in the order of a run: flags, `main`, the clones and their losses, the step, the
# loop. TensorFlow is imported within functions, so that flags are checked without it.

from __future__ import annotations

import os
import shlex
import signal
import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from slim.checkpoints.finding import check_path
from slim.common.command_line import FlagSet, define_shared_flags, define_speed_flags, run_command
from slim.common.errors import UserError
from slim.common.network_table import check_image_size, get_network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from slim.checkpoints.description import ModelDescription
    from slim.common.compat import tf
    from slim.datasets.input import Dataset
    from slim.deployment.cluster import Cluster
    from slim.deployment.replicas import Gradients, Replicas
    from slim.training.batches import CloneOutputs, ImageBatches, NetworkFn
    from slim.training.cached_features import FeatureBatches
    from slim.training.run_log import RunLog
    from slim.training.start import Run

AUX_LOSS_WEIGHT = 0.4


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags, the published ones with their published defaults."""
    define = FlagSet(values)
    # Dataset, network, preprocessing, batch size, and the decay of moving averages.
    define_shared_flags(define, split="train", batch_size=64)

    # The run: its folder, its length, its input, its output.
    define.string("train_dir", None, "Folder for checkpoints and event files.")
    define.integer("train_image_size", 299, "Height and width in pixels; 0: the network's.", 0)
    define.integer("max_number_of_steps", None, "Step to stop at. Default: until stopped.", 1)
    define.real(
        "max_number_of_epochs", None, "Epochs to stop after, if earlier.", above=0, most=1e9
    )
    define.integer("num_readers", 4, "Shards read in parallel.", 1, 1000)
    define.integer("log_every_n_steps", 10, "Steps between two lines of the log; 0: none.", 0)
    define.integer("save_summaries_secs", 10, "Seconds between two summaries; 0: none.", 0)
    define.integer("save_interval_secs", 60, "Seconds between two checkpoints; 0: at the end.", 0)
    define.integer("keep_checkpoints", 5, "Newest checkpoints to keep; 0: all.", 0)
    define.integer("seed", None, "Seed of weights, order and distortions.", 0, 2**31 - 1)
    define.boolean("histograms", False, "Write histograms of all variables and end points.")
    define.boolean("augment", True, "Distort the images; --noaugment: preprocess for evaluation.")
    text = "With --noaugment: train the last layer on features that are computed once per image."
    define.boolean("cache_features", False, text)

    # Clones, workers and parameter servers.
    define.integer("num_clones", 1, "Clones, one per GPU, each with its batch.", 1, 1000)
    define.boolean("clone_on_cpu", False, "Place the clones on the CPU.")
    define.integer("worker_replicas", 1, "Number of workers.", 1)
    define.integer("num_ps_tasks", 0, "Number of parameter servers.", 0)
    define.integer("task", 0, "Index of this process in its job; worker 0 is the chief.", 0)
    define.boolean("sync_replicas", True, "Synchronize the workers; otherwise each updates alone.")
    define.integer("replicas_to_aggregate", 1, "Gradients to collect per update.", 1, 1_000_000)
    define.words("worker_hosts", [], "Addresses of the workers, comma-separated host:port.")
    define.words("ps_hosts", [], "Addresses of the parameter servers, comma-separated host:port.")
    define.choice("job_name", "worker", ("worker", "ps"), "Job of this process.")
    define.boolean("all_reduce", False, "Synchronize the workers without parameter servers.")
    define.integer("cluster_timeout_secs", 600, "Seconds to wait for a process.", 1, 10**9)

    # The optimizer.
    optimizers = ("adadelta", "adagrad", "adam", "ftrl", "momentum", "rmsprop", "sgd")
    define.choice("optimizer", "momentum", optimizers, "Name of the optimizer.")
    define.real("adadelta_rho", 0.95, "Decay rate of adadelta.", 0, most=1)
    define.real("adagrad_initial_accumulator_value", 0.1, "Initial accumulators.", above=0)
    # Both moments are divided by 1 - beta^step.
    define.real("adam_beta1", 0.9, "Decay rate of adam's first moment.", 0, below=1)
    define.real("adam_beta2", 0.999, "Decay rate of adam's second moment.", 0, below=1)
    define.real("opt_epsilon", 1.0, "Epsilon of adadelta, adam and rmsprop.", 0)
    define.real("ftrl_learning_rate_power", -0.5, "Learning rate power of ftrl.", most=0)
    define.real("ftrl_initial_accumulator_value", 0.1, "Initial accumulators of ftrl.", 0)
    define.real("ftrl_l1", 0.0, "L1 regularization strength of ftrl.", 0)
    define.real("ftrl_l2", 0.0, "L2 regularization strength of ftrl.", 0)
    define.real("momentum", 0.9, "Momentum of the momentum optimizer.", 0, most=1)
    define.real("rmsprop_momentum", 0.9, "Momentum of rmsprop.", 0, most=1)
    define.real("rmsprop_decay", 0.9, "Decay rate of rmsprop.", 0, most=1)

    # The learning rate.
    decays = ("fixed", "exponential", "polynomial", "cosine")
    define.choice("learning_rate_decay_type", "exponential", decays, "Type of the decay.")
    define.real("learning_rate", 0.01, "Initial learning rate.", 0)
    define.real("end_learning_rate", 0.0001, "Final rate of polynomial and cosine decay.", 0)
    define.real("learning_rate_decay_factor", 0.1, "Factor of exponential decay.", 0)
    define.real("num_epochs_per_decay", 30.0, "Epochs of a clone between decays.", most=1e9)
    define.integer("warmup_steps", 0, "Steps in which the rate rises from 0, linearly.", 0)
    flags.register_multi_flags_validator(
        ["num_epochs_per_decay", "learning_rate_decay_type"],
        lambda of: of["num_epochs_per_decay"] > 0 or of["learning_rate_decay_type"] == "fixed",
        "expected --num_epochs_per_decay > 0; a fixed rate does not use it",
        flag_values=values,
    )

    # Regularization, the first values, and the trained variables.
    define.real("weight_decay", 0.00004, "Coefficient of the L2 loss on the weights.", 0)
    define.real("label_smoothing", 0.0, "Share of the label spread over all classes.", 0, most=1)
    text = "Weights of classes in the loss: 1 / images, or 1 / the effective number of images."
    define.choice("class_weights", "none", ("none", "balanced", "effective"), text)
    define.real("class_weights_beta", 0.999, "Beta of the effective number of images.", 0, below=1)
    define.real("batch_norm_decay", None, "Decay of batch norm. Default: the network's.", 0, most=1)
    text = "Batch norm uses and keeps its averages in layers that are not trained."
    define.boolean("freeze_batch_norm", False, text)
    define.integer("quantize_delay", -1, "Steps before quantized training; -1: none.")
    define.string("checkpoint_path", None, "Checkpoint to fine-tune from, or a folder of them.")
    text = "Comma-separated; variables whose name contains one of these are not restored."
    define.string("checkpoint_exclude_scopes", None, text)
    text = "Comma-separated; only variables whose name contains one of these are trained."
    define.string("trainable_scopes", None, text)
    define.boolean("ignore_missing_vars", False, "Skip variables that the checkpoint lacks.")
    define_speed_flags(define)


def main(values: flags.FlagValues) -> None:
    """Trains an image classifier on the shards that convert_dataset.py wrote."""
    from slim.datasets.input import get_dataset
    from slim.deployment.cluster import find_cluster, serve
    from slim.deployment.replicas import choose_replicas
    from slim.training.start import describe_model, find_last_step, take_part

    # A parameter server only holds variables until the workers have ended.
    cluster = find_cluster(values, os.environ)
    if cluster.job_name == "ps":
        serve(cluster)
        return
    check_flags(values, cluster)

    # The length of the run. A step takes a batch for every clone of every replica.
    dataset = get_dataset(values.dataset_name, values.dataset_split_name, values.dataset_dir)
    model = describe_model(values, dataset)
    replicas = choose_replicas(cluster, values.sync_replicas, values.replicas_to_aggregate)
    images_per_step = values.batch_size * values.num_clones * replicas.gradients_per_step
    limits = values.max_number_of_steps, values.max_number_of_epochs
    last_step = find_last_step(*limits, dataset.num_samples, images_per_step)

    # The folder is locked and the cluster joined as long as this process takes part.
    with take_part(cluster, Path(values.train_dir), last_step, values.checkpoint_path) as run:
        if run.is_complete:
            return
        changed = [flag for flag in map(values.__getitem__, values) if not flag.using_default_value]
        text = f"flags: {shlex.join(flag.serialize() for flag in changed)}; otherwise defaults"
        print(textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False))
        print(
            f"data: {dataset.num_samples:,} images of {dataset.num_classes:,} classes in "
            f"{dataset.name} ({dataset.split_name}), {images_per_step:,} per step, "
            f"{dataset.num_samples / images_per_step:,.1f} steps per epoch",
            flush=True,
        )
        train(
            values,
            run,
            replicas=replicas,
            dataset=dataset,
            model=model,
            images_per_step=images_per_step,
        )


def check_flags(values: flags.FlagValues, cluster: Cluster) -> None:
    """Checks the flags that can be checked without the dataset, and sets the default size."""
    check_path(values.train_dir or "", "--train_dir")
    if values.quantize_delay >= 0:
        raise UserError(
            f"--quantize_delay={values.quantize_delay}: TensorFlow 2 has no contrib quantizer; "
            "omit the flag"
        )
    if not values.train_dir:
        raise UserError(
            "--train_dir is missing: expected a folder for checkpoints and event files, such as "
            "--train_dir=./checkpoints/cub_200"
        )
    if not values.train_image_size:
        values.train_image_size = get_network(values.model_name).default_image_size
    check_image_size(values.model_name, values.train_image_size, values.train_image_size)
    if values.precision == "float16" and cluster.worker_replicas > 1:
        raise UserError(
            "--precision=float16: several workers cannot skip a step together when gradients "
            "overflow; pass --precision=bfloat16"
        )
    if values.cache_features:
        from slim.training.cached_features import check_cache_flags

        check_cache_flags(values, cluster)


def train(
    values: flags.FlagValues,
    run: Run,
    *,
    replicas: Replicas,
    dataset: Dataset,
    model: ModelDescription,
    images_per_step: int,
) -> None:
    """Builds the graph of a run, chooses its first values, and runs its steps."""
    from slim.checkpoints.description import write_model_description
    from slim.common.compat import tf
    from slim.common.devices import count_parameters, describe_devices, describe_run
    from slim.deployment import model_deploy
    from slim.nets.nets_factory import get_network_fn
    from slim.training.batches import ImageBatches, class_weights
    from slim.training.cached_features import FeatureBatches
    from slim.training.optimizers import configure_learning_rate, configure_optimizer
    from slim.training.run_log import RunLog, build_summary
    from slim.training.start import first_values, frozen_variables, variables_to_train

    cluster, num_classes = run.cluster, len(model.class_names)
    places = cluster.task, cluster.worker_replicas, cluster.num_ps_tasks
    config = model_deploy.DeploymentConfig(values.num_clones, values.clone_on_cpu, *places)
    config.check_devices(len(tf.config.list_physical_devices("GPU")))
    devices = describe_devices(values.num_clones, values.clone_on_cpu)
    log = RunLog(values, run, images_per_step)
    log.begin_phase("building the graph")
    with model_deploy.replica_graph(config, values.seed) as global_step:
        # The clones, each with its batch and its losses. Cached features have --precision, but the
        # layer that is trained on them computes in float32.
        dtype = tf.float32 if values.cache_features else tf.as_dtype(values.precision)
        network_fn = get_network_fn(
            values.model_name,
            num_classes,
            weight_decay=values.weight_decay,
            is_training=True,
            batch_norm_decay=values.batch_norm_decay,
            dtype=dtype,
            is_frozen=frozen_variables(values),
        )
        make_batches = FeatureBatches if values.cache_features else ImageBatches
        batches = make_batches(values, dataset, num_classes, run)
        weights = class_weights(values, dataset, num_classes)
        clones = model_deploy.create_clones(
            config, build_clone, network_fn, batches, num_classes, values.label_smoothing, weights
        )
        trained = variables_to_train(values.trainable_scopes)
        # The moving averages of batch norm follow the batches of the first clone, as published.
        update_ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS, clones[0].scope or None)
        if values.cache_features:
            trained = batches.compute(clones[0].outputs, trained)
            update_ops = []  # below the features, nothing runs

        # The step, and its summary.
        learning_rate = configure_learning_rate(
            values, dataset.num_samples, replicas.gradients_per_step, global_step
        )
        optimizer, loss_scale = configure_optimizer(values, learning_rate, dtype)
        loss, gradients = model_deploy.optimize_clones(clones, optimizer, trained)
        step, averages = build_train_op(
            loss,
            gradients,
            optimizer,
            global_step=global_step,
            replicas=replicas,
            update_ops=update_ops,
            moving_average_decay=values.moving_average_decay,
            loss_scale=loss_scale,
        )
        step["waited"] = tf.add_n([clone.outputs.waited for clone in clones]) / len(clones)
        epoch = tf.cast(global_step, tf.float32) * images_per_step / dataset.num_samples
        scalars = {"total_loss": loss, "learning_rate": learning_rate, "epoch": epoch}
        wants_summary = tf.placeholder(tf.bool, [])
        step["summary"] = build_summary(clones[0], scalars, values.histograms, wants_summary)
        size_and_place = describe_run(
            values.model_name,
            values.train_image_size,
            count_parameters(tf.trainable_variables()),
            devices=devices,
            trained=count_parameters(trained),
            num_clones=values.num_clones,
            precision=dtype.name,
            xla=values.xla,
        )
        print(size_and_place, flush=True)

        # The first values, which the chief chooses. The order matters:
        # 1. The latest checkpoint in --train_dir has all variables and the step: the run resumes.
        # 2. --checkpoint_path has the model variables, except --checkpoint_exclude_scopes.
        # 3. The initializers have the others. Moving averages then begin at the values of the
        #    variables; from the initializers, as in TensorFlow, noise would remain in them.
        set_variables = None
        if cluster.is_chief:
            set_variables = first_values(run, values, averages, model)
            write_model_description(run.train_dir, model)

        run_steps(
            values,
            run,
            log,
            replicas=replicas,
            set_variables=set_variables,
            batches=batches,
            outputs=clones[0].outputs,
            step=step,
            wants_summary=wants_summary,
        )


def build_clone(
    network_fn: NetworkFn,
    batches: ImageBatches | FeatureBatches,
    num_classes: int,
    label_smoothing: float,
    class_weights: Sequence[float] | None = None,
) -> CloneOutputs:
    """Builds a clone on the next batch, and adds its losses to their collection."""
    from slim.common.compat import tf

    outputs = batches.build(network_fn)
    labels = tf.one_hot(outputs.labels, num_classes)
    # The loss is the sum of the weighted losses, divided by the number of images.
    weights = 1.0 if class_weights is None else tf.gather(class_weights, outputs.labels)
    smoothing = {"label_smoothing": label_smoothing}
    if "AuxLogits" in outputs.end_points:
        aux, scaled = outputs.end_points["AuxLogits"], AUX_LOSS_WEIGHT * weights
        tf.losses.softmax_cross_entropy(labels, aux, scaled, scope="aux_loss", **smoothing)
    tf.losses.softmax_cross_entropy(labels, outputs.logits, weights, **smoothing)
    return outputs


def build_train_op(
    total_loss: tf.Tensor,
    gradients: Gradients,
    optimizer: tf.train.Optimizer,
    *,
    global_step: tf.Variable,
    replicas: Replicas | None = None,
    update_ops: Sequence[tf.Operation] = (),
    moving_average_decay: float | None = None,
    loss_scale: tf.mixed_precision.LossScale | None = None,
) -> tuple[dict[str, tf.Tensor], list[tuple[tf.Variable, tf.Variable]]]:
    """Builds a step: gradients, then the updates of batch norm, then moving averages.

    Returns the `loss` before the update and the `step` after it, scalars that carry out the step,
    and the model variables with their moving averages. If the loss or a gradient is not finite, the
    step leaves the trained variables alone and raises `tf.errors.InvalidArgumentError` with
    `NOT_FINITE` in its message; with a loss scale, a step whose gradients overflow is skipped.
    """
    from slim.common.compat import slim, tf
    from slim.deployment.replicas import Replicas
    from slim.training.saving import NOT_FINITE

    replicas = replicas or Replicas()
    total_loss, gradients = replicas.combine(total_loss, gradients)
    norm = tf.linalg.global_norm([gradient for gradient, _ in gradients])
    good = tf.math.is_finite(norm)
    if loss_scale:
        good |= loss_scale() > 1  # the optimizer can still reduce it
    message = [NOT_FINITE, "loss", total_loss, "gradient norm", norm]
    finite = tf.Assert(tf.math.is_finite(total_loss) & good, message)
    with tf.control_dependencies([finite]):
        gradients = [(tf.identity(gradient), variable) for gradient, variable in gradients]
    # Moving averages take the values after the update. Their decay begins at 2 / 11 and grows to
    # the given one with the steps, as published.
    average = None
    if moving_average_decay:
        average = tf.train.ExponentialMovingAverage(moving_average_decay, global_step)
    update = replicas.apply_gradients(
        optimizer, gradients, global_step, update_ops=update_ops, average=average
    )
    with tf.control_dependencies([update]):
        step = {"loss": tf.identity(total_loss), "step": tf.identity(global_step.read_value())}
    averaged = slim.get_model_variables() if average else []
    return step, [(variable, average.average(variable)) for variable in averaged]


def run_steps(
    values: flags.FlagValues,
    run: Run,
    log: RunLog,
    *,
    replicas: Replicas,
    set_variables: Callable[[tf.Session], None] | None,
    batches: ImageBatches | FeatureBatches,
    outputs: CloneOutputs,
    step: dict[str, tf.Tensor],
    wants_summary: tf.Tensor,
) -> None:
    """Runs steps until the last one, Ctrl-C or SIGTERM; the chief saves a checkpoint at the end."""
    from slim.common.compat import tf
    from slim.datasets.input import EXPLAINED_ERRORS
    from slim.deployment.cluster import stop_signals
    from slim.training.saving import chief_variables, explain_step_error, worker_variables

    cluster = run.cluster
    options = cluster.session_config(values.xla)
    options.MergeFrom(batches.session_options)
    if cluster.is_chief:
        latest = run.latest_checkpoint
        log.begin_phase(f"{'restoring' if latest else 'initializing'} the variables")
        log.open_event_file()
        scaffold, hooks = chief_variables(run, set_variables, values, log.writer)
    else:
        log.begin_phase("waiting for the variables of the chief")
        latest, hooks, scaffold = None, [], worker_variables(run)
    stopping = False
    try:
        with (
            stop_signals("stopping after this step and a checkpoint") as received,
            tf.train.SingularMonitoredSession(
                hooks=replicas.around(hooks),
                scaffold=scaffold,
                master=run.target,
                config=options,
                checkpoint_dir=str(run.train_dir) if latest else None,
            ) as session,
        ):
            log.begin(int(session.raw_session().run(tf.train.get_global_step())))
            feeds = batches.begin(session.raw_session(), log.step, outputs)
            while not (stopping or session.should_stop() or run.ends_at(log.step)):
                feed = {**next(feeds), wants_summary: log.wants_summary}
                done, stopping = replicas.run_step(session, step, feed, received)
                log.add(done)
    except EXPLAINED_ERRORS as error:
        raise explain_step_error(error, run, log.step + 1) from error
    finally:
        log.close()

    saved = run.latest_checkpoint if cluster.is_chief else None
    if received:
        name = signal.Signals(received[0]).name
        kept = f"{saved} is saved" if saved else "the chief saves"
        print(f"stopped by {name} at step {log.step}; {kept}, the same command resumes", flush=True)
        raise SystemExit(128 + received[0])
    ended = "stopped with another worker" if stopping else "done"
    print(f"{ended}: step {log.step}" + (f", {saved}" if saved else ""), flush=True)


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
