"""Compares training steps on a GPU with Keras and with limits: `python -m benchmarks.gpu`.

All steps update all layers of Inception-V3, with 32-bit variables, on a batch that stays on the
GPU unless it is read from shards. Each is measured in a process of its own. On GPUs with tensor
cores, TensorFlow computes float32 products with factors of 19 bits (TensorFloat-32).
"""

import os
import tempfile
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

from absl import flags

from benchmarks.measure import THIS, Settings, Task, alternate, shown
from benchmarks.photographs import draw_photographs, make_dataset
from benchmarks.processes import in_fresh_process
from slim.common.command_line import FlagSet, available_cores, run_command
from slim.common.tables import Table

PERSISTENT = {"TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT": "1"}
STEP, SHARDS, KERAS, CONVOLUTIONS, PRODUCT = "step", "shards", "keras", "convolutions", "product"


class Candidate(NamedTuple):
    """A way to compute a training step."""

    name: str
    kind: str
    xla: bool = False
    environment: dict[str, str] = {}  # noqa: RUF012
    model_name: str = "inception_v3"


class Measured(NamedTuple):
    """The figures of a candidate."""

    rate: float  # images/s
    start: float  # seconds of building, compiling and the first ten steps
    memory: float | None  # the peak on the GPU in bytes


# The first is compared with the others. Those with XLA begin slowly, the second one from the cache.
CANDIDATES = (
    Candidate("train_image_classifier", STEP),
    Candidate("the same from shards", SHARDS),
    Candidate("with cuDNN's persistent batch norm", STEP, environment=PERSISTENT),
    Candidate("with --xla", STEP, xla=True),
    Candidate("with --xla, started again", STEP, xla=True),
    Candidate("Keras' fit", KERAS),
    Candidate("Keras' fit with jit_compile", KERAS, xla=True),
    Candidate("convolutions alone, with their gradients", CONVOLUTIONS),
    Candidate("matrix product, in images of as many operations", PRODUCT),
    Candidate("Inception-ResNet-V2", STEP, model_name="inception_resnet_v2"),
)


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command."""
    define = FlagSet(values)
    define.integer("batch_size", 64, "Images per batch.", 1)
    define.integer("image_size", 299, "Height and width of the images in pixels.", 75)
    define.integer("num_images", 1024, "Photographs in the shards.", 2)
    define.real("seconds", 2.0, "Minimum time of a measurement.", 0)
    text = "Types that the layers compute in, separated by commas."
    define.words("precisions", ["float32", "bfloat16"], text)


def main(values: flags.FlagValues) -> None:
    """Measures all candidates in each precision, and prints a table."""
    rows, first = [], None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        photographs = draw_photographs(folder / "drawn", values.num_images)
        make_dataset(folder, photographs, 2 * values.num_images)
        for precision, candidate in product(values.precisions, CANDIDATES):
            settings = Settings(
                folder=folder,
                photographs="drawn",
                num_images=values.num_images,
                image_size=values.image_size,
                batch_size=values.batch_size,
                precision=precision,
                xla=candidate.xla,
                steps=10,
                rounds=1,
                seconds=values.seconds,
                small=True,
                model_name=candidate.model_name,
            )
            device, found = in_fresh_process(measure, candidate, settings)
            first = found if candidate is CANDIDATES[0] else first
            cells = [candidate.name, precision, shown(found.rate), f"{found.start:.0f}"]
            cells.append("-" if found.memory is None else f"{found.memory / 2**30:.1f}")
            rows.append([*cells, shown(found.rate / first.rate)])
            print(", ".join(rows[-1]), flush=True)
    sizes = f"images of {values.image_size}, batches of {values.batch_size}"
    header = ["step", "precision", "images/s", "start (s)", "GPU memory (GiB)", "times the first"]
    print(f"\n{device}, {available_cores()} cores, {sizes}\n")
    print(Table(header, rows, numeric=range(2, 6)))


def measure(candidate: Candidate, settings: Settings) -> tuple[str, Measured]:
    """Returns the device and the figures of a candidate; runs in a process of its own."""
    os.environ.update(candidate.environment)
    if candidate.xla:
        cache = f"--tf_xla_persistent_cache_directory={settings.folder / 'xla'}"
        os.environ["TF_XLA_FLAGS"] = f"{os.environ.get('TF_XLA_FLAGS', '')} {cache}"
    # TensorFlow reads the environment when it is loaded.
    from benchmarks import training_step as steps
    from slim.common.compat import tf
    from slim.common.devices import describe_devices

    started = time.monotonic()
    if candidate.kind in (STEP, SHARDS):
        run, begin = steps.training((), settings, ready=candidate.kind == STEP)
        begin()
        task = Task(candidate.name, THIS, run)
    elif candidate.kind == KERAS:
        task = steps.keras_fit(settings)
    elif candidate.kind == CONVOLUTIONS:
        task = steps.convolutions(settings)
    else:
        task = steps.matrix_product(settings)
    task.run()
    start = time.monotonic() - started
    (figure,) = alternate([task], settings)
    if candidate.kind == PRODUCT:
        figure = figure.scaled(1 / (steps.PASSES * steps.forward_gflop(settings)))
    has_gpu = tf.config.list_physical_devices("GPU")
    memory = tf.config.experimental.get_memory_info("GPU:0")["peak"] if has_gpu else None
    return describe_devices(), Measured(figure.value, start, memory)


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
