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
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow.compat.v1 as tf
from tf_keras.src import legacy_tf_layers

sys.modules.setdefault("tf_keras.legacy_tf_layers", legacy_tf_layers)

import tf_slim as slim  # noqa: E402, after the alias that it looks for

tf.logging.set_verbosity(tf.logging.ERROR)
warnings.filterwarnings("ignore", message="`layer.apply` is deprecated")

__all__ = ["slim", "tf"]
