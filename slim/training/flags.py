"""Flags of training. Nothing here loads TensorFlow."""

from absl import flags

from slim.common.command_line import FlagSet, define_shared_flags, define_speed_flags

OPTIMIZERS = ("adadelta", "adagrad", "adam", "ftrl", "momentum", "rmsprop", "sgd")
DECAY_TYPES = ("fixed", "exponential", "polynomial")


def define_training_flags(values: flags.FlagValues) -> None:
    """Adds the flags of training, the published ones with their published defaults."""
    define = FlagSet(values)
    define_shared_flags(define, split="train", batch_size=64)
    _define_run_flags(define)
    _define_cluster_flags(define)
    _define_optimizer_flags(define)
    _define_rate_flags(define, values)
    _define_network_flags(define)
    define_speed_flags(define)


def _define_run_flags(define: FlagSet) -> None:
    """Adds the flags of the folder, the length, the input and the output of a run."""
    define.string("train_dir", None, "Folder for checkpoints and event files.")
    define.integer(
        "train_image_size", 299, "Height and width of the images in pixels; 0: the network's.", 0
    )
    define.integer("max_number_of_steps", None, "Step to stop at. Default: run until stopped.", 1)
    define.real(
        "max_number_of_epochs",
        None,
        "Epochs to stop after, if reached first. Default: no limit.",
        above=0,
        most=1e9,
    )
    define.integer("num_readers", 4, "Shards read in parallel.", 1, 1000)
    define.integer("log_every_n_steps", 10, "Steps between two lines of the log; 0: none.", 0)
    define.integer("save_summaries_secs", 10, "Seconds between two summaries; 0: none.", 0)
    define.integer(
        "save_interval_secs", 60, "Seconds between two checkpoints; 0: one at the end.", 0
    )
    define.integer(
        "seed", None, "Seed of weights, order and distortions. Default: none.", 0, 2**31 - 1
    )
    define.boolean("histograms", False, "Write histograms of all variables and end points.")
    define.boolean("augment", True, "Distort the images; --noaugment: preprocess for evaluation.")
    define.boolean(
        "cache_features",
        False,
        "Compute the features of each image once, in --train_dir/features, and train the last "
        "layer on them. Needs --noaugment, and --trainable_scopes of the last layer.",
    )


def _define_cluster_flags(define: FlagSet) -> None:
    """Adds the flags of clones, workers and parameter servers."""
    define.integer(
        "num_clones", 1, "Clones of the network, one per GPU, each with its batch.", 1, 1000
    )
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
    define.integer(
        "cluster_timeout_secs", 600, "Seconds to wait for another process.", 1, 1_000_000_000
    )


def _define_optimizer_flags(define: FlagSet) -> None:
    """Adds the flags of the optimizer."""
    define.choice("optimizer", "momentum", OPTIMIZERS, "Name of the optimizer.")
    define.real("adadelta_rho", 0.95, "Decay rate of adadelta.", 0, most=1)
    define.real(
        "adagrad_initial_accumulator_value", 0.1, "Initial accumulators of adagrad.", above=0
    )
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


def _define_rate_flags(define: FlagSet, values: flags.FlagValues) -> None:
    """Adds the flags of the learning rate."""
    define.choice("learning_rate_decay_type", "exponential", DECAY_TYPES, "Type of the decay.")
    define.real("learning_rate", 0.01, "Initial learning rate.", 0)
    define.real("end_learning_rate", 0.0001, "Final learning rate of polynomial decay.", 0)
    define.real("learning_rate_decay_factor", 0.1, "Factor of exponential decay.", 0)
    define.real(
        "num_epochs_per_decay", 30.0, "Epochs between two decays, counted per clone.", most=1e9
    )
    flags.register_multi_flags_validator(
        ["num_epochs_per_decay", "learning_rate_decay_type"],
        lambda given: (
            given["num_epochs_per_decay"] > 0 or given["learning_rate_decay_type"] == "fixed"
        ),
        "expected --num_epochs_per_decay > 0; a fixed rate does not use it",
        flag_values=values,
    )


def _define_network_flags(define: FlagSet) -> None:
    """Adds the flags of regularization, of the first values, and of the trained variables."""
    define.real("weight_decay", 0.00004, "Coefficient of the L2 loss on the weights.", 0)
    define.real("label_smoothing", 0.0, "Share of the label spread over all classes.", 0, most=1)
    define.real(
        "batch_norm_decay",
        None,
        "Decay of moving mean and variance. Default: the network's.",
        0,
        most=1,
    )
    define.integer("quantize_delay", -1, "Steps before quantized training; -1: none.")
    define.string(
        "checkpoint_path", None, "Checkpoint to fine-tune from, or a folder of checkpoints."
    )
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
    define.boolean("ignore_missing_vars", False, "Skip variables that the checkpoint lacks.")
