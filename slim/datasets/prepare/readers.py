"""Readers of the nine archives.

A reader receives the path of each part of an unpacked archive by its official path. It returns the
images of each split in the order of the official lists, labels from 0 and class names. It checks
neither the numbers of images nor that the images exist.
"""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from slim.common.errors import UserError
from slim.datasets.listed import ListedDataset
from slim.datasets.lists import Entry
from slim.datasets.prepare.archives import where_to_get
from slim.datasets.prepare.tables import read_labels, read_lines, read_mat, read_structs, read_table

Parts = Mapping[str, Path]

DEVKIT = "ILSVRC2012_devkit_t12/data"
INAT_IMAGES = "train_val_images"


def read_birds(parts: Parts) -> ListedDataset:
    """Reads CUB-200-2011 or NABirds: tables of paths, classes and splits.

    Labels are the ranks of the class ids that images have: all of 1..200 for CUB-200-2011, 555 of
    0..1010 for NABirds, whose other ids are groups of birds.
    """
    names = read_table(parts["classes.txt"])
    class_of = read_table(parts["image_class_labels.txt"])
    is_training = read_table(parts["train_test_split.txt"])
    if invalid := [class_id for class_id in class_of.values() if not class_id.isdecimal()]:
        raise UserError(f"{parts['image_class_labels.txt']}: '{invalid[0]}' is not a class id")
    used = sorted(set(class_of.values()), key=int)
    label_of = {class_id: label for label, class_id in enumerate(used)}
    splits = {"train": [], "validation": []}
    for image, path in read_table(parts["images.txt"]).items():
        split_name = "train" if is_training[image] == "1" else "validation"
        splits[split_name].append(Entry(path, label_of[class_of[image]]))
    return ListedDataset(parts["images"], splits, [names[class_id] for class_id in used])


def read_aircraft(parts: Parts) -> ListedDataset:
    """Reads FGVC-Aircraft by variant; its training and validation images become `train`."""
    label_of = read_labels(parts["variants.txt"])
    splits = {
        split_name: [
            Entry(f"{image}.jpg", label_of[variant])
            for image, variant in read_table(parts[f"images_variant_{part}.txt"]).items()
        ]
        for split_name, part in (("train", "trainval"), ("validation", "test"))
    }
    return ListedDataset(parts["images"], splits, list(label_of))


def read_flowers(parts: Parts) -> ListedDataset:
    """Reads Oxford Flowers 102, whose classes have no names; `trnid` and `valid` become `train`."""
    (labels,) = read_mat(parts["imagelabels.mat"], "labels")
    train, valid, test = (
        ids.astype(int).tolist() for ids in read_mat(parts["setid.mat"], "trnid", "valid", "tstid")
    )
    numbers = {"train": train + valid, "validation": test}
    if invalid := [i for split in numbers.values() for i in split if not 0 < i <= len(labels)]:
        raise UserError(
            f"{parts['setid.mat']} has image {invalid[0]}, {parts['imagelabels.mat']} has labels "
            f"of images 1 to {len(labels)}: get both files again"
        )
    splits = {
        split_name: [Entry(f"image_{i:05d}.jpg", int(labels[i - 1]) - 1) for i in split]
        for split_name, split in numbers.items()
    }
    names = [f"flower_{label:03d}" for label in range(1, int(labels.max()) + 1)]
    return ListedDataset(parts["jpg"], splits, names)


def read_food(parts: Parts) -> ListedDataset:
    """Reads Food-101, where the folder of an image is its class."""
    label_of = read_labels(parts["meta/classes.txt"])
    splits = {
        split_name: [
            Entry(f"{image}.jpg", label_of[image.split("/")[0]])
            for image in read_lines(parts[f"meta/{part}.txt"])
        ]
        for split_name, part in (("train", "train"), ("validation", "test"))
    }
    return ListedDataset(parts["images"], splits, list(label_of))


def read_dogs(parts: Parts) -> ListedDataset:
    """Reads Stanford Dogs, where the folder of an image is the name of its class."""
    splits, names = {}, {}
    for split_name, part in (("train", "train"), ("validation", "test")):
        files, labels = read_mat(parts[f"lists/{part}_list.mat"], "file_list", "labels")
        pairs = zip(files.tolist(), labels.tolist(), strict=True)
        splits[split_name] = [Entry(path, int(label) - 1) for path, label in pairs]
        names.update({image.label: image.path.split("/")[0] for image in splits[split_name]})
    return ListedDataset(parts["Images"], splits, [names[label] for label in sorted(names)])


def read_cars(parts: Parts) -> ListedDataset:
    """Reads Stanford Cars in one folder."""
    path = parts["cars_annos.mat"]
    files, labels, in_test = read_structs(path, "annotations", "relative_im_path", "class", "test")
    splits = {"train": [], "validation": []}
    for file, label, test in zip(files, labels, in_test, strict=True):
        image = Entry(PurePosixPath(file).name, int(label) - 1)
        splits["validation" if test else "train"].append(image)
    (names,) = read_mat(path, "class_names")
    return ListedDataset(parts["car_ims"], splits, names.tolist())


