"""Readers of the nine official archives, once unpacked.

A reader receives the path of each part of an archive by its official path. It returns the images
of each split in the order of the official lists, labels from 0 and class names. It checks neither
the numbers of images nor that the images exist. Invalid content of a file is a `UserError`.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from scipy.io import loadmat

from slim.common.errors import SHOWN_NAMES, UserError
from slim.common.progress import progress
from slim.datasets.image_files import is_hidden, subfolders
from slim.datasets.listed import ListedDataset
from slim.datasets.lists import Entry
from slim.datasets.prepare.annotations import read_coco
from slim.datasets.prepare.archives import where_to_get

Parts = Mapping[str, Path]
# The folder of the images, the training and the validation images, and the names of the classes.
Content = tuple[Path, list[Entry], list[Entry], list[str]]

PACKED = (".tgz", ".tar", ".gz", ".zip", ".7z", ".rar")  # endings of archives
_DEVKIT = "ILSVRC2012_devkit_t12/data"
_INAT_IMAGES = "train_val_images"
# The names of the classes of Oxford Flowers 102 in the order of their labels, from its web page.
_FLOWERS = """
pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger
lily, moon orchid, bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king
protea, spear thistle, yellow iris, globe-flower, purple coneflower, peruvian lily, balloon
flower, giant white arum lily, fire lily, pincushion flower, fritillary, red ginger, grape
hyacinth, corn poppy, prince of wales feathers, stemless gentian, artichoke, sweet william,
carnation, garden phlox, love in the mist, mexican aster, alpine sea holly, ruby-lipped cattleya,
cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword lily,
poinsettia, bolero deep blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion,
petunia, wild pansy, primula, sunflower, pelargonium, bishop of llandaff, gaura, geranium, orange
dahlia, pink-yellow dahlia, cautleya spicata, japanese anemone, black-eyed susan, silverbush,
californian poppy, osteospermum, spring crocus, bearded iris, windflower, tree poppy, gazania,
azalea, water lily, rose, thorn apple, morning glory, passion flower, lotus, toad lily, anthurium,
frangipani, clematis, hibiscus, columbine, desert-rose, tree mallow, magnolia, cyclamen,
watercress, canna lily, hippeastrum, bee balm, ball moss, foxglove, bougainvillea, camellia,
mallow, mexican petunia, bromelia, blanket flower, trumpet creeper, blackberry lily
"""


def read_archive(name: str, archive_dir: Path) -> ListedDataset:
    """Reads the archive of a dataset from the folder that it was unpacked to, or one near it."""
    if not archive_dir.is_dir():
        raise UserError(
            f"no folder {archive_dir}: unpack the archive of {name} there or set --archive_dir; "
            f"{where_to_get(name)}"
        )

    # 1. Find the layout and the folder with the most parts, if none has all.
    #    Mirrors and programs that unpack archives often repeat a folder.
    list_folders = cache(subfolders)
    tops = [archive_dir, archive_dir.resolve().parent]
    tops += [archive_dir / folder for folder in list_folders(archive_dir)]
    choices = (
        (layout, top.joinpath(*PurePosixPath(layout.folder).parts[start:]))
        for top, layout in product(tops, LAYOUTS[name])
        for start in range(len(PurePosixPath(layout.folder).parts) + 1)
    )
    layout, root, parts = LAYOUTS[name][0], archive_dir, {}
    for choice in choices:
        found = choice[0].find(choice[1], list_folders)
        complete = found.keys() >= {*choice[0].parts.split()}
        # The folder above counts only if it has all.
        if complete or (len(found) > len(parts) and choice[1].is_relative_to(archive_dir)):
            (layout, root), parts = choice, found
        if complete:
            break

    # 2. Read its parts.
    if missing := [part for part in layout.parts.split() if part not in parts]:
        where = root if parts else f"{archive_dir}, the folders in it and the one above"
        there = [path.relative_to(root).as_posix() for path in parts.values()]
        raise _incomplete(name, ", ".join(missing), where, (archive_dir, root), there)
    folder, train, validation, class_names = layout.read(parts)
    return ListedDataset(folder, {"train": train, "validation": validation}, class_names)


def _incomplete(
    name: str, parts: str, where: str, folders: Iterable[Path], there: Sequence[str] = ()
) -> UserError:
    """Returns an error about missing parts of an archive, which may lie in a folder, packed."""
    names = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    packed = sorted(n for n in names if n.endswith(PACKED) and not is_hidden(n))
    unpack = f"unpack {', '.join(packed[:SHOWN_NAMES])}, which lies there, or: " if packed else ""
    only = f", only {', '.join(there)} are there" if there else ""
    return UserError(
        f"no {parts} in {where}: the archive of {name} is incomplete{only}; {unpack}"
        f"{where_to_get(name)}"
    )


def _read_birds(parts: Parts) -> Content:
    """Reads CUB-200-2011 or NABirds: tables of paths, classes and splits.

    Labels are the ranks of the class ids that images have: all of 1..200 for CUB-200-2011, 555 of
    0..1010 for NABirds, whose other ids are groups of birds.
    """
    names = _read_table(parts["classes.txt"])
    class_of = _read_table(parts["image_class_labels.txt"])
    is_training = _read_table(parts["train_test_split.txt"])
    if invalid := [class_id for class_id in class_of.values() if not class_id.isdecimal()]:
        raise UserError(f"{parts['image_class_labels.txt']}: '{invalid[0]}' is not a class id")
    used = sorted(set(class_of.values()), key=int)
    label_of = {class_id: label for label, class_id in enumerate(used)}
    train, test = [], []
    source = parts["images.txt"]
    for image, path in _read_table(source).items():
        split = train if is_training.find(image, source) == "1" else test
        split.append(Entry(path, label_of[class_of.find(image, source)]))
    class_names = [names.find(class_id, parts["image_class_labels.txt"]) for class_id in used]
    return parts["images"], train, test, class_names


def _read_aircraft(parts: Parts) -> Content:
    """Reads FGVC-Aircraft by variant; its training and validation images become `train`."""
    label_of = _read_labels(parts["variants.txt"])
    train, test = (
        [
            Entry(f"{image}.jpg", label_of.find(variant, path))
            for image, variant in _read_table(path).items()
        ]
        for path in (parts["images_variant_trainval.txt"], parts["images_variant_test.txt"])
    )
    return parts["images"], train, test, list(label_of)


def _read_flowers(parts: Parts) -> Content:
    """Reads Oxford Flowers 102; `trnid` and `valid` become `train`."""
    (labels,) = _read_mat(parts["imagelabels.mat"], "labels")
    ids = _read_mat(parts["setid.mat"], "trnid", "valid", "tstid")
    train, valid, test = (some.astype(int).tolist() for some in ids)
    if invalid := [i for i in train + valid + test if not 0 < i <= len(labels)]:
        raise UserError(
            f"{parts['setid.mat']} has image {invalid[0]}, {parts['imagelabels.mat']} has labels "
            f"of images 1 to {len(labels)}: get both files again"
        )
    train, test = (
        [Entry(f"image_{i:05d}.jpg", int(labels[i - 1]) - 1) for i in split]
        for split in (train + valid, test)
    )
    names = " ".join(_FLOWERS.split()).split(", ")
    return parts["jpg"], train, test, names[: int(labels.max())]


def _read_food(parts: Parts) -> Content:
    """Reads Food-101, where the folder of an image is its class."""
    label_of = _read_labels(parts["meta/classes.txt"])
    train, test = (
        [
            Entry(f"{image}.jpg", label_of.find(image.split("/")[0], path))
            for image in _read_lines(path)
        ]
        for path in (parts["meta/train.txt"], parts["meta/test.txt"])
    )
    return parts["images"], train, test, list(label_of)


def _read_dogs(parts: Parts) -> Content:
    """Reads Stanford Dogs, where the folder of an image is the name of its class."""
    train, test = (
        [
            Entry(path, int(label) - 1)
            for path, label in zip(*_read_mat(list_, "file_list", "labels"), strict=True)
        ]
        for list_ in (parts["lists/train_list.mat"], parts["lists/test_list.mat"])
    )
    names = {image.label: image.path.split("/")[0] for image in train + test}
    return parts["Images"], train, test, [names[label] for label in sorted(names)]


def _read_cars(parts: Parts) -> Content:
    """Reads Stanford Cars in one folder."""
    path, fields = parts["cars_annos.mat"], ("relative_im_path", "class", "test")
    train, test = [], []
    for file, label, in_test in _read_structs(path, "annotations", *fields):
        image = Entry(PurePosixPath(file).name, int(label) - 1)
        (test if in_test else train).append(image)
    (names,) = _read_mat(path, "class_names")
    return parts["car_ims"], train, test, names.tolist()


def _read_split_cars(parts: Parts) -> Content:
    """Reads Stanford Cars in two folders with a development kit."""
    root, folders = _common_root(parts["cars_train"], parts["cars_test"])
    train, test = (
        [
            Entry(f"{folder}/{name}", int(label) - 1)
            for name, label in _read_structs(parts[part], "annotations", "fname", "class")
        ]
        for folder, part in zip(
            folders,
            ("devkit/cars_train_annos.mat", "devkit/cars_test_annos_withlabels.mat"),
            strict=True,
        )
    )
    if meta := parts.get("devkit/cars_meta.mat"):
        names = _read_mat(meta, "class_names")[0].tolist()
    else:
        num_classes = 1 + max(image.label for image in train + test)
        names = [f"car_{label:03d}" for label in range(1, num_classes + 1)]
    return root, train, test, names


def _common_root(*folders: Path) -> tuple[Path, list[str]]:
    """Returns the folder that contains all folders, and their paths relative to it."""
    root = Path(os.path.commonpath(folders))
    return root, [folder.relative_to(root).as_posix() for folder in folders]


def _read_imagenet(parts: Parts) -> Content:
    """Reads ILSVRC2012; labels are the ranks of the WordNet ids, the subfolders of `train`.

    Validation images lie in such subfolders, too, or directly in `val`; then their classes come
    from the development kit or from Kaggle's table. Images of classes without training images are
    left out.
    """
    # 1. Validation images in folders of classes or without them: more images count.
    root, (train, val) = _common_root(parts["train"], parts["val"])
    in_folders = _list_images(root, val, subfolders(parts["val"]))
    kit, (solution, mapping) = _TRUTH.split(), map(parts.get, _KAGGLE.split())
    is_flat = len(_list_images(root, val, ["."])) >= len(in_folders)
    missing = [part for part in kit if part not in parts]
    if is_flat and missing and not solution:
        part = f"{missing[0]}, and no val/<wnid>/,"
        raise _incomplete("ILSVRC2012", part, str(root), (root,))
    # 2. The images of each class, in subfolders.
    wnids = subfolders(parts["train"])
    if not wnids:
        raise _incomplete("ILSVRC2012", "train/<wnid>/", str(root), (parts["train"],))
    found = {"train": _list_images(root, train, wnids), "val": in_folders}
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    # 3. The development kit numbers and names the classes; Kaggle's tables name them.
    wnid_of, words = {}, _read_table(mapping) if mapping else {}
    if meta := parts.get(kit[0]):
        fields = ("ILSVRC2012_ID", "WNID", "words")
        synsets = [*_read_structs(meta, "synsets", *fields)]
        wnid_of = _Table(meta, ((str(int(number)), wnid) for number, wnid, _ in synsets))
        words = {wnid: text for _, wnid, text in synsets}
    # 4. Validation images without subfolders, whose classes the kit lists by number, and Kaggle in
    #    lines `ILSVRC2012_val_00048981,n03995372 85 1 499 272`.
    if is_flat and missing:
        rows = _read_table(solution, ",")
        rows.pop("ImageId", None)
        found["val"] = [
            (f"{val}/{image}.JPEG", boxes.partition(" ")[0]) for image, boxes in rows.items()
        ]
    elif is_flat:
        truth = parts[kit[1]]
        found["val"] = [
            (f"{val}/ILSVRC2012_val_{i:08d}.JPEG", wnid_of.find(number, truth))
            for i, number in enumerate(_read_lines(truth), start=1)
        ]
    # 5. Both ways give the official order, that of the file names.
    found["val"].sort(key=lambda image: PurePosixPath(image[0]).name)
    train, validation = (
        [Entry(path, label_of[wnid]) for path, wnid in images if wnid in label_of]
        for images in found.values()
    )
    return root, train, validation, [words.get(wnid, wnid) for wnid in wnids]


def _list_images(root: Path, folder: str, classes: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the path and the class of each image in the subfolders of a folder."""
    shown = progress(f"reading {folder}", len(classes), " folders", items=classes, delay=1)
    return [
        (f"{folder}/{name}/{image}", name)
        for name in shown
        for image in sorted(os.listdir(root / folder / name))  # noqa: PTH208, faster
        if image.lower().endswith((".jpeg", ".jpg")) and not is_hidden(image)
    ]


