"""Classifiers: from encoded images to class probabilities and features.

The properties of a classifier (network, image size, preprocessing, class names) come from flags,
else from the `model.json` that training wrote beside the checkpoint. Without `model.json` the
network is inferred from the variable names.
"""

from collections.abc import Callable
from pathlib import Path

from slim.checkpoints.contents import (
    Contents,
    classifier_size,
    matching_scopes,
    scope_variables,
    sort_variables,
)
from slim.checkpoints.description import MODEL, ModelDescription, read_model_description
from slim.checkpoints.loading import choose_averages, freeze_checkpoint
from slim.checkpoints.reading import read_shapes
from slim.checkpoints.trained_input import choose_input
from slim.common.command_line import python_command
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.datasets.lists import CLASSES
from slim.datasets.registry import dataset_folder, read_class_names
from slim.nets.frozen import FrozenNetwork, build_network
from slim.nets.nets_factory import get_network, get_network_fn
from slim.preprocessing.preprocessing_factory import get_views

BACKGROUND = "background"  # class 0 of networks that have one class more than their dataset

Classify = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def describe_classifier(
    checkpoint: str,
    *,
    model_name: str | None = None,
    image_size: int | None = None,
    preprocessing_name: str | None = None,
    dataset_name: str | None = None,
    dataset_dir: str = "./data/",
) -> ModelDescription:
    """Returns the properties of a classifier: as given, else from `model.json`, else inferred.

    Args:
        checkpoint: The prefix of the checkpoint.
        model_name: The network.
        image_size: Height and width of the images in pixels.
        preprocessing_name: The preprocessing.
        dataset_name: The dataset that names the classes.
        dataset_dir: The folder that holds the datasets.

    Returns:
        The description, with one name per class of the network.

    Raises:
        UserError: A property is missing, unknown, or does not match the checkpoint.
    """
    written = read_model_description(Path(checkpoint).parent)
    contents = sort_variables(read_shapes(checkpoint))
    name = model_name or (written.model_name if written else None)
    name = _choose_network(checkpoint, contents, name)
    num_classes = classifier_size(name, contents)
    if num_classes is None:
        raise UserError(
            f"checkpoint {checkpoint} has no classifier of {name}, only features (see "
            f"{python_command()} -m slim.inspect_checkpoint {checkpoint})"
        )
    names = written.class_names if written else tuple(map(str, range(num_classes)))
    source = Path(checkpoint).with_name(MODEL)
    if dataset_name:
        names, source = _read_names(dataset_name, dataset_dir)
    names = _class_names(checkpoint, num_classes, names, source)
    chosen = choose_input(
        Path(checkpoint).parent,
        name,
        image_size,
        preprocessing_name,
        default_size=get_network(name).default_image_size,
    )
    dataset_name = dataset_name or (written.dataset_name if written else "")
    return ModelDescription(*chosen, dataset_name, names)


def _choose_network(checkpoint: str, contents: Contents, name: str | None) -> str:
    """Returns the name of the network if it is given, else infers it."""
    candidates = matching_scopes(contents)
    found = f"checkpoint {checkpoint} has variables of "
    found += " and ".join(candidates) or "no known network"
    if not name and len(candidates) != 1:
        raise UserError(f"--model_name is missing: {found}")
    if name and not scope_variables(name, contents):
        raise UserError(f"--model_name={name}: {found}; leave the flag out")
    return name or candidates[0]


def _class_names(
    checkpoint: str, num_classes: int, names: tuple[str, ...], source: Path
) -> tuple[str, ...]:
    if len(names) == num_classes - 1:
        names = (BACKGROUND, *names)
    if len(names) != num_classes:
        raise UserError(
            f"{source} names {len(names)} classes, but checkpoint {checkpoint} has {num_classes}: "
            "give the dataset that it was trained on with --dataset_name"
        )
    return names


def _read_names(dataset_name: str, dataset_dir: str) -> tuple[tuple[str, ...], Path]:
    path = dataset_folder(dataset_name, dataset_dir) / CLASSES
    names = read_class_names(path, None)
    if names is None:
        found = "is invalid" if path.exists() else "is missing"
        raise UserError(
            f"--dataset_name={dataset_name}: {path} {found}; expected one line 'label name' per "
            "class, labels from 0 in order"
        )
    return names, path


def load_classifier(
    checkpoint: str,
    description: ModelDescription,
    num_crops: int = 1,
    *,
    moving_average_decay: float | None = None,
) -> Classify:
    """Loads a classifier.

    Args:
        checkpoint: The prefix of the checkpoint.
        description: The result of `describe_classifier`.
        num_crops: Views per image to average over: 1, 5, 10 or 12.
        moving_average_decay: See `choose_averages`.

    Returns:
        A function that adds the classifier to the current graph. It maps encoded images (JPEG,
        PNG, GIF or BMP), strings `[batch]`, to `probabilities`, float32 `[batch, classes]`, and
        `features`, float32 `[batch, depth]`: the feature end point of the network averaged over
        its positions, as in the paper. Both are means over the views.

    Raises:
        UserError: The checkpoint does not match, or the preprocessing is unknown.
    """
    name, size = description.model_name, description.image_size
    views = get_views(description.preprocessing_name, num_crops)
    network_fn = get_network_fn(name, len(description.class_names))

    def outputs(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits, end_points = network_fn(images, create_aux_logits=False)
        features = tf.reduce_mean(end_points[get_network(name).feature_endpoint], [1, 2])
        return {"probabilities": tf.nn.softmax(logits), "features": features}

    frozen = freeze_checkpoint(
        build_network(outputs, size),
        checkpoint,
        averages=choose_averages(checkpoint, moving_average_decay),
        hint=f"does it match --model_name={name}?",
    )
    return _from_encoded(frozen, lambda image: views(image, size, size), num_crops, size)


def _from_encoded(
    network: FrozenNetwork, views: Callable[[tf.Tensor], tf.Tensor], num_crops: int, size: int
) -> Classify:
    def classify(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = tf.size(encoded)
        # Decoding runs on the CPU, and resized images are smaller to transfer than encoded ones.
        with tf.device("/device:CPU:0"):
            images = tf.map_fn(views, encoded, tf.float32)
            images = tf.reshape(images, [-1, size, size, 3])
            # Some convolutions of TensorFlow fail on an empty batch.
            blanks = tf.where(tf.equal(batch, 0), num_crops, 0)
            images = tf.concat([images, tf.zeros([blanks, size, size, 3])], 0)

        def averaged(values: tf.Tensor) -> tf.Tensor:
            by_image = tf.reshape(values, [-1, num_crops, values.shape[1]])
            return tf.reduce_mean(by_image, 1)[:batch]

        return tf.nest.map_structure(averaged, network(images))

    return classify
