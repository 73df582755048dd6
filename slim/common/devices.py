"""The devices that a network runs on: the options of its session, and a line about its size."""

import os
from collections.abc import Iterable
from functools import cache

from slim.common.command_line import available_cores
from slim.common.compat import tf
from slim.common.errors import UserError, count

MIN_INTER_OP_THREADS = 4


_first_process = cache(os.getpid)  # the process that ran TensorFlow first


def check_process() -> None:
    """Refuses a process that was forked after TensorFlow ran: it would wait for lost threads."""
    if os.getpid() != _first_process():
        raise UserError(
            "this process was forked after TensorFlow ran, which hangs in such a process: load "
            "the classifier after the fork only (gunicorn without --preload), start processes "
            "with multiprocessing's method 'spawn', or use threads"
        )


def session_config(xla: bool = False) -> tf.ConfigProto:
    """Returns the options of a session; `xla` compiles operations on the GPU."""
    check_process()
    # Operations without a GPU kernel run on the CPU.
    config = tf.ConfigProto(allow_soft_placement=True)
    if xla:
        config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    config.gpu_options.allow_growth = True
    # The input runs in the same pool. With two threads, every other batch was computed on one core
    # only: 19 to 25 images/s in feature extraction instead of 38.
    config.inter_op_parallelism_threads = max(MIN_INTER_OP_THREADS, os.cpu_count() or 1)
    return config


def describe_devices(num_clones: int = 1, clone_on_cpu: bool = False) -> str:
    """Returns the devices of clones, such as `NVIDIA H200 (138.2 GiB free)`.

    This uses no GPU memory except that of the CUDA context.
    """
    gpus = tf.config.list_physical_devices("GPU")[:num_clones]
    if clone_on_cpu or not gpus:
        return f"CPU ({count(available_cores(), 'core')})"
    with tf.Session(graph=tf.Graph(), config=session_config()) as session:
        devices = [device for device in session.list_devices() if device.device_type == "GPU"]
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    return ", ".join(
        f"{name or 'GPU'} ({device.memory_limit_bytes / 2**30:.1f} GiB free)"
        for name, device in zip(names, devices, strict=False)
    )


def count_parameters(variables: Iterable[tf.Variable]) -> int:
    """Returns the number of parameters in variables; the statistics of batch norm do not count."""
    return sum(variable.shape.num_elements() for variable in variables if variable.trainable)


def describe_run(
    model_name: str,
    image_size: int,
    parameters: int,
    *,
    devices: str | None = None,
    trained: int | None = None,
    num_clones: int = 1,
    precision: str = "float32",
    xla: bool = False,
) -> str:
    """Returns a line about a network: sizes, precision, and the devices that it runs on.

    `devices` defaults to the devices of a single clone. `trained`, the number of parameters that
    are trained, is None in inference.
    """
    size = f"{parameters:,} parameters"
    if trained is not None:
        size += f" ({'all' if trained == parameters else f'{trained:,}'} trained)"
    compiled = " with XLA" if xla else ""
    clones = f"{num_clones} clones " if num_clones > 1 else ""
    place = f"{clones}on {devices or describe_devices()}"
    return f"{model_name} at {image_size} pixels: {size}, {precision}{compiled}, {place}"
