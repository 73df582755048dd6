"""Evaluates an image classifier: `python -m slim.eval_image_classifier --checkpoint_path=...`.

The flags have their published meaning, except that every image counts exactly once. New flags:
`--max_number_of_evaluations`, `--num_crops`, `--central_fraction`, `--per_class`, `--precision` and
`--xla`. Several comma-separated checkpoints, networks or sizes are evaluated in turn, and then the
mean of their probabilities.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from absl import flags

from slim.common.command_line import (
    FlagSet,
    define_shared_flags,
    define_speed_flags,
    require_checkpoint,
    run_command,
)
from slim.common.errors import UserError

if TYPE_CHECKING:
    from slim.datasets.registry import Dataset
    from slim.evaluation.ensemble import EnsembleMember
    from slim.evaluation.evaluator import EvaluationSettings, Outputs
    from slim.evaluation.results import Publisher


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command, the published ones with their published defaults."""
    define = FlagSet(values)
    define_shared_flags(define, split="validation", batch_size=100)
    define.string(
        "checkpoint_path",
        None,
        "A checkpoint, or a folder to watch for new checkpoints. If this, --model_name, "
        "--eval_image_size or --central_fraction has several comma-separated values, each is "
        "evaluated in turn, and then the mean of their probabilities.",
    )
    define.string("eval_dir", None, "Receives event files and results.json. Default: none.")
    define.words(
        "eval_image_size",
        ["299"],
        "Height and width of the images in pixels; 0 for the default of the network. Default: the "
        "size of training if model.json beside the checkpoint has it, else 299.",
    )
    define.words("central_fraction", [], "Fraction of each side that is cropped. Default: 0.875.")
    define.integer("num_crops", 1, "Crops per image to average over: 1, 5, 10 or 12.")
    define.boolean(
        "per_class",
        False,
        "Also write predictions, accuracy per class and the confusion matrix to --eval_dir.",
    )
    most = 10**9
    text = "Number of batches to evaluate. Default: all."
    define.integer("max_num_batches", None, text, 1, most)
    text = "Minimum seconds between two evaluations."
    define.integer("eval_interval_secs", 60, text, 0, most)
    text = "Number of evaluations. Default: until stopped."
    define.integer("max_number_of_evaluations", None, text, 1, most)
    define.boolean("quantize", False, "Not supported by TensorFlow 2.")
    define_speed_flags(define)


def main(values: flags.FlagValues) -> None:
    """Evaluates a checkpoint, each new checkpoint of a folder, or an ensemble."""
    check_flags(values)
    from slim.datasets.registry import get_dataset, number_of_classes
    from slim.evaluation.ensemble import find_members
    from slim.evaluation.evaluator import EvaluationSettings, make_evaluator
    from slim.evaluation.results import (
        Publisher,
        checkpoints_to_evaluate,
        count_training_images,
        run_name,
    )

    members = find_members(values)
    dataset = get_dataset(values.dataset_name, values.dataset_split_name, values.dataset_dir)
    offset = values.labels_offset
    settings = EvaluationSettings(
        num_classes=number_of_classes(dataset.num_classes, offset),
        labels_offset=offset,
        batch_size=values.batch_size,
        num_crops=values.num_crops,
        num_threads=values.num_preprocessing_threads,
        max_num_batches=values.max_num_batches,
        moving_average_decay=values.moving_average_decay,
        precision=values.precision,
        xla=values.xla,
    )
    publisher = Publisher(
        dataset=dataset,
        num_classes=settings.num_classes,
        class_names=dataset.class_names and dataset.class_names[offset:],
        class_sizes=count_training_images(dataset, values.dataset_dir, offset),
        eval_dir=values.eval_dir,
        per_class=values.per_class,
    )
    if len(members) > 1:
        evaluate_mean(members, dataset, settings, publisher)
        return
    checkpoints = checkpoints_to_evaluate(
        members[0].checkpoint_path, values.eval_interval_secs, values.max_number_of_evaluations
    )
    publisher.make_folder()
    evaluator = None
    for checkpoint in checkpoints:
        # Training writes the description of the network before its first checkpoint.
        if evaluator is None:
            member = members[0].as_trained(checkpoint)
            evaluator = make_evaluator(member, dataset, settings)
            run = run_name([member], checkpoint, dataset.split_name)
        publisher.publish(*evaluator.evaluate(checkpoint), checkpoint, run)


def evaluate_mean(
    members: "Sequence[EnsembleMember]",
    dataset: "Dataset",
    settings: "EvaluationSettings",
    publisher: "Publisher",
) -> None:
    """Evaluates several networks, and the mean of their probabilities.

    Raises:
        UserError: A checkpoint does not match, or the split cannot be read.
    """
    from slim.checkpoints.finding import find_checkpoint
    from slim.evaluation.evaluator import evaluate_ensemble, make_evaluator
    from slim.evaluation.results import have_own_runs, run_name

    checkpoints = [find_checkpoint(member.checkpoint_path) for member in members]
    pairs = zip(members, checkpoints, strict=True)
    members = [member.as_trained(checkpoint) for member, checkpoint in pairs]
    publisher.make_folder()
    evaluators = [make_evaluator(member, dataset, settings) for member in members]

    def report(index: int, outputs: "Outputs", step: int) -> None:
        member, checkpoint, run = members[index], checkpoints[index], None
        if have_own_runs(members):
            run = run_name([member], checkpoint, dataset.split_name)
        publisher.report(outputs, step, f"{checkpoint}, {member}", run)

    outputs, step = evaluate_ensemble(evaluators, checkpoints, report)
    run = run_name(members, checkpoints[0], dataset.split_name)
    publisher.publish(outputs, step, f"mean of {len(members)}", run)


def check_flags(values: flags.FlagValues) -> None:
    """Checks flags before anything is built.

    Raises:
        UserError: A flag is missing or not supported.
    """
    if values.master:
        raise UserError(
            f"--master={values.master}: evaluation runs on one machine; leave the flag out"
        )
    if values.quantize:
        raise UserError("--quantize: TensorFlow 2 has no contrib quantizer; leave the flag out")
    require_checkpoint(values)
    if values.per_class and not values.eval_dir:
        raise UserError("--per_class: --eval_dir is missing, the folder to write to")


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
