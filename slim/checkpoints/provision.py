"""Fetches, checks and places models and archives."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from slim.checkpoints import released
from slim.checkpoints.description import MODEL, ModelDescription, write_model_description
from slim.checkpoints.files import is_complete
from slim.checkpoints.released import (
    CLASSES,
    CONVERTED,
    HUB,
    HUB_MODELS,
    IMAGENET,
    KERAS,
    KERAS_MODELS,
    ReleasedModel,
    choose_checkpoint,
    count_files,
    fetch_archive,
    find_placed,
    place_checkpoint,
    place_files,
    record_hash,
    remove_unpacked,
    unpacked_beside,
)
from slim.common.errors import UserError
from slim.common.files import writing_to

_ROW = "{:<40}{:<24}{:<21}{:<15}{:<16}{}"


def list_published(checkpoints_dir: Path, folders: Mapping[str, Path]) -> list[str]:
    """Returns a table of everything to fetch, with its place on this machine."""
    rows = [("name", "network", "trained on", "size", "classes", "here")]
    for model in released.MODELS:
        here = find_placed(model, checkpoints_dir / model.kind)
        sizes = ", then ".join(map(str, model.sizes))
        classes = " or ".join(map(str, CLASSES[model.trained_on]))
        rows.append((model.name, model.network, model.trained_on, sizes, classes, here or "-"))
    for name, (network, size) in KERAS_MODELS.items():
        folder = checkpoints_dir / KERAS / name
        here = folder if is_complete(folder / CONVERTED) else "-"
        rows.append((f"{KERAS}:{name}", network, IMAGENET, size, 1000, here))
    for name, (network, trained_on, size, _) in HUB_MODELS.items():
        folder = checkpoints_dir / HUB / name
        here = folder if is_complete(folder / CONVERTED) else "-"
        rows.append((f"{HUB}:{name}", network, trained_on, size, "features only", here))
    for name, folder in folders.items():
        here = f"{folder} ({count} files)" if (count := count_files(folder)) else "-"
        rows.append((f"the {name} folder's files", "", "", "", "", here))
    return [_ROW.format(*map(str, row)) for row in rows]


def provide_model(
    model: ReleasedModel, folder: Path, address: str, mirrors: Sequence[str] = ()
) -> None:
    """Fetches, checks and places a model, unless it is there, and prints an example of its use.

    Args:
        model: The model.
        folder: Receives the model.
        address: See `fetch_archive`.
        mirrors: See `fetch_archive`.

    Raises:
        UserError: The download failed, the archive holds another model, other files are in the
            way, or another process uses the folder.
    """
    checkpoint = find_placed(model, folder)
    if checkpoint:
        print(f"{model.name} exists already")
        remove_unpacked(model.name, folder)
    else:
        with writing_to(folder, "checkpoints_dir"):
            archive = fetch_archive(model.name, folder, address, mirrors)
            checkpoint = find_placed(model, folder) or _place_model(model, folder, archive)
    _describe(model, checkpoint)
    print(f"path: {checkpoint}")
    print(f"for example: {example_command(model, checkpoint)}", flush=True)


def _place_model(model: ReleasedModel, folder: Path, archive: Path) -> Path:
    """Checks and places a model, and returns the prefix of its checkpoint."""
    with unpacked_beside(archive) as contents:
        found = choose_checkpoint(model, contents, archive)
        classes = check_checkpoint(model, found, archive)
        record_hash(model.name, archive)
        checkpoint = place_checkpoint(model, found, folder)
    print(f"{model.name} is {model.network} with {classes:,} classes, as expected")
    print(f"the archive is no longer needed: {archive}")
    return checkpoint


def _describe(model: ReleasedModel, checkpoint: Path) -> None:
    """Writes `model.json` with the names of the classes, unless the model shares its folder."""
    if checkpoint.parent.name != model.name or (checkpoint.parent / MODEL).exists():
        return
    from slim.checkpoints.contents import classifier_size, sort_variables
    from slim.checkpoints.converted import try_class_names
    from slim.checkpoints.reading import read_shapes

    classes = classifier_size(model.network, sort_variables(read_shapes(str(checkpoint))))
    folder = checkpoint.parent.parent.parent
    if names := try_class_names(model.trained_on, classes, folder):
        write_model_description(
            checkpoint.parent,
            ModelDescription(model.network, model.sizes[-1], "inception", model.trained_on, names),
        )


def check_checkpoint(model: ReleasedModel, checkpoint: Path, archive: Path) -> int:
    """Checks the network and the number of classes of a checkpoint.

    Args:
        model: The expected model.
        checkpoint: The prefix.
        archive: The archive, for the error.

    Returns:
        The number of classes.

    Raises:
        UserError: The checkpoint is damaged or of another model.
    """
    print(f"inspecting {checkpoint.name}", flush=True)
    # Listing and fetching do not require TensorFlow.
    from slim.checkpoints import contents as found
    from slim.checkpoints.reading import check_readable, read_shapes

    try:
        contents = found.sort_variables(read_shapes(str(checkpoint)))
        check_readable(str(checkpoint))
    except UserError as error:
        raise UserError(f"{archive} is damaged, delete it to fetch it again: {error}") from error
    matches = found.match_networks(contents)
    held = found.identify(matches)
    network = found.network_text(held, matches)
    classes = found.classifier_size(held, contents) if held else None
    expected = CLASSES[model.trained_on]
    if network != model.network or classes not in expected:
        raise UserError(
            f"{archive} holds another model than {model.name}: found {network}, "
            f"{classes or 'no'} classes; expected {model.network}, "
            f"{' or '.join(map(str, expected))} classes; unpack it by hand to use its checkpoint, "
            "or delete it to fetch it again"
        )
    return classes


def example_command(model: ReleasedModel, checkpoint: Path) -> str:
    """Returns a command that fine-tunes the model, with settings that differ from the defaults."""
    logits = "logits" if model.kind == "resnet" else "Logits"
    settings = {
        "MODEL_NAME": (model.network, "inception_v3"),
        "CHECKPOINT_EXCLUDE_SCOPES": (logits, "Logits"),
        "TRAINABLE_SCOPES": (logits, "Logits"),
        "TRAIN_IMAGE_SIZE": (model.sizes[-1], 299),
    }
    chosen = [f"{key}={value}" for key, (value, usual) in settings.items() if value != usual]
    return " ".join([f"CHECKPOINT_PATH={shlex.quote(str(checkpoint))}", *chosen, "./train.sh"])


def provide_files(name: str, folder: Path, address: str, mirrors: Sequence[str] = ()) -> None:
    """Fetches an archive and places its files, unless all are there.

    Args:
        name: The published name of the folder.
        folder: Receives the files.
        address: See `fetch_archive`.
        mirrors: See `fetch_archive`.

    Raises:
        UserError: The download failed, other files are in the way, or another process uses the
            folder.
    """
    if count := count_files(folder):
        print(f"{name}: {count:,} published files are in {folder} already")
        remove_unpacked(name, folder)
        return
    with writing_to(folder, f"{'dataset' if name == released.DATA else name}_dir"):
        if not (count := count_files(folder)):
            archive = fetch_archive(name, folder, address, mirrors)
            with unpacked_beside(archive) as contents:
                count = place_files(name, contents, folder)
            record_hash(name, archive)
            print(f"the archive is no longer needed: {archive}")
    print(f"{name}: {count:,} published files are in {folder}", flush=True)
