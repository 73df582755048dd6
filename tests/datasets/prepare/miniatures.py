"""Miniatures of the nine official archives: about three classes each, in the published formats.

Each is drawn from a table of images, classes and splits. The expected result of preparation follows
from the same table.
"""

import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import savemat

from tests.datasets.conftest import encode, picture

TRAIN, VALIDATION = "train", "validation"


@dataclass
class Miniature:
    """An unpacked archive and the expected result of preparation."""

    name: str  # of the dataset
    root: Path  # the folder of the unpacked archive
    images: Path  # the folder of the images
    splits: dict[str, list[tuple[str, int]]]  # paths and labels in the official order
    class_names: list[str]
    options: tuple[str, ...] = ()  # further flags of the command


def draw(folder: Path, paths: Iterable[str]) -> None:
    """Draws a different image at each path."""
    for index, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(encode(picture(index), quality=85))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def cell(values: Iterable[str], shape: tuple[int, int]) -> np.ndarray:
    """Returns a MATLAB cell array."""
    array = np.empty(shape, object)
    array.flat = list(values)
    return array


def structs(shape: tuple[int, int], **fields: Iterable) -> np.ndarray:
    """Returns a MATLAB struct array."""
    array = np.empty(shape, [(name, object) for name in fields])
    for name, values in fields.items():
        for index, value in enumerate(values):
            array[name][np.unravel_index(index, shape)] = value
    return array


def split_of(images: Iterable[tuple[str, int, bool]]) -> dict[str, list[tuple[str, int]]]:
    """Splits images, given by path, label and whether they are for training."""
    splits = {TRAIN: [], VALIDATION: []}
    for path, label, training in images:
        splits[TRAIN if training else VALIDATION].append((path, label))
    return splits


def birds(root: Path, ids: list[str], images: list[tuple[str, int, bool]], class_ids: list) -> None:
    """Writes the tables that CUB-200-2011 and NABirds have in common except the classes."""
    rows = [(i, *image) for i, image in zip(ids, images, strict=True)]
    write_lines(root / "images.txt", (f"{i} {path}" for i, path, _, _ in rows))
    labels = (f"{i} {class_ids[label]}" for i, _, label, _ in rows)
    write_lines(root / "image_class_labels.txt", labels)
    write_lines(root / "train_test_split.txt", (f"{i} {training:d}" for i, _, _, training in rows))
    draw(root / "images", (path for _, path, _, _ in rows))


def cub_200(folder: Path) -> Miniature:
    root = folder / "CUB_200_2011"
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    images = [
        (f"{names[label]}/{names[label][4:]}_{number:04d}_{100 - number}.jpg", label, training)
        for label in range(3)
        for number, training in ((46, False), (9, True), (2, True), (85, False), (49, True))
    ]
    birds(root, [str(i + 1) for i in range(len(images))], images, [1, 2, 3])
    write_lines(root / "classes.txt", (f"{i + 1} {name}" for i, name in enumerate(names)))
    return Miniature("cub_200", folder, root / "images", split_of(images), names)


def nabirds(folder: Path) -> Miniature:
    """Class ids are sparse and include groups of birds; image ids are UUIDs."""
    root = folder / "nabirds"
    names = {
        0: "Birds",
        1: "Ducks, Geese, and Swans",
        295: "Common Eider (Adult male)",
        81: "Grebes",
        817: "Oak Titmouse",
        1010: "Bald Eagle (Immature, non-juvenile)",
    }
    used = [295, 817, 1010]
    ids = [str(uuid.UUID(int=i * 0x1234567890ABCDEF1234567890AB)) for i in range(1, 13)]
    images = [
        (f"{used[label]:04d}/{i.replace('-', '')}.jpg", label, number % 3 != 1)
        for number, i in enumerate(ids)
        for label in [(2, 0, 1, 1)[number % 4]]
    ]
    birds(root, ids, images, used)
    write_lines(root / "classes.txt", (f"{number} {name}" for number, name in names.items()))
    parents = ["1 0", "295 1", "81 0", "817 0", "1010 0"]
    write_lines(root / "hierarchy.txt", parents)
    return Miniature(
        "nabirds", folder, root / "images", split_of(images), [names[number] for number in used]
    )


