"""Features of a dataset's images from a checkpoint, as the paper's transfer uses them.

A feature is an end point of the network averaged over its positions (section 4 of the paper: the
last layer before the classifier). The arrays stream to disk, so that memory does not grow with the
dataset; they appear whole or not at all, and a run that was stopped goes on where it was.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from slim import checkpoints
from slim.compat import tf
from slim.datasets import ray_cluster
from slim.datasets.images import ImageError, load_image
from slim.datasets.input import made_ahead
from slim.datasets.lists import ImageList, read_list
from slim.datasets.registry import dataset_folder
from slim.datasets.workers import WorkerError, available_cores
from slim.deployment.inference import FrozenNetwork, build_network, freeze
from slim.deployment.model_deploy import session_config
from slim.errors import UserError, did_you_mean, run_command, show_problems
from slim.files import replacing, write_whole
from slim.flags import PRECISIONS, FlagSet, check_words, define_speed_flags
from slim.nets.nets_factory import check_image_size, get_network, get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing

SPLITS = ("train", "val")
BATCHES_PER_CALL = 4  # of a worker of a cluster: the next images are prepared meanwhile
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


@dataclass(frozen=True)
class Settings:
    """All that the features of an image depend on."""

    model_name: str
    checkpoint_hash: str
    averages: bool
    endpoint: str
    image_size: int
    precision: str = PRECISIONS[0]


@dataclass(frozen=True)
class Split:
    """One list of a dataset, and where its features and labels go.

    Attributes:
        name: Of the dataset and the split, for the progress bar.
        folder: The dataset's folder, which the list's paths are relative to.
        image_list: Images and labels.
        feature_path: Receives float32 `[images, depth]`, in the order of the list.
        label_path: Receives int32 `[images]`.
    """

    name: str
    folder: Path
    image_list: ImageList
    feature_path: Path
    label_path: Path


def main(values: flags.FlagValues) -> None:
    """Writes the features and labels of the images of one or more datasets."""
    check_words("splits", values.splits, SPLITS)
    output_dir = Path(values.output_dir or Path("feature", checkpoint_name(values.checkpoint_path)))
    datasets = {
        name: [find_split(name, split, values.dataset_dir, output_dir) for split in values.splits]
        for name in values.dataset_name
    }
    model_name = ALIASES.get(values.model_name, values.model_name)
    checkpoint = checkpoints.find_checkpoint(values.checkpoint_path)
    check_image_size(model_name, values.image_size, values.image_size)
    settings = Settings(
        model_name,
        hash_checkpoint(checkpoint),
        choose_averages(checkpoint, values.moving_average_decay),
        values.endpoint or get_network(model_name).feature_endpoint,
        values.image_size,
        values.precision,
    )
    make_folder(output_dir)
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


def find_split(name: str, split: str, dataset_dir: str, output_dir: Path) -> Split:
    """Reads a list, each of whose lines must be good.

    Raises:
        UserError: One is not, or there is no such dataset or list.
    """
    folder = dataset_folder(name, dataset_dir)
    path = folder / f"{split}.txt"
    image_list = read_list(path)
    if image_list.problems:
        first = image_list.problems[0]
        raise UserError(
            f"{path} has {len(image_list.problems)} unusable lines, the first is line "
            f"{first.line}: {first.text}; mend them"
        )
    return Split(
        f"{name} {split}",
        folder,
        image_list,
        output_dir / f"{name}_feature_{split}.npy",
        output_dir / f"{name}_label_{split}.npy",
    )


def checkpoint_name(path: str) -> str:
    """What to call a checkpoint: its file, or its folder where all files are called alike."""
    name = Path(path).name.removesuffix(".index").removesuffix(".ckpt")
    if Path(path).is_dir() or not name.startswith("model.ckpt"):
        return name or Path(path).resolve().name
    return Path(path).resolve().parent.name


def hash_checkpoint(checkpoint: str) -> str:
    """A hash that changes with a checkpoint's values: of its index, which has their checksums."""
    index = Path(f"{checkpoint}.index")
    return hashlib.sha256((index if index.exists() else Path(checkpoint)).read_bytes()).hexdigest()


