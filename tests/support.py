"""Helpers for tests: running commands, a network that is fast to train, writing checkpoints.

A command runs in this process or in one of its own, which is forked from a server that has loaded
TensorFlow, because loading it takes some five seconds of processor time.
"""

import importlib
import io
import multiprocessing
import os
import random
import re
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from absl import flags

from slim import train_image_classifier
from slim.common.command_line import available_cores
from slim.common.compat import slim, tf
from slim.common.network_table import NETWORKS
from slim.nets.inception_v3 import inception_v3_arg_scope, inception_v3_se_base
from slim.nets.layers import LINEAR
from slim.nets.nets_factory import arg_scopes_map, get_network_fn, networks_map
from slim.nets.resnet_v2 import resnet_v2, resnet_v2_arg_scope

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 1800  # seconds; whatever takes longer hangs. No other limit depends on the machine.
POLL = 0.005

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.support"])

CORES = available_cores()
THIS_MACHINE = f"CPU ({CORES} core{'s' * (CORES > 1)})"  # as commands describe it

SMALL_NETWORK = "resnet_v2_5"
SMALL_SIZE = 32  # pixels; the smallest images that a ResNet takes
SMALL_DEPTH = 256  # features per image
SHORT_INCEPTION = "inception_v3_5b"  # has an auxiliary classifier
SHORT_INCEPTION_SIZE = 43  # pixels

# A Python script that runs a command that knows `SMALL_NETWORK`.
SMALL_COMMANDS = """\
import runpy, sys
from tests.support import small_network
sys.argv = sys.argv[2:]
with small_network():
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class Result(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    output: str
    error: str


def invoke(command: ModuleType, *flags: object) -> Result:
    """Runs a command in this process.

    Args:
        command: The module of the command, such as `slim.classify`.
        flags: The command line without the program's name; each is converted with `str`.
    """
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    argv = [command.__name__, *map(str, flags)]
    with (
        redirect_stdout(streams[0]),
        redirect_stderr(streams[1]),
        plain_sessions(flags),
        pytest.raises(SystemExit) as stopped,
    ):
        command.command(argv)
    output, error = (s.buffer.getvalue().decode("utf-8", "surrogateescape") for s in streams)
    return Result(stopped.value.code, output, error)


def training_flags(*given: str, **changed: object) -> flags.FlagValues:
    """Returns the flags of training as parsed from a command line, then changed by name."""
    values = flags.FlagValues()
    train_image_classifier.define_flags(values)
    values(["train", *given])
    for name, value in changed.items():
        values[name].value = value
    return values


@contextmanager
def plain_sessions(flags: Sequence[object]) -> Iterator[None]:
    """Makes sessions run graphs as they are: to optimize one takes longer than to run it.

    They are optimized on a GPU, with --xla, and in programs that are not started here.
    """
    begin = tf.Session.__init__

    def begin_plain(self, target="", graph=None, config=None) -> None:
        config = config or tf.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        begin(self, target, graph, config)

    # XLA does not compile the unused placeholders that the optimization of graphs removes.
    if "--xla" in flags or tf.config.list_physical_devices("GPU"):
        yield
        return
    with mock.patch.object(tf.Session, "__init__", begin_plain):
        yield


def beyond_memory(shape: Sequence[int | None]) -> tf.Tensor:
    """Returns a tensor that cannot be computed for lack of memory.

    TensorFlow waits ten seconds for memory before it says that a tensor is too large.
    """

    def allocate() -> np.ndarray:
        raise MemoryError

    values = tf.numpy_function(allocate, [], tf.float32)
    values.set_shape(shape)
    return values


def short_inception(
    images: tf.Tensor, num_classes: int | None, is_training: bool, create_aux_logits: bool = True
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds an Inception-V3 with squeeze-and-excitation up to its first block."""
    with (
        tf.variable_scope(SHORT_INCEPTION) as scope,
        slim.arg_scope([slim.batch_norm], is_training=is_training),
    ):
        net, end_points = inception_v3_se_base(
            images, "Mixed_5b", depth_multiplier=0.1, scope=scope
        )
        net = tf.reduce_mean(net, [1, 2], keepdims=True)
        for name in ["AuxLogits"] * create_aux_logits + ["Logits"]:
            logits = slim.conv2d(net, num_classes, 1, scope=f"{name}/Conv2d_1c_1x1", **LINEAR)
            end_points[name] = tf.squeeze(logits, [1, 2])
    return end_points["Logits"], end_points


