"""Saves the statistics, outputs and gradients of batch norm: `python -m tests.gpu.batch_norm FILE`.

The environment decides how cuDNN computes them, before TensorFlow is loaded.
"""

import sys

import numpy as np

from slim.common.compat import tf
from slim.common.devices import session_config

SHAPES = ((16, 147, 147, 64), (16, 35, 35, 288), (16, 8, 8, 2048))  # early, middle, late
MEANS, SCALES = (0, 1, -30), (1, 1e-3, 0, 50)  # of the channels in turn; some are constant
NAMES = ("mean", "variance", "y", "dx", "dscale", "doffset")

fetches = {}
with tf.Graph().as_default(), tf.Session(config=session_config()) as session:
    for number, shape in enumerate(SHAPES):
        random = np.random.default_rng(number)
        values = random.standard_normal(shape, np.float32)
        values = values * np.resize(SCALES, shape[-1]) + np.resize(MEANS, shape[-1])
        scale, offset = tf.ones(shape[-1]), tf.zeros(shape[-1])
        for dtype in (tf.float32, tf.bfloat16):
            x = tf.cast(tf.constant(values, tf.float32), dtype)
            y, mean, variance = tf.nn.fused_batch_norm(x, scale, offset)
            loss = tf.reduce_sum(tf.cast(y, tf.float32) * random.standard_normal(shape, np.float32))
            tensors = [mean, variance, y, *tf.gradients(loss, [x, scale, offset])]
            for name, tensor in zip(NAMES, tensors, strict=True):
                fetches[f"{number} {dtype.name} {name}"] = tf.cast(tensor, tf.float32)
    np.savez(sys.argv[1], **session.run(fetches))
