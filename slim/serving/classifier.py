"""Classifiers: from images to class probabilities and features."""

import ctypes
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from PIL import Image

from slim.checkpoints.choosing import describe_classifier
from slim.checkpoints.description import ModelDescription
from slim.checkpoints.finding import find_checkpoint
from slim.checkpoints.freezing import (
    FrozenNetwork,
    build_network,
    freeze_checkpoint,
    pool_features,
)
from slim.checkpoints.reading import choose_averages
from slim.common.command_line import available_cores
from slim.common.compat import tf, without_deprecations
from slim.common.devices import check_process, session_config
from slim.common.errors import UserError
from slim.datasets.images import ImageError, convert_image, encode_image, load_image
from slim.nets.nets_factory import get_network
from slim.preprocessing.preprocessing_factory import get_views

Outputs = Callable[[tf.Tensor], dict[str, tf.Tensor]]
AnyImage = str | PathLike[str] | bytes | Image.Image | np.ndarray

PROBABILITIES, FEATURES = "probabilities", "features"


class Prediction(NamedTuple):
    """A class and its probability."""

    class_name: str
    label: int
    probability: float


class Classifier:
    """A network with a classifier, in a session of its own; a context.

    Images are paths of files, encoded images as bytes, Pillow images, or uint8 arrays
    `[height, width, 3]` or `[height, width]`, also mixed. Files and bytes may be of any kind that
    conversion accepts. All are converted as for training, Pillow images and arrays like files that
    are not JPEGs. A batch of arrays is an array `[batch, height, width, 3]`.

    Args:
        outputs: The function that adds the classifier to the current graph. It maps images as
            conversion stores them, strings `[batch]`, to `probabilities`, float32
            `[batch, classes]`, and `features`, float32 `[batch, depth]`. Also an attribute.
        description: Its network, image size, preprocessing and class names. Also an attribute.
        batch_size: Images per batch, which results do not depend on.
    """

    def __init__(
        self, outputs: Outputs, description: ModelDescription, batch_size: int = 32
    ) -> None:
        self.outputs = outputs
        self.description = description
        self._batch_size = batch_size
        with tf.Graph().as_default():
            self._encoded = tf.placeholder(tf.string, [None])
            self._fetches = outputs(self._encoded)
            self._session = tf.Session(config=session_config())

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of all classes in the order of their labels."""
        return self.description.class_names

    def predict(self, images: Sequence[AnyImage], top: int = 5) -> list[list[Prediction]]:
        """Returns the likeliest classes of images, ties in the order of the labels.

        Args:
            images: Any kinds of images that the class takes.
            top: Max number of predictions per image.

        Raises:
            UserError: An image cannot be read, or a batch is too large for the memory.
            TypeError: `images` is one image, or holds another kind of object.
        """
        return [self.likeliest(row, top) for row in self.probabilities(images)]

    def probabilities(self, images: Sequence[AnyImage]) -> np.ndarray:
        """Returns the probabilities of all classes, float32 `[images, classes]`; see `predict`."""
        return self._array(images, PROBABILITIES)

    def features(self, images: Sequence[AnyImage]) -> np.ndarray:
        """Returns features as in the paper, float32 `[images, depth]`; see `predict`."""
        return self._array(images, FEATURES)

    def likeliest(self, probabilities: np.ndarray, top: int) -> list[Prediction]:
        """Returns the likeliest classes of an image from its probabilities, `[classes]`."""
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [Prediction(self.class_names[i], int(i), float(probabilities[i])) for i in order]

    def rows(self, images: Iterable[AnyImage], output: str) -> Iterator[np.ndarray | ImageError]:
        """Yields one row of `probabilities` or `features` per image, or the problem with it."""
        # Threads decode a batch; the rows of its readable images then take the places of theirs.
        remaining = iter(images)
        load = partial(_load, apply_orientation=self.description.apply_orientation)
        with ThreadPoolExecutor(available_cores()) as pool:
            while batch := list(islice(remaining, self._batch_size)):
                loaded = list(pool.map(load, batch))
                readable = [content for content in loaded if isinstance(content, bytes)]
                rows = iter(self._run(readable, output))
                for content in loaded:
                    yield next(rows) if isinstance(content, bytes) else content

    def close(self) -> None:
        """Releases the memory of the network, also if the object itself is kept."""
        if self._session is not None:
            self._session.close()
        self.outputs = self._encoded = self._fetches = self._session = None
        gc.collect()  # graphs refer to themselves
        with suppress(AttributeError):  # only glibc keeps free memory, and has this function
            ctypes.CDLL(None).malloc_trim(0)

    def __reduce__(self) -> NoReturn:
        raise UserError(
            "a classifier cannot be pickled or copied: call load_classifier in the other process"
        )

    def __enter__(self) -> "Classifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _array(self, images: Sequence[AnyImage], output: str) -> np.ndarray:
        one = (str, bytes, PathLike, Image.Image)
        if isinstance(images, one) or (isinstance(images, np.ndarray) and images.ndim < 4):
            raise TypeError("images is one image, expected a sequence: pass [image]")
        images = list(images)
        rows = list(self.rows(images, output))
        for index, (image, row) in enumerate(zip(images, rows, strict=True)):
            if isinstance(row, ImageError):
                name = f", {image}," if isinstance(image, (str, PathLike)) else ""
                raise UserError(f"images[{index}]{name} cannot be used: {row}")
        return np.stack(rows) if rows else self._run([], output)

    def _run(self, encoded: list[bytes], output: str) -> np.ndarray:
        check_process()
        if self._session is None:
            raise RuntimeError("the classifier is closed: load it again")
        try:
            return self._session.run(self._fetches[output], {self._encoded: encoded})
        except tf.errors.ResourceExhaustedError as error:
            raise UserError(
                f"batch_size={self._batch_size}: out of memory; pass a smaller one"
            ) from error


@without_deprecations()
def load_classifier(
    checkpoint_path: str | PathLike[str],
    *,
    num_crops: int = 1,
    moving_average_decay: float | None = None,
    batch_size: int = 32,
    **properties: str | int | bool | None,
) -> Classifier:
    """Loads a classifier.

    Args:
        checkpoint_path: A checkpoint, or a folder for its newest checkpoint.
        num_crops: Views per image to average over: 1, 5, 10 or 12.
        moving_average_decay: 0 for the plain variables, another number for the moving averages.
            Default: the averages if the checkpoint has them.
        batch_size: Images per batch, which results do not depend on.
        **properties: Properties that take precedence over `model.json`, see `describe_classifier`:
            `model_name`, `image_size`, `preprocessing_name`, `dataset_name`, `dataset_dir`,
            `apply_orientation`, `renamed_classes`.

    Raises:
        UserError: There is no checkpoint, it does not match, or a property is missing or unknown.
    """
    checkpoint = find_checkpoint(str(checkpoint_path))
    description = describe_classifier(checkpoint, **properties)
    size = description.image_size
    views = get_views(description.preprocessing_name, num_crops)
    frozen = load_network(checkpoint, description, moving_average_decay)

    def classify(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = tf.size(encoded)
        # Decoding runs on the CPU, and resized images are smaller to transfer than encoded ones.
        with tf.device("/device:CPU:0"):
            images = tf.map_fn(lambda image: views(image, size, size), encoded, tf.float32)
            images = tf.reshape(images, [-1, size, size, 3])
            # Some convolutions of TensorFlow fail on an empty batch.
            blanks = tf.where(tf.equal(batch, 0), num_crops, 0)
            images = tf.concat([images, tf.zeros([blanks, size, size, 3])], 0)

        def averaged(values: tf.Tensor) -> tf.Tensor:
            by_image = tf.reshape(values, [-1, num_crops, values.shape[1]])
            return tf.reduce_mean(by_image, 1)[:batch]

        return tf.nest.map_structure(averaged, frozen(images))

    return Classifier(classify, description, batch_size)


def load_network(
    checkpoint: str, description: ModelDescription, moving_average_decay: float | None
) -> FrozenNetwork:
    """Loads the network of a classifier, from ready images to `probabilities` and `features`."""
    name = description.model_name
    endpoint = get_network(name).feature_endpoint
    graph = build_network(
        name,
        len(description.class_names),
        description.image_size,
        outputs=lambda logits, end_points: {
            PROBABILITIES: tf.nn.softmax(logits),
            FEATURES: pool_features(end_points, endpoint),
        },
    )
    return freeze_checkpoint(
        graph,
        checkpoint,
        averages=choose_averages(checkpoint, moving_average_decay),
        hint=f"does it match --model_name={name}?",
    )


def _load(image: AnyImage, apply_orientation: bool) -> bytes | ImageError:
    """Returns an image as conversion stores it, or the problem with it."""
    try:
        if isinstance(image, (str, PathLike)):
            return load_image(Path(image), True, apply_orientation).jpeg
        if isinstance(image, bytes):
            return convert_image(image, True, apply_orientation).jpeg
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or (image.ndim != 2 and image.shape[2:] != (3,)):
                found = f"{image.dtype} {list(image.shape)}"
                return ImageError(f"{found}, expected uint8 [height, width, 3]")
            image = Image.fromarray(image)
        if isinstance(image, Image.Image):
            return encode_image(image, apply_orientation).jpeg
    except ImageError as error:
        return error
    raise TypeError(
        f"an image is a {type(image).__name__}, expected a path, bytes, a Pillow image or a uint8 "
        "array"
    )