def choose_averages(checkpoint: str, moving_average_decay: float | None) -> bool:
    """Whether to take the averages of the variables, and says so.

    Raises:
        UserError: They are asked for, and the checkpoint has none.
    """
    has_averages = checkpoints.has_averages(checkpoint)
    if moving_average_decay and not has_averages:
        raise UserError(
            f"--moving_average_decay={moving_average_decay}: checkpoint {checkpoint} has no moving "
            "averages; leave the flag out to take the plain variables"
        )
    print(f"{checkpoint}: {'moving averages' if has_averages else 'plain variables'}", flush=True)
    return has_averages


def make_folder(path: Path) -> None:
    """Makes the output folder.

    Raises:
        UserError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--output_dir={path}: cannot make the folder ({error.strerror}); give another one"
        ) from error


def describe(split: Split, settings: Settings) -> str:
    """All that a finished array depends on, as it is written beside it."""
    described = {**asdict(settings), "list_sha256": split.image_list.sha256}
    if settings.precision == PRECISIONS[0]:  # as before there was any other
        del described["precision"]
    return json.dumps(described, indent=2) + "\n"


def is_done(split: Split, settings: Settings) -> bool:
    """Whether features of these settings are there already, and says so."""
    done = is_extracted(split, settings)
    if done:
        num_images = len(split.image_list.entries)
        print(f"nothing to do: {split.feature_path} has the {num_images} images", flush=True)
    return done


def is_extracted(split: Split, settings: Settings) -> bool:
    """Whether features of these settings are there already."""
    description = split.feature_path.with_suffix(".json")
    return (
        split.feature_path.exists()
        and split.label_path.exists()
        and description.exists()
        and description.read_text() == describe(split, settings)
    )


def load_network(settings: Settings, checkpoint: str) -> FrozenNetwork:
    """The network from images to features, with a checkpoint's values for constants.

    Args:
        settings: Network, end point, size, and whether to take averages.
        checkpoint: The checkpoint's prefix.

    Returns:
        The network.

    Raises:
        UserError: The end point or some variables are not there.
    """
    network = build_network(lambda images: build_features(images, settings), settings.image_size)
    named = checkpoints.by_name(network.variables)
    if settings.averages:
        named = checkpoints.averaged_variables(network.variables)
    hint = f"is it of --model_name={settings.model_name}?"
    checkpoints.check_fits(checkpoint, named, hint, hint)
    return freeze(network, checkpoints.read_values(checkpoint, named))


class Extractor:
    """A network that gives features of image files; a context.

    Args:
        network: From `load_network`.
        settings: What it was loaded with.
        batch_size: Images a batch; features do not depend on it.
        num_threads: Images prepared side by side. None: as many as there are cores.
        xla: Compile the network with XLA.
    """

    def __init__(
        self,
        network: FrozenNetwork,
        settings: Settings,
        batch_size: int,
        num_threads: int | None = None,
        xla: bool = False,
    ) -> None:
        self._num_threads = num_threads or available_cores()
        with tf.Graph().as_default():
            self._session = tf.Session(config=session_config())
            self._paths = tf.placeholder(tf.string, [None])
            batches = image_batches(self._paths, settings, batch_size, self._num_threads)
            self._iterator = tf.data.make_initializable_iterator(batches)
            self._features = network(self._iterator.get_next(), xla)

    @property
    def depth(self) -> int:
        """Numbers in a feature."""
        return int(self._features.shape[1])

    def features(self, paths: Sequence[str]) -> Iterator[np.ndarray]:
        """Yields the features of image files, float32 `[batch, depth]`, in their order.

        Raises:
            UserError: Some images cannot be read; all of them are looked for.
        """
        encoded = [os.fsencode(path) for path in paths]
        self._session.run(self._iterator.initializer, {self._paths: encoded})
        done = 0
        while done < len(paths):
            try:
                rows = self._session.run(self._features)
            except tf.errors.OpError:
                refuse_unreadable(paths[done:], self._num_threads)
                raise
            yield rows
            done += len(rows)

    def __enter__(self) -> "Extractor":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()


class ClusterExtractor:
    """An `Extractor` in every worker of a Ray cluster; a context.

    Args:
        address: Of the cluster, see `ray_cluster.connected`.
        network: From `load_network`; it is sent to the workers.
        settings: What it was loaded with.
        batch_size: Images a batch.
        num_threads: Images that a worker prepares side by side. None: as many as it has cores.
        xla: Compile the network with XLA.

    Raises:
        UserError: There is no such cluster.
    """

    def __init__(
        self,
        address: str | None,
        network: FrozenNetwork,
        settings: Settings,
        batch_size: int,
        num_threads: int | None = None,
        xla: bool = False,
    ) -> None:
        with tf.Graph().as_default():
            images = tf.placeholder(tf.float32, [None, settings.image_size, settings.image_size, 3])
            self.depth = int(network(images).shape[1])
        self._connection = ray_cluster.connected(address)
        self._make_work = partial(make_extraction, network, settings, batch_size, num_threads, xla)
        self._images_per_call = BATCHES_PER_CALL * batch_size

    def features(self, paths: Sequence[str]) -> Iterator[np.ndarray]:
        """Yields the features of image files, float32 `[any, depth]`, in their order.

        Raises:
            UserError: Some images cannot be read, or workers were killed again and again.
        """
        paths = [str(Path(path).absolute()) for path in paths]
        size = self._images_per_call
        calls = [paths[start : start + size] for start in range(0, len(paths), size)]
        done = 0
        try:
            for rows in ray_cluster.map_in_order(self._pool, self._make_work, calls):
                yield rows
                done += len(rows)
        except UserError:
            refuse_unreadable(paths[done:], available_cores())
            raise
        except WorkerError as error:
            raise UserError(
                f"workers were stopped again and again ({error}; often a lack of memory): the same "
                f"command goes on from there, a smaller --batch_size needs less memory"
            ) from error

    def __enter__(self) -> "ClusterExtractor":
        self._pool = self._connection.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._connection.__exit__(*exception)


def make_extraction(
    network: FrozenNetwork, settings: Settings, *options: Any
) -> Callable[[Sequence[str]], np.ndarray]:
    """What a worker does: from image files to their features, float32 `[images, depth]`."""
    extractor = Extractor(network, settings, *options)
    return lambda paths: np.concatenate(list(extractor.features(paths)))


def extract_split(
    split: Split, settings: Settings, extractor: Extractor | ClusterExtractor
) -> None:
    """Writes the features and labels of one list, or what an earlier run left of them.

    Raises:
        UserError: An image cannot be read.
    """
    paths = [str(split.folder / entry.path) for entry in split.image_list.entries]
    # Named after all that the features depend on: what is found there can be gone on with.
    key = hashlib.sha256(describe(split, settings).encode()).hexdigest()[:16]
    part = split.feature_path.with_name(f".{split.feature_path.name}.{key}.part")
    for stale in part.parent.glob(f".{split.feature_path.name}.*.part"):
        if stale != part:
            stale.unlink()
    with (
        RowWriter(part, len(paths), extractor.depth) as writer,
        tqdm(total=len(paths), initial=writer.rows, desc=split.name, unit="images") as progress,
    ):
        for rows in extractor.features(paths[writer.rows :]):
            writer.append(rows)
            progress.update(len(rows))
    with replacing(split.label_path) as temporary, temporary.open("wb") as file:
        np.save(file, np.array([entry.label for entry in split.image_list.entries], np.int32))
    part.replace(split.feature_path)
    write_whole(split.feature_path.with_suffix(".json"), describe(split, settings))
    print(f"{split.feature_path}: {len(paths)} x {extractor.depth}", flush=True)


def image_batches(
    paths: tf.Tensor, settings: Settings, batch_size: int, num_threads: int
) -> tf.data.Dataset:
    """Images in the order of their paths, prepared as for evaluation.

    Args:
        paths: Image files of any kind that conversion takes, strings `[any]`.
        settings: Network and size.
        batch_size: Images a batch; the last one may be smaller.
        num_threads: Images prepared side by side.

    Returns:
        float32 `[batch, image_size, image_size, 3]`.
    """
    preprocess = get_preprocessing(settings.model_name)

    def load(path: bytes) -> bytes:
        return load_image(Path(os.fsdecode(path)), verify=False)[0]

    def prepare(path: tf.Tensor) -> tf.Tensor:
        encoded = tf.numpy_function(load, [path], tf.string)
        encoded.set_shape([])
        return preprocess(encoded, settings.image_size, settings.image_size)

    images = tf.data.Dataset.from_tensor_slices(paths).map(prepare, num_parallel_calls=num_threads)
    return made_ahead(images.batch(batch_size))


def build_features(images: tf.Tensor, settings: Settings) -> tf.Tensor:
    """The end point averaged over its positions, float32 `[batch, depth]`.

    Raises:
        UserError: The network has no such end point.
    """
    network_fn = get_network_fn(
        settings.model_name, num_classes=None, dtype=tf.as_dtype(settings.precision)
    )
    _, end_points = network_fn(images)
    if settings.endpoint not in end_points:
        raise UserError(
            f"--endpoint={settings.endpoint}: {did_you_mean(settings.endpoint, list(end_points))}"
        )
    net = end_points[settings.endpoint]
    return tf.reduce_mean(net, [1, 2]) if len(net.shape) == 4 else net


def refuse_unreadable(paths: Sequence[str], num_threads: int) -> None:
    """Looks for all images that cannot be read, once one has stopped the run.

    Raises:
        UserError: There are some: names the first few, and lists up to 20 on stderr.
    """

    def problem(path: str) -> str | None:
        try:
            load_image(Path(path), verify=True)
        except ImageError as error:
            return f"{path}: {error}"
        return None

    with ThreadPoolExecutor(num_threads) as pool:
        problems = [text for text in pool.map(problem, paths) if text]
    if not problems:
        return
    show_problems(problems)
    raise UserError(
        f"{len(problems)} images cannot be read, the first is {problems[0]}; mend them or take "
        "their lines out of the list; features so far are kept, and nothing is written as if done"
    ) from None


class RowWriter:
    """A `.npy` file that grows by rows, and is gone on with where a killed process left it.

    Args:
        path: The file; one that is there is taken to be of the same shape.
        num_rows: Rows when it is done.
        depth: Numbers in a row.
    """

    def __init__(self, path: Path, num_rows: int, depth: int) -> None:
        header = io.BytesIO()
        description = {"descr": "<f4", "fortran_order": False, "shape": (num_rows, depth)}
        np.lib.format.write_array_header_1_0(header, description)
        self._file = path.open("a+b", buffering=0)
        row_bytes = 4 * depth
        written = self._file.seek(0, os.SEEK_END) - len(header.getvalue())
        # A row that was cut off is written again; so is a header.
        self.rows = max(0, written // row_bytes)
        if written < 0:
            self._file.truncate(0)
            self._file.write(header.getvalue())
        else:
            self._file.truncate(len(header.getvalue()) + self.rows * row_bytes)

    def append(self, rows: np.ndarray) -> None:
        """Writes rows, float32 `[any, depth]`."""
        self._file.write(np.ascontiguousarray(rows, "<f4").data)
        self.rows += len(rows)

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def merge(parts: Sequence[Path], path: Path) -> None:
    """Writes arrays one after the other as one, without holding them in memory."""
    newest = max(part.stat().st_mtime_ns for part in parts)
    if path.exists() and path.stat().st_mtime_ns > newest:
        return
    arrays = [np.load(part, mmap_mode="r") for part in parts]
    shape = (sum(len(array) for array in arrays), *arrays[0].shape[1:])
    with replacing(path) as temporary:
        merged = np.lib.format.open_memmap(temporary, "w+", arrays[0].dtype, shape)
        start = 0
        for array in arrays:
            merged[start : start + len(array)] = array
            start += len(array)
        merged.flush()
    print(f"{path}: {' x '.join(map(str, shape))}", flush=True)


command = partial(run_command, define_flags, main, description=__doc__)
