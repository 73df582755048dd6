"""TensorFlow and TF-Slim as this project uses them: `from slim.compat import slim, tf`.

`tf` is TensorFlow's version 1 interface (graphs and sessions) and `slim` is TF-Slim, which every
other module takes from here, so that what they need to work together is done once:

- `slim.batch_norm` asks for `tf_keras.legacy_tf_layers`; the wheel of tf-keras 2.21 has that module
  under `tf_keras.src` only, hence the alias;
- TensorFlow's start-up notes (which CPU instructions, which CUDA libraries) and the deprecation
  warnings of the interface that TF-Slim is written in say nothing that a user can act on.
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
    """Holds back what is written to file descriptor 2, and shows it if an exception leaves.

    While TensorFlow is being loaded its C++ side logs before `TF_CPP_MIN_LOG_LEVEL` counts.
    """
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


# Without an NVIDIA device the search for one ends in an error message that means nothing.
_has_gpu = Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1" if _has_gpu else "3")
with _without_start_up_notes():
    import tensorflow.compat.v1 as tf
    from tf_keras.src import legacy_tf_layers

    sys.modules.setdefault("tf_keras.legacy_tf_layers", legacy_tf_layers)
    import tf_slim as slim

tf.logging.set_verbosity(tf.logging.ERROR)
warnings.filterwarnings("ignore", message="`layer.apply` is deprecated")


@contextmanager
def compared_by_identity() -> Iterator[None]:
    """Tensors and variables compared by identity, as in version 1, while a network is built.

    In a graph they are so in any case, but finding that out takes a while, and the layers put all
    variables into a set for each new one: a network of a thousand is built in half the time.
    """
    tf.disable_tensor_equality()
    try:
        yield
    finally:
        tf.enable_tensor_equality()


__all__ = ["compared_by_identity", "slim", "tf"]
