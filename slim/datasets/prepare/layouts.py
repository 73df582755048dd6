"""The layouts in which the nine archives are published, and where their parts are."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from slim.common.errors import UserError
from slim.datasets.listed import ListedDataset
from slim.datasets.prepare import readers
from slim.datasets.prepare.archives import where_to_get
from slim.datasets.prepare.readers import DEVKIT, INAT_IMAGES, missing_part


class Layout(NamedTuple):
    """A layout of an archive."""

    folder: str  # the folder of the parts; "" is the top of the archive
    parts: str  # files and folders that must exist, separated by spaces
    read: Callable[[readers.Parts], ListedDataset]
    optional: str = ""  # files that may be missing


_BIRDS = "images images.txt image_class_labels.txt train_test_split.txt classes.txt"
_VARIANTS = "images variants.txt images_variant_trainval.txt images_variant_test.txt"
_CARS = "cars_train cars_test devkit/cars_train_annos.mat devkit/cars_test_annos_withlabels.mat"
_DEVKIT = f"{DEVKIT}/meta.mat {DEVKIT}/ILSVRC2012_validation_ground_truth.txt"
_INAT = f"{INAT_IMAGES} train_val2017/train2017.json train_val2017/val2017.json"

LAYOUTS = {
    "cub_200": (Layout("CUB_200_2011", _BIRDS, readers.read_birds),),
    "aircraft": (Layout("fgvc-aircraft-2013b/data", _VARIANTS, readers.read_aircraft),),
    "flower_102": (Layout("", "jpg imagelabels.mat setid.mat", readers.read_flowers),),
    "food_101": (
        Layout(
            "food-101", "images meta/classes.txt meta/train.txt meta/test.txt", readers.read_food
        ),
    ),
    "nabirds": (Layout("nabirds", _BIRDS, readers.read_birds),),
    "stanford_cars": (
        Layout("", "car_ims cars_annos.mat", readers.read_cars),
        Layout("", _CARS, readers.read_split_cars, optional="devkit/cars_meta.mat"),
    ),
    "stanford_dogs": (
        Layout("", "Images lists/train_list.mat lists/test_list.mat", readers.read_dogs),
    ),
    "ILSVRC2012": (Layout("", "train val", readers.read_imagenet, optional=_DEVKIT),),
    "inat2017": (Layout("", _INAT, readers.read_inat),),
}


def read_archive(name: str, archive_dir: Path) -> ListedDataset:
    """Reads an unpacked archive.

    Args:
        name: One of the nine datasets.
        archive_dir: The folder that the archive was unpacked to, or one above or within it.

    Raises:
        UserError: A part is missing or invalid.
    """
    if not archive_dir.is_dir():
        raise UserError(
            f"no folder {archive_dir}: unpack the archive of {name} there or set --archive_dir; "
            f"{where_to_get(name)}"
        )
    layout, root = _find_layout(name, archive_dir)
    names = f"{layout.parts} {layout.optional}".split()
    parts = {part: path for part in names if (path := _locate(root, part))}
    for part in layout.parts.split():
        if part not in parts:
            raise missing_part(name, part, root)
    return layout.read(parts)


def _find_layout(name: str, archive_dir: Path) -> tuple[Layout, Path]:
    """Returns the layout and the root folder with the fewest missing parts."""
    below = sorted(path for path in archive_dir.iterdir() if path.is_dir())
    choices = []
    for layout in LAYOUTS[name]:
        steps = PurePosixPath(layout.folder).parts
        roots = [archive_dir.joinpath(*steps[start:]) for start in range(len(steps))]
        choices += [(layout, root) for root in (*roots, archive_dir, *below)]
    above = [(layout, archive_dir.resolve().parent) for layout in LAYOUTS[name]]
    complete = (choice for choice in (*choices, *above) if not _count_missing(*choice))
    return next(complete, None) or min(choices, key=lambda choice: _count_missing(*choice))


def _count_missing(layout: Layout, root: Path) -> int:
    return sum(_locate(root, part) is None for part in layout.parts.split())


def _locate(root: Path, part: str) -> Path | None:
    """Returns the path of a part: a file may also lie beside the folder that it belongs in."""
    places = (root / part, root / PurePosixPath(part).name)
    return next((place for place in places if place.exists()), None)
