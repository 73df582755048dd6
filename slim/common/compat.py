"""TensorFlow and TF-Slim for this project: `from slim.common.compat import slim, tf`.

`tf` is the version 1 interface of TensorFlow (graphs and sessions), and `slim` is TF-Slim. Every
other module imports them from here, because they need some preparation:

- `slim.batch_norm` asks for `tf_keras.legacy_tf_layers`, which tf-keras 2.21 has only under
  `tf_keras.src`, hence the alias;
- start-up notes of TensorFlow (CPU instructions, CUDA libraries) and deprecation warnings of its
  version 1 interface are of no use to a user.
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
    """Holds back the output to file descriptor 2, and shows it if an exception occurs.

    The C++ side of TensorFlow logs while it is loaded, before `TF_CPP_MIN_LOG_LEVEL` takes effect.
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
    """Compares tensors and variables by identity, as version 1 does, while a network is built.

    In a graph they are compared by identity anyway, but after a slow check, and layers put all
    variables into a set for each new one. A network of 1,000 variables is built in half the time.
    """
    tf.disable_tensor_equality()
    try:
        yield
    finally:
        tf.enable_tensor_equality()


__all__ = ["compared_by_identity", "slim", "tf"]
