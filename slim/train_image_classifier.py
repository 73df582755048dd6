"""Trains an image classifier: `python -m slim.train_image_classifier --train_dir=...`.

The flags, and what they mean, are those of the published script; `--max_number_of_epochs`,
`--batch_norm_decay`, `--seed` and `--histograms` are new, and so is how several machines are given:
`--ps_hosts`, `--worker_hosts`, `--job_name`, `--all_reduce` and `--cluster_timeout_secs`, or
`TF_CONFIG`.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np
from absl import flags

from slim import checkpoints
from slim.cached_features import cache_features, check_trained_above, feature_batches
from slim.checkpoints.description import Description, write_description
from slim.compat import slim, tf
from slim.datasets.input import next_batch, training_batches
from slim.datasets.registry import Dataset, get_dataset
from slim.deployment.all_reduce import AllReduce
from slim.deployment.cluster import Cluster, find_cluster, join, serve
from slim.deployment.model_deploy import (
    Clone,
    DeploymentConfig,
    create_clones,
    optimize_clones,
)
from slim.deployment.synchronous import SynchronousReplicas
from slim.errors import UserError, run_command
from slim.flags import FlagSet, define_shared_flags, define_speed_flags, number_of_classes
from slim.nets.nets_factory import check_image_size, get_network, get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing
from slim.training_loop import NOT_FINITE, train

AUX_LOSS_WEIGHT = 0.4
IMAGES_SHOWN = 4

OPTIMIZERS: dict[str, Callable[[tf.Tensor, Mapping[str, float]], tf.train.Optimizer]] = {
    "adadelta": lambda rate, s: tf.train.AdadeltaOptimizer(
        rate, rho=s["adadelta_rho"], epsilon=s["opt_epsilon"]
    ),
    "adagrad": lambda rate, s: tf.train.AdagradOptimizer(
        rate, initial_accumulator_value=s["adagrad_initial_accumulator_value"]
    ),
    "adam": lambda rate, s: tf.train.AdamOptimizer(
        rate, beta1=s["adam_beta1"], beta2=s["adam_beta2"], epsilon=s["opt_epsilon"]
    ),
    "ftrl": lambda rate, s: tf.train.FtrlOptimizer(
        rate,
        learning_rate_power=s["ftrl_learning_rate_power"],
        initial_accumulator_value=s["ftrl_initial_accumulator_value"],
        l1_regularization_strength=s["ftrl_l1"],
        l2_regularization_strength=s["ftrl_l2"],
    ),
    "momentum": lambda rate, s: tf.train.MomentumOptimizer(rate, momentum=s["momentum"]),
    "rmsprop": lambda rate, s: tf.train.RMSPropOptimizer(
        rate,
        decay=s["rmsprop_decay"],
        momentum=s["rmsprop_momentum"],
        epsilon=s["opt_epsilon"],
    ),
    "sgd": lambda rate, s: tf.train.GradientDescentOptimizer(rate),
}
DECAY_TYPES = ("fixed", "exponential", "polynomial")


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
            checkpoints.find_checkpoint(values.checkpoint_path)
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
                    values.train_image_size,
                    values.batch_size,
                    num_classes,
                    values.labels_offset,
                    values.num_readers,
                    values.num_preprocessing_threads,
                    order,
                    cluster.num_workers,
                    cluster.task,
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
            description = Description(
                values.model_name,
                values.train_image_size,
                values.preprocessing_name or values.model_name,
                dataset.name,
                class_names[values.labels_offset :],
            )
            write_description(train_dir, description)
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
        checkpoints.find_checkpoint(values.checkpoint_path),
        values.train_image_size,
        values.batch_size,
        values.precision,
    )
    return features, labels - values.labels_offset


def prepare_train_dir(train_dir: Path) -> None:
    """Makes the folder, and removes what a killed run left half-written in it.

    Raises:
        UserError: The path is no folder and cannot become one.
    """
    try:
        train_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--train_dir={train_dir}: cannot make the folder ({error.strerror}); give another one"
        ) from error
    for leftover in train_dir.glob("model.ckpt-*.tempstate*"):
        leftover.unlink()


def find_last_step(
    max_number_of_steps: int | None,
    max_number_of_epochs: float | None,
    num_samples: int,
    images_per_step: int,
) -> int | None:
    """The step to stop at: as given, or that with which the epochs are full, if that is earlier.

    Args:
        max_number_of_steps: Steps, None for no end.
        max_number_of_epochs: Epochs, None for no end.
        num_samples: Images of an epoch.
        images_per_step: Images of a step, over all clones and replicas.

    Raises:
        UserError: The epochs are not a number above 0.
    """
    if max_number_of_epochs is None:
        return max_number_of_steps
    if not 0 < max_number_of_epochs < math.inf:
        raise UserError(f"--max_number_of_epochs={max_number_of_epochs}: expected more than 0")
    # 1.1 epochs of 50 images are 55 images, and not 55.00000000000001.
    images = Fraction(str(max_number_of_epochs)) * num_samples
    return min(max_number_of_steps or math.inf, math.ceil(images / images_per_step))


def announce_start(train_dir: Path, max_number_of_steps: int | None) -> int:
    """Says whether a run begins, goes on, or is done already, and returns its step."""
    latest = tf.train.latest_checkpoint(str(train_dir))
    if latest is None:
        return 0
    step = checkpoints.read_step(latest)
    if max_number_of_steps and step >= max_number_of_steps:
        print(
            f"nothing to do: {latest} is at step {step} of {max_number_of_steps}; to go on give a "
            "larger --max_number_of_steps or --max_number_of_epochs, to begin anew another "
            "--train_dir"
        )
    else:
        print(f"resuming from step {step} ({latest})", flush=True)
    return step


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


@dataclass(frozen=True)
class Model:
    """A network in training, its losses in the collection of losses.

    Attributes:
        inputs: Images `[batch, size, size, 3]`, or the features that its last layer begins with.
        labels: Integers `[batch]`.
        end_points: What it has computed by the way.
        waited: Seconds that the step waited for its batch, float64.
    """

    inputs: tf.Tensor
    labels: tf.Tensor
    end_points: Mapping[str, tf.Tensor]
    waited: tf.Tensor


NetworkFn = Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]]


def build_clone(
    network_fn: NetworkFn, iterator: tf.data.Iterator, num_classes: int, label_smoothing: float
) -> Model:
    """A network on a batch of its own.

    Args:
        network_fn: As `nets_factory.get_network_fn` gives it.
        iterator: Yields images `[batch, size, size, 3]` and labels `[batch]`.
        num_classes: Number of classes.
        label_smoothing: Share of the label that is spread over all classes.
    """
    images, labels, waited = next_batch(iterator)
    logits, end_points = network_fn(images)
    one_hot = tf.one_hot(labels, num_classes)
    if "AuxLogits" in end_points:
        tf.losses.softmax_cross_entropy(
            one_hot,
            end_points["AuxLogits"],
            label_smoothing=label_smoothing,
            weights=AUX_LOSS_WEIGHT,
            scope="aux_loss",
        )
    tf.losses.softmax_cross_entropy(one_hot, logits, label_smoothing=label_smoothing)
    return Model(images, labels, {**end_points, "images": images}, waited)


def build_last_layer(
    network_fn: NetworkFn, model_name: str, num_classes: int, label_smoothing: float
) -> Model:
    """A network of which only what follows the features runs, on features that are fed.

    The auxiliary classifier has its variables, and no loss: it stands further down.

    Args:
        network_fn: As `nets_factory.get_network_fn` gives it.
        model_name: The network.
        num_classes: Number of classes.
        label_smoothing: Share of the label that is spread over all classes.
    """
    images = tf.placeholder(tf.float32, [None, None, None, 3])  # never fed
    logits, end_points = network_fn(images)
    features = end_points[get_network(model_name).feature_endpoint]
    labels = tf.placeholder(tf.int64, [None])
    tf.losses.softmax_cross_entropy(
        tf.one_hot(labels, num_classes), logits, label_smoothing=label_smoothing
    )
    return Model(features, labels, {"features": features}, tf.constant(0, tf.float64))


def feed_features(
    model: Model, features: np.ndarray, labels: np.ndarray, batch_size: int, seed: int | None
) -> Iterator[dict[tf.Tensor, np.ndarray]]:
    """Yields what to feed to a last layer, see `feature_batches`."""
    for rows, row_labels in feature_batches(features, labels, batch_size, seed):
        yield {model.inputs: rows[:, np.newaxis, np.newaxis], model.labels: row_labels}


def decay_steps(
    num_samples: int, num_epochs_per_decay: float, batch_size: int, replicas_to_aggregate: int = 1
) -> int:
    """Steps between two decays, 1 at least.

    As published: epochs of one clone's batches, the clones of as many replicas as make a step.
    """
    return max(1, int(num_samples * num_epochs_per_decay / batch_size / replicas_to_aggregate))


def configure_learning_rate(
    decay_type: str,
    learning_rate: float,
    global_step: tf.Tensor,
    steps: int,
    decay_factor: float,
    end_learning_rate: float,
) -> tf.Tensor:
    """The learning rate at a step.

    Args:
        decay_type: One of `DECAY_TYPES`; exponential decays in a staircase.
        learning_rate: The rate at step 0.
        global_step: The step.
        steps: Steps between two exponential decays, or until polynomial decay ends.
        decay_factor: Of exponential decay.
        end_learning_rate: Where polynomial (here: linear) decay ends.

    Returns:
        A float32 scalar.
    """
    if decay_type == "exponential":
        return tf.train.exponential_decay(
            learning_rate, global_step, steps, decay_factor, staircase=True
        )
    if decay_type == "polynomial":
        return tf.train.polynomial_decay(learning_rate, global_step, steps, end_learning_rate)
    return tf.constant(learning_rate, name="fixed_learning_rate")


def with_scaled_loss(
    optimizer: tf.train.Optimizer, loss_scale: tf.mixed_precision.LossScale
) -> tf.train.Optimizer:
    """An optimizer whose gradients pass through 16 bits without vanishing.

    The loss is multiplied by a power of two, and the gradients divided by it (Micikevicius et al.,
    Mixed Precision Training, 2018, section 3.2). A step whose gradients overflow is left out, and
    the factor halved; it doubles after 2,000 good steps.
    """
    return tf.mixed_precision.MixedPrecisionLossScaleOptimizer(optimizer, loss_scale)


def split_scopes(scopes: str | None) -> list[str]:
    """The parts of a comma-separated flag."""
    return [scope.strip() for scope in (scopes or "").split(",") if scope.strip()]


def variables_to_train(scopes: Sequence[str]) -> list[tf.Variable]:
    """The trainable variables whose name contains one of the scopes; all where there are none.

    Raises:
        UserError: No variable matches.
    """
    trainable = tf.trainable_variables()
    chosen = [v for v in trainable if not scopes or any(scope in v.op.name for scope in scopes)]
    if not chosen:
        known = sorted({"/".join(v.op.name.split("/")[:2]) for v in trainable})
        raise UserError(
            f"--trainable_scopes={','.join(scopes)} matches no variable; scopes of the network: "
            + ", ".join(known)
        )
    return chosen


def build_train_op(
    total_loss: tf.Tensor,
    gradients: Sequence[tuple[tf.Tensor, tf.Variable]],
    optimizer: tf.train.Optimizer,
    update_ops: Sequence[tf.Operation],
    moving_average_decay: float | None,
    global_step: tf.Variable,
    replicas: SynchronousReplicas | AllReduce | None = None,
    loss_scale: tf.mixed_precision.LossScale | None = None,
) -> tuple[dict[str, tf.Tensor], list[tuple[tf.Variable, tf.Variable]]]:
    """One step of training: gradients, batch norm's updates, moving averages, in that order.

    Args:
        total_loss: The loss.
        gradients: What to apply, unless it or the loss is not finite.
        optimizer: Applies them and adds 1 to `global_step`.
        update_ops: Batch norm's updates.
        moving_average_decay: Decay of the averages of the model's variables; None for none.
        global_step: The step.
        replicas: Makes a step of the gradients of several replicas; of an `AllReduce` there is
            also whether any is `stopping`. Default: each makes its own.
        loss_scale: That of the optimizer, which leaves out steps whose gradients overflow.

    Returns:
        The `loss` before the update and the `step` after it, scalars that carry out the step when
        run, and each model variable with its moving average. Run, they raise
        `tf.errors.InvalidArgumentError` with `NOT_FINITE` in its message, and leave the trained
        variables alone, if the loss or a gradient is not finite.
    """
    if isinstance(replicas, AllReduce):
        total_loss, gradients = replicas.means(total_loss, gradients)
    norm = tf.linalg.global_norm([gradient for gradient, _ in gradients])
    good = tf.math.is_finite(norm)
    if loss_scale:
        good |= loss_scale() > 1  # it can be made smaller
    finite = tf.Assert(
        tf.math.is_finite(total_loss) & good,
        [NOT_FINITE, "loss", total_loss, "gradient norm", norm],
    )
    with tf.control_dependencies([finite]):
        gradients = [(tf.identity(gradient), variable) for gradient, variable in gradients]
    average, averaged = None, []
    if moving_average_decay:
        average = tf.train.ExponentialMovingAverage(moving_average_decay, global_step)
        averaged = slim.get_model_variables()
    if isinstance(replicas, SynchronousReplicas):
        update = replicas.apply_gradients(optimizer, gradients, global_step, average, averaged)
    else:
        update = optimizer.apply_gradients(gradients, global_step)
    # One operation to wait for, not hundreds for each average.
    update = tf.group(update, *update_ops)
    with tf.control_dependencies([update]):
        if average and not isinstance(replicas, SynchronousReplicas):
            update = average.apply(averaged)
        averages = [(variable, average.average(variable)) for variable in averaged]
        with tf.control_dependencies([update]):
            step = {"loss": tf.identity(total_loss), "step": tf.identity(global_step.read_value())}
    if isinstance(replicas, AllReduce):
        step["stopping"] = replicas.stopping
    return step, averages


def build_summaries(
    clone: Clone,
    total_loss: tf.Tensor,
    learning_rate: tf.Tensor,
    epoch: tf.Tensor,
    histograms: bool,
) -> tf.Tensor:
    """What TensorBoard shows beside the images a second: a serialized summary, string scalar."""
    summaries = [
        tf.summary.scalar("total_loss", total_loss),
        tf.summary.scalar("learning_rate", learning_rate),
        tf.summary.scalar("epoch", epoch),
    ]
    if "images" in clone.outputs.end_points:
        images = as_shown(clone.outputs.inputs)
        summaries.append(tf.summary.image("augmented_images", images, IMAGES_SHOWN))
    for loss in tf.losses.get_losses(clone.scope or None):
        summaries.append(tf.summary.scalar(f"losses/{loss.op.name}", loss))
    regularization_loss = tf.losses.get_regularization_loss()
    summaries.append(tf.summary.scalar("losses/regularization_loss", regularization_loss))
    if histograms:
        for name, end_point in clone.outputs.end_points.items():
            summaries.append(tf.summary.histogram(f"activations/{name}", end_point))
            summaries.append(tf.summary.scalar(f"sparsity/{name}", tf.nn.zero_fraction(end_point)))
        for variable in slim.get_model_variables():
            summaries.append(tf.summary.histogram(variable.op.name, variable))
    return tf.summary.merge(summaries)


def as_shown(images: tf.Tensor) -> tf.Tensor:
    """Images of whatever range to uint8: the batch's darkest value is 0 and its brightest 255."""
    darkest, brightest = tf.reduce_min(images), tf.reduce_max(images)
    return tf.saturate_cast(255 * (images - darkest) / (brightest - darkest), tf.uint8)