@contextmanager
def small_network() -> Iterator[None]:
    """Lets commands in this process know `SMALL_NETWORK` and `SHORT_INCEPTION`."""
    small = partial(resnet_v2, units=(1,), scope=SMALL_NETWORK)
    small.default_image_size = SMALL_SIZE
    builds = {SMALL_NETWORK: small, SHORT_INCEPTION: short_inception}
    scopes = {SMALL_NETWORK: resnet_v2_arg_scope, SHORT_INCEPTION: inception_v3_arg_scope}
    likes = {SMALL_NETWORK: "resnet_v2_50", SHORT_INCEPTION: "inception_v3_se"}
    sizes = {SMALL_NETWORK: SMALL_SIZE, SHORT_INCEPTION: SHORT_INCEPTION_SIZE}
    rows = {
        name: replace(
            NETWORKS[like],
            build=name,
            scope=name,
            feature_depth=SMALL_DEPTH,
            default_image_size=sizes[name],
            smallest_image_size=sizes[name],
        )
        for name, like in likes.items()
    }
    with (
        mock.patch.dict(NETWORKS, rows),
        mock.patch.dict(networks_map, builds),
        mock.patch.dict(arg_scopes_map, scopes),
    ):
        yield


def variable_shapes(
    name: str, num_classes: int | None, image_size: int = SMALL_SIZE
) -> dict[str, list[int]]:
    """Returns the shapes of a network's variables by name, in the order of their creation."""
    with tf.Graph().as_default():
        get_network_fn(name, num_classes)(tf.zeros([1, image_size, image_size, 3]))
        return {v.op.name: v.shape.as_list() for v in slim.get_model_variables()}


def write_checkpoint(prefix: Path, values: Mapping[str, object], latest: bool = True) -> str:
    """Writes a checkpoint.

    Args:
        prefix: The path without the suffix `.index`; its folder is made.
        values: Values by variable name: arrays, or integers, which are stored as int64.
        latest: Makes it the latest checkpoint of its folder.

    Returns:
        The prefix.
    """
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default(), tf.Session() as session:
        save = tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=list(values),
            shape_and_slices=[""] * len(values),
            tensors=[tf.constant(np.asarray(value)) for value in values.values()],
        )
        session.run(save)
    if latest:
        (prefix.parent / "checkpoint").write_text(f'model_checkpoint_path: "{prefix.name}"\n')
    return str(prefix)


def free_addresses(number: int) -> list[str]:
    """Returns different addresses of this machine at which nothing listens.

    The system gives ports from 32768 to whoever asks for any port, so these are below.
    """
    addresses = []
    while len(addresses) < number:
        address = ("127.0.0.1", random.randrange(10_000, 32_768))
        with suppress(OSError), socket.create_server(address):
            addresses.append(f"{address[0]}:{address[1]}")
    return addresses


def wait_until(condition: Callable[[], object], process: "Process | None" = None) -> None:
    """Waits until a condition holds, while a process runs."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert process is None or process.code is None, f"{process.code}: {process.output}"
        assert time.monotonic() < end, "hangs" if process is None else f"hangs: {process.output}"
        time.sleep(POLL)


class Process:
    """A command in a process of its own; a context that kills it.

    The command knows `SMALL_NETWORK`.

    Args:
        module: The name of the command's module, such as `slim.train_image_classifier`.
        flags: Its flags; each is converted with `str`.
        log: The file that receives both output and error.
        env: Variables to add to the environment; None removes one.
    """

    def __init__(
        self, module: str, *flags: object, log: Path, env: Mapping[str, str | None] | None = None
    ) -> None:
        self._log = log
        log.touch()
        arguments = (module, [str(flag) for flag in flags], str(log), dict(env or {}))
        self._process = _forks.Process(target=_run_module, args=arguments)
        self._process.start()
        self.pid = self._process.pid

    @property
    def output(self) -> str:
        """What has been printed so far."""
        return self._log.read_text("utf-8", "surrogateescape")

    @property
    def code(self) -> int | None:
        """The exit code, negative after a signal; None while the process runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """Waits for the end of the process and returns its exit code."""
        self._process.join(TIMEOUT)
        assert self.code is not None, f"hangs: {self.output}"
        return self.code

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Waits until the output matches a regular expression and returns the match."""

        def find() -> re.Match[str] | None:
            return re.search(pattern, self.output, re.MULTILINE)

        wait_until(find, self)
        return find()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills the process as `kill -9` does and waits for its end."""
        self._process.kill()
        self._process.join()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self._process.close()


def _run_module(module: str, flags: list[str], log: str, env: dict[str, str | None]) -> None:
    importlib.import_module("tests.traps")
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.chdir(ROOT)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # a limit of the size of files kills
    for name, value in env.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    sys.argv = [module, *flags]
    with small_network(), plain_sessions(flags):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
