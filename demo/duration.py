"""Estimates how long `./demo.sh` takes on this machine, from 20 steps of a small training.

    python -m demo.duration --full

Two durations are measured, one for each kind of work: loading TensorFlow stands for Python code,
such as drawing and building graphs, and steps of the first layers of the network for training.
"""

import time
from functools import partial

from absl import flags

from slim.common.command_line import FlagSet, run_command

STEPS = 20
BATCH, SIZE = 32, 107  # as in demo.sh
# Seconds of the demo per second of loading and of these steps, without and with --full. The former
# were measured; the latter were computed from the number of steps.
LOADING, TRAINING = (70, 340), (60, 290)


def define_flags(values: flags.FlagValues) -> None:
    FlagSet(values).boolean("full", False, "For ./demo.sh --full.")


def main(values: flags.FlagValues) -> None:
    begun = time.perf_counter()
    from slim.common.compat import slim, tf
    from slim.nets.inception_v3 import inception_v3_arg_scope, inception_v3_base

    loading = time.perf_counter() - begun
    with tf.Graph().as_default():
        images = tf.random.uniform([BATCH, SIZE, SIZE, 3])
        with slim.arg_scope(inception_v3_arg_scope()):
            net, _ = inception_v3_base(images, "Mixed_5b", depth_multiplier=0.25)
        step = tf.train.MomentumOptimizer(0.01, 0.9).minimize(tf.reduce_mean(net))
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            session.run(step)
            begun = time.perf_counter()
            for _ in range(STEPS):
                session.run(step)
            training = time.perf_counter() - begun
    minutes = (LOADING[values.full] * loading + TRAINING[values.full] * training) / 60
    print(
        f"about {max(1, round(minutes))} min on this machine: {STEPS} steps of a small training "
        f"took {training:.1f} s",
        flush=True,
    )


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
