r"""Compares pre-training sources over targets, as the paper does (its section 5 and figure 5).

    python -m slim.transfer.study --sources=ILSVRC2012,inat2017,ILSVRC2012+inat2017 \
        --checkpoints=checkpoints/a.ckpt,checkpoints/b.ckpt,checkpoints/c.ckpt \
        --targets=cub_200,nabirds,stanford_cars

For each source's network and each target: features, a linear classifier on them, with `--fine_tune`
the whole network trained on the target, and how near source and target are as domains. `study.md`,
`study.png`, `similarity.png` and `study.json` in --output_dir hold what was found. What is done is
not done again, and a run that was stopped goes on.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from slim.errors import UserError, run_command
from slim.feature_extraction import Split, find_split, make_folder
from slim.flags import FlagSet
from slim.transfer.domain_similarity import GAMMA, MIN_COUNT
from slim.transfer.source_selection import SELECTION
from slim.transfer.study_cells import (
    Cells,
    Domains,
    Source,
    Target,
    View,
    find_domain,
    find_source,
    find_target,
    fit_linear,
    linear_cell,
)
from slim.transfer.study_report import Findings, find_similarity, write_report
from slim.transfer.study_training import fine_tune, plan_training


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.words(
        "sources", [], "What networks were pre-trained on: datasets; A+B is the union of A and B."
    )
    define.words(
        "checkpoints", [], "Their checkpoints, or folders. Default: ./checkpoints/<source>."
    )
    define.words("targets", [], "Datasets to transfer to.")
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    define.string("feature_dir", "./feature", "Features go to <feature_dir>/<source>.")
    define.string("output_dir", "./study", "Where the results go.")
    define.words("model_name", ["inception_v3"], "The network: one for all sources, or one each.")
    define.integer("image_size", 299, "Height and width of the images in pixels.", 1)
    define.integer("batch_size", 64, "Images in a batch.", 1)
    define.boolean("similarity", True, "Compute how near sources and targets are.")
    define.words(
        "similarity_features",
        [],
        "Folders of features of all domains, each by one network; side by side they tell what is "
        "near. Default: the networks of the sources that are neither A+B nor selected from others.",
    )
    define.real("gamma", GAMMA, "Of the similarity, exp(-gamma EMD).", 0)
    define.integer("min_count", MIN_COUNT, "Training images that a source class must have.", 1)
    define.boolean("fine_tune", False, "Fine-tune each checkpoint on each target, too.")
    define.words(
        "fine_tune_steps", [], "Steps: one number, or one for each target. Default: 30 epochs."
    )
    define.string("fine_tune_flags", "", "Flags of slim.train_image_classifier, in quotes.")
    define.integer("num_workers", 1, "Trainings side by side.", 1)


def main(values: flags.FlagValues) -> None:
    """Compares pre-training sources over targets."""
    check_flags(values)
    sources = find_sources(
        values.sources,
        values.checkpoints,
        values.model_name,
        values.image_size,
        Path(values.feature_dir),
        values.batch_size,
    )
    targets = {name: find_target(name, values.dataset_dir) for name in values.targets}
    domains = None
    if values.similarity:
        views = find_views(values.similarity_features, sources, values.dataset_dir)
        domains = find_domains(views, sources, targets, values.dataset_dir, values.min_count)
    steps = dict(zip(targets, one_each(values.fine_tune_steps, len(targets)), strict=True))
    trainings = [
        plan_training(
            source,
            name,
            target,
            values.dataset_dir,
            Path(values.output_dir),
            steps[name],
            values.batch_size,
            values.fine_tune_flags,
        )
        for source in sources
        for name, target in targets.items()
        if values.fine_tune
    ]
    make_folder(Path(values.output_dir))
    cells = Cells(Path(values.output_dir, "cells"))

    compute_cells(cells, sources, targets, domains)
    fine_tune(trainings, cells, values.num_workers)

    kinds = ["linear", "fine_tuned"] if values.fine_tune else ["linear"]
    findings = Findings(
        values.sources,
        values.targets,
        {kind: cells.accuracies(kind) for kind in kinds},
        {name: len(target["val"].image_list.entries) for name, target in targets.items()},
        find_similarity(cells, values.sources, values.targets, values.gamma),
    )
    settings = describe_settings(sources, targets, values.gamma, values.min_count, domains)
    write_report(Path(values.output_dir), findings, cells, settings)
    print(f"\n{Path(values.output_dir, 'study.md').read_text()}", flush=True)
    refuse_failures(cells, values.output_dir)


def check_flags(values: flags.FlagValues) -> None:
    """Refuses flags that do not fit together.

    Raises:
        UserError: Naming the flag.
    """
    for name in ("sources", "targets"):
        words = values[name].value
        if not words:
            raise UserError(f"--{name} is missing: {values[name].help}")
        if len(set(words)) < len(words):
            raise UserError(f"--{name}={','.join(words)}: a name is there twice")
    count = len(values.sources)
    if len(values.checkpoints) not in (0, count):
        raise UserError(
            f"--checkpoints has {len(values.checkpoints)} paths, --sources {count} names: expected "
            "one path for each, in the same order, or none for ./checkpoints/<source>"
        )
    if len(values.model_name) not in (1, count):
        raise UserError(
            f"--model_name has {len(values.model_name)} networks: expected one, or {count}, one "
            "for each of --sources"
        )
    steps, targets = values.fine_tune_steps, values.targets
    if len(steps) not in (0, 1, len(targets)) or not all(s.isdecimal() and int(s) for s in steps):
        raise UserError(
            f"--fine_tune_steps={','.join(steps)}: expected a number, or {len(targets)}, one for "
            "each of --targets"
        )
    for name in ("fine_tune_steps", "fine_tune_flags"):
        if values[name].value and not values.fine_tune:
            raise UserError(f"--{name} is for fine-tuning: give --fine_tune, too")
    if values.similarity_features and not values.similarity:
        raise UserError("--similarity_features does not go with --nosimilarity: leave one out")


def one_each(steps: Sequence[str], count: int) -> list[int | None]:
    """The steps for each target: those given, one number for all, or none."""
    numbers = [int(number) for number in steps] or [None]
    return numbers * count if len(numbers) == 1 else numbers


def find_sources(
    names: Sequence[str],
    paths: Sequence[str],
    model_names: Sequence[str],
    image_size: int,
    feature_dir: Path,
    batch_size: int,
) -> list[Source]:
    """The sources, see `find_source`.

    Raises:
        UserError: A checkpoint is missing or of another network.
    """
    paths = paths or [f"./checkpoints/{name}" for name in names]
    model_names = model_names * len(names) if len(model_names) == 1 else model_names
    return [
        find_source(name, path, model_name, image_size, feature_dir / name, batch_size)
        for name, path, model_name in zip(names, paths, model_names, strict=True)
    ]


def find_views(folders: Sequence[str], sources: Sequence[Source], dataset_dir: str) -> list[View]:
    """Whose features tell what is near: of the folders given, else of the plain sources.

    A network that was trained on parts of several sources would count these twice.

    Raises:
        UserError: No folder is given, and there is no plain source.
    """
    if folders:
        of_folder = {source.folder.resolve(): source for source in sources}
        return [View(Path(folder), of_folder.get(Path(folder).resolve())) for folder in folders]
    plain = [
        source
        for source in sources
        if "+" not in source.name and not Path(dataset_dir, source.name, SELECTION).exists()
    ]
    if not plain:
        raise UserError(
            "--similarity_features is missing: each of --sources is made of others, whose networks "
            "are not here; give folders of features, or --nosimilarity"
        )
    return [View(source.folder, source) for source in plain]


def find_domains(
    views: Sequence[View],
    sources: Sequence[Source],
    targets: Mapping[str, Target],
    dataset_dir: str,
    min_count: int,
) -> Domains:
    """The domains of sources and targets, checked to be there and large enough.

    Raises:
        UserError: A dataset, a list or a folder's features are missing, or no class of a source has
            so many images.
    """
    parts = {part for source in sources for part in source.name.split("+")}
    splits = {name: target["train"] for name, target in targets.items()}
    extracting = any(view.source for view in views)
    for name in sorted(parts - splits.keys()):
        if extracting or Path(dataset_dir, name).is_dir():
            try:
                splits[name] = find_split(name, "train", dataset_dir, Path())
            except UserError as error:
                raise UserError(
                    f"{error}; or leave the domains out with --nosimilarity, or give folders that "
                    "have the features of all with --similarity_features"
                ) from error
    for view in views:
        for name in sorted(parts | targets.keys()) if not view.source else ():
            find_domain(view.folder, name)
    for source in sources:
        check_min_count(source.name, splits, min_count)
    return Domains(views, splits, min_count)


def check_min_count(source: str, splits: Mapping[str, Split], min_count: int) -> None:
    """Refuses a source without a large class, as far as lists tell.

    Raises:
        UserError: No class has so many images.
    """
    parts = source.split("+")
    if not all(part in splits for part in parts):
        return
    largest = max(
        np.bincount([entry.label for entry in splits[part].image_list.entries]).max()
        for part in parts
    )
    if largest < min_count:
        raise UserError(
            f"--min_count={min_count}: no class of {source} has that many training images, the "
            f"largest has {largest}; lower it"
        )


def compute_cells(
    cells: Cells,
    sources: Sequence[Source],
    targets: Mapping[str, Target],
    domains: Domains | None,
) -> None:
    """Fits the linear classifiers and computes the distances that were not done before."""
    with ExitStack() as networks:
        for source in sources:
            networks.callback(source.close)
            for name, target in targets.items():
                cell = linear_cell(source, name, target)
                cells.compute(cell, lambda s=source, n=name, t=target: fit_linear(s, n, t))
        for source in sources if domains else ():
            for name in targets:
                cell = domains.emd_cell(source.name, name)
                cells.compute(cell, lambda s=source.name, n=name: domains.distance(s, n))


def describe_settings(
    sources: Sequence[Source],
    targets: Mapping[str, Target],
    gamma: float,
    min_count: int,
    domains: Domains | None,
) -> dict[str, Any]:
    """What the study was asked for, as `study.json` has it."""
    return {
        "sources": [
            {"name": source.name, "checkpoint": source.checkpoint, **asdict(source.settings)}
            for source in sources
        ],
        "targets": [
            {
                "name": name,
                "images": {key: len(split.image_list.entries) for key, split in target.items()},
                "list_sha256": {key: split.image_list.sha256 for key, split in target.items()},
            }
            for name, target in targets.items()
        ],
        "similarity_features": [str(folder) for folder in domains.folders] if domains else None,
        "gamma": gamma,
        "min_count": min_count,
    }


def refuse_failures(cells: Cells, output_dir: str) -> None:
    """Ends the command with an error where cells failed.

    Raises:
        UserError: Naming the first one.
    """
    if cells.failures:
        cell, error = next(iter(cells.failures.items()))
        total = len(cells.failures) + len(cells.results)
        raise UserError(
            f"{len(cells.failures)} of {total} cells failed, the first is {cell}: {error}; the "
            f"others are in {output_dir}, and the same command tries again"
        )


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
