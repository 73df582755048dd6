"""Extracts features of the images of datasets, for transfer learning as in the paper.

A feature is an end point of the network averaged over its positions (section 4 of the paper: the
last layer before the classifier). Arrays are written to disk as they grow, so that memory does not
depend on the dataset. They appear whole or not at all, and an interrupted run resumes.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.common.command_line import FlagSet, check_words, define_speed_flags, run_command
from slim.common.files import make_folder
from slim.common.ray_cluster import define_ray_flags
from slim.features.files import (
    PUBLISHED_NAMES,
    SPLITS,
    Settings,
    checkpoint_name,
    feature_files,
    find_split,
    hash_checkpoint,
    is_done,
    merge,
)


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command; their defaults are the settings of the published script."""
    define = FlagSet(values)
    define.words("dataset_name", ["cub_200"], "Datasets: folders in --dataset_dir.")
    define.string("dataset_dir", "./data/", "The folder that holds the datasets.")
    define.words("splits", SPLITS, "Lists: train and val.")
    define.string("model_name", "inception_v3", "The network.")
    define.string(
        "checkpoint_path",
        "./checkpoints/inception/inception_v3_iNat_299.ckpt",
        "A checkpoint, or a folder for its newest checkpoint.",
    )
    define.real(
        "moving_average_decay",
        None,
        "0 for the plain variables. Default: moving averages if the checkpoint has them.",
        0,
    )
    define.string("endpoint", None, "The end point to average. Default: depends on the network.")
    define.integer("image_size", 299, "Height and width of the images in pixels.", 1)
    define.integer("batch_size", 64, "Images per batch.", 1)
    define.integer("num_preprocessing_threads", None, "Images preprocessed in parallel.", 1)
    define.string("output_dir", None, "Default: ./feature/<name of the checkpoint>.")
    define.boolean("merge_splits", False, "Also write <dataset>_feature.npy and _label.npy.")
    define_speed_flags(define)
    define_ray_flags(define)


def main(values: flags.FlagValues) -> None:
    """Writes the features and labels of the images of one or more datasets."""
    from slim.checkpoints.loading import choose_averages
    from slim.checkpoints.reading import find_checkpoint
    from slim.features.splits import extract_split
    from slim.nets.nets_factory import check_image_size, get_network

    check_words("splits", values.splits, SPLITS)
    output_dir = Path(values.output_dir or Path("feature", checkpoint_name(values.checkpoint_path)))
    splits = [
        find_split(name, split, values.dataset_dir, output_dir)
        for name in values.dataset_name
        for split in values.splits
    ]
    model_name = PUBLISHED_NAMES.get(values.model_name, values.model_name)
    checkpoint = find_checkpoint(values.checkpoint_path)
    check_image_size(model_name, values.image_size, values.image_size)
    settings = Settings(
        model_name,
        hash_checkpoint(checkpoint),
        choose_averages(checkpoint, values.moving_average_decay),
        values.endpoint or get_network(model_name).feature_endpoint,
        values.image_size,
        values.precision,
    )
    make_folder(output_dir, "output_dir")
    if missing := [split for split in splits if not is_done(split, settings)]:
        with make_extractor(values, settings, checkpoint) as extractor:
            for split in missing:
                extract_split(split, settings, extractor)
    if values.merge_splits:
        for name in values.dataset_name:
            parts = zip(*(feature_files(output_dir, name, s) for s in values.splits), strict=True)
            for files, merged in zip(parts, feature_files(output_dir, name, None), strict=True):
                merge(files, merged)


def make_extractor(values: flags.FlagValues, settings: Settings, checkpoint: str):
    """Returns an extractor on this machine, or on the Ray cluster of the flags."""
    from slim.features.cluster import ClusterExtractor
    from slim.features.extractor import Extractor, load_network

    options = {
        "batch_size": values.batch_size,
        "num_threads": values.num_preprocessing_threads,
        "xla": values.xla,
    }
    network = load_network(settings, checkpoint)
    if values.ray or values.ray_address:
        return ClusterExtractor(values.ray_address, network, settings, **options)
    return Extractor(network, settings, **options)


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
