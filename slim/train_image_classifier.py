"""Trains an image classifier: `python -m slim.train_image_classifier --train_dir=...`.

The flags, and what they mean, are those of the published script; `--max_number_of_epochs`,
`--batch_norm_decay`, `--seed` and `--histograms` are new, and so is how several machines are given:
`--ps_hosts`, `--worker_hosts`, `--job_name`, `--all_reduce` and `--cluster_timeout_secs`, or
`TF_CONFIG`.
"""

import math
import os
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np
from absl import flags

from slim.checkpoints.description import ModelDescription, write_model_description
from slim.checkpoints.reading import find_checkpoint
from slim.common.command_line import FlagSet, define_shared_flags, define_speed_flags, run_command
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.input import InputSettings, training_batches
from slim.datasets.registry import Dataset, get_dataset, number_of_classes
from slim.deployment.all_reduce import AllReduce
from slim.deployment.cluster import Cluster, find_cluster, join, serve
from slim.deployment.model_deploy import DeploymentConfig, create_clones, optimize_clones
from slim.deployment.synchronous import SynchronousReplicas
from slim.nets.nets_factory import check_image_size, get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing
from slim.training.cached_features import cache_features, check_trained_above
from slim.training.graph import (
    build_clone,
    build_last_layer,
    build_summaries,
    build_train_op,
    feed_features,
    split_scopes,
    variables_to_train,
)
from slim.training.loop import train
from slim.training.optimizers import (
    DECAY_TYPES,
    OPTIMIZERS,
    configure_learning_rate,
    decay_steps,
    with_scaled_loss,
)
from slim.training.start import announce_start, find_last_step, prepare_train_dir, start_from


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags, the published ones with their published defaults."""
    define = FlagSet(values)
    define_shared_flags(define, split="train", batch_size=64)
    define.string("train_dir", None, "Where checkpoints and event files are written.")
    define.integer("train_image_size", 299, "Height and width of the images in pixels.", 1)
    define.integer("max_number_of_steps", None, "Step to stop at. Default: go on until stopped.", 1)
    define.real(
        "max_number_of_epochs", None, "Epochs to stop after, if that comes first. Default: none."
    )
    define.integer("num_readers", 4, "Shards read side by side.", 1)
    define.integer("log_every_n_steps", 10, "Steps between two lines of the log.", 1)
    define.integer("save_summaries_secs", 10, "Seconds between two summaries.", 0)
    define.integer("save_interval_secs", 60, "Seconds between two checkpoints.", 0)
    define.integer("seed", None, "Seed of weights, order and distortions. Default: none.")
    define.boolean("histograms", False, "Summarize the histogram of every variable and end point.")

    define.integer("num_clones", 1, "Clones of the network, one a GPU, each with its batch.", 1)
    define.boolean("clone_on_cpu", False, "Put the clones on the CPU.")
    define.integer("worker_replicas", 1, "Number of worker replicas.", 1)
    define.integer("num_ps_tasks", 0, "Number of parameter servers.", 0)
    define.integer("task", 0, "Task id of this process in its job; worker 0 is the chief.", 0)
    define.boolean("sync_replicas", True, "Synchronize the replicas; else each updates alone.")
    define.integer("replicas_to_aggregate", 1, "Gradients to collect before an update.", 1)
    define.words("worker_hosts", [], "Addresses of the workers, host:port, comma-separated.")
    define.words("ps_hosts", [], "Addresses of the parameter servers, likewise.")
    define.choice("job_name", "worker", ("worker", "ps"), "The job of this process.")
    define.boolean("all_reduce", False, "Synchronize the replicas without parameter servers.")
    define.integer("cluster_timeout_secs", 600, "Seconds to wait for another process.", 1)

    define.real("weight_decay", 0.00004, "Coefficient of the L2 loss on the weights.", 0)
    define.real("label_smoothing", 0.0, "Share of the label spread over all classes.", 0)
    define.real(
        "batch_norm_decay", None, "Decay of moving mean and variance. Default: the network's."
    )
    define.integer("quantize_delay", -1, "Steps before quantized training; -1: none.")
    define.choice("optimizer", "momentum", tuple(OPTIMIZERS), "The optimizer.")
    define.real("adadelta_rho", 0.95, "Decay rate of adadelta.")
    define.real("adagrad_initial_accumulator_value", 0.1, "Start of adagrad's accumulators.")
    define.real("adam_beta1", 0.9, "Decay rate of adam's first moment.")
    define.real("adam_beta2", 0.999, "Decay rate of adam's second moment.")
    define.real("opt_epsilon", 1.0, "Epsilon of adadelta, adam and rmsprop.")
    define.real("ftrl_learning_rate_power", -0.5, "Learning rate power of ftrl.")
    define.real("ftrl_initial_accumulator_value", 0.1, "Start of ftrl's accumulators.")
    define.real("ftrl_l1", 0.0, "L1 strength of ftrl.")
    define.real("ftrl_l2", 0.0, "L2 strength of ftrl.")
    define.real("momentum", 0.9, "Momentum of the momentum optimizer.")
    define.real("rmsprop_momentum", 0.9, "Momentum of rmsprop.")
    define.real("rmsprop_decay", 0.9, "Decay rate of rmsprop.")

    define.choice("learning_rate_decay_type", "exponential", DECAY_TYPES, "How the rate decays.")
    define.real("learning_rate", 0.01, "Initial learning rate.")
    define.real("end_learning_rate", 0.0001, "Where polynomial decay ends.")
    define.real("learning_rate_decay_factor", 0.1, "Factor of exponential decay.")
    define.real("num_epochs_per_decay", 30.0, "Epochs between two decays, counted for one clone.")

    define.string("checkpoint_path", None, "A checkpoint, or a folder of them, to fine-tune from.")
    define.string(
        "checkpoint_exclude_scopes",
        None,
        "Comma-separated; variables whose name contains one of these are not restored.",
    )
    define.string(
        "trainable_scopes",
        None,
        "Comma-separated; only variables whose name contains one of these are trained.",
    )
    define.boolean("ignore_missing_vars", False, "Leave variables alone that a checkpoint lacks.")

    define.boolean("augment", True, "Distort the images; --noaugment: prepared as for evaluation.")
    define.boolean(
        "cache_features",
        False,
        "Compute the part of the network that is not trained once for each image, in "
        "--train_dir/features. Needs --noaugment, and --trainable_scopes of the last layer.",
    )
    define_speed_flags(define)


def main(values: flags.FlagValues) -> None:
    """Trains an image classifier on the shards that convert_dataset.py wrote."""
    cluster = find_cluster(
        values.ps_hosts,
        values.worker_hosts,
        values.job_name,
        values.task,
        values.master,
        values.worker_replicas,
        values.num_ps_tasks,
        values.all_reduce,
        values.cluster_timeout_secs,
        os.environ,
    )
    if cluster.job == "ps":
        serve(cluster)
        return
    check_flags(values)
    if values.precision == "float16" and cluster.num_workers > 1:
        raise UserError(
            "--precision=float16: steps that overflow cannot be left out by several machines "
            "together; give --precision=bfloat16"
        )
    dataset = get_dataset(values.dataset_name, values.dataset_split_name, values.dataset_dir)
    num_classes = number_of_classes(dataset.num_classes, values.labels_offset)
    train_dir = Path(values.train_dir)
    replicas, to_aggregate = synchronize_replicas(
        cluster, values.sync_replicas, values.replicas_to_aggregate
    )
    images_per_step = values.batch_size * values.num_clones * to_aggregate
    last_step = find_last_step(
        values.max_number_of_steps,
        values.max_number_of_epochs,
        dataset.num_samples,
        images_per_step,
    )
    first_step = 0
    if cluster.is_chief:
        if values.checkpoint_path and tf.train.latest_checkpoint(values.train_dir) is None:
            find_checkpoint(values.checkpoint_path)
        prepare_train_dir(train_dir)
        first_step = announce_start(train_dir, last_step)
    # In a cluster the others have to learn it, which they do in the ordinary way.
    alone = cluster.num_workers == 1 and not cluster.num_ps
    if alone and first_step >= (last_step or math.inf):
        return
    config = DeploymentConfig(
        values.num_clones, values.clone_on_cpu, cluster.task, cluster.num_workers, cluster.num_ps
    )
    config.check_devices(len(tf.config.list_physical_devices("GPU")))
    seed = None if values.seed is None else values.seed + cluster.task
    features = prepare_features(values, dataset, train_dir) if values.cache_features else None

    with join(cluster) as target, tf.Graph().as_default(), tf.device(config.worker_device or None):
        tf.set_random_seed(seed)
        with tf.device(config.variables_device() or None):
            global_step = tf.train.create_global_step()
        network_fn = get_network_fn(
            values.model_name,
            num_classes,
            values.weight_decay,
            is_training=True,
            batch_norm_decay=values.batch_norm_decay,
            dtype=tf.as_dtype("float32" if features else values.precision),
        )
        # Resumed, a run goes on with other images than those it began with.
        order = None if seed is None else seed + first_step
        if features:
            clones = create_clones(
                config,
                build_last_layer,
                network_fn,
                values.model_name,
                num_classes,
                values.label_smoothing,
            )
            feeds = feed_features(clones[0].outputs, *features, values.batch_size, order)
        else:
            with tf.device(config.inputs_device()):
                batches = training_batches(
                    dataset,
                    get_preprocessing(
                        values.preprocessing_name or values.model_name, is_training=values.augment
                    ),
                    InputSettings(
                        image_size=values.train_image_size,
                        batch_size=values.batch_size,
                        num_classes=num_classes,
                        labels_offset=values.labels_offset,
                        num_threads=values.num_preprocessing_threads,
                        num_readers=values.num_readers,
                        seed=order,
                        num_workers=cluster.num_workers,
                        worker=cluster.task,
                    ),
                )
                iterator = tf.data.make_initializable_iterator(batches)
                tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
            clones = create_clones(
                config, build_clone, network_fn, iterator, num_classes, values.label_smoothing
            )
            feeds = repeat({})
        learning_rate = configure_learning_rate(
            values.learning_rate_decay_type,
            values.learning_rate,
            global_step,
            decay_steps(
                dataset.num_samples, values.num_epochs_per_decay, values.batch_size, to_aggregate
            ),
            values.learning_rate_decay_factor,
            values.end_learning_rate,
        )
        optimizer = OPTIMIZERS[values.optimizer](learning_rate, values.flag_values_dict())
        loss_scale = None
        if values.precision == "float16" and not features:
            loss_scale = tf.mixed_precision.DynamicLossScale()
            optimizer = with_scaled_loss(optimizer, loss_scale)
        to_train = variables_to_train(split_scopes(values.trainable_scopes))
        if features:
            check_trained_above(clones[0].outputs.inputs, to_train)
        total_loss, gradients = optimize_clones(clones, optimizer, to_train)
        train_op, averages = build_train_op(
            total_loss,
            gradients,
            optimizer,
            [] if features else tf.get_collection(tf.GraphKeys.UPDATE_OPS, clones[0].scope or None),
            values.moving_average_decay,
            global_step,
            replicas,
            loss_scale,
        )
        train_op["waited"] = tf.add_n([clone.outputs.waited for clone in clones]) / len(clones)
        session_options = cluster.session_config(values.xla)
        if features:
            # It would rewrite what stands around the tensor that is fed, and want images again.
            session_options.graph_options.rewrite_options.disable_meta_optimizer = True
        epoch = tf.cast(global_step, tf.float32) * images_per_step / dataset.num_samples
        summary_op = build_summaries(clones[0], total_loss, learning_rate, epoch, values.histograms)
        set_variables = None
        if cluster.is_chief:
            set_variables = start_from(
                train_dir,
                values.checkpoint_path,
                split_scopes(values.checkpoint_exclude_scopes),
                values.ignore_missing_vars,
                averages,
            )
            class_names = dataset.class_names or tuple(map(str, range(dataset.num_classes)))
            description = ModelDescription(
                values.model_name,
                values.train_image_size,
                values.preprocessing_name or values.model_name,
                dataset.name,
                class_names[values.labels_offset :],
            )
            write_model_description(train_dir, description)
        train(
            train_op,
            feeds,
            global_step,
            summary_op,
            train_dir,
            images_per_step,
            last_step,
            values.log_every_n_steps,
            values.save_summaries_secs,
            values.save_interval_secs,
            set_variables,
            cluster,
            target,
            replicas,
            session_options,
        )


def check_flags(values: flags.FlagValues) -> None:
    """Refuses what cannot work before anything is built.

    Raises:
        UserError: Naming the flag.
    """
    if values.quantize_delay >= 0:
        raise UserError(
            f"--quantize_delay={values.quantize_delay}: TensorFlow 2 has no contrib quantizer; "
            "leave the flag out"
        )
    if not values.train_dir:
        raise UserError(
            "--train_dir is missing: the folder that checkpoints and event files go to, such as "
            "--train_dir=./checkpoints/cub_200"
        )
    check_image_size(values.model_name, values.train_image_size, values.train_image_size)
    if values.cache_features:
        check_cache_flags(values)


def check_cache_flags(values: flags.FlagValues) -> None:
    """Refuses what cached features cannot be trained with.

    Raises:
        UserError: Naming the flag.
    """
    for flag, expected, reason in (
        ("augment", False, "distorted images have other features every time"),
        ("preprocessing_name", None, "images are prepared as for feature extraction"),
        ("num_clones", 1, "a layer is too little for several GPUs"),
        ("worker_replicas", 1, "a layer is too little for several machines"),
    ):
        if values[flag].value != expected:
            to_do = "give --noaugment" if flag == "augment" else f"leave --{flag} out"
            raise UserError(f"--cache_features: {reason}; {to_do}")
    if not values.checkpoint_path:
        raise UserError(
            "--cache_features: --checkpoint_path is missing, the checkpoint whose features are "
            "trained on"
        )


def prepare_features(
    values: flags.FlagValues, dataset: Dataset, train_dir: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Features `[images, depth]` of the network of `--checkpoint_path`, and labels `[images]`.

    Raises:
        UserError: They cannot be computed.
    """
    features, labels = cache_features(
        train_dir / "features",
        dataset,
        values.dataset_dir,
        values.model_name,
        find_checkpoint(values.checkpoint_path),
        values.train_image_size,
        values.batch_size,
        values.precision,
    )
    return features, labels - values.labels_offset


def synchronize_replicas(
    cluster: Cluster, sync_replicas: bool, replicas_to_aggregate: int
) -> tuple[SynchronousReplicas | AllReduce | None, int]:
    """What makes a step of several workers' gradients, None where each makes its own.

    Args:
        cluster: The workers.
        sync_replicas: Whether they wait for each other.
        replicas_to_aggregate: Gradients of a step; with all-reduce each worker gives one.

    Returns:
        It, and the number of gradients.
    """
    if cluster.all_reduce:
        return AllReduce(cluster.num_workers, cluster.task), cluster.num_workers
    if sync_replicas and max(cluster.num_workers, replicas_to_aggregate) > 1:
        replicas = SynchronousReplicas(cluster.num_workers, replicas_to_aggregate, cluster.is_chief)
        return replicas, replicas_to_aggregate
    return None, 1


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
