"""Converts image lists to sharded TFRecords: `python convert_dataset.py --dataset_name=cub_200`."""

from functools import partial

from absl import flags

from slim.common import ray_cluster
from slim.common.command_line import FlagSet, run_command
from slim.common.cores import available_cores
from slim.common.errors import UserError
from slim.datasets.convert.conversion import convert
from slim.datasets.convert.staging import Plan
from slim.datasets.lists import read_list
from slim.datasets.registry import dataset_folder
from slim.datasets.tfrecord import LISTS


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command."""
    define = FlagSet(values)
    define.string("dataset_name", None, "The dataset, a folder in --dataset_dir.")
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    define.integer("num_shards", 10, "Shards per split.", 1, 99_999)
    define.integer("num_workers", None, "Worker processes. Default: one per CPU core.", 1)
    define.integer("seed", 0, "Determines the order of the training images.")
    define.boolean("verify", True, "Decode every image. Otherwise only read the header of a JPEG.")
    define.choice("on_error", "fail", ["fail", "skip"], "What to do about invalid images.")
    ray_cluster.define_ray_flags(define)


def main(values: flags.FlagValues) -> None:
    """Converts the images listed in train.txt and val.txt to sharded TFRecords."""
    folder = dataset_folder(values.dataset_name, values.dataset_dir)
    try:
        plan = Plan(
            folder=folder,
            lists={split_name: read_list(folder / LISTS[split_name]) for split_name in LISTS},
            num_shards=values.num_shards,
            seed=values.seed,
            verify=values.verify,
            on_error=values.on_error,
        )
        if values.ray or values.ray_address:
            convert(plan, values.num_workers, partial(ray_cluster.run_jobs, values.ray_address))
        else:
            convert(plan, values.num_workers or available_cores())
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror}: fix this, then run the same command "
            "to resume"
        ) from error


command = partial(run_command, define_flags, main, description=__doc__)


if __name__ == "__main__":
    command()
