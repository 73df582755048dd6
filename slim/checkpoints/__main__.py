"""Fetches models, data and features that the paper's authors released.

python -m slim.checkpoints NAME [NAME...] fetches models; --list says which there are, and where.
"""

import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from absl import flags

from slim.checkpoints import released
from slim.checkpoints.contents import (
    classifier_size,
    compare,
    recognise,
    scope_variables,
    sort_variables,
)
from slim.checkpoints.reading import check_readable, read_shapes
from slim.checkpoints.released import CLASSES, DATA, FEATURES, MODELS, ReleasedModel
from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError

_ROW = "{:<40}{:<24}{:<21}{:<15}{}"


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.words("names", [], "The models to fetch; their names alone will do.")
    define.boolean("list", False, "Print which models there are, and which are here.")
    define.boolean("data", False, "Fetch the published data: lists, and CUB-200-2011.")
    define.boolean("features", False, "Fetch the published features.")
    define.string("checkpoints_dir", "./checkpoints/", "Receives inception/ and resnet/.")
    define.string("dataset_dir", "./data/", "Receives the data.")
    define.string("feature_dir", "./feature/", "Receives the features.")
    define.string("address", released.ADDRESS, "Where to fetch from; {id} is Google Drive's id.")


def main(values: flags.FlagValues) -> None:
    """Fetches released models, data and features, or lists them."""
    models = [released.get_model(name) for name in values.names]
    folders = {DATA: Path(values.dataset_dir), FEATURES: Path(values.feature_dir)}
    asked = {DATA: values.data, FEATURES: values.features}
    checkpoints_dir = Path(values.checkpoints_dir)
    if not (models or values.list or any(asked.values())):
        raise UserError(
            "NAME is missing: python -m slim.checkpoints NAME, where NAME is such as "
            f"{MODELS[1].name}; --list shows all, --data and --features fetch the rest"
        )
    if values.list:
        for line in list_published(checkpoints_dir, folders):
            print(line)
    for model in models:
        provide_model(model, checkpoints_dir / model.kind, values.address)
    for name, folder in folders.items():
        if asked[name]:
            provide_files(name, folder, values.address)


def list_published(checkpoints_dir: Path, folders: Mapping[str, Path]) -> list[str]:
    """The table of all that is published, and where it is here."""
    rows = [("name", "network", "trained on", "size", "here")]
    for model in MODELS:
        here = released.find_placed(model, checkpoints_dir / model.kind)
        sizes = ", then ".join(map(str, model.sizes))
        rows.append((model.name, model.network, model.trained_on, sizes, here or "-"))
    for name, folder in folders.items():
        here = f"{folder} ({count} files)" if (count := released.count_files(folder)) else "-"
        rows.append((f"the {name} folder's files", "", "", "", here))
    return [_ROW.format(*map(str, row)) for row in rows]


def provide_model(model: ReleasedModel, folder: Path, address: str) -> None:
    """Fetches, checks and places a model, if it is not there, and says how to use it.

    Args:
        model: The model.
        folder: Where it goes.
        address: Where it comes from, `{id}` standing for the id on Google Drive.

    Raises:
        UserError: It cannot be fetched, is another than expected, or other files are in the way.
    """
    checkpoint = released.find_placed(model, folder)
    if checkpoint:
        print(f"{model.name} is there already")
    else:
        archive = released.fetch_archive(model.name, folder, address)
        with released.unpacked_beside(archive) as contents:
            found = released.choose_checkpoint(model, contents, archive)
            classes = check_checkpoint(model, found, archive)
            checkpoint = released.place_checkpoint(model, found, folder)
        print(f"{model.name} is {model.network} with {classes:,} classes, as expected")
        print(f"the archive is not needed any more: {archive}")
    print(f"path: {checkpoint}")
    print(f"for example: {example(model, checkpoint)}", flush=True)


def check_checkpoint(model: ReleasedModel, checkpoint: Path, archive: Path) -> int:
    """Inspects a checkpoint: network and number of classes must be the model's.

    Args:
        model: The model that it should be.
        checkpoint: The prefix.
        archive: What it came in, for an error.

    Returns:
        The number of classes.

    Raises:
        UserError: It is another one, or damaged.
    """
    print(f"inspecting {checkpoint.name}", flush=True)
    # These import TensorFlow, which listing and fetching do without.
    from slim import inspect_checkpoint
    from slim.nets.nets_factory import NETWORKS

    try:
        contents = sort_variables(read_shapes(str(checkpoint)))
        check_readable(str(checkpoint))
    except UserError as error:
        raise UserError(f"{archive} is damaged, delete it to fetch it again: {error}") from error
    compared = {
        name: compare(name, contents) for name in NETWORKS if scope_variables(name, contents)
    }
    held = recognise(compared)
    network = inspect_checkpoint.say_network(held, compared)
    classes = classifier_size(held, contents) if held else None
    expected = CLASSES[model.trained_on]
    if network != model.network or classes not in expected:
        raise UserError(
            f"{archive} holds another model than {model.name}: found {network}, "
            f"{classes or 'no'} classes; expected {model.network}, "
            f"{' or '.join(map(str, expected))} classes; the archive stays there, unpacked by "
            "hand its checkpoint can be used, or delete it to fetch it again"
        )
    return classes


def example(model: ReleasedModel, checkpoint: Path) -> str:
    """A command that fine-tunes the model, with the settings that differ from the recipe's."""
    logits = "logits" if model.kind == "resnet" else "Logits"
    settings = {
        "MODEL_NAME": (model.network, "inception_v3"),
        "CHECKPOINT_EXCLUDE_SCOPES": (logits, "Logits"),
        "TRAINABLE_SCOPES": (logits, "Logits"),
        "TRAIN_IMAGE_SIZE": (model.sizes[-1], 299),
    }
    chosen = [f"{key}={value}" for key, (value, usual) in settings.items() if value != usual]
    return " ".join([f"CHECKPOINT_PATH={shlex.quote(str(checkpoint))}", *chosen, "./train.sh"])


def provide_files(name: str, folder: Path, address: str) -> None:
    """Fetches and unpacks the archive that fills a folder, if its files are not all there.

    Args:
        name: Of the folder, as published.
        folder: Receives the files.
        address: Where they come from, `{id}` standing for the id on Google Drive.

    Raises:
        UserError: It cannot be fetched, or other files are in the way.
    """
    if count := released.count_files(folder):
        print(f"{name}: {count:,} published files are in {folder} already")
        return
    archive = released.fetch_archive(name, folder, address)
    with released.unpacked_beside(archive) as contents:
        count = released.place_files(name, contents, folder)
    print(f"{name}: {count:,} published files are in {folder}")
    print(f"the archive is not needed any more: {archive}", flush=True)


command = partial(run_command, define_flags, main, description=__doc__, positional="names")

if __name__ == "__main__":
    command()