def _read_inat(parts: Parts) -> Content:
    """Reads the official splits of iNaturalist 2017."""
    files = [parts[f"train_val2017/{part}2017.json"] for part in ("train", "val")]
    listed, found = zip(*map(read_coco, files), strict=True)
    names = dict(sorted((found[0] | found[1]).items()))
    label_of = _Table(files[0], ((class_id, label) for label, class_id in enumerate(names)))
    train, validation = (
        [
            Entry(path.removeprefix(f"{_INAT_IMAGES}/"), label_of.find(class_id, file))
            for path, class_id in images
        ]
        for file, images in zip(files, listed, strict=True)
    )
    return parts[_INAT_IMAGES], train, validation, list(names.values())


def inat_class_names(train: Path, validation: Path) -> dict[int, str]:
    """Reads the names of the classes of iNaturalist 2017 by id, in the order of their labels."""
    return dict(sorted((read_coco(train)[1] | read_coco(validation)[1]).items()))


def hold_out(dataset: ListedDataset, minival: frozenset[str]) -> ListedDataset:
    """Splits iNaturalist 2017 as in the paper: validation images outside minival become `train`."""
    held_out, others = [], []
    for image in dataset.splits["validation"]:
        (held_out if f"{_INAT_IMAGES}/{image.path}" in minival else others).append(image)
    splits = {"train": dataset.splits["train"] + others, "validation": held_out}
    return replace(dataset, splits=splits)


