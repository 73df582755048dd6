r"""Compares pre-training sources on targets (section 5 and figure 5 of the paper).

    python -m slim.transfer.study --sources=ILSVRC2012,inat2017,ILSVRC2012+inat2017 \
        --checkpoints=checkpoints/a.ckpt,checkpoints/b.ckpt,checkpoints/c.ckpt \
        --targets=cub_200,nabirds,stanford_cars

For each source and target, it extracts features, fits a linear classifier, and measures domain
similarity; with `--fine_tune`, it also trains the whole network. Results are `study.md`,
`study.png`, `similarity.png` and `study.json` in `--output_dir`. Finished steps are skipped;
interrupted ones resume.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.checkpoints.description import PUBLISHED_MODEL, PUBLISHED_SIZE
from slim.common.command_line import FlagSet, check_distinct, check_names, run_command
from slim.common.errors import UserError
from slim.common.files import exclusive, make_folder
from slim.datasets.registry import new_dataset_folder
from slim.transfer import GAMMA, MIN_COUNT, NORMALIZE_FEATURES
from slim.transfer.study.settings import StudySettings


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command."""
    define = FlagSet(values)
    define.words(
        "sources", [], "Datasets of the pre-trained networks; A+B is the union of A and B."
    )
    define.words(
        "checkpoints",
        [],
        "A checkpoint or folder per source. Default: ./checkpoints/<source>.",
    )
    define.words("targets", [], "Datasets to transfer to.")
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    define.string("feature_dir", "./feature", "Features are written to <feature_dir>/<source>.")
    define.string("output_dir", "./study", "Receives the results.")
    define.words(
        "model_name",
        [],
        "The network: one for all sources, or one per source. Default: from the checkpoint's "
        f"model.json, else {PUBLISHED_MODEL}.",
    )
    define.integer(
        "image_size",
        None,
        "Height and width of the images in pixels. Default: from the checkpoint's model.json, "
        f"else {PUBLISHED_SIZE}.",
        1,
    )
    define.integer("batch_size", 64, "Images per batch.", 1, 100_000)
    define.boolean("similarity", True, "Measure domain similarity.")
    define.words(
        "similarity_features",
        [],
        "Folders with features of all domains, one per network; their concatenation measures "
        "similarity. Default: the networks of sources that are neither unions nor selections.",
    )
    define.boolean("normalize_features", False, NORMALIZE_FEATURES)
    define.real("gamma", GAMMA, "The factor in the similarity exp(-gamma EMD).", 0)
    define.integer("min_count", MIN_COUNT, "Training images that a source class must have.", 1)
    define.boolean("fine_tune", False, "Also fine-tune each network on each target.")
    define.words("fine_tune_steps", [], "Steps: one number, or one per target. Default: 30 epochs.")
    define.string("fine_tune_flags", "", "Flags of slim.train_image_classifier, in quotes.")
    define.integer("num_workers", 1, "Trainings to run in parallel.", 1, 1000)


def main(values: flags.FlagValues) -> None:
    """Compares pre-training sources on targets."""
    check_flags(values)
    from slim.transfer.study.cells import Cells
    from slim.transfer.study.domains import find_domains, measure_distances
    from slim.transfer.study.report import collect_findings, compose_settings, write_report
    from slim.transfer.study.sources import find_sources, find_targets, fit_classifiers
    from slim.transfer.study.training import fine_tune, plan_trainings

    study = StudySettings.from_flags(values)
    sources = find_sources(values.sources, values.checkpoints, values.model_name, study=study)
    targets = find_targets(values.targets, study.dataset_dir)
    domains = find_domains(sources, targets, study) if values.similarity else None
    trainings = plan_trainings(sources, targets, study) if values.fine_tune else []

    output_dir = Path(study.output_dir)
    make_folder(output_dir, "output_dir")
    make_folder(Path(study.feature_dir), "feature_dir")
    with exclusive(output_dir):
        cells = Cells(output_dir)
        fit_classifiers(cells, sources, targets)
        if domains:
            measure_distances(cells, domains)
        for source in sources:
            source.close()  # leaves its memory to fine-tuning
        fine_tune(cells, trainings, values.num_workers)

        kinds = ("linear", "fine_tuned") if values.fine_tune else ("linear",)
        findings = collect_findings(cells, sources, targets, kinds=kinds, gamma=study.gamma)
        settings = compose_settings(sources, targets, domains, study=study)
        write_report(output_dir, findings, settings)
    print(f"\n{Path(output_dir, 'study.md').read_text()}", flush=True)
    cells.check_failures()


def check_flags(values: flags.FlagValues) -> None:
    """Checks that the flags fit together.

    Raises:
        UserError: A flag is missing or invalid.
    """
    for name in ("sources", "targets", "dataset_dir", "feature_dir", "output_dir"):
        if not values[name].value:
            raise UserError(f"--{name} is missing: {values[name].help}")
    for name in ("sources", "targets", "similarity_features", "checkpoints", "model_name"):
        check_names(name, values[name].value, distinct=name not in ("checkpoints", "model_name"))
    for source in values.sources:
        parts = source.split("+")
        check_distinct("sources", parts)
        for part in parts:
            if not part:
                raise UserError(f"--sources={source}: expected names, with '+' between them")
            new_dataset_folder(part, values.dataset_dir, "sources")  # refuses paths
    for name, per, alternative, numbers in (
        ("checkpoints", "sources", "none", (0,)),
        ("model_name", "sources", "one for all", (0, 1)),
        ("fine_tune_steps", "targets", "one for all", (0, 1)),
    ):
        given, count = len(values[name].value), len(values[per].value)
        if given not in (*numbers, count):
            raise UserError(
                f"--{name} has {given} values, --{per} has {count}: expected {alternative}, or one "
                f"per name in --{per}, in the same order"
            )
    if not all(number.isdecimal() and int(number) for number in values.fine_tune_steps):
        steps = ",".join(values.fine_tune_steps)
        raise UserError(f"--fine_tune_steps={steps}: expected positive numbers")
    for name in ("fine_tune_steps", "fine_tune_flags"):
        if values[name].value and not values.fine_tune:
            raise UserError(f"--{name} needs --fine_tune: add it, or leave --{name} out")
    if values.similarity_features and not values.similarity:
        raise UserError("--similarity_features contradicts --nosimilarity: leave one out")


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
