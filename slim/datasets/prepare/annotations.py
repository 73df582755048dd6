"""Tables of labelled images: CSV, TSV, and JSON in the style of COCO."""

import csv
import json
import os
import re
from collections import defaultdict
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

from absl import flags

from slim.common.errors import UserError, count, count_some
from slim.datasets.image_files import find_image_files
from slim.datasets.listed import ListedDataset
from slim.datasets.lists import Entry
from slim.datasets.prepare.folders import split_classes
from slim.datasets.prepare.prepared import find_missing, report_faults
from slim.datasets.tfrecord import LISTS

# Usual names of columns, the likeliest first, in lower case without spaces and underscores.
_PATHS = "path filepath imagepath filename file imagename image imageid img imgid id name"
_NAMES = "classname categoryname labelname species breed name"
_LABELS = f"label labels class category target classid categoryid labelid {_NAMES}"


def read_tables(values: flags.FlagValues) -> ListedDataset:
    """Reads a table to train on and one to validate on, or splits a single one.

    Paths are relative to the folder of the images, or begin with its name; an extension may be
    missing. Labels are the ranks of the class numbers or names that images of either table have.
    """
    tables = [Path(table) for table in values.from_table]
    images = Path(values.images or tables[0].parent)

    # 1. The classes of each image, in the order of the tables.
    found, names = {}, defaultdict(set)
    for split_name, table in zip(LISTS, tables, strict=False):
        found[split_name] = defaultdict(set)
        rows = []
        if table.is_file():
            rows = _read_rows(table, values.path_column, values.label_column)
        if not rows:
            problem = "lists no images" if table.is_file() else "is not a file"
            raise UserError(f"--from_table: {table} {problem}: pass a CSV, TSV or COCO JSON file")
        for value, key, name in rows:
            found[split_name][os.path.relpath(images / value, images)].add(key)
            names[key].add(name)
        if repeated := len(rows) - len(found[split_name]):
            print(f"note: {table}: {count(repeated, 'row')} of images that are listed already")

    # 2. Report what cannot be used.
    names.pop(None, None)
    listed = [*chain(*(classes.items() for classes in found.values()))]
    used = {name: set().union(*classes.values()) - {None} for name, classes in found.items()}
    groups = {
        "images outside of it": [path for path, _ in listed if path.split("/")[0] in (".", "..")],
        "images without one label": [path for path, keys in listed if len(keys - {None}) != 1],
        "labels without one name": [key for key, some in names.items() if len(some - {None}) != 1],
        "labels that only validation has": [*used.get("validation", used["train"]) - used["train"]],
    }
    faults = [count_some(what, sorted(some, key=str)) for what, some in groups.items() if some]
    report_faults(faults, f"{' and '.join(map(str, tables))} and {images}", values.allow_partial)

    # 3. Number the classes, numbers before names, and find the images.
    omitted = {*groups["images outside of it"], *groups["images without one label"]}
    paths = [path for path, _ in listed if path not in omitted]
    keys = sorted(set().union(*used.values()), key=lambda key: (isinstance(key, str), key))
    label_of = {key: label for label, key in enumerate(keys)}
    class_names = [min(names[key] - {None}, default=str(key)) for key in keys]
    root = min([images, images.absolute().parent], key=lambda root: len(find_missing(root, paths)))
    files = defaultdict(list)  # by path without extension
    for file in find_image_files(root)[0] if find_missing(root, paths) else []:
        files[file.relative_to(root).with_suffix("").as_posix()].append(file)
    splits = {"train": [], "validation": []}
    for split_name, classes in found.items():
        for path in [path for path in classes if path not in omitted]:
            (key,) = classes[path] - {None}
            file = files[path][0].relative_to(root).as_posix() if len(files[path]) == 1 else path
            splits[split_name].append(Entry(file, label_of[key]))

    # 4. Split a single table at random.
    if len(tables) == 1:
        members = defaultdict(list)
        for path, label, _ in sorted(splits["train"]):
            members[class_names[label]].append(path)
        split = split_classes(members, values.val_fraction, values.seed)
        held_out = {*chain(*split["validation"].values())}
        splits["validation"] = [image for image in splits["train"] if image.path in held_out]
        splits["train"] = [image for image in splits["train"] if image.path not in held_out]
    return ListedDataset(root, splits, class_names)


def _read_rows(
    table: Path, path_column: str | None, label_column: str | None
) -> list[tuple[str, int | str | None, str | None]]:
    """Reads the path of each image, its class if it has one, and the name of the class."""
    text = table.read_text("utf-8-sig", errors="surrogateescape")
    if text.lstrip().startswith("{"):
        images, names = read_coco(table)
        return [(path, key, names.get(key)) for path, key in images]
    # 1. The columns, which the most frequent of the usual delimiters separates.
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    lines = csv.DictReader(StringIO(text, newline=""), delimiter=delimiter, restval="")
    columns = list(lines.fieldnames or [])

    def take(column: str | None, usual: str) -> str | None:
        plain = {re.sub(r"[\W_]", "", name.lower()): name for name in columns}
        column = column or next((plain[name] for name in usual.split() if name in plain), None)
        if column in columns:
            columns.remove(column)
            return column
        return None

    path, label = take(path_column, _PATHS), take(label_column, _LABELS)
    label = label or (columns[0] if len(columns) == 1 and not label_column else None)
    if not path or not label:
        raise UserError(
            f"{table} has the columns {', '.join(lines.fieldnames or ['none'])}: pass those of the "
            "images and labels as --path_column and --label_column, if it has labels"
        )
    # 2. The rows. Names of classes may accompany their numbers.
    try:
        rows = list(lines)
    except csv.Error as error:
        raise UserError(f"{table} line {lines.line_num}: {error}: correct the line") from None
    is_number = all(row[label].strip().isdecimal() for row in rows if row[label].strip())
    name = (take(None, _NAMES) if is_number else None) or label
    print(f"note: {table}: images from '{path}', labels from '{label}', names from '{name}'")
    convert = int if is_number else str
    return [
        (
            row[path].strip(),
            convert(key) if (key := row[label].strip()) else None,
            row[name].strip(),
        )
        for row in rows
    ]


def read_coco(path: Path) -> tuple[list[tuple[str, Any]], dict[Any, str]]:
    """Reads the path and the class id of each annotation, and the names of the classes by id.

    An image without annotations has the class id None.
    """
    try:
        content = json.loads(path.read_bytes())
        names = {category["id"]: category["name"] for category in content["categories"]}
        classes = defaultdict(list)
        for line in content.get("annotations", []):
            classes[line["image_id"]].append(line["category_id"])
        images = [
            (image["file_name"], class_id)
            for image in content["images"]
            for class_id in classes.get(image["id"], [None])
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not the published file ({type(error).__name__}: {error}): get it again"
        ) from None
    return images, names
