"""The layouts in which the nine datasets are published, and their readers.

A reader takes what lies in an unpacked archive and gives a `Layout`: the images of each split in
the order of the official lists, labels from 0, class names. It judges neither counts nor whether
images are there.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NoReturn

import numpy as np
from scipy.io import loadmat

from slim.common.errors import UserError
from slim.datasets.prepare.archives import where_to_get

Parts = Mapping[str, Path]  # from the official path of each part of an archive to where it is

DEVKIT = "ILSVRC2012_devkit_t12/data"
INAT_IMAGES = "train_val_images"


class Image(NamedTuple):
    """An image of a split."""

    path: str  # below the layout's folder of images
    label: int


@dataclass(frozen=True)
class Layout:
    """What an archive holds."""

    images: Path  # the folder that all images are below
    splits: dict[str, list[Image]]  # "train" and "validation", in the order of the official lists
    class_names: list[str]  # in the order of the labels


class Form(NamedTuple):
    """One way in which a dataset comes."""

    folder: str  # that an archive unpacks to; "" for none
    parts: tuple[str, ...]  # all of them have to be there
    read: Callable[[Parts], Layout]
    optional: tuple[str, ...] = ()


def read_archive(name: str, archive_dir: Path) -> Layout:
    """Reads an unpacked archive.

    Args:
        name: One of the nine datasets.
        archive_dir: What the archive was unpacked to, or the folder that holds that.

    Raises:
        UserError: A part is missing, or not of the form that it is published in.
    """
    if not archive_dir.is_dir():
        raise UserError(
            f"no folder {archive_dir}: unpack the archive of {name} there or set --archive_dir; "
            f"{where_to_get(name)}"
        )
    form, root = _find_form(name, archive_dir)
    parts = {part: path for part in (*form.parts, *form.optional) if (path := _locate(root, part))}
    for part in form.parts:
        if part not in parts:
            raise _missing_part(name, part, root)
    return form.read(parts)


def _find_form(name: str, archive_dir: Path) -> tuple[Form, Path]:
    """The form of an archive and the folder that its parts are in: those with the fewest gaps."""
    below = sorted(path for path in archive_dir.iterdir() if path.is_dir())
    choices = [
        (form, root)
        for form in FORMS[name]
        for root in (*_official_folders(form, archive_dir), archive_dir, *below)
    ]
    above = [(form, archive_dir.resolve().parent) for form in FORMS[name]]
    for choice in (*choices, *above):
        if not _gaps(*choice):
            return choice
    return min(choices, key=lambda choice: _gaps(*choice))


def _official_folders(form: Form, archive_dir: Path) -> list[Path]:
    """Where an archive's parts are, from wherever on the way to them."""
    steps = PurePosixPath(form.folder).parts
    return [archive_dir.joinpath(*steps[start:]) for start in range(len(steps))]


def _gaps(form: Form, root: Path) -> int:
    return sum(_locate(root, part) is None for part in form.parts)


def _locate(root: Path, part: str) -> Path | None:
    """Where a part is: a file may lie beside the folder that it is published in."""
    places = (root / part, root / PurePosixPath(part).name)
    return next((place for place in places if place.exists()), None)


def _missing_part(name: str, part: str, root: Path) -> UserError:
    return UserError(
        f"no {part} in {root}: the archive of {name} is not complete there; {where_to_get(name)}"
    )


def hold_out(layout: Layout, minival: frozenset[str]) -> Layout:
    """Splits iNaturalist 2017 as the paper does: what is not in minival is trained on.

    Args:
        layout: The official splits.
        minival: Validation images, `train_val_images/<class>/<species>/<hash>.jpg`.
    """
    held_out, others = [], []
    for image in layout.splits["validation"]:
        (held_out if f"{INAT_IMAGES}/{image.path}" in minival else others).append(image)
    return replace(
        layout, splits={"train": layout.splits["train"] + others, "validation": held_out}
    )


class _Table(dict):
    """What a text file says of each key, in the order of its lines."""

    def __init__(self, path: Path, items: Iterable[Sequence]) -> None:
        super().__init__(items)
        self._path = path

    def __missing__(self, key: str) -> NoReturn:
        raise UserError(f"{self._path} has no line for '{key}', which the files beside it name")


