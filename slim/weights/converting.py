"""Networks of other libraries, written as checkpoints of this project."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from slim.checkpoints import keras_layers
from slim.checkpoints.description import (
    ModelDescription,
    read_model_description,
    write_model_description,
)
from slim.checkpoints.finding import STATE, latest_checkpoint
from slim.checkpoints.freezing import variable_shapes
from slim.common.compat import tf
from slim.common.errors import UserError, did_you_mean
from slim.common.files import write_whole, writing_to
from slim.nets.nets_factory import get_network
from slim.weights.catalogue import (
    ADDRESS,
    CONVERTED,
    HUB,
    HUB_MODELS,
    IMAGENET,
    KERAS,
)
from slim.weights.class_names import try_class_names
from slim.weights.fetching import fetch_archive, record_hash, unpacked_beside

_IMAGENET_CLASSES = 1000


def provide_converted(
    name: str, checkpoints_dir: Path, path: Path | None, mirrors: Sequence[str] = ()
) -> None:
    """Converts a model of another library to a checkpoint, unless it is there.

    Args:
        name: `keras:` and a key of `KERAS_MODELS`, or `hub:` and a key of `HUB_MODELS`.
        checkpoints_dir: Receives `keras/<name>/` or `hub/<name>/`.
        path: A file of Keras, or a SavedModel, a folder or an archive. Default: it is downloaded.
        mirrors: Addresses to try before, in order, for models of the hub; `{name}` is the name.
    """
    library, _, key = name.partition(":")
    models = {KERAS: keras_layers.MODELS, HUB: HUB_MODELS}[library]
    if key not in models:
        known = [f"{library}:{known}" for known in models]
        raise UserError(f"unknown model '{name}'; {did_you_mean(name, known)}")
    # The checkpoint appears last and whole, so one that is there is complete.
    folder = checkpoints_dir / library / key
    with writing_to(folder, "checkpoints_dir"):
        checkpoint = latest_checkpoint(folder)
        if checkpoint and path:
            raise UserError(f"{checkpoint} exists already: move {folder} away to convert {path}")
        if checkpoint:
            print(f"{name} exists already")
        elif library == KERAS:
            _convert_keras(key, folder, path)
        else:
            _convert_hub(key, folder, path, mirrors)
        # Classes of ImageNet have numbers until their names could be fetched.
        described = read_model_description(folder)
        numbers = tuple(map(str, range(len(described.class_names))))
        if (
            described.dataset_name == IMAGENET
            and described.class_names == numbers
            and (names := try_class_names(IMAGENET, len(numbers), checkpoints_dir))
        ):
            write_model_description(folder, replace(described, class_names=names))
    print(f"path: {folder}", flush=True)


def _convert_keras(name: str, folder: Path, weights: Path | None) -> None:
    if weights:
        model = keras_layers.load_model(name, weights)
    else:
        try:
            model = keras_layers.build_model(name, _IMAGENET_CLASSES, weights="imagenet")
        except Exception as error:  # Keras raises this type if a download fails
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"{KERAS}:{name}: Keras cannot download its weights ({reason}); run the command "
                "again, or pass a file with --weights"
            ) from error
    network, num_classes = keras_layers.MODELS[name], model.output_shape[-1]
    values = keras_layers.network_values(name, model)
    size = model.input_shape[1] or get_network(network).default_image_size
    dataset_name = IMAGENET if num_classes == _IMAGENET_CLASSES else ""
    numbers = tuple(map(str, range(num_classes)))
    _write_network(folder, values, ModelDescription(network, size, network, dataset_name, numbers))
    print(f"{KERAS}:{name} is {network} with {num_classes:,} classes")


def _convert_hub(name: str, folder: Path, path: Path | None, mirrors: Sequence[str]) -> None:
    network, trained_on, size, _ = HUB_MODELS[name]
    archive = path or fetch_archive(name, folder, ADDRESS, mirrors)
    if not archive.exists():
        raise UserError(f"--path={path}: no such file or folder; expected a SavedModel")
    with nullcontext(archive) if archive.is_dir() else unpacked_beside(archive) as contents:
        values = _saved_model_values(contents, network)
    if path is None:
        record_hash(name, archive)
    _write_network(folder, values, ModelDescription(network, size, network, trained_on, ()))
    print(f"{HUB}:{name} is {network} without classifier")


def _saved_model_values(folder: Path, model_name: str) -> dict[str, np.ndarray]:
    """Returns the values of a network's variables in a SavedModel, without the classifier.

    The SavedModel is one of TensorFlow 2, or a module of TensorFlow Hub for TensorFlow 1.
    """
    found = sorted(folder.rglob("saved_model.pb"))
    if len(found) != 1:
        raise UserError(f"{folder} has {len(found)} files saved_model.pb, expected one")
    source = found[0].parent
    # 1. Load it.
    try:
        try:
            model = tf.saved_model.load_v2(str(source))
        except (ValueError, RuntimeError):
            # It has two graphs, of which that for training has a tag.
            model = tf.saved_model.load_v2(str(source), tags=[])
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{source} cannot be loaded ({reason})") from error
    # 2. Its variables by name. Of TensorFlow 1, they are an attribute; of TensorFlow 2, anywhere
    #    below.
    scope = f"{get_network(model_name).scope}/"
    held = {}
    below = tf.compat.v2.train.TrackableView(model).descendants()
    for variable in (*getattr(model, "variables", ()), *below):
        if isinstance(variable, tf.compat.v2.Variable):
            # Modules of TensorFlow 1 may have a scope around the network.
            _, _, rest = variable.name.removesuffix(":0").rpartition(scope)
            held[f"{scope}{rest}"] = variable
    # 3. Those of the network, all of which have to be there.
    values = {}
    for key, shape in variable_shapes(model_name, None).items():
        if key not in held or tuple(held[key].shape) != shape:
            raise UserError(f"{source} is not {model_name}: {key} {list(shape)} is missing")
        values[key] = held[key].numpy()
    return values


def _write_network(
    folder: Path, values: Mapping[str, np.ndarray], description: ModelDescription
) -> None:
    """Writes a checkpoint of step 0, and its `model.json`; the checkpoint appears whole."""
    # TensorFlow writes the data before the index, but neither of them as a whole.
    write_model_description(folder, description)
    temporary = folder / f"{CONVERTED}.tmp"
    names = list(values)
    tf.raw_ops.SaveV2(
        prefix=str(temporary),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[np.asarray(values[name], np.float32) for name in names],
    )
    for suffix in (".data-00000-of-00001", ".index"):
        Path(f"{temporary}{suffix}").replace(folder / f"{CONVERTED}{suffix}")
    write_whole(folder / STATE, f'model_checkpoint_path: "{CONVERTED}"\n')
