"""Datasets by name: folders, lists, names of classes, and the description of the shards."""

import json
import os
import random
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from slim.common.command_line import python_command
from slim.common.errors import UserError, count, did_you_mean
from slim.datasets.lists import Entry, ImageList, read_list
from slim.datasets.tfrecord import LISTS, Shard

DESCRIPTION = "dataset.json"
FORMAT = 1  # version of the shards and of their description
NAME_MAX = 255  # bytes
PIXEL_SETTINGS = ("apply_orientation", "max_side")  # flags of conversion
STAGING = ".conversion-"  # prefix of the folder of an unfinished conversion


class Sizes(NamedTuple):
    """Number of images in each split, and number of classes."""

    train: int
    validation: int
    classes: int

    def __str__(self) -> str:
        return f"{self.train} train, {self.validation} validation, {self.classes} classes"


KNOWN = {  # table 1 of the paper
    "ILSVRC2012": Sizes(1281167, 50000, 1000),
    "inat2017": Sizes(665473, 9697, 5089),
    "aircraft": Sizes(6667, 3333, 100),
    "cub_200": Sizes(5994, 5794, 200),
    "flower_102": Sizes(2040, 6149, 102),
    "food_101": Sizes(75750, 25250, 101),
    "nabirds": Sizes(23929, 24633, 555),
    "stanford_cars": Sizes(8144, 8041, 196),
    "stanford_dogs": Sizes(12000, 8580, 120),
}


@dataclass(frozen=True)
class SplitDescription:
    """The part of `dataset.json` about one split."""

    samples: int
    skipped: int  # lines of the list
    shard_bytes: list[int]  # size of each shard
    list_sha256: str  # empty if another program wrote the shards
    skipped_lines: list[int] = field(default_factory=list)  # earlier versions only count them


@dataclass(frozen=True)
class DatasetDescription:
    """The content of `dataset.json`, which conversion writes."""

    classes: int
    seed: int
    verified: bool  # whether every image was decoded
    on_error: str  # "fail" | "skip"
    splits: dict[str, SplitDescription]
    # Written only if they are set.
    apply_orientation: bool = False  # whether images are turned as EXIF says
    max_side: int | None = None  # in pixels; larger images are shrunk

    def to_json(self) -> str:
        """Returns the text of `dataset.json`."""
        content = {"format": FORMAT, **asdict(self)}
        for name in PIXEL_SETTINGS:
            if not content[name]:
                del content[name]
        return json.dumps(content, indent=2) + "\n"

    @property
    def adopted(self) -> bool:
        """Whether another program wrote the shards."""
        return not any(split.list_sha256 for split in self.splits.values())

    @property
    def shards(self) -> list[Shard]:
        """All shards, in order."""
        return [
            Shard(name, index, len(split.shard_bytes))
            for name, split in self.splits.items()
            for index in range(len(split.shard_bytes))
        ]

    def find_damage(self, folder: Path, shards: Iterable[Shard]) -> str | None:
        """Returns a message about the first shard that is missing or has a wrong size."""
        for shard in shards:
            path = folder / shard.file_name
            expected = self.splits[shard.split_name].shard_bytes[shard.index]
            if not path.exists():
                return f"{path} is missing"
            if (size := path.stat().st_size) != expected:
                return f"{path} has {size} bytes, expected {expected}"
        return None


def read_dataset_description(folder: Path) -> DatasetDescription | None:
    """Reads `dataset.json`; returns None if it does not exist."""
    path = folder / DESCRIPTION
    try:
        content = json.loads(path.read_bytes())
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        splits = content["splits"]
        names = [name for name in LISTS if name == "train" or name in splits]
        content["splits"] = {name: SplitDescription(**splits[name]) for name in names}
        return DatasetDescription(**content)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} was not written by this version of convert_dataset.py ({error}): "
            "move it away, then run convert_dataset.py again, with --adopt to describe the shards "
            "next to it as they are"
        ) from None


def dataset_folder(name: str, dataset_dir: str | Path) -> Path:
    """Returns the existing folder of a dataset; the error otherwise suggests similar names."""
    _refuse_path(name or "", f"no dataset '{name}'")
    folder = Path(dataset_dir, name or "")
    if name and folder.is_dir():
        return folder
    # Similar names are looked for among the folders that exist and the datasets of the paper.
    here = [path.name for path in sorted(Path(dataset_dir).glob("[!.]*")) if path.is_dir()]
    others = [known for known in KNOWN if known not in here]
    names = f"{dataset_dir} has {', '.join(here) or 'none'}; data/README.md says how to get others"
    names += f": {', '.join(others)}" if others else ""
    if not name:
        raise UserError(f"--dataset_name is missing: {names}")
    advice = (
        "put its images, train.txt and val.txt there (data/README.md), or set --dataset_dir"
        if name in KNOWN
        else did_you_mean(name, [*here, *others], otherwise=names)
    )
    raise UserError(f"no dataset '{name}', there is no folder {folder}: {advice}")


def new_dataset_folder(name: str, dataset_dir: str | Path, flag: str) -> Path:
    """Returns the folder of a dataset to write, whose name is the value of a flag."""
    _refuse_path(name, f"--{flag}={name}")
    return Path(dataset_dir, name)


def _refuse_path(name: str, subject: str) -> None:
    """Checks that the name of a dataset is a file name, so that nothing is written elsewhere."""
    if name == ".." or PurePosixPath(name).name != name or len(os.fsencode(name)) > NAME_MAX:
        raise UserError(f"{subject}: expected the name of a folder in --dataset_dir, without '/'")