def _read_lines(path: Path) -> list[str]:
    text = path.read_text("utf-8", errors="surrogateescape")
    return [stripped for line in text.split("\n") if (stripped := line.strip())]


def _read_table(path: Path) -> _Table:
    """Reads lines of a key, a space and a value, which may have spaces in it."""
    lines = [line.split(maxsplit=1) for line in _read_lines(path)]
    for line in lines:
        if len(line) < 2:
            raise UserError(f"{path}: expected two words on each line, found '{line[0]}' alone")
    return _Table(path, lines)


def _count_up(path: Path, keys: Iterable[str]) -> _Table:
    """Numbers from 0 for the keys of a file, in their order."""
    return _Table(path, ((key, index) for index, key in enumerate(keys)))


def _read_mat(path: Path, *names: str) -> list[np.ndarray]:
    """Reads variables of a MATLAB file, each as an array of one dimension.

    Raises:
        UserError: It is none, or lacks a variable.
    """
    try:
        content = loadmat(path, squeeze_me=True)
    except Exception as error:  # damaged bytes raise all kinds
        raise UserError(f"{path} cannot be read as a MATLAB file ({error}): get it anew") from None
    if lacking := [name for name in names if name not in content]:
        raise UserError(f"{path} has no variable '{lacking[0]}': it is another file; get it anew")
    return [np.atleast_1d(content[name]) for name in names]


def _read_structs(path: Path, variable: str, *fields: str) -> list[list]:
    """Reads fields of a struct array of a MATLAB file, each as a list.

    Raises:
        UserError: The file, the variable or a field is not there.
    """
    (structs,) = _read_mat(path, variable)
    if lacking := [field for field in fields if field not in (structs.dtype.names or ())]:
        raise UserError(f"{path}: '{variable}' has no field '{lacking[0]}': it is another file")
    return [structs[field].tolist() for field in fields]


def _read_birds(parts: Parts) -> Layout:
    """CUB-200-2011 and NABirds: a table each of paths, classes and split, by image.

    Labels are the ranks of the class ids that images use, by number: of CUB all, 1..200; of NABirds
    555 of 0..1010, the others are groups of birds.
    """
    names = _read_table(parts["classes.txt"])
    class_of = _read_table(parts["image_class_labels.txt"])
    is_training = _read_table(parts["train_test_split.txt"])
    if strange := [class_id for class_id in class_of.values() if not class_id.isdecimal()]:
        raise UserError(f"{parts['image_class_labels.txt']}: '{strange[0]}' is no class id")
    used = sorted(set(class_of.values()), key=int)
    label_of = {class_id: label for label, class_id in enumerate(used)}
    splits = {"train": [], "validation": []}
    for image, path in _read_table(parts["images.txt"]).items():
        split_name = "train" if is_training[image] == "1" else "validation"
        splits[split_name].append(Image(path, label_of[class_of[image]]))
    return Layout(parts["images"], splits, [names[class_id] for class_id in used])


def _read_aircraft(parts: Parts) -> Layout:
    """FGVC-Aircraft by variant; the official training and validation images are trained on."""
    names = _read_lines(parts["variants.txt"])
    label_of = _count_up(parts["variants.txt"], names)
    splits = {
        split_name: [
            Image(f"{image}.jpg", label_of[variant])
            for image, variant in _read_table(parts[f"images_variant_{part}.txt"]).items()
        ]
        for split_name, part in (("train", "trainval"), ("validation", "test"))
    }
    return Layout(parts["images"], splits, names)


def _read_flowers(parts: Parts) -> Layout:
    """Oxford Flowers 102; its training and validation images are trained on.

    The archive numbers the classes, and does not name them.
    """
    (labels,) = _read_mat(parts["imagelabels.mat"], "labels")
    train, valid, test = (
        ids.astype(int).tolist() for ids in _read_mat(parts["setid.mat"], "trnid", "valid", "tstid")
    )
    numbers = {"train": train + valid, "validation": test}
    if strange := [i for split in numbers.values() for i in split if not 0 < i <= len(labels)]:
        raise UserError(
            f"{parts['setid.mat']} names image {strange[0]}, {parts['imagelabels.mat']} has labels "
            f"of images 1 to {len(labels)}: they are not of the same set"
        )
    splits = {
        split_name: [Image(f"image_{i:05d}.jpg", int(labels[i - 1]) - 1) for i in split]
        for split_name, split in numbers.items()
    }
    names = [f"flower_{label:03d}" for label in range(1, int(labels.max()) + 1)]
    return Layout(parts["jpg"], splits, names)


