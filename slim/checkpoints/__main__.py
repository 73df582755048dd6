"""Fetches models; also data and features that the authors of the paper released.

python -m slim.checkpoints NAME [NAME...] fetches models, and --list shows their names: those of the
paper, TF-Slim's, those of Keras Applications (keras:NAME) and of TensorFlow Hub (hub:NAME), which
are converted.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.checkpoints.finding import check_path, is_complete
from slim.checkpoints.keras_layers import MODELS as KERAS_MODELS
from slim.common.command_line import FlagSet, python_command, run_command
from slim.common.errors import UserError
from slim.weights.catalogue import (
    ADDRESS,
    CLASSES,
    CONVERTED,
    DATA,
    FEATURES,
    HUB,
    HUB_MODELS,
    IMAGENET,
    KERAS,
    MODELS,
    get_model,
)
from slim.weights.fetching import count_files, find_placed, provide_files, provide_model

_ROW = "{:<40}{:<24}{:<21}{:<15}{:<16}{}"


def define_flags(values: flags.FlagValues) -> None:
    define = FlagSet(values)
    define.words("names", [], "Models to fetch; the flag name is optional.")
    define.boolean("list", False, "List all models, and those on this machine.")
    define.boolean("data", False, "Fetch the released data: lists and CUB-200-2011.")
    define.boolean("features", False, "Fetch the released features.")
    define.string("checkpoints_dir", "./checkpoints/", "Receives inception/ and resnet/.")
    define.string("dataset_dir", "./data/", "Receives the data.")
    define.string("feature_dir", "./feature/", "Receives the features.")
    define.string("address", ADDRESS, "The address of Google Drive, with {id} for the id.")
    define.words(
        "mirror", [], "Addresses to try before the published one, with {name} for the model."
    )
    define.string("weights", None, "The file of a Keras model, instead of Keras' own weights.")
    define.string("path", None, "The SavedModel of a hub model, a folder or an archive.")


def main(values: flags.FlagValues) -> None:
    """Fetches released models, data and features, or lists them."""
    converted = [name for name in values.names if name.partition(":")[0] in (KERAS, HUB)]
    models = [get_model(name) for name in values.names if name not in converted]
    folders = {DATA: Path(values.dataset_dir), FEATURES: Path(values.feature_dir)}
    requested = {DATA: values.data, FEATURES: values.features}
    check_path(values.checkpoints_dir, "--checkpoints_dir")
    checkpoints_dir = Path(values.checkpoints_dir)
    if not (models or converted or values.list or any(requested.values())):
        raise UserError(
            f"NAME is missing: {python_command()} -m slim.checkpoints NAME, for example "
            f"{MODELS[1].name}; --list shows all names, --data and --features fetch other archives"
        )
    if (file := values.weights or values.path) and (len(converted) != 1 or models):
        raise UserError(f"{file}: pass the name of one model, such as keras:InceptionV3")
    if values.list:
        print_list(checkpoints_dir, folders)
    for model in models:
        provide_model(model, checkpoints_dir / model.kind, values.address, values.mirror)
    for name in converted:
        from slim.weights.converting import provide_converted

        provide_converted(name, checkpoints_dir, file and Path(file), values.mirror)
    for name, folder in folders.items():
        if requested[name]:
            provide_files(name, folder, values.address, values.mirror)


def print_list(checkpoints_dir: Path, folders: dict[str, Path]) -> None:
    """Prints a table of everything to fetch, with its place on this machine."""
    rows = [("name", "network", "trained on", "size", "classes", "here")]
    for model in MODELS:
        here = find_placed(model, checkpoints_dir / model.kind)
        sizes = ", then ".join(map(str, model.sizes))
        classes = " or ".join(map(str, CLASSES[model.trained_on]))
        rows.append((model.name, model.network, model.trained_on, sizes, classes, here or "-"))
    others = [(KERAS, name, network, IMAGENET, 299, 1000) for name, network in KERAS_MODELS.items()]
    others += [(HUB, name, *row[:3], "features only") for name, row in HUB_MODELS.items()]
    for library, name, *row in others:
        folder = checkpoints_dir / library / name
        rows.append((f"{library}:{name}", *row, folder if is_complete(folder / CONVERTED) else "-"))
    for name, folder in folders.items():
        here = f"{folder} ({count} files)" if (count := count_files(folder)) else "-"
        rows.append((f"the {name} folder's files", "", "", "", "", here))
    for row in rows:
        print(_ROW.format(*map(str, row)))


command = partial(run_command, define_flags, main, description=__doc__, positional="names")

if __name__ == "__main__":
    command()