def read_split_cars(parts: Parts) -> ListedDataset:
    """Reads Stanford Cars in two folders with a development kit."""
    splits = {}
    for split_name, folder, part in (
        ("train", "cars_train", "devkit/cars_train_annos.mat"),
        ("validation", "cars_test", "devkit/cars_test_annos_withlabels.mat"),
    ):
        files, labels = read_structs(parts[part], "annotations", "fname", "class")
        pairs = zip(files, labels, strict=True)
        splits[split_name] = [Entry(f"{folder}/{name}", int(label) - 1) for name, label in pairs]
    if meta := parts.get("devkit/cars_meta.mat"):
        names = read_mat(meta, "class_names")[0].tolist()
    else:
        num_classes = 1 + max(image.label for split in splits.values() for image in split)
        names = [f"car_{label:03d}" for label in range(1, num_classes + 1)]
    return ListedDataset(parts["cars_train"].parent, splits, names)


def read_imagenet(parts: Parts) -> ListedDataset:
    """Reads ILSVRC2012; labels are the ranks of the WordNet ids, the subfolders of `train`.

    Validation images lie in such subfolders, too, or directly in `val`; then their classes come
    from the development kit. Images of classes without training images are left out.
    """
    wnids = _subfolders(parts["train"])
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    train = [
        Entry(f"train/{path}", label_of[wnid]) for path, wnid in _photographs(parts["train"], wnids)
    ]
    wnid_of, words = {}, {}
    if meta := parts.get(f"{DEVKIT}/meta.mat"):
        synsets = read_structs(meta, "synsets", "ILSVRC2012_ID", "WNID", "words")
        wnid_of = {str(int(number)): wnid for number, wnid, _ in zip(*synsets, strict=True)}
        words = dict(zip(*synsets[1:], strict=True))
    if folders := _subfolders(parts["val"]):
        classes = _photographs(parts["val"], folders)
    else:
        truth = f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt"
        for needed in (f"{DEVKIT}/meta.mat", truth):
            if needed not in parts:
                raise missing_part(
                    "ILSVRC2012", f"{needed}, and no val/<wnid>/,", parts["train"].parent
                )
        numbers = enumerate(read_lines(parts[truth]), start=1)
        classes = [(f"ILSVRC2012_val_{i:08d}.JPEG", wnid_of.get(number)) for i, number in numbers]
    validation = [
        Entry(f"val/{path}", label_of[wnid])
        for path, wnid in sorted(classes, key=lambda pair: PurePosixPath(pair[0]).name)
        if wnid in label_of
    ]
    splits = {"train": train, "validation": validation}
    return ListedDataset(parts["train"].parent, splits, [words.get(wnid, wnid) for wnid in wnids])


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _photographs(folder: Path, wnids: list[str]) -> list[tuple[str, str]]:
    """Returns the path and WordNet id of each JPEG file in these subfolders, sorted."""
    return [
        (f"{wnid}/{path.name}", wnid)
        for wnid in wnids
        for path in sorted((folder / wnid).iterdir())
        if path.suffix.lower() in (".jpeg", ".jpg")
    ]


def missing_part(name: str, part: str, folder: Path) -> UserError:
    """Returns the error for an archive that lacks a part."""
    return UserError(
        f"no {part} in {folder}: the archive of {name} is incomplete; {where_to_get(name)}"
    )


def read_inat(parts: Parts) -> ListedDataset:
    """Reads the official splits of iNaturalist 2017."""
    train, names = _read_coco(parts["train_val2017/train2017.json"])
    validation, more_names = _read_coco(parts["train_val2017/val2017.json"])
    names = _in_label_order(names | more_names)
    label_of = {class_id: label for label, class_id in enumerate(names)}
    splits = {
        split_name: [
            Entry(path.removeprefix(f"{INAT_IMAGES}/"), label_of[class_id])
            for path, class_id in images
        ]
        for split_name, images in (("train", train), ("validation", validation))
    }
    return ListedDataset(parts[INAT_IMAGES], splits, list(names.values()))


def inat_class_names(train: Path, validation: Path) -> dict[int, str]:
    """Reads the names of the classes of iNaturalist 2017 by id, in the order of their labels."""
    return _in_label_order(_read_coco(train)[1] | _read_coco(validation)[1])


def _in_label_order(names: dict[int, str]) -> dict[int, str]:
    return dict(sorted(names.items()))


def _read_coco(path: Path) -> tuple[list[tuple[str, int]], dict[int, str]]:
    """Reads the path and class id of each image, and class names by id, from a COCO JSON file."""
    try:
        content = json.loads(path.read_bytes())
        names = {category["id"]: category["name"] for category in content["categories"]}
        class_of = {line["image_id"]: line["category_id"] for line in content["annotations"]}
        images = [(image["file_name"], class_of[image["id"]]) for image in content["images"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not the published file ({type(error).__name__}: {error}): get it again"
        ) from None
    if unnamed := set(class_of.values()) - names.keys():
        raise UserError(f"{path} has images of category {min(unnamed)} but not its name")
    return images, names
