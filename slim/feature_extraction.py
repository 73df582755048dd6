"""Extracts features of the images of datasets, for transfer learning as in the paper.

A feature is an end point of the network averaged over its positions (section 4 of the paper: the
last layer before the classifier). Arrays are written to disk as they grow, so that memory does not
depend on the dataset. They appear whole or not at all, and an interrupted run resumes.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from absl import flags
from PIL import Image

from slim.checkpoints.description import (
    PUBLISHED_MODEL,
    PUBLISHED_SIZE,
    find_other_class,
    read_model_description,
    shift_names,
)
from slim.common import ray_cluster
from slim.common.command_line import (
    FlagSet,
    available_cores,
    check_distinct,
    check_words,
    define_averages_flag,
    define_speed_flags,
    define_threads_flag,
    require_checkpoint,
    run_command,
)
from slim.common.errors import UserError, warn
from slim.common.files import make_folder, replacing, write_whole, writing_to
from slim.common.progress import progress
from slim.common.workers import WorkerError
from slim.datasets.images import ImageError, load_thumbnail
from slim.datasets.lists import CLASSES, Entry
from slim.datasets.registry import read_class_names
from slim.features.feature_files import (
    SPLITS,
    FeatureSplit,
    RowWriter,
    Settings,
    describe,
    description_path,
    extract_missing,
    feature_files,
    find_split,
    is_described,
    publish,
)

MERGED_ROWS = 4096  # copied at a time
BATCHES_PER_CALL = 4  # of a worker of a cluster, which prepares images while the network runs
PROJECTOR_CONFIG = "projector_config.pbtxt"
MOST_PROJECTED = 5000  # images per split; the browser computes with all of them
SPRITE_SIDE = 8192  # pixels, the most that TensorBoard accepts
THUMBNAIL_SIDE = 64


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command; their defaults are the settings of the published script."""
    define = FlagSet(values)
    define.words("dataset_name", ["cub_200"], "Datasets: folders in --dataset_dir.")
    define.string("dataset_dir", "./data/", "The folder that holds the datasets.")
    define.words("splits", SPLITS, "Lists: train and val.")
    text = f"The network. Default: from the checkpoint's model.json; otherwise {PUBLISHED_MODEL}."
    define.string("model_name", None, text)
    default = "./checkpoints/inception/inception_v3_iNat_299.ckpt"
    text = "A checkpoint, or a folder for its newest checkpoint."
    define.string("checkpoint_path", default, text)
    define_averages_flag(define)
    define.string("endpoint", None, "The end point to average. Default: depends on the network.")
    text = (
        "Height and width of the images in pixels. Default: from the checkpoint's model.json, "
        f"otherwise {PUBLISHED_SIZE}."
    )
    define.integer("image_size", None, text, 1)
    text = "inception or vgg. Default: from model.json; otherwise that of the network."
    define.string("preprocessing_name", None, text)
    define.integer("batch_size", 64, "Images per batch.", 1, 100_000)
    define_threads_flag(define)
    define.string("output_dir", None, "Default: ./feature/<name of the checkpoint>.")
    define.boolean("merge_splits", False, "Also write <dataset>_feature.npy and _label.npy.")
    text = (
        "Also write the features with thumbnails for TensorBoard's projector, to "
        "<output_dir>/projector."
    )
    define.boolean("projector", False, text)
    define_speed_flags(define)
    ray_cluster.define_ray_flags(define)


