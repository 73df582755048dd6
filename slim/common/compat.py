"""TensorFlow and TF-Slim as this project uses them.

`tf` is the version 1 interface of TensorFlow (graphs and sessions), `slim` is TF-Slim. All modules
import both from here, so that this module alone makes them work together.
"""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from slim.common.command_line import COMMAND


@contextmanager
def _without_start_up_notes() -> Iterator[None]:
    """Suppresses output to file descriptor 2, and prints it only if an exception is raised."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as notes:
        stderr = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


# The C++ part of TensorFlow writes notes about CPU instructions and CUDA libraries before it reads
# `TF_CPP_MIN_LOG_LEVEL`. Commands hold them back; in other programs, an import leaves stderr alone.
with _without_start_up_notes() if COMMAND in os.environ and sys.stderr else nullcontext():
    import tensorflow.compat.v1 as tf
    from tf_keras.src import legacy_tf_layers

    # `slim.batch_norm` needs this module under its old name, and, to update its averages in place,
    # `ops.Tensor`, which TensorFlow 2.21 has only under another name.
    sys.modules.setdefault("tf_keras.legacy_tf_layers", legacy_tf_layers)
    import tf_slim as slim
    from tf_slim.layers import utils

    vars(utils.ops).setdefault("Tensor", tf.Tensor)


_LOGGER = logging.getLogger("tensorflow")


def _ignore_deprecations() -> None:
    """Ignores warnings about interfaces that TF-Slim uses and TensorFlow calls deprecated."""
    _LOGGER.setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="`layer.apply` is deprecated")


@contextmanager
def without_deprecations() -> Iterator[None]:
    """Ignores these warnings for a while, in a program that is not a command."""
    level = _LOGGER.level
    with warnings.catch_warnings():
        _ignore_deprecations()
        try:
            yield
        finally:
            _LOGGER.setLevel(level)


if COMMAND in os.environ:
    _ignore_deprecations()


@contextmanager
def compared_by_identity() -> Iterator[None]:
    """Compares tensors by identity, as TensorFlow 1 does, while a network is built."""
    # A graph compares them by identity in any case, but the check takes time, and layers put all
    # variables into a set for each new one. A network with 1,000 variables is built twice as fast.
    tf.disable_tensor_equality()
    try:
        yield
    finally:
        tf.enable_tensor_equality()


__all__ = ["compared_by_identity", "slim", "tf", "without_deprecations"]
