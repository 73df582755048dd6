"""Trains an image classifier: `python -m slim.train_image_classifier --train_dir=...`.

The flags, and what they mean, are those of the published script; `--batch_norm_decay`, `--seed`
and `--histograms` are new.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType

from absl import flags

from slim import checkpoints
from slim.compat import slim, tf
from slim.datasets.input import explain_input_error, training_batches
from slim.datasets.registry import get_dataset
from slim.deployment.model_deploy import (
    Clone,
    DeploymentConfig,
    create_clones,
    optimize_clones,
    session_config,
)
from slim.errors import UserError, run_command
from slim.flags import FlagSet, check_one_machine, define_shared_flags, number_of_classes
from slim.nets.nets_factory import check_image_size, get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing

AUX_LOSS_WEIGHT = 0.4
NOT_FINITE = "training is not finite"
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
    define.integer("task", 0, "Task id of the replica running the training.", 0)
    define.boolean("sync_replicas", True, "Synchronize the replicas; one worker needs nothing.")
    define.integer("replicas_to_aggregate", 1, "Gradients to collect before an update.", 1)

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


def main(values: flags.FlagValues) -> None:
    """Trains an image classifier on the shards that convert_dataset.py wrote."""
    check_flags(values)
    dataset = get_dataset(values.dataset_name, values.dataset_split_name, values.dataset_dir)
    num_classes = number_of_classes(dataset.num_classes, values.labels_offset)
    if values.checkpoint_path and tf.train.latest_checkpoint(values.train_dir) is None:
        checkpoints.find_checkpoint(values.checkpoint_path)
    train_dir = prepare_train_dir(values.train_dir)
    first_step = announce_start(train_dir, values.max_number_of_steps)
    if values.max_number_of_steps and first_step >= values.max_number_of_steps:
        return
    config = DeploymentConfig(values.num_clones, values.clone_on_cpu)
    config.check_devices(len(tf.config.list_physical_devices("GPU")))

    with tf.Graph().as_default():
        tf.set_random_seed(values.seed)
        with tf.device(config.variables_device() or None):
            global_step = tf.train.create_global_step()
        with tf.device(config.inputs_device()):
            batches = training_batches(
                dataset,
                get_preprocessing(values.preprocessing_name or values.model_name, is_training=True),
                values.train_image_size,
                values.batch_size,
                num_classes,
                values.labels_offset,
                values.num_readers,
                values.num_preprocessing_threads,
                # Resumed, a run goes on with other images than those it began with.
                None if values.seed is None else values.seed + first_step,
            )
            iterator = tf.data.make_initializable_iterator(batches)
            tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
        network_fn = get_network_fn(
            values.model_name,
            num_classes,
            values.weight_decay,
            is_training=True,
            batch_norm_decay=values.batch_norm_decay,
        )
        clones = create_clones(
            config, build_clone, network_fn, iterator, num_classes, values.label_smoothing
        )
        learning_rate = configure_learning_rate(
            values.learning_rate_decay_type,
            values.learning_rate,
            global_step,
            decay_steps(dataset.num_samples, values.num_epochs_per_decay, values.batch_size),
            values.learning_rate_decay_factor,
            values.end_learning_rate,
        )
        optimizer = OPTIMIZERS[values.optimizer](learning_rate, values.flag_values_dict())
        to_train = variables_to_train(split_scopes(values.trainable_scopes))
        total_loss, gradients = optimize_clones(clones, optimizer, to_train)
        train_op, averages = build_train_op(
            total_loss,
            gradients,
            optimizer,
            tf.get_collection(tf.GraphKeys.UPDATE_OPS, clones[0].scope or None),
            values.moving_average_decay,
            global_step,
        )
        images_per_step = values.batch_size * config.num_clones
        epoch = tf.cast(global_step, tf.float32) * images_per_step / dataset.num_samples
        summary_op = build_summaries(clones[0], total_loss, learning_rate, epoch, values.histograms)
        train(
            train_op,
            global_step,
            summary_op,
            train_dir,
            images_per_step,
            values.max_number_of_steps,
            values.log_every_n_steps,
            values.save_summaries_secs,
            values.save_interval_secs,
            start_from(
                train_dir,
                values.checkpoint_path,
                split_scopes(values.checkpoint_exclude_scopes),
                values.ignore_missing_vars,
                averages,
            ),
        )


def check_flags(values: flags.FlagValues) -> None:
    """Refuses what cannot work before anything is built.

    Raises:
        UserError: Naming the flag.
    """
    check_one_machine(values)
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


def prepare_train_dir(path: str) -> Path:
    """Makes the folder, and removes what a killed run left half-written in it.

    Raises:
        UserError: The path is no folder and cannot become one.
    """
    train_dir = Path(path)
    try:
        train_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--train_dir={path}: cannot make the folder ({error.strerror}); give another one"
        ) from error
    for leftover in train_dir.glob("model.ckpt-*.tempstate*"):
        leftover.unlink()
    return train_dir


def announce_start(train_dir: Path, max_number_of_steps: int | None) -> int:
    """Says whether a run begins, goes on, or is done already, and returns its step."""
    latest = tf.train.latest_checkpoint(str(train_dir))
    if latest is None:
        return 0
    step = checkpoints.read_step(latest)
    if max_number_of_steps and step >= max_number_of_steps:
        print(
            f"nothing to do: {latest} is at step {step} of {max_number_of_steps}; to go on give a "
            "larger --max_number_of_steps, to begin anew another --train_dir"
        )
    else:
        print(f"resuming from step {step} ({latest})", flush=True)
    return step


def build_clone(
    network_fn: Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]],
    iterator: tf.data.Iterator,
    num_classes: int,
    label_smoothing: float,
) -> dict[str, tf.Tensor]:
    """A network on a batch of its own, its losses in the collection of losses.

    Args:
        network_fn: As `nets_factory.get_network_fn` gives it.
        iterator: Yields images `[batch, size, size, 3]` and labels `[batch]`.
        num_classes: Number of classes.
        label_smoothing: Share of the label that is spread over all classes.

    Returns:
        The end points, and the images under `images`.
    """
    images, labels = iterator.get_next()
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
    return {**end_points, "images": images}


def decay_steps(num_samples: int, num_epochs_per_decay: float, batch_size: int) -> int:
    """Steps between two decays: epochs of one clone's batches, as published; 1 at least."""
    return max(1, int(num_samples * num_epochs_per_decay / batch_size))


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
) -> tuple[dict[str, tf.Tensor], list[tuple[tf.Variable, tf.Variable]]]:
    """One step of training: gradients, batch norm's updates, moving averages, in that order.

    Args:
        total_loss: The loss.
        gradients: What to apply, unless it or the loss is not finite.
        optimizer: Applies them and adds 1 to `global_step`.
        update_ops: Batch norm's updates.
        moving_average_decay: Decay of the averages of the model's variables; None for none.
        global_step: The step.

    Returns:
        The `loss` before the update and the `step` after it, scalars that carry out the step when
        run, and each model variable with its moving average. Run, they raise
        `tf.errors.InvalidArgumentError` with `NOT_FINITE` in its message, and leave the trained
        variables alone, if the loss or a gradient is not finite.
    """
    norm = tf.linalg.global_norm([gradient for gradient, _ in gradients])
    finite = tf.Assert(
        tf.math.is_finite(total_loss) & tf.math.is_finite(norm),
        [NOT_FINITE, "loss", total_loss, "gradient norm", norm],
    )
    with tf.control_dependencies([finite]):
        update = optimizer.apply_gradients(gradients, global_step)
    # One operation to wait for, not hundreds for each average.
    update = tf.group(update, *update_ops)
    averages: list[tuple[tf.Variable, tf.Variable]] = []
    with tf.control_dependencies([update]):
        if moving_average_decay:
            average = tf.train.ExponentialMovingAverage(moving_average_decay, global_step)
            model_variables = slim.get_model_variables()
            update = average.apply(model_variables)
            averages = [(variable, average.average(variable)) for variable in model_variables]
        with tf.control_dependencies([update]):
            step = {"loss": tf.identity(total_loss), "step": tf.identity(global_step.read_value())}
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
        tf.summary.image("augmented_images", as_shown(clone.outputs["images"]), IMAGES_SHOWN),
    ]
    for loss in tf.losses.get_losses(clone.scope or None):
        summaries.append(tf.summary.scalar(f"losses/{loss.op.name}", loss))
    regularization_loss = tf.losses.get_regularization_loss()
    summaries.append(tf.summary.scalar("losses/regularization_loss", regularization_loss))
    if histograms:
        for name, end_point in clone.outputs.items():
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


