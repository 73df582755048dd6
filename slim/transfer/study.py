r"""Compares pre-training sources on targets (section 5 and figure 5 of the paper).

    python -m slim.transfer.study --sources=ILSVRC2012,inat2017,ILSVRC2012+inat2017 \
        --checkpoints=checkpoints/a.ckpt,checkpoints/b.ckpt,checkpoints/c.ckpt \
        --targets=cub_200,nabirds,stanford_cars

For each source and target, it extracts features, fits a linear classifier, and measures domain
similarity; with `--fine_tune`, it also trains the whole network. Results are `study.md`,
`study.png`, `similarity.png` and `study.json` in `--output_dir`. Finished steps are skipped;
interrupted ones resume.
"""

from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path

from absl import flags

from slim.checkpoints.description import PUBLISHED_MODEL, PUBLISHED_SIZE
from slim.checkpoints.finding import check_path
from slim.common.command_line import FlagSet, check_distinct, check_names, run_command
from slim.common.errors import UserError
from slim.common.files import exclusive, make_folder
from slim.datasets.registry import new_dataset_folder
from slim.transfer import GAMMA, MIN_COUNT, NORMALIZE_FEATURES


def define_flags(values: flags.FlagValues) -> None:
    define = FlagSet(values)
    text = "Datasets of the pre-trained networks; A+B is the union of A and B."
    define.words("sources", [], text)
    text = "A checkpoint or folder per source. Default: ./checkpoints/<source>."
    define.words("checkpoints", [], text)
    define.words("targets", [], "Datasets to transfer to.")
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    define.string("feature_dir", "./feature", "Features are written to <feature_dir>/<source>.")
    define.string("output_dir", "./study", "Receives the results.")
    default = "Default: from the checkpoint's model.json, otherwise"
    text = f"The network: one for all sources, or one per source. {default} {PUBLISHED_MODEL}."
    define.words("model_name", [], text)
    text = f"Height and width of the images in pixels. {default} {PUBLISHED_SIZE}."
    define.integer("image_size", None, text, 1)
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
    check_flags(values)
    from slim.train_image_classifier import define_flags as define_training_flags
    from slim.transfer import study_steps as steps
    from slim.transfer.fine_tuning import fine_tune, plan_trainings
    from slim.transfer.study_report import write_report

    # 1. Find everything that the study needs, so that errors come before the first step.
    sources, targets = steps.find_sources(values), steps.find_targets(values)
    domains = steps.find_domains(sources, targets, values) if values.similarity else None
    trainings = []
    if values.fine_tune:
        trainings = plan_trainings(sources, targets, values, define_training_flags)
    settings = {  # for study.json
        "sources": [
            {"name": source.name, "checkpoint": source.checkpoint, **asdict(source.settings)}
            for source in sources
        ],
        "targets": [
            {"name": target.name, "images": target.num_images, "list_sha256": target.hashes}
            for target in targets
        ],
        "similarity_features": [str(view.folder) for view in domains.views] if domains else None,
        "normalize_features": values.normalize_features,
        "gamma": values.gamma,
        "min_count": values.min_count,
    }
    output_dir = Path(values.output_dir)
    make_folder(output_dir, "output_dir")
    make_folder(Path(values.feature_dir), "feature_dir")

    with exclusive(output_dir):
        # 2. For each source and target a linear classifier, a distance, and a training.
        cells = steps.Cells(output_dir)
        for source, target in product(sources, targets):
            cell = steps.linear_cell(source, target)
            cells.compute(cell, partial(steps.fit_classifier, source, target))
        for names in product(values.sources, values.targets) if domains else ():
            cells.compute(domains.emd_cell(*names), partial(domains.find_distance, *names))
        for source in sources:
            source.close()  # leaves its memory to fine-tuning
        fine_tune(cells, trainings, values.num_workers)

        # 3. Does the nearer source transfer better?
        kinds = ("linear", "fine_tuned") if values.fine_tune else ("linear",)
        write_report(output_dir, cells.results, cells.failures, settings, kinds)
    print(f"\n{Path(output_dir, 'study.md').read_text()}", flush=True)
    if cells.failures:
        cell, error = next(iter(cells.failures.items()))
        failed, total = len(cells.failures), len(cells.failures) + len(cells.results)
        raise UserError(
            f"{failed} of {total} cells failed, the first is {cell}: {error}; run the command "
            f"again to retry them, the other results are kept in {output_dir}"
        )


def check_flags(values: flags.FlagValues) -> None:
    # 1. Each flag.
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
    if values.fine_tune:
        check_path(values.output_dir, "--output_dir")
        if "," in values.output_dir:
            raise UserError(
                f"--output_dir={values.output_dir}: evaluation separates networks by commas; "
                "choose a folder without one"
            )
    # 2. Flags together.
    for name, per, alternative, numbers in (
        ("checkpoints", "sources", "none", (0,)),
        ("model_name", "sources", "one for all", (0, 1)),
        ("fine_tune_steps", "targets", "one for all", (0, 1)),
    ):
        found, count = len(values[name].value), len(values[per].value)
        if found not in (*numbers, count):
            raise UserError(
                f"--{name} has {found} values, --{per} has {count}: expected {alternative}, or one "
                f"per name in --{per}, in the same order"
            )
    if not all(number.isdecimal() and int(number) for number in values.fine_tune_steps):
        steps = ",".join(values.fine_tune_steps)
        raise UserError(f"--fine_tune_steps={steps}: expected positive numbers")
    for name in ("fine_tune_steps", "fine_tune_flags"):
        if values[name].value and not values.fine_tune:
            raise UserError(f"--{name} needs --fine_tune: add it, or omit --{name}")
    if values.similarity_features and not values.similarity:
        raise UserError("--similarity_features contradicts --nosimilarity: omit one of them")


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