def start_from(
    train_dir: Path,
    checkpoint_path: str | None,
    exclude_scopes: Sequence[str],
    ignore_missing_vars: bool,
    averages: Sequence[tuple[tf.Variable, tf.Variable]],
) -> Callable[[tf.Session], None]:
    """Chooses where the first step's variables come from, and checks that they fit.

    Args:
        train_dir: A checkpoint in it wins: the run is resumed.
        checkpoint_path: The checkpoint, or the folder of them, to fine-tune from.
        exclude_scopes: Variables whose name contains one of these keep their initial values.
        ignore_missing_vars: So do variables that the checkpoint lacks.
        averages: Model variables and their moving averages, which begin at the variables' values.

    Returns:
        Sets the variables of a session whose variables are initialized and that is not resumed.

    Raises:
        UserError: The checkpoint is missing or does not fit.
    """
    latest = tf.train.latest_checkpoint(str(train_dir))
    if latest is not None:
        if checkpoint_path:
            print(f"ignoring --checkpoint_path={checkpoint_path}: {train_dir} has a checkpoint")
        hint = (
            f"{train_dir} holds a run with another network, dataset or optimizer: give another "
            "--train_dir, or the flags of that run"
        )
        checkpoints.check_fits(latest, checkpoints.by_name(tf.global_variables()), hint, hint)

    restore = None
    if checkpoint_path and latest is None:
        source = checkpoints.find_checkpoint(checkpoint_path)
        wanted = {
            name: variable
            for name, variable in checkpoints.by_name(slim.get_model_variables()).items()
            if not any(scope in name for scope in exclude_scopes)
        }
        if ignore_missing_vars:
            stored = checkpoints.read_shapes(source)
            wanted = {name: variable for name, variable in wanted.items() if name in stored}
        checkpoints.check_fits(
            source,
            wanted,
            "is it of --model_name? Leave them out with --checkpoint_exclude_scopes or "
            "--ignore_missing_vars",
            "a classifier for other classes is left out with --checkpoint_exclude_scopes=Logits",
        )
        print(f"fine-tuning from {source}: {len(wanted)} variables", flush=True)
        restore = tf.train.Saver(wanted)
    begin_averages = tf.group(*[average.assign(variable) for variable, average in averages])

    def set_variables(session: tf.Session) -> None:
        if restore is not None:
            restore.restore(session, source)
        session.run(begin_averages)

    return set_variables


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