class _Throughput:
    """Counts images a second and the time left between two lines of the log."""

    def __init__(self, images_per_step: int, max_number_of_steps: int | None) -> None:
        self._images_per_step = images_per_step
        self._max_number_of_steps = max_number_of_steps
        self._step: int | None = None
        self._time = 0.0

    def measure(self, step: int) -> tuple[float | None, timedelta | None]:
        """Images a second since the last call, and the time left at that speed."""
        now, before, started = time.monotonic(), self._step, self._time
        self._step, self._time = step, now
        if before is None or step == before:
            return None, None
        seconds_per_step = (now - started) / (step - before)
        left = None
        if self._max_number_of_steps:
            seconds = (self._max_number_of_steps - step) * seconds_per_step
            left = timedelta(seconds=round(seconds))
        return self._images_per_step / seconds_per_step, left


def train(
    train_op: Mapping[str, tf.Tensor],
    global_step: tf.Variable,
    summary_op: tf.Tensor,
    train_dir: Path,
    images_per_step: int,
    max_number_of_steps: int | None,
    log_every_n_steps: int,
    save_summaries_secs: int,
    save_interval_secs: int,
    set_variables: Callable[[tf.Session], None],
) -> None:
    """Runs steps until the last one, Ctrl-C or SIGTERM, each of which leaves a checkpoint.

    Args:
        train_op: Carries out a step; its `loss`, and the `step` after it.
        global_step: The step.
        summary_op: A serialized summary.
        train_dir: Where checkpoints and event files go; a checkpoint there is resumed from.
        images_per_step: Images that a step sees.
        max_number_of_steps: The last step; None for no end.
        log_every_n_steps: Steps between two lines of the log.
        save_summaries_secs: Seconds between two summaries.
        save_interval_secs: Seconds between two checkpoints.
        set_variables: Sets the variables where there is nothing to resume from.

    Raises:
        UserError: A loss or gradient is not finite, or a shard or an image cannot be read.
        SystemExit: After Ctrl-C or SIGTERM, once the checkpoint is written: 128 + the signal.
    """
    writer = tf.summary.FileWriterCache.get(str(train_dir))
    saver = tf.train.Saver(max_to_keep=5, save_relative_paths=True)
    scaffold = tf.train.Scaffold(
        saver=saver, init_fn=lambda _, session: set_variables(session), summary_op=summary_op
    )
    hooks = [
        tf.train.CheckpointSaverHook(
            str(train_dir), save_secs=save_interval_secs, saver=saver, save_graph_def=False
        ),
        tf.train.SummarySaverHook(
            save_secs=save_summaries_secs, summary_writer=writer, summary_op=summary_op
        ),
    ]
    if max_number_of_steps:
        hooks.append(tf.train.StopAtStepHook(last_step=max_number_of_steps))
    throughput = _Throughput(images_per_step, max_number_of_steps)
    step = 0
    try:
        with (
            _stop_signals() as stopped_by,
            tf.train.SingularMonitoredSession(
                hooks=hooks,
                scaffold=scaffold,
                config=session_config(),
                checkpoint_dir=str(train_dir),
            ) as session,
        ):
            step = session.raw_session().run(global_step)
            throughput.measure(step)
            while not session.should_stop() and not stopped_by:
                done = session.run(train_op)
                step = int(done["step"])
                if step % log_every_n_steps == 0 or step == max_number_of_steps:
                    _log(writer, step, max_number_of_steps, done["loss"], *throughput.measure(step))
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
    latest = tf.train.latest_checkpoint(str(train_dir))
    if stopped_by:
        name = signal.Signals(stopped_by[0]).name
        print(f"stopped by {name} at step {step}; {latest} is saved, the same command goes on")
        raise SystemExit(128 + stopped_by[0])
    print(f"done: step {step}, {latest}", flush=True)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that the first Ctrl-C or SIGTERM is put into; the second ends the process at once."""
    received: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        print("stopping: this step, then a checkpoint; once more to end at once", flush=True)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _log(
    writer: tf.summary.FileWriter,
    step: int,
    last_step: int | None,
    loss: float,
    images_per_second: float | None,
    left: timedelta | None,
) -> None:
    parts = [f"step {step}" + (f" of {last_step}" if last_step else ""), f"loss {loss:.4f}"]
    if images_per_second is not None:
        parts.append(f"{images_per_second:.1f} images/s")
        value = tf.Summary.Value(tag="images_per_second", simple_value=images_per_second)
        writer.add_summary(tf.Summary(value=[value]), step)
    if left is not None:
        parts.append(f"{left} left")
    print(", ".join(parts), flush=True)


if __name__ == "__main__":
    run_command(define_flags, main, description=__doc__)