def aircraft(folder: Path) -> Miniature:
    root = folder / "fgvc-aircraft-2013b" / "data"
    names = ["707-320", "A300B4", "F/A-18", "Gulfstream IV"]
    train = [("1025794", 0), ("0481847", 3), ("1340192", 2), ("0056978", 1), ("0698580", 2)]
    test = [("1514522", 3), ("0747566", 2), ("1008575", 1), ("0894380", 0)]
    write_lines(root / "variants.txt", names)
    for part, images in (("trainval", train), ("test", test)):
        lines = (f"{image} {names[label]}" for image, label in images)
        write_lines(root / f"images_variant_{part}.txt", lines)
    draw(root / "images", (f"{image}.jpg" for image, _ in train + test))
    splits = {
        TRAIN: [(f"{image}.jpg", label) for image, label in train],
        VALIDATION: [(f"{image}.jpg", label) for image, label in test],
    }
    return Miniature("aircraft", folder, root / "images", splits, names)


def flower_102(folder: Path) -> Miniature:
    labels = [3, 3, 1, 2, 1, 2, 2, 3, 1, 2]  # of images 1 to 10
    train, valid, test = [5, 2, 6], [9, 4, 1], [8, 3, 7, 10]
    names = [f"image_{number:05d}.jpg" for number in range(1, 11)]
    draw(folder / "jpg", names)
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    sets = {"trnid": train, "valid": valid, "tstid": test}
    savemat(folder / "setid.mat", {name: np.array([ids], float) for name, ids in sets.items()})
    splits = {
        TRAIN: [(names[i - 1], labels[i - 1] - 1) for i in train + valid],
        VALIDATION: [(names[i - 1], labels[i - 1] - 1) for i in test],
    }
    names = ["pink primrose", "hard-leaved pocket orchid", "canterbury bells"]
    return Miniature("flower_102", folder, folder / "jpg", splits, names)


def food_101(folder: Path) -> Miniature:
    root = folder / "food-101"
    names = ["apple_pie", "baby_back_ribs", "baklava"]
    train = [("apple_pie/1005649", 0), ("baby_back_ribs/1005293", 1), ("baklava/100047", 2)]
    train += [("apple_pie/1014775", 0), ("baklava/1006121", 2)]
    test = [("apple_pie/1011328", 0), ("baby_back_ribs/101251", 1), ("baklava/1034361", 2)]
    write_lines(root / "meta" / "classes.txt", names)
    write_lines(root / "meta" / "train.txt", (image for image, _ in train))
    write_lines(root / "meta" / "test.txt", (image for image, _ in test))
    draw(root / "images", (f"{image}.jpg" for image, _ in train + test))
    splits = {
        TRAIN: [(f"{image}.jpg", label) for image, label in train],
        VALIDATION: [(f"{image}.jpg", label) for image, label in test],
    }
    return Miniature("food_101", folder, root / "images", splits, names)


CARS = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo 2012"]
BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def stanford_cars(folder: Path) -> Miniature:
    """Two folders whose images have the same names, and a development kit."""
    splits = {}
    train, test = [2, 0, 1, 0, 2, 1], [1, 2, 0, 0]
    for split_name, part, labels in ((TRAIN, "train", train), (VALIDATION, "test", test)):
        names = [f"{number:05d}.jpg" for number in range(1, len(labels) + 1)]
        splits[split_name] = [(f"cars_{part}/{n}", k) for n, k in zip(names, labels, strict=True)]
        (folder / "devkit").mkdir(exist_ok=True)
        boxes = {corner: np.full(len(names), 10, np.uint8) for corner in BOX}
        labelled = {**boxes, "class": np.uint8(labels) + 1, "fname": names}
        if part == "train":
            path = folder / "devkit" / "cars_train_annos.mat"
        else:  # published separately, since the file of the kit has no labels
            path = folder / "cars_test_annos_withlabels.mat"
            unlabelled = structs((1, len(names)), **boxes, fname=names)
            savemat(folder / "devkit" / "cars_test_annos.mat", {"annotations": unlabelled})
        savemat(path, {"annotations": structs((1, len(names)), **labelled)})
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": cell(CARS, (1, 3))})
    draw(folder, (path for split in splits.values() for path, _ in split))
    return Miniature("stanford_cars", folder, folder, splits, CARS)