class Layout(NamedTuple):
    """A layout in which an archive is published."""

    folder: str  # the folder of the parts; "" is the top of the archive
    parts: str  # files and folders that must exist, separated by spaces
    read: Callable[[Parts], Content]
    optional: str = ""  # files that may be missing

    def find(self, root: Path, list_folders: Callable[[Path], list[str]]) -> dict[str, Path]:
        """Returns the path of each part that is there.

        A file may also lie next to the folder that it belongs in, and both may lie one level
        deeper, in a folder of the same name or, as car_devkit/devkit, of one that ends with it.
        """
        found = {}
        for part in f"{self.parts} {self.optional}".split():
            first, name = PurePosixPath(part).parts[0], PurePosixPath(part).name
            places = [root / part, root / name]
            if not any(place.exists() for place in places):
                tops = [f for f in list_folders(root) if f.lower().endswith(first.lower())]
                places = [root / top / place for top in tops for place in (part, name)]
            if path := next((place for place in places if place.exists()), None):
                inner = path / path.name
                deeper = inner.is_dir() and len([*inner.iterdir()]) > len([*path.iterdir()])
                found[part] = inner if deeper else path
        return found


_BIRDS = "images images.txt image_class_labels.txt train_test_split.txt classes.txt"
_VARIANTS = "images variants.txt images_variant_trainval.txt images_variant_test.txt"
_FOOD = "images meta/classes.txt meta/train.txt meta/test.txt"
_CARS = "cars_train cars_test devkit/cars_train_annos.mat devkit/cars_test_annos_withlabels.mat"
_DOGS = "Images lists/train_list.mat lists/test_list.mat"
_TRUTH = f"{_DEVKIT}/meta.mat {_DEVKIT}/ILSVRC2012_validation_ground_truth.txt"
_KAGGLE = "../../../LOC_val_solution.csv ../../../LOC_synset_mapping.txt"
_INAT = f"{_INAT_IMAGES} train_val2017/train2017.json train_val2017/val2017.json"

