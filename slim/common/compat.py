"""TensorFlow and TF-Slim as this project uses them.

`tf` is the version 1 interface of TensorFlow (graphs and sessions), `slim` is TF-Slim. All modules
import both from here, so that this module alone makes them work together.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


# On a machine without a GPU, TensorFlow logs an irrelevant error about CUDA.
_has_gpu = Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1" if _has_gpu else "3")
# TensorFlow takes the whole memory of a GPU when it first uses it, unless told otherwise. The
# options of a session come too late, because tf.data uses the GPU before there is a session.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
# The C++ part of TensorFlow writes notes about CPU instructions and CUDA libraries before it reads
# `TF_CPP_MIN_LOG_LEVEL`.
with _without_start_up_notes():
    import tensorflow.compat.v1 as tf
    from tf_keras.src import legacy_tf_layers

    # `slim.batch_norm` needs this module under its old name, and, to update its averages in place,
    # `ops.Tensor`, which TensorFlow 2.21 has only under another name.
    sys.modules.setdefault("tf_keras.legacy_tf_layers", legacy_tf_layers)
    import tf_slim as slim
    from tf_slim.layers import utils

    vars(utils.ops).setdefault("Tensor", tf.Tensor)

# TF-Slim uses interfaces that TensorFlow calls deprecated.
tf.logging.set_verbosity(tf.logging.ERROR)
warnings.filterwarnings("ignore", message="`layer.apply` is deprecated")


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


__all__ = ["compared_by_identity", "slim", "tf"]