def main(values: flags.FlagValues) -> None:
    """Writes the features and labels of the images of one or more datasets."""
    from slim.checkpoints.finding import find_checkpoint
    from slim.features.extractor import Extractor, choose_settings, load_network

    # 1. The lists, before TensorFlow does anything: most mistakes are in names.
    require_checkpoint(values)
    check_words("splits", values.splits, SPLITS)
    check_distinct("dataset_name", values.dataset_name)
    output_dir = Path(values.output_dir or Path("feature", checkpoint_name(values.checkpoint_path)))
    datasets = {
        name: [find_split(name, split, values.dataset_dir, output_dir) for split in values.splits]
        for name in values.dataset_name or [""]
    }
    splits = [split for parts in datasets.values() for split in parts]

    # 2. The checkpoint, and with it everything that features depend on. It is also their
    # description, which decides whether existing features are kept.
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

    trained = read_model_description(Path(checkpoint).parent)
    if trained and trained.dataset_name in datasets:
        name, offset = trained.dataset_name, trained.labels_offset
        names = read_class_names(Path(values.dataset_dir, name, CLASSES), None) or ()
        names, to_do = shift_names(names, offset), "features have the labels of the dataset"
        if problem := find_other_class(checkpoint, name, names, labels_offset=offset, to_do=to_do):
            warn(problem)

    # 3. The extractor, on this machine or on a cluster. The network is loaded only if features are
    # missing.
    def make_extractor():
        network = load_network(settings, checkpoint)
        options = values.batch_size, values.num_preprocessing_threads, values.xla
        if values.ray or values.ray_address:
            return on_cluster(values.ray_address, network, settings, *options)
        return Extractor(network, settings, *options)

    # 4. One process at a time writes to a folder: the missing features of each list, then the
    # arrays of whole datasets, then the files of the projector.
    with writing_to(output_dir, "output_dir"):
        extract_missing(splits, settings, make_extractor)
        for name, parts in datasets.items():
            files = feature_files(output_dir, name, None)
            (merge if values.merge_splits else warn_if_stale)(parts, settings, files)
        if values.projector:
            write_projector(splits, output_dir / "projector")


def checkpoint_name(path: str) -> str:
    """Returns the name of a checkpoint, or of its folder if the checkpoint is `model.ckpt`."""
    name = Path(path).name.removesuffix(".index").removesuffix(".ckpt")
    if Path(path).is_dir() or not name.startswith("model.ckpt"):
        return name or Path(path).resolve().name
    return Path(path).resolve().parent.name


@contextmanager
def on_cluster(
    address: str | None, network, settings: Settings, batch_size: int, *options
) -> Iterator[SimpleNamespace]:
    """Yields an extractor on the workers of a Ray cluster, to which the network is sent."""
    from slim.common.compat import tf
    from slim.features.extractor import Extractor, refuse_unreadable

    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, settings.image_size, settings.image_size, 3])
        depth = int(network(images).shape[1])

    def make_work() -> Callable[[tuple[Sequence[str], bool]], np.ndarray]:  # in each worker
        extractor = Extractor(network, settings, batch_size, *options)
        return lambda call: np.concatenate(list(extractor.features(*call)))

    def features(paths: Sequence[str], apply_orientation: bool) -> Iterator[np.ndarray]:
        paths = [str(Path(path).absolute()) for path in paths]
        size = BATCHES_PER_CALL * batch_size
        starts = range(0, len(paths), size)
        calls = [(paths[start : start + size], apply_orientation) for start in starts]
        done = 0
        try:
            for rows in ray_cluster.map_items(pool, make_work, calls, ordered=True):
                yield rows
                done += len(rows)
        except UserError:
            refuse_unreadable(paths[done:], available_cores())
            raise
        except WorkerError as error:
            raise UserError(
                f"workers were killed repeatedly ({error}), often for lack of memory: run the same "
                "command to resume, with a smaller --batch_size to need less memory"
            ) from error

    with ray_cluster.connected(address) as pool:
        yield SimpleNamespace(depth=depth, features=features)


def merge(parts: Sequence[FeatureSplit], settings: Settings, files: tuple[Path, Path]) -> None:
    """Concatenates the features and labels of lists, unless the files are made of the same."""
    described = json.dumps([json.loads(describe(part, settings)) for part in parts], indent=2)
    if is_described(files, described):
        return
    arrays = [np.load(part.feature_path, mmap_mode="r") for part in parts]
    num_rows, depth = sum(map(len, arrays)), arrays[0].shape[1]
    temporary = files[0].with_name(f"{files[0].name}.tmp")
    temporary.unlink(missing_ok=True)
    with RowWriter(temporary, num_rows, depth) as writer:
        for array in arrays:
            for start in range(0, len(array), MERGED_ROWS):
                writer.append(array[start : start + MERGED_ROWS])
    labels = np.concatenate([np.load(part.label_path) for part in parts])
    publish(temporary, labels, described, files)
    print(f"{files[0]}: {num_rows} x {depth}", flush=True)


