"""Features of a dataset's images from a checkpoint, as the paper's transfer uses them.

A feature is an end point of the network averaged over its positions (section 4 of the paper: the
last layer before the classifier). The arrays stream to disk, so that memory does not grow with the
dataset; they appear whole or not at all, and a run that was stopped goes on where it was.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.checkpoints.loading import choose_averages
from slim.checkpoints.reading import find_checkpoint
from slim.common import ray_cluster
from slim.common.command_line import FlagSet, check_words, define_speed_flags, run_command
from slim.common.files import make_folder
from slim.features.cluster import ClusterExtractor
from slim.features.extractor import Extractor, load_network
from slim.features.files import (
    SPLITS,
    Settings,
    checkpoint_name,
    find_split,
    hash_checkpoint,
    is_done,
    merge,
)
from slim.features.splits import extract_split
from slim.nets.nets_factory import check_image_size, get_network

# The names of the published script.
ALIASES = {
    "InceptionV3": "inception_v3",
    "InceptionV3SE": "inception_v3_se",
    "InceptionV4": "inception_v4",
    "InceptionResnetV2": "inception_resnet_v2",
    "InceptionResnetV2SE": "inception_resnet_v2_se",
    "ResNet50": "resnet_v2_50",
    "ResNet101": "resnet_v2_101",
    "ResNet152": "resnet_v2_152",
}


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags; their defaults are the settings of the published script."""
    define = FlagSet(values)
    define.words("dataset_name", ["cub_200"], "Datasets: folders in --dataset_dir.")
    define.string("dataset_dir", "./data/", "The folder that holds the datasets.")
    define.words("splits", SPLITS, "Lists: train and val.")
    define.string("model_name", "inception_v3", "The network.")
    define.string(
        "checkpoint_path",
        "./checkpoints/inception/inception_v3_iNat_299.ckpt",
        "A checkpoint, or a folder whose newest one is taken.",
    )
    define.real(
        "moving_average_decay",
        None,
        "Take the variables' moving averages. Default: where the checkpoint has them.",
        0,
    )
    define.string("endpoint", None, "The end point to average. Default: the network's.")
    define.integer("image_size", 299, "Height and width of the images in pixels.", 1)
    define.integer("batch_size", 64, "Images in a batch.", 1)
    define.integer("num_preprocessing_threads", None, "Images prepared side by side.", 1)
    define.string("output_dir", None, "Default: ./feature/<the checkpoint's name>.")
    define.boolean("merge_splits", False, "Also write <dataset>_feature.npy and _label.npy.")
    define_speed_flags(define)
    ray_cluster.define_ray_flags(define)


def main(values: flags.FlagValues) -> None:
    """Writes the features and labels of the images of one or more datasets."""
    check_words("splits", values.splits, SPLITS)
    output_dir = Path(values.output_dir or Path("feature", checkpoint_name(values.checkpoint_path)))
    datasets = {
        name: [find_split(name, split, values.dataset_dir, output_dir) for split in values.splits]
        for name in values.dataset_name
    }
    model_name = ALIASES.get(values.model_name, values.model_name)
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
    to_do = [
        split for splits in datasets.values() for split in splits if not is_done(split, settings)
    ]
    if to_do:
        make_extractor = Extractor
        if values.ray or values.ray_address:
            make_extractor = partial(ClusterExtractor, values.ray_address)
        with make_extractor(
            load_network(settings, checkpoint),
            settings,
            values.batch_size,
            values.num_preprocessing_threads,
            values.xla,
        ) as extractor:
            for split in to_do:
                extract_split(split, settings, extractor)
    if values.merge_splits:
        for name, splits in datasets.items():
            merge([s.feature_path for s in splits], output_dir / f"{name}_feature.npy")
            merge([s.label_path for s in splits], output_dir / f"{name}_label.npy")


command = partial(run_command, define_flags, main, description=__doc__)