def stanford_cars_in_one_folder(folder: Path) -> Miniature:
    labels, in_test = [0, 2, 1, 1, 0, 2, 2], [0, 1, 0, 1, 1, 0, 0]
    names = [f"{number:06d}.jpg" for number in range(1, 8)]
    annotations = structs(
        (1, 7),
        relative_im_path=[f"car_ims/{name}" for name in names],
        **{corner: np.full(7, 10, np.uint8) for corner in BOX},
        **{"class": np.uint8(labels) + 1, "test": np.uint8(in_test)},
    )
    content = {"annotations": annotations, "class_names": cell(CARS, (1, 3))}
    savemat(folder / "cars_annos.mat", content)
    draw(folder / "car_ims", names)
    images = [(n, k, not test) for n, k, test in zip(names, labels, in_test, strict=True)]
    return Miniature("stanford_cars", folder, folder / "car_ims", split_of(images), CARS)


def stanford_dogs(folder: Path) -> Miniature:
    names = ["n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02085936-Maltese_dog"]
    splits = {}
    (folder / "lists").mkdir()
    for split_name, part, numbers in (
        (TRAIN, "train", (5927, 4441)),
        (VALIDATION, "test", (2650,)),
    ):
        images = [
            (f"{name}/{name.split('-')[0]}_{number}.jpg", label)
            for label, name in enumerate(names)
            for number in numbers
        ]
        shape = (len(images), 1)
        content = {
            "file_list": cell((path for path, _ in images), shape),
            "annotation_list": cell((path[:-4] for path, _ in images), shape),
            "labels": np.array([[label + 1.0] for _, label in images]),
        }
        savemat(folder / "lists" / f"{part}_list.mat", content)
        splits[split_name] = images
    draw(folder / "Images", (path for split in splits.values() for path, _ in split))
    return Miniature("stanford_dogs", folder, folder / "Images", splits, names)


# The class numbers of ILSVRC2012 are not in the order of the WordNet ids.
SYNSETS = {
    1: ("n02119789", "kit fox, Vulpes macrotis"),
    2: ("n01440764", "tench, Tinca tinca"),
    3: ("n15075141", "toilet tissue, toilet paper, bathroom tissue"),
    1001: ("n02118333", "fox"),  # a category above the classes
}
IMAGENET = ["n01440764", "n02119789", "n15075141"]


IMAGENET_TRAIN = [
    (f"train/{wnid}/{wnid}_{number}.JPEG", label)
    for label, wnid in enumerate(IMAGENET)
    for number in (10026, 18, 99)
]