def warn_if_stale(
    parts: Sequence[FeatureSplit], settings: Settings, files: tuple[Path, Path]
) -> None:
    """Prints a warning if merged features are not those of the lists."""
    description = description_path(files[0])
    if files[0].exists() and description.exists():
        made_of = json.loads(description.read_text())
        if any(json.loads(describe(part, settings)) not in made_of for part in parts):
            warn(f"{files[0]} was merged from other features: --merge_splits makes it again")


def write_projector(splits: Sequence[FeatureSplit], folder: Path) -> None:
    """Writes features, classes and thumbnails of lists for TensorBoard's projector.

    Of lists with more than 5,000 images, evenly spaced ones are written. Lists that the folder
    already has stay.
    """
    from google.protobuf import text_format
    from tensorboard.plugins.projector import ProjectorConfig

    make_folder(folder, "output_dir")
    config, path = ProjectorConfig(), folder / PROJECTOR_CONFIG
    if path.exists():
        text_format.Parse(path.read_text(), config)
    for split in splits:
        name = split.feature_path.stem
        others = [each for each in config.embeddings if each.tensor_name != name]
        del config.embeddings[:]
        config.embeddings.extend(others)
        embedding = config.embeddings.add(tensor_name=name)
        embedding.tensor_path, embedding.metadata_path = f"{name}.bytes", f"{name}.tsv"
        embedding.sprite.image_path = f"{name}.png"

        features = np.load(split.feature_path, mmap_mode="r")
        step = -(-len(features) // MOST_PROJECTED)
        chosen, entries = features[::step], split.image_list.entries[::step]
        embedding.tensor_shape.extend(chosen.shape)
        with replacing(folder / embedding.tensor_path) as temporary:
            temporary.write_bytes(np.ascontiguousarray(chosen, "<f4").tobytes())

        names = dict(enumerate(read_class_names(split.folder / CLASSES, None) or ()))
        rows = [("class", "label", "image")]
        rows += [(names.get(e.label, str(e.label)), str(e.label), e.path) for e in entries]
        text = "".join("\t".join(" ".join(cell.split()) for cell in row) + "\n" for row in rows)
        write_whole(folder / embedding.metadata_path, text)

        columns = int(np.ceil(np.sqrt(len(entries))))
        side = min(THUMBNAIL_SIDE, SPRITE_SIDE // columns)
        embedding.sprite.single_image_dim.extend([side, side])
        with replacing(folder / embedding.sprite.image_path) as temporary:
            draw_sprite(split, entries, columns, side).save(temporary, "PNG")
        write_whole(path, text_format.MessageToString(config))
    print(f"projector: tensorboard --logdir={folder}", flush=True)


def draw_sprite(
    split: FeatureSplit, entries: Sequence[Entry], columns: int, side: int
) -> Image.Image:
    """Draws thumbnails of `side` pixels in rows, as many as columns; the rest stays black."""

    def load(entry: Entry) -> Image.Image:
        try:
            return load_thumbnail(split.folder / entry.path, side).resize((side, side))
        except ImageError as error:
            raise UserError(
                f"--projector: {split.folder / entry.path}: {error}; restore the image, or omit "
                "--projector: the features are complete"
            ) from error

    sprite = Image.new("RGB", (columns * side, columns * side))
    label = f"{split.name} thumbnails"
    with ThreadPoolExecutor(available_cores()) as pool:
        thumbnails = pool.map(load, entries)
        shown = progress(label, len(entries), " images", items=thumbnails, delay=1)
        for i, thumbnail in enumerate(shown):
            sprite.paste(thumbnail, (i % columns * side, i // columns * side))
    return sprite


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
