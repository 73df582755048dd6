"""Measures training on a GPU in about three minutes: `python -m benchmarks.gpu`.

Each line is the speed of training steps of all layers with 32-bit variables, on batches that stay
on the GPU or that are read from shards. On GPUs with tensor cores, TensorFlow computes float32
products with factors of 19 bits (TensorFloat-32).
"""

import tempfile
import time
from functools import partial
from pathlib import Path

from absl import flags

from benchmarks.measure import LIMIT, Settings, Task, alternate, shown
from benchmarks.photographs import draw_photographs, make_dataset
from slim.common.command_line import FlagSet, available_cores, run_command

# Network, precision, XLA, and whether the batches are read from shards; the slowest to begin last.
STEPS = (
    ("inception_v3", "float32", False, False),
    ("inception_v3", "bfloat16", False, False),
    ("inception_v3", "bfloat16", False, True),
    ("inception_resnet_v2", "bfloat16", False, False),
    ("inception_v3", "bfloat16", True, False),
)


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command."""
    define = FlagSet(values)
    define.integer("batch_size", 64, "Images per batch.", 1)
    define.integer("image_size", 299, "Height and width of the images in pixels.", 75)
    define.integer("num_images", 1024, "Photographs in the shards.", 2)
    define.real("seconds", 2.0, "Minimum time of a measurement.", 0)


def main(values: flags.FlagValues) -> None:
    """Measures training steps of several networks and precisions, and prints a line for each."""
    from benchmarks.training_step import training  # loads TensorFlow
    from slim.common.devices import describe_devices

    print(f"{describe_devices()}, {available_cores()} cores", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        photographs = draw_photographs(folder / "drawn", values.num_images)
        make_dataset(folder, photographs, 2 * values.num_images)
        for name, precision, xla, from_shards in STEPS:
            settings = Settings(
                folder=folder,
                photographs="drawn",
                num_images=values.num_images,
                image_size=values.image_size,
                batch_size=values.batch_size,
                precision=precision,
                xla=xla,
                steps=10,
                rounds=1,
                seconds=values.seconds,
                small=True,
                model_name=name,
            )
            started = time.monotonic()
            run, begin = training((), settings, ready=not from_shards)
            begin()
            (figure,) = alternate([Task(name, LIMIT, run)], settings)
            print(
                f"{name}, {settings.batches}, {'shards' if from_shards else 'ready batch'}: "
                f"{shown(figure.value)} images/s, {shown(figure.value / values.batch_size)} "
                f"steps/s; with its start {time.monotonic() - started:.0f} s",
                flush=True,
            )


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