LAYOUTS = {
    "cub_200": (Layout("CUB_200_2011", _BIRDS, _read_birds),),
    "aircraft": (Layout("fgvc-aircraft-2013b/data", _VARIANTS, _read_aircraft),),
    "flower_102": (Layout("", "jpg imagelabels.mat setid.mat", _read_flowers),),
    "food_101": (Layout("food-101", _FOOD, _read_food),),
    "nabirds": (Layout("nabirds", _BIRDS, _read_birds),),
    "stanford_cars": (
        Layout("", "car_ims cars_annos.mat", _read_cars),
        Layout("", _CARS, _read_split_cars, optional="devkit/cars_meta.mat"),
    ),
    "stanford_dogs": (Layout("", _DOGS, _read_dogs),),
    "ILSVRC2012": tuple(
        Layout(folder, "train val", _read_imagenet, optional=f"{_TRUTH} {_KAGGLE}")
        for folder in ("ILSVRC/Data/CLS-LOC", "")
    ),
    "inat2017": (Layout("", _INAT, _read_inat),),
}


class _Table(dict):
    """Values by key, in the order of the lines of a file."""

    def __init__(self, path: Path, items: Iterable[Sequence]) -> None:
        super().__init__(items)
        self._path = path

    def find(self, key: str, source: Path) -> Any:
        """Returns the value of a key that another file mentions."""
        if key not in self:
            raise UserError(
                f"{source} mentions '{key}', but {self._path} has no line for '{key}': get both "
                "files again"
            )
        return self[key]


