"""Image lists: one line `relative/path.jpg: label` per image, with dense labels from 0.

A dataset may also have a file `classes.txt` with one line `label name` per class.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from slim.common.errors import UserError
from slim.datasets.tfrecord import LISTS

CLASSES = "classes.txt"
_LABEL = re.compile(r"-?[0-9]{1,9}")


class Entry(NamedTuple):
    """A line of a list."""

    path: str  # relative to the folder of the dataset
    label: int
    line: int = 0  # counted from 1; 0 if the image is not from a list


class Problem(NamedTuple):
    """A problem with a line, or with a whole list (line 0)."""

    list_name: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.list_name}{f' line {self.line}' if self.line else ''}: {self.text}"


@dataclass(frozen=True)
class ImageList:
    """The content of a list."""

    entries: list[Entry]  # the valid lines
    problems: list[Problem]  # the others
    sha256: str  # of the bytes of the file, in hexadecimal
    repeated: int = 0  # lines that repeat an image, which oversamples it
    skipped_lines: tuple[int, ...] = ()  # left out because conversion has skipped them


def read_list(path: Path) -> ImageList:
    """Reads and checks a list; lines of `train.txt` may repeat an image with its label."""
    expected = "expected a line 'relative/path.jpg: label' for each image"
    if not path.is_file():
        raise UserError(f"no list {path}: {expected}; data/README.md says how to make one")
    content = path.read_bytes()
    # File names are bytes, not necessarily UTF-8. Blank lines, a byte order mark, CRLF are allowed.
    lines = content.decode("utf-8-sig", errors="surrogateescape").split("\n")
    entries, problems = [], []
    first: dict[str, Entry] = {}  # the first line of each path
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        image, _, label = line.rpartition(": ")
        if fault := _find_fault(image, label.strip(), line.strip()):
            problems.append(Problem(path.name, number, fault))
            continue
        entry = Entry(image, int(label), number)
        earlier = first.setdefault(str(PurePosixPath(image)), entry)
        if earlier is entry or (path.name == LISTS["train"] and earlier.label == entry.label):
            entries.append(entry)
            continue
        text = f"{image}: already on line {earlier.line}"
        if earlier.label != entry.label:
            text += f" with another label, {earlier.label}, not {entry.label}"
        problems.append(Problem(path.name, number, text))
    if not entries and not problems:
        raise UserError(f"{path} is empty: {expected}")
    digest = hashlib.sha256(content).hexdigest()
    return ImageList(entries, problems, digest, repeated=len(entries) - len(first))


def compose_class_names(names: Iterable[str]) -> str:
    """Returns the text of `classes.txt`."""
    return "".join(f"{label} {name}\n" for label, name in enumerate(names))


def _find_fault(image: str, label: str, line: str) -> str | None:
    """Returns the problem with a line, if there is one."""
    if not image or "\0" in image or not _LABEL.fullmatch(label):
        form = "'relative/path.jpg: label' with an integer label from 0"
        return f"'{line}' is not of the form {form}"
    if label.startswith("-"):
        return f"{image}: label {label} is negative, expected 0 or more"
    # Links may lead out of the folder: image folders are often linked.
    if image.startswith("/") or ".." in image.split("/"):
        return f"{image}: leaves the dataset's folder, expected a relative path without '..'"
    return None


def count_classes(splits: Mapping[str, Sequence[Entry]]) -> int:
    """Returns the number of classes over all splits, which is the largest label plus one."""
    return 1 + max((entry.label for entries in splits.values() for entry in entries), default=-1)


def find_gaps(splits: Mapping[str, Sequence[Entry]]) -> list[Problem]:
    """Returns a problem if a label from 0 to the largest occurs in no split."""
    labels = {entry.label for entries in splits.values() for entry in entries}
    num_classes = count_classes(splits)
    if len(labels) == num_classes:
        return []
    first = next(label for label in range(num_classes) if label not in labels)
    text = (
        f"labels are not dense: {num_classes - len(labels)} of 0..{num_classes - 1} occur in "
        f"neither list, the first is {first}; number the classes from 0 without gaps"
    )
    return [Problem("train.txt and val.txt", 0, text)]
