"""The list of images that validate iNaturalist 2017."""

import hashlib
from dataclasses import replace
from pathlib import Path

from slim.common.command_line import python_command
from slim.common.errors import UserError, warn
from slim.datasets.listed import ListedDataset
from slim.datasets.prepare.archives import MINIVAL, RemoteFile
from slim.datasets.prepare.readers import INAT_IMAGES


def read_minival(
    path: Path, *, allow_other: bool = False, source: RemoteFile = MINIVAL
) -> frozenset[str]:
    """Reads names of images, such as `train_val_images/Aves/Corvus cornix/....jpg`.

    Args:
        path: The path of the list.
        allow_other: Whether to warn of a list with another hash rather than raise an error.
        source: The published list.

    Raises:
        UserError: The file is missing or is another list.
    """
    remedy = f"{python_command()} -m slim.datasets.minival --path={path} fetches it"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: {remedy}") from error
    found = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if found != source.known_hash:
        problem = f"{path} is not the published list: {found}, expected {source.known_hash}"
        if not allow_other:
            raise UserError(f"{problem}: move it away; then {remedy}")
        warn(problem)
    return frozenset(content.decode(errors="surrogateescape").splitlines())


def hold_out(dataset: ListedDataset, minival: frozenset[str]) -> ListedDataset:
    """Splits iNaturalist 2017 as in the paper: validation images outside minival become `train`."""
    held_out, others = [], []
    for image in dataset.splits["validation"]:
        (held_out if f"{INAT_IMAGES}/{image.path}" in minival else others).append(image)
    splits = {"train": dataset.splits["train"] + others, "validation": held_out}
    return replace(dataset, splits=splits)
