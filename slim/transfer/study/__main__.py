r"""Compares pre-training sources over targets, as the paper does (its section 5 and figure 5).

    python -m slim.transfer.study --sources=ILSVRC2012,inat2017,ILSVRC2012+inat2017 \
        --checkpoints=checkpoints/a.ckpt,checkpoints/b.ckpt,checkpoints/c.ckpt \
        --targets=cub_200,nabirds,stanford_cars

For each source's network and each target: features, a linear classifier on them, with `--fine_tune`
the whole network trained on the target, and how near source and target are as domains. `study.md`,
`study.png`, `similarity.png` and `study.json` in --output_dir hold what was found. What is done is
not done again, and a run that was stopped goes on.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.common.files import make_folder
from slim.transfer.domain_similarity import GAMMA, MIN_COUNT
from slim.transfer.study.cells import Cells, find_target
from slim.transfer.study.report import Findings, find_similarity, write_report
from slim.transfer.study.sources import (
    compute_cells,
    describe_settings,
    find_domains,
    find_feature_views,
    find_sources,
    refuse_failures,
)
from slim.transfer.study.training import fine_tune, plan_training


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
        views = find_feature_views(values.similarity_features, sources, values.dataset_dir)
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
    make_folder(Path(values.output_dir), "output_dir")
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


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