def _read_food(parts: Parts) -> Layout:
    """Food-101: the class is the folder."""
    names = _read_lines(parts["meta/classes.txt"])
    label_of = _count_up(parts["meta/classes.txt"], names)
    splits = {
        split_name: [
            Image(f"{image}.jpg", label_of[image.split("/")[0]])
            for image in _read_lines(parts[f"meta/{part}.txt"])
        ]
        for split_name, part in (("train", "train"), ("validation", "test"))
    }
    return Layout(parts["images"], splits, names)


def _read_dogs(parts: Parts) -> Layout:
    """Stanford Dogs; a class is named as its folder, `n02085620-Chihuahua`."""
    splits, names = {}, {}
    for split_name, part in (("train", "train"), ("validation", "test")):
        files, labels = _read_mat(parts[f"lists/{part}_list.mat"], "file_list", "labels")
        pairs = zip(files.tolist(), labels.tolist(), strict=True)
        splits[split_name] = [Image(path, int(label) - 1) for path, label in pairs]
        names.update({label: path.split("/")[0] for path, label in splits[split_name]})
    return Layout(parts["Images"], splits, [names[label] for label in sorted(names)])


def _read_cars(parts: Parts) -> Layout:
    """Stanford Cars as one folder, `car_ims`."""
    path = parts["cars_annos.mat"]
    files, labels, in_test = _read_structs(path, "annotations", "relative_im_path", "class", "test")
    splits = {"train": [], "validation": []}
    for file, label, test in zip(files, labels, in_test, strict=True):
        name = PurePosixPath(file).name
        splits["validation" if test else "train"].append(Image(name, int(label) - 1))
    (names,) = _read_mat(path, "class_names")
    return Layout(parts["car_ims"], splits, names.tolist())


def _read_cars_of_challenge(parts: Parts) -> Layout:
    """Stanford Cars as two folders, `cars_train` and `cars_test`, and a development kit."""
    splits = {}
    for split_name, folder, part in (
        ("train", "cars_train", "devkit/cars_train_annos.mat"),
        ("validation", "cars_test", "devkit/cars_test_annos_withlabels.mat"),
    ):
        files, labels = _read_structs(parts[part], "annotations", "fname", "class")
        pairs = zip(files, labels, strict=True)
        splits[split_name] = [Image(f"{folder}/{name}", int(label) - 1) for name, label in pairs]
    if meta := parts.get("devkit/cars_meta.mat"):
        names = _read_mat(meta, "class_names")[0].tolist()
    else:
        num_classes = 1 + max(image.label for split in splits.values() for image in split)
        names = [f"car_{label:03d}" for label in range(1, num_classes + 1)]
    return Layout(parts["cars_train"].parent, splits, names)