def _read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file without surrounding spaces and empty lines."""
    text = path.read_text("utf-8", errors="surrogateescape")
    return [stripped for line in text.split("\n") if (stripped := line.strip())]


def _read_table(path: Path, separator: str | None = None) -> _Table:
    """Reads lines of a key, a separator or spaces, and a value, which may contain spaces."""
    lines = [line.split(separator, maxsplit=1) for line in _read_lines(path)]
    if short := [line for line in lines if len(line) < 2]:
        raise UserError(f"{path}: expected two words on each line, found only '{short[0][0]}'")
    return _Table(path, lines)


def _read_labels(path: Path) -> _Table:
    """Returns the label of each line of a file of class names."""
    return _Table(path, ((name, label) for label, name in enumerate(_read_lines(path))))


def _read_mat(path: Path, *names: str) -> list[np.ndarray]:
    """Reads variables of a MATLAB file as one-dimensional arrays."""
    try:
        content = loadmat(path, squeeze_me=True)
    except Exception as error:  # damaged files raise many types
        raise UserError(
            f"{path} cannot be read as a MATLAB file ({error}): get the file again"
        ) from None
    if missing := [name for name in names if name not in content]:
        raise UserError(f"{path} has no variable '{missing[0]}': get the right file")
    return [np.atleast_1d(content[name]) for name in names]


def _read_structs(path: Path, variable: str, *fields: str) -> Iterator[tuple]:
    """Reads fields of each struct of an array of a MATLAB file."""
    (structs,) = _read_mat(path, variable)
    if missing := [field for field in fields if field not in (structs.dtype.names or ())]:
        raise UserError(f"{path}: '{variable}' has no field '{missing[0]}': get the right file")
    return zip(*(structs[field].tolist() for field in fields), strict=True)
