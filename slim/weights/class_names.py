"""Names of the classes of ImageNet, iNaturalist 2017 and their union."""

import json
from pathlib import Path

from slim.checkpoints.description import BACKGROUND
from slim.common.downloads import fetch
from slim.common.errors import UserError, warn
from slim.common.files import writing_to
from slim.common.unpacking import unpack
from slim.datasets.prepare.archives import SOURCES
from slim.datasets.prepare.readers import inat_class_names
from slim.weights.catalogue import BOTH, IMAGENET, INAT

# The file that keras.applications downloads for decode_predictions.
IMAGENET_INDEX = (
    "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
)
_INDEX_HASH = "md5:c2c37ea517e94d9795004a39431a14cb"
_INAT_ARCHIVE = SOURCES["inat2017"].files[0]  # the annotations, without images


def try_class_names(trained_on: str, num_classes: int, folder: Path) -> tuple[str, ...] | None:
    """Fetches the names of the classes of a model in the order of its labels.

    For the union, the classes of ImageNet are taken to come before those of iNaturalist 2017, as
    in the name of the models; the archives have no lists that say so.

    Returns:
        The names. None if a file cannot be fetched or has another number of names, or if another
        process uses the folder, which receives the files; a warning says why.
    """
    names = []
    try:
        with writing_to(folder, "checkpoints_dir"):
            # 1. The classes of ImageNet, then those of iNaturalist 2017.
            if trained_on in (IMAGENET, BOTH):
                index = folder / Path(IMAGENET_INDEX).name
                fetch(IMAGENET_INDEX, index, _INDEX_HASH)
                content = json.loads(index.read_bytes())
                names += [content[str(label)][1] for label in range(len(content))]
            if trained_on in (INAT, BOTH):
                archive = folder / _INAT_ARCHIVE.name
                fetch(_INAT_ARCHIVE.address, archive, _INAT_ARCHIVE.known_hash)
                unpacked = folder / archive.stem
                unpack(archive, unpacked)
                paths = [next(unpacked.rglob(f"{part}2017.json")) for part in ("train", "val")]
                names += inat_class_names(*paths).values()
        # 2. TF-Slim's networks have a class for the background before them.
        if len(names) == num_classes - 1:
            names.insert(0, BACKGROUND)
        if len(names) != num_classes:
            raise UserError(
                f"there are {len(names)} names of {trained_on} for {num_classes} classes: fetch "
                "another model"
            )
    except UserError as error:
        # The error ends with what to do.
        warn(
            f"the classes have numbers instead of names: {error}, or pass the dataset to "
            "slim.classify with --dataset_name"
        )
        return None
    return tuple(names)