def listed_splits(folder: Path) -> list[str]:
    """Returns the splits of a dataset, which may do without `val.txt` unless it had one."""
    train, validation = (folder / list_name for list_name in LISTS.values())
    if folder.name in KNOWN or validation.exists() or not train.exists():
        return list(LISTS)
    description = read_dataset_description(folder)
    return list(description.splits if description else ["train"])


def check_split(folder: Path, split_name: str) -> None:
    """Refuses to use a validation split of a dataset that has none."""
    if split_name not in listed_splits(folder):
        raise UserError(
            f"{folder} has no {split_name} split, since it has no {LISTS[split_name]}: use the "
            "split train, or add the list and convert again"
        )


def read_converted_list(folder: Path, list_name: str, *, strict: bool = True) -> ImageList:
    """Reads a list without the lines that the conversion of the dataset has skipped, if any.

    The dataset need not be converted. Other invalid lines are an error if `strict`.
    """
    (split_name,) = (name for name, file in LISTS.items() if file == list_name)
    check_split(folder, split_name)
    list_, description = read_list(folder / list_name), read_dataset_description(folder)
    if description and (split := description.splits.get(split_name)):
        skipped = dict.fromkeys(split.skipped_lines)
        if skipped and split.list_sha256 == list_.sha256:
            kept = [entry for entry in list_.entries if entry.line not in skipped]
            return replace(list_, entries=kept, problems=[], skipped_lines=tuple(skipped))
    if strict and list_.problems:
        raise UserError(
            f"{folder / list_name} has {count(len(list_.problems), 'invalid line')}, the first is "
            f"{list_.problems[0]}; fix or remove them"
        )
    return list_


def pixel_settings(folders: Iterable[Path]) -> dict[str, int]:
    """Returns the settings of conversions that change pixels; 0 for those that none has."""
    described = [read_dataset_description(folder) for folder in folders]
    return {name: max(getattr(d, name, None) or 0 for d in described) for name in PIXEL_SETTINGS}


def shard_order(split_name: str, entries: Sequence[Entry], seed: int) -> list[Entry]:
    """Returns the images of a split in the order of its shards; training is shuffled."""
    order = list(entries)
    if split_name == "train":
        random.Random(seed).shuffle(order)
    return order


def find_entries(folder: Path, split_name: str) -> list[Entry] | None:
    """Returns the images in the shards of a split, in their order; None if that is not known."""
    description, path = read_dataset_description(folder), folder / LISTS[split_name]
    split = description and description.splits.get(split_name)
    if not split or not path.is_file():
        return None
    list_, skipped = read_list(path), frozenset(split.skipped_lines)
    order = shard_order(split_name, list_.entries, description.seed)
    found = [entry for entry in order if entry.line not in skipped]
    return found if (list_.sha256, len(found)) == (split.list_sha256, split.samples) else None


def conversion_command(name: str, dataset_dir: str | Path, **settings: int) -> str:
    """Returns the command that converts a dataset, with the flags whose values are not 0."""
    arguments = [f"--dataset_name={name}"]
    if Path(dataset_dir) != Path("data"):
        arguments.append(f"--dataset_dir={dataset_dir}")
    given = {flag: value for flag, value in settings.items() if value}
    arguments += [f"--{flag}" + f"={value}" * (value is not True) for flag, value in given.items()]
    return f"{python_command()} convert_dataset.py {shlex.join(arguments)}"


def removal(folder: Path, description: DatasetDescription | None) -> str:
    """Returns advice on how to replace shards: only those of conversion can be made again."""
    if not description or description.adopted:
        return (
            f"describe them as they are with `{conversion_command(folder.name, folder.parent)} "
            "--adopt`, or move them to another folder"
        )
    split_names = description.splits.items()
    paths = [
        f"{name}_?????-of-{len(split.shard_bytes):05d}.tfrecord" for name, split in split_names
    ]
    start = shlex.quote(str(folder))
    return f"delete them (rm -f {' '.join(f'{start}/{path}' for path in [*paths, DESCRIPTION])})"


def check_sets(folder: Path, split_name: str, shards: Sequence[Shard]) -> None:
    """Checks that the shards of a split without a description are complete."""
    counts = sorted({shard.count for shard in shards})
    if not shards:
        raise UserError(
            f"no {split_name} shards in {folder}: expected names such as "
            f"{Shard(split_name, 0, 10).file_name}"
        )
    if len(counts) > 1 or len(shards) != counts[0]:
        raise UserError(
            f"{folder} has {len(shards)} {split_name} shards, expected one set of "
            f"{' or '.join(map(str, counts))}: complete it, or move the others to another folder"
        )


def read_class_names(path: Path, num_classes: int | None) -> tuple[str, ...] | None:
    """Reads the names of all classes from `classes.txt`; returns None if there are none.

    A number of classes of None stands for the number of lines.
    """
    if not path.is_file():
        return None
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path} line {line} is not UTF-8: save the file as UTF-8") from None
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    num_classes = len(lines) if num_classes is None else num_classes
    if [line[0] for line in lines] != [str(label) for label in range(num_classes)]:
        # The classes.txt in the archive of CUB-200, for example, counts from 1.
        print(
            f"note: ignoring {path}, it does not name labels 0 to {num_classes - 1}",
            file=sys.stderr,
        )
        return None
    return tuple(line[-1].strip() for line in lines)
