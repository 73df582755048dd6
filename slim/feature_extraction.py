"""Extracts features of the images of datasets, for transfer learning as in the paper.

A feature is an end point of the network averaged over its positions (section 4 of the paper: the
last layer before the classifier). Arrays are written to disk as they grow, so that memory does not
depend on the dataset. They appear whole or not at all, and an interrupted run resumes.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.checkpoints.description import PUBLISHED_MODEL, PUBLISHED_SIZE
from slim.common.command_line import (
    FlagSet,
    check_distinct,
    check_words,
    define_averages_flag,
    define_speed_flags,
    define_threads_flag,
    require_checkpoint,
    run_command,
)
from slim.common.files import writing_to
from slim.common.ray_cluster import define_ray_flags
from slim.features.files import SPLITS, Settings, checkpoint_name, feature_files, find_split


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command; their defaults are the settings of the published script."""
    define = FlagSet(values)
    define.words("dataset_name", ["cub_200"], "Datasets: folders in --dataset_dir.")
    define.string("dataset_dir", "./data/", "The folder that holds the datasets.")
    define.words("splits", SPLITS, "Lists: train and val.")
    define.string(
        "model_name",
        None,
        f"The network. Default: from the checkpoint's model.json, else {PUBLISHED_MODEL}.",
    )
    define.string(
        "checkpoint_path",
        "./checkpoints/inception/inception_v3_iNat_299.ckpt",
        "A checkpoint, or a folder for its newest checkpoint.",
    )
    define_averages_flag(define)
    define.string("endpoint", None, "The end point to average. Default: depends on the network.")
    define.integer(
        "image_size",
        None,
        "Height and width of the images in pixels. Default: from the checkpoint's model.json, "
        f"else {PUBLISHED_SIZE}.",
        1,
    )
    define.string(
        "preprocessing_name",
        None,
        "inception or vgg. Default: from the checkpoint's model.json, else that of the network.",
    )
    define.integer("batch_size", 64, "Images per batch.", 1, 100_000)
    define_threads_flag(define)
    define.string("output_dir", None, "Default: ./feature/<name of the checkpoint>.")
    define.boolean("merge_splits", False, "Also write <dataset>_feature.npy and _label.npy.")
    define.boolean(
        "projector",
        False,
        "Also write the features with thumbnails for TensorBoard's projector, to "
        "<output_dir>/projector.",
    )
    define_speed_flags(define)
    define_ray_flags(define)


def main(values: flags.FlagValues) -> None:
    """Writes the features and labels of the images of one or more datasets."""
    from slim.checkpoints.finding import find_checkpoint
    from slim.features.extractor import choose_settings
    from slim.features.splits import extract_missing, merge, warn_if_stale

    require_checkpoint(values)
    check_words("splits", values.splits, SPLITS)
    check_distinct("dataset_name", values.dataset_name)
    output_dir = Path(values.output_dir or Path("feature", checkpoint_name(values.checkpoint_path)))
    datasets = {
        name: [find_split(name, split, values.dataset_dir, output_dir) for split in values.splits]
        for name in values.dataset_name or [""]
    }
    checkpoint = find_checkpoint(values.checkpoint_path)
    settings = choose_settings(
        checkpoint,
        model_name=values.model_name,
        image_size=values.image_size,
        preprocessing_name=values.preprocessing_name,
        moving_average_decay=values.moving_average_decay,
        endpoint=values.endpoint,
        precision=values.precision,
    )
    with writing_to(output_dir, "output_dir"):
        splits = [split for parts in datasets.values() for split in parts]
        extract_missing(splits, settings, lambda: make_extractor(values, settings, checkpoint))
        for name, parts in datasets.items():
            files = feature_files(output_dir, name, None)
            if values.merge_splits:
                merge(parts, settings, files)
            else:
                warn_if_stale(parts, settings, files[0])
        if values.projector:
            from slim.features.projector import write_projector

            write_projector(splits, output_dir / "projector")


def make_extractor(values: flags.FlagValues, settings: Settings, checkpoint: str):
    """Returns an extractor on this machine, or on the Ray cluster of the flags."""
    from slim.features.extractor import Extractor, load_network
    from slim.features.ray_extractor import ClusterExtractor

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
