"""The networks of an evaluation, one or an ensemble: from flags, and as they were trained."""

import sys
from pathlib import Path
from typing import NamedTuple

from absl import flags

from slim.checkpoints.description import (
    PUBLISHED_MODEL,
    RENAMED,
    choose_input,
    find_other_class,
    shift_names,
)
from slim.checkpoints.finding import check_path
from slim.checkpoints.freezing import InferenceGraph, build_network
from slim.common.command_line import check_names
from slim.common.devices import count_parameters, describe_run
from slim.common.errors import UserError
from slim.datasets.input import Dataset
from slim.nets.nets_factory import check_image_size
from slim.preprocessing.preprocessing_factory import get_views


class Member(NamedTuple):
    """A network to evaluate. None stands for the value of training, or for the default."""

    checkpoint_path: str  # a checkpoint, or a folder of checkpoints
    model_name: str | None
    image_size: int | None  # in pixels; 0 for the default of the network
    preprocessing_name: str | None
    central_fraction: float | None


def list_members(values: flags.FlagValues) -> list[Member]:
    """Returns the networks that the flags list; a single value of a flag serves all networks."""
    if "," in (path := values.checkpoint_path) and Path(path).exists():
        raise UserError(
            f"--checkpoint_path={path}: a comma separates the networks of an ensemble; rename the "
            "folder"
        )
    kinds = {
        "checkpoint_path": (str, "a path"),
        "model_name": (str, "a name"),
        "eval_image_size": (int, "pixels"),
        "preprocessing_name": (str, "a name"),
        "central_fraction": (float, "a fraction such as 0.875"),
    }
    # 1. The values of each flag. Only those of the command line count, because those of training
    #    take precedence over defaults.
    found = {}
    for flag, (kind, expected) in kinds.items():
        words = values[flag].value if values[flag].present else None
        words = words.split(",") if isinstance(words, str) and words else words or [None]
        try:
            found[flag] = [None if word is None else kind(word) for word in words]
        except ValueError:
            raise UserError(f"--{flag}={','.join(words)}: expected {expected}") from None
    # 2. A network for each value of the longest flag.
    longest = max(found, key=lambda flag: len(found[flag]))
    count = len(found[longest])
    for flag, listed in found.items():
        check_names(flag, listed, distinct=False)
        if len(listed) not in (1, count):
            raise UserError(
                f"--{flag} has {len(listed)} values and --{longest} has {count}: expected 1 or "
                f"{count}"
            )
    members = [Member(*(v[i % len(v)] for v in found.values())) for i in range(count)]
    # 3. Errors of any network come before the first evaluation.
    for member in members:
        check_path(member.checkpoint_path, "--checkpoint_path")
        if member.model_name:
            size = member.image_size or None
            check_image_size(member.model_name, size, size)
        name = member.preprocessing_name or PUBLISHED_MODEL
        get_views(name, values.num_crops, member.central_fraction)
    return members


def build_member(
    values: flags.FlagValues, member: Member, checkpoint: str, dataset: Dataset
) -> tuple[Member, InferenceGraph]:
    """Returns a network as it was trained, unless flags differ, and its graph without values."""
    offset = values.labels_offset
    names = shift_names(dataset.class_names or (), offset)
    to_do = f"evaluate on the dataset that it was trained on, or {RENAMED}"
    problem = find_other_class(checkpoint, dataset.name, names, labels_offset=offset, to_do=to_do)
    if problem and not values.renamed_classes:
        raise UserError(problem)
    chosen = choose_input(checkpoint, *member[1:4], size_flag="eval_image_size")
    graph = build_network(
        chosen.model_name,
        dataset.num_classes - offset,
        chosen.image_size,
        outputs=lambda logits, _: logits,
        precision=values.precision,
    )
    speed = {"precision": values.precision, "xla": values.xla}
    line = describe_run(*chosen[:2], count_parameters(graph.variables), **speed)
    print(line, file=sys.stderr, flush=True)
    return member._replace(**chosen._asdict()), graph