def ilsvrc2012(folder: Path, id_type: type = np.uint16) -> Miniature:
    """Validation images in one folder and the development kit."""
    numbers = [3, 1, 2, 1]
    labels = [IMAGENET.index(SYNSETS[number][0]) for number in numbers]
    validation = [(f"val/ILSVRC2012_val_{i:08d}.JPEG", k) for i, k in enumerate(labels, 1)]
    draw(folder, (path for path, _ in IMAGENET_TRAIN + validation))
    kit = folder / "ILSVRC2012_devkit_t12" / "data"
    write_lines(kit / "ILSVRC2012_validation_ground_truth.txt", map(str, numbers))
    synsets = structs(
        (4, 1),
        ILSVRC2012_ID=map(id_type, SYNSETS),
        WNID=(wnid for wnid, _ in SYNSETS.values()),
        words=(words for _, words in SYNSETS.values()),
        gloss=["..."] * 4,
        num_children=map(np.uint8, (0, 0, 0, 9)),
        children=[np.zeros((1, 0))] * 3 + [np.array([[1, 2]], np.uint16)],
        wordnet_height=map(np.uint8, (0, 0, 0, 1)),
        num_train_images=map(np.uint16, (3, 3, 3, 0)),
    )
    savemat(kit / "meta.mat", {"synsets": synsets})
    words = dict(SYNSETS.values())
    splits = {TRAIN: IMAGENET_TRAIN, VALIDATION: validation}
    return Miniature("ILSVRC2012", folder, folder, splits, [words[wnid] for wnid in IMAGENET])


def ilsvrc2012_in_folders(folder: Path) -> Miniature:
    """Validation images in one folder per class, without the development kit."""
    labels = [2, 1, 0, 1]
    validation = [
        (f"val/{IMAGENET[label]}/ILSVRC2012_val_{i:08d}.JPEG", label)
        for i, label in enumerate(labels, 1)
    ]
    draw(folder, (path for path, _ in IMAGENET_TRAIN + validation))
    splits = {TRAIN: IMAGENET_TRAIN, VALIDATION: validation}
    return Miniature("ILSVRC2012", folder, folder, splits, IMAGENET)


def inat2017(folder: Path) -> Miniature:
    """COCO JSON files and a list of the two validation images."""
    names = ["Corvus cornix", "Danaus plexippus", "Bellis perennis"]
    groups = ["Aves", "Insecta", "Plantae"]

    def paths(labels: list[int], start: int) -> list[tuple[str, int]]:
        return [
            (f"{groups[label]}/{names[label]}/{start + i:032x}.jpg", label)
            for i, label in enumerate(labels)
        ]

    train, validation = paths([2, 0, 1, 0], 0xA0), paths([1, 0, 2, 2], 0xB0)
    for part, images, first in (("train", train, 1), ("val", validation, 579185)):
        content = {
            "info": {"year": 2017, "version": "1"},
            "images": [
                {
                    "id": first + i,
                    "width": 40,
                    "height": 30,
                    "file_name": f"train_val_images/{path}",
                    "license": 1,
                    "rights_holder": "Zoë",
                }
                for i, (path, _) in enumerate(images)
            ],
            "categories": [
                {"id": i, "name": names[i], "supercategory": groups[i]} for i in (1, 0, 2)
            ],
            "annotations": [  # in another order than the images
                {"id": first + i, "image_id": first + i, "category_id": images[i][1]}
                for i in reversed(range(len(images)))
            ],
            "licenses": [{"id": 1, "name": "CC BY-NC", "url": "http://example.org"}],
        }
        (folder / f"{part}2017.json").write_text(json.dumps(content), encoding="utf-8")
    draw(folder / "train_val_images", (path for path, _ in train + validation))
    minival = folder / "minival.txt"
    held_out = [validation[3], validation[1]]
    write_lines(minival, (f"train_val_images/{path}" for path, _ in held_out))
    splits = {
        TRAIN: [*train, validation[0], validation[2]],
        VALIDATION: [validation[1], validation[3]],
    }
    options = (f"--minival_path={minival}",)
    return Miniature("inat2017", folder, folder / "train_val_images", splits, names, options)


NINE: dict[str, Callable[[Path], Miniature]] = {
    "ILSVRC2012": ilsvrc2012,
    "inat2017": inat2017,
    "aircraft": aircraft,
    "cub_200": cub_200,
    "flower_102": flower_102,
    "food_101": food_101,
    "nabirds": nabirds,
    "stanford_cars": stanford_cars,
    "stanford_dogs": stanford_dogs,
}
OTHER_LAYOUTS = {"stanford_cars": stanford_cars_in_one_folder, "ILSVRC2012": ilsvrc2012_in_folders}