def _read_imagenet(parts: Parts) -> Layout:
    """ILSVRC2012: labels are ranks of the WordNet ids, which are the folders of `train`.

    Validation images lie in such folders, too, or all in one; then the development kit tells their
    classes. Those of classes that `train` has not are left out.
    """
    root = parts["train"].parent
    wnids = _folders(parts["train"])
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    train = [
        Image(f"train/{wnid}/{name}", label_of[wnid])
        for wnid in wnids
        for name in _photographs(parts["train"] / wnid)
    ]
    wnid_of, words = {}, {}
    if meta := parts.get(f"{DEVKIT}/meta.mat"):
        synsets = _read_structs(meta, "synsets", "ILSVRC2012_ID", "WNID", "words")
        wnid_of = {str(number): wnid for number, wnid, _ in zip(*synsets, strict=True)}
        words = dict(zip(*synsets[1:], strict=True))
    if folders := _folders(parts["val"]):
        classes = {
            f"{wnid}/{name}": wnid for wnid in folders for name in _photographs(parts["val"] / wnid)
        }
    else:
        part = f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt"
        for needed in (f"{DEVKIT}/meta.mat", part):
            if needed not in parts:
                raise _missing_part("ILSVRC2012", f"{needed}, and no val/<wnid>/,", root)
        numbers = enumerate(_read_lines(parts[part]), start=1)
        classes = {f"ILSVRC2012_val_{i:08d}.JPEG": wnid_of.get(number) for i, number in numbers}
    validation = [
        Image(f"val/{path}", label_of[wnid])
        for path, wnid in sorted(classes.items(), key=lambda item: PurePosixPath(item[0]).name)
        if wnid in label_of
    ]
    splits = {"train": train, "validation": validation}
    return Layout(root, splits, [words.get(wnid, wnid) for wnid in wnids])


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _photographs(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.iterdir() if path.suffix.lower() in (".jpeg", ".jpg")
    )


def _read_inat(parts: Parts) -> Layout:
    """The official splits of iNaturalist 2017."""
    train, names = _read_coco(parts["train_val2017/train2017.json"])
    validation, names_again = _read_coco(parts["train_val2017/val2017.json"])
    names |= names_again
    label_of = {class_id: label for label, class_id in enumerate(sorted(names))}
    splits = {
        split_name: [
            Image(path.removeprefix(f"{INAT_IMAGES}/"), label_of[class_id])
            for path, class_id in images
        ]
        for split_name, images in (("train", train), ("validation", validation))
    }
    return Layout(parts[INAT_IMAGES], splits, [names[class_id] for class_id in sorted(names)])


def _read_coco(path: Path) -> tuple[list[tuple[str, int]], dict[int, str]]:
    """Reads a json file as COCO has them: file names and class ids, and the classes' names."""
    try:
        content = json.loads(path.read_bytes())
        names = {category["id"]: category["name"] for category in content["categories"]}
        class_of = {line["image_id"]: line["category_id"] for line in content["annotations"]}
        images = [(image["file_name"], class_of[image["id"]]) for image in content["images"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not as published ({type(error).__name__}: {error}): get it anew"
        ) from None
    if unnamed := set(class_of.values()) - names.keys():
        raise UserError(f"{path} has no category {min(unnamed)}, of which it has images")
    return images, names


_BIRDS = (
    "images",
    "images.txt",
    "image_class_labels.txt",
    "train_test_split.txt",
    "classes.txt",
)

FORMS: dict[str, tuple[Form, ...]] = {
    "cub_200": (Form("CUB_200_2011", _BIRDS, _read_birds),),
    "aircraft": (
        Form(
            "fgvc-aircraft-2013b/data",
            ("images", "variants.txt", "images_variant_trainval.txt", "images_variant_test.txt"),
            _read_aircraft,
        ),
    ),
    "flower_102": (Form("", ("jpg", "imagelabels.mat", "setid.mat"), _read_flowers),),
    "food_101": (
        Form(
            "food-101",
            ("images", "meta/classes.txt", "meta/train.txt", "meta/test.txt"),
            _read_food,
        ),
    ),
    "nabirds": (Form("nabirds", _BIRDS, _read_birds),),
    "stanford_cars": (
        Form("", ("car_ims", "cars_annos.mat"), _read_cars),
        Form(
            "",
            (
                "cars_train",
                "cars_test",
                "devkit/cars_train_annos.mat",
                "devkit/cars_test_annos_withlabels.mat",
            ),
            _read_cars_of_challenge,
            optional=("devkit/cars_meta.mat",),
        ),
    ),
    "stanford_dogs": (
        Form("", ("Images", "lists/train_list.mat", "lists/test_list.mat"), _read_dogs),
    ),
    "ILSVRC2012": (
        Form(
            "",
            ("train", "val"),
            _read_imagenet,
            optional=(f"{DEVKIT}/meta.mat", f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt"),
        ),
    ),
    "inat2017": (
        Form(
            "",
            (INAT_IMAGES, "train_val2017/train2017.json", "train_val2017/val2017.json"),
            _read_inat,
        ),
    ),
}
