"""A checkpoint as what it is for: from encoded images to probabilities of classes, and features.

What has to be known besides the checkpoint stands beside it, where training wrote it
(`model.json`); flags that say otherwise come first, and of a checkpoint without it the network is
told by its variables.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from slim.checkpoints.contents import classifier_size, networks_akin, sort_variables
from slim.checkpoints.description import MODEL, ModelDescription, read_model_description
from slim.checkpoints.loading import choose_averages, freeze_checkpoint
from slim.checkpoints.reading import (
    find_checkpoint,
    read_shapes,
)
from slim.common.command_line import FlagSet
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.lists import CLASSES
from slim.datasets.registry import dataset_folder, read_class_names
from slim.nets.frozen import build_network
from slim.nets.nets_factory import check_image_size, get_network, get_network_fn
from slim.preprocessing.preprocessing_factory import get_views

BACKGROUND = "background"  # class 0 of networks that have one class more than their dataset

Classify = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def define_classifier_flags(define: FlagSet) -> None:
    """Adds the flags that say which checkpoint, and what `model.json` does not say of it."""
    define.string("checkpoint_path", None, "A checkpoint, or a folder whose newest one is taken.")
    define.string("model_name", None, "The network. Default: the checkpoint's.")
    define.integer(
        "image_size",
        None,
        "Height and width of the images in pixels. Default: what it was trained on, and where that "
        "is not known, what the network was designed for.",
        1,
    )
    define.string("preprocessing_name", None, "inception or vgg. Default: the checkpoint's.")
    define.string(
        "dataset_name",
        None,
        "The dataset that names the classes, in its classes.txt. Default: the names that training "
        "wrote beside the checkpoint, and where it did not, numbers.",
    )
    define.string("dataset_dir", "./data/", "The folder that holds the datasets.")
    define.integer("num_crops", 1, "Views of an image to average over: 1, 5, 10 or 12.")


def require_checkpoint(path: str | None) -> str:
    """The checkpoint that `--checkpoint_path` means.

    Raises:
        UserError: There is none.
    """
    if not path:
        raise UserError(
            "--checkpoint_path is missing: a checkpoint, or the folder that training writes them "
            "to, such as --checkpoint_path=./checkpoints/cub_200"
        )
    return find_checkpoint(path)


def describe_classifier(
    checkpoint: str,
    model_name: str | None = None,
    image_size: int | None = None,
    preprocessing_name: str | None = None,
    dataset_name: str | None = None,
    dataset_dir: str = "./data/",
) -> ModelDescription:
    """All that has to be known of a checkpoint: as given, else as written beside it, else found.

    Args:
        checkpoint: Its prefix.
        model_name: The network. None: as said above, as of all that follow.
        image_size: Height and width of the images, in pixels.
        preprocessing_name: How they are prepared.
        dataset_name: The dataset whose classes it tells apart.
        dataset_dir: The folder that holds it.

    Returns:
        The description, its names as many as the network has classes.

    Raises:
        UserError: Something is not there, does not fit, or has to be asked for.
    """
    written = read_model_description(Path(checkpoint).parent)
    contents = sort_variables(read_shapes(checkpoint))
    name = model_name or (written.model_name if written else None)
    if not name:
        akin = networks_akin(contents)
        if len(akin) != 1:
            raise UserError(
                f"--model_name is missing: checkpoint {checkpoint} has variables of "
                f"{' and '.join(akin) or 'no network that is known'}"
            )
        name = akin[0]
    network = get_network(name)
    num_classes = classifier_size(name, contents)
    if num_classes is None:
        raise UserError(
            f"checkpoint {checkpoint} has no classifier of {name}: it gives features only (see "
            f"python -m slim.inspect_checkpoint {checkpoint})"
        )
    if not written:
        numbers = tuple(map(str, range(num_classes)))
        written = ModelDescription(name, network.default_image_size, name, "", numbers)
    names, source = written.class_names, Path(checkpoint).with_name(MODEL)
    if dataset_name:
        names, source = _names_of(dataset_name, dataset_dir)
    if len(names) == num_classes - 1:
        names = (BACKGROUND, *names)
    if len(names) != num_classes:
        raise UserError(
            f"{source} names {len(names)} classes, and checkpoint {checkpoint} tells {num_classes} "
            "apart: give --dataset_name, the dataset that it was trained on"
        )
    size = image_size or written.image_size
    check_image_size(name, size, size)
    return replace(
        written,
        model_name=name,
        image_size=size,
        preprocessing_name=preprocessing_name or written.preprocessing_name,
        dataset_name=dataset_name or written.dataset_name,
        class_names=names,
    )


def load_classifier(
    checkpoint: str,
    description: ModelDescription,
    num_crops: int = 1,
    *,
    moving_average_decay: float | None = None,
) -> Classify:
    """The network with a checkpoint's values for constants, averages where there are any.

    Args:
        checkpoint: Its prefix.
        description: As `describe_classifier` gives it.
        num_crops: Views of an image to average over: 1, 5, 10 or 12.
        moving_average_decay: See `choose_averages`.

    Returns:
        A function that puts it into the current graph: from encoded images (JPEG, PNG, GIF or
        BMP), strings `[batch]`, to `probabilities`, float32 `[batch, classes]`, and `features`,
        float32 `[batch, depth]`, the paper's: the network's feature end point averaged over its
        positions; both are means over the views.

    Raises:
        UserError: The checkpoint does not fit, or there is no such preprocessing.
    """
    name, size = description.model_name, description.image_size
    views = get_views(description.preprocessing_name, num_crops)
    network_fn = get_network_fn(name, len(description.class_names))

    def outputs(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits, end_points = network_fn(images, create_aux_logits=False)
        features = tf.reduce_mean(end_points[get_network(name).feature_endpoint], [1, 2])
        return {"probabilities": tf.nn.softmax(logits), "features": features}

    network = build_network(outputs, size)
    frozen = freeze_checkpoint(
        network,
        checkpoint,
        averages=choose_averages(checkpoint, moving_average_decay),
        hint=f"does it match --model_name={name}?",
    )

    def classify(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = tf.size(encoded)
        # Decoding is for the CPU, and what follows it is less work than sending every image.
        with tf.device("/device:CPU:0"):
            images = tf.map_fn(lambda image: views(image, size, size), encoded, tf.float32)
            images = tf.reshape(images, [-1, size, size, 3])
            # TensorFlow's convolutions fail on an empty batch, some of them.
            blanks = tf.where(tf.equal(batch, 0), num_crops, 0)
            images = tf.concat([images, tf.zeros([blanks, size, size, 3])], 0)

        def averaged(values: tf.Tensor) -> tf.Tensor:
            by_image = tf.reshape(values, [-1, num_crops, values.shape[1]])
            return tf.reduce_mean(by_image, 1)[:batch]

        return tf.nest.map_structure(averaged, frozen(images))

    return classify


def _names_of(dataset_name: str, dataset_dir: str) -> tuple[tuple[str, ...], Path]:
    """The names of a dataset's classes, and the file that has them."""
    path = dataset_folder(dataset_name, dataset_dir) / CLASSES
    if not path.is_file():
        raise UserError(
            f"--dataset_name={dataset_name}: there is no {path} that names the classes; expected "
            "lines of 'label name', labels from 0"
        )
    count = sum(1 for line in path.read_text("utf-8").splitlines() if line.strip())
    names = read_class_names(path, count)
    if names is None:
        raise UserError(f"{path}: expected lines of 'label name', labels 0 to {count - 1} in order")
    return names, path
