"""Evaluates an image classifier: `python -m slim.eval_image_classifier --checkpoint_path=...`.

The flags, and what they mean, are those of the published script, except that every image counts
exactly once. New are `--max_number_of_evaluations`, `--num_crops`, `--central_fraction`,
`--per_class`, `--precision`, `--xla`, and several checkpoints, networks or sizes with commas
between them, whose probabilities are averaged.
"""

from collections.abc import Sequence
from functools import partial

from absl import flags

from slim.common.command_line import FlagSet, define_shared_flags, define_speed_flags, run_command
from slim.common.errors import UserError
from slim.datasets.registry import get_dataset, number_of_classes
from slim.evaluation.evaluator import (
    EnsembleMember,
    Outputs,
    evaluate_together,
    make_evaluator,
    report,
)
from slim.evaluation.predictions import Predictions
from slim.evaluation.results import checkpoints_to_evaluate, count_training_images, write_results
from slim.nets.nets_factory import check_image_size


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags, the published ones with their published defaults."""
    define = FlagSet(values)
    define_shared_flags(define, split="validation", batch_size=100)
    define.string(
        "checkpoint_path",
        None,
        "A checkpoint, or a folder to watch for new ones. Where this, --model_name, "
        "--eval_image_size or --central_fraction has several, with commas between them, each is "
        "evaluated once, and then the mean of their probabilities.",
    )
    define.string("eval_dir", None, "Where event files are written. Default: nowhere.")
    define.words("eval_image_size", ["299"], "Height and width of the images in pixels.")
    define.words("central_fraction", [], "The part of each side that a crop has. Default: 0.875.")
    define.integer("num_crops", 1, "Crops of an image to average over: 1, 5, 10 or 12.")
    define.boolean(
        "per_class",
        False,
        "Write predictions, accuracies by class and the confusion matrix to --eval_dir, too.",
    )
    define.integer("max_num_batches", None, "Batches to evaluate. Default: all.", 1)
    define.integer("eval_interval_secs", 60, "Seconds between two evaluations.", 0)
    define.integer(
        "max_number_of_evaluations", None, "Evaluations to end after. Default: go on watching.", 1
    )
    define.boolean("quantize", False, "Evaluate a quantized network.")
    define_speed_flags(define)


def main(values: flags.FlagValues) -> None:
    """Evaluates a checkpoint, each new checkpoint of a folder, or several checkpoints together."""
    check_flags(values)
    views = find_members(values)
    dataset = get_dataset(values.dataset_name, values.dataset_split_name, values.dataset_dir)
    evaluators = [make_evaluator(view, dataset, values) for view in views]
    describe = partial(
        Predictions,
        num_classes=number_of_classes(dataset.num_classes, values.labels_offset),
        class_names=dataset.class_names and dataset.class_names[values.labels_offset :],
        class_sizes=count_training_images(dataset, values.dataset_dir, values.labels_offset),
    )

    def publish(outputs: Outputs, step: int, what: str) -> None:
        predictions = describe(step, outputs.labels, outputs.top, outputs.of_top)
        report(predictions, what)
        if values.eval_dir:
            write_results(values.eval_dir, predictions, values.per_class)

    if len(views) > 1:
        outputs, step = evaluate_together(evaluators, describe)
        publish(outputs, step, f"mean of {len(views)}")
        return
    for checkpoint in checkpoints_to_evaluate(
        views[0].checkpoint_path, values.eval_interval_secs, values.max_number_of_evaluations
    ):
        publish(*evaluators[0].evaluate(checkpoint), checkpoint)


def check_flags(values: flags.FlagValues) -> None:
    """Refuses what cannot work before anything is built.

    Raises:
        UserError: Naming the flag.
    """
    if values.master:
        raise UserError(
            f"--master={values.master}: evaluation runs on one machine; leave the flag out"
        )
    if values.quantize:
        raise UserError("--quantize: TensorFlow 2 has no contrib quantizer; leave the flag out")
    if not values.checkpoint_path:
        raise UserError(
            "--checkpoint_path is missing: a checkpoint, or the folder that training writes them "
            "to, such as --checkpoint_path=./checkpoints/cub_200"
        )
    if values.per_class and not values.eval_dir:
        raise UserError("--per_class: --eval_dir is missing, the folder that it writes to")


def find_members(values: flags.FlagValues) -> list[EnsembleMember]:
    """The networks to evaluate: flags with one value hold for all.

    Raises:
        UserError: A flag has neither one value nor as many as there are networks, or a bad one.
    """
    given = {
        "checkpoint_path": values.checkpoint_path.split(","),
        "model_name": values.model_name.split(","),
        "preprocessing_name": (values.preprocessing_name or values.model_name).split(","),
        "eval_image_size": _numbers("eval_image_size", values.eval_image_size, int, "pixels"),
        "central_fraction": _numbers(
            "central_fraction", values.central_fraction, float, "0.875, a part of each side"
        )
        or [None],
    }
    longest = max(given, key=lambda flag: len(given[flag]))
    count = len(given[longest])
    for flag, found in given.items():
        if len(found) not in (1, count):
            raise UserError(
                f"--{flag} has {len(found)} values and --{longest} has {count}: expected one, or "
                "one each"
            )
    views = [EnsembleMember(*(v[i % len(v)] for v in given.values())) for i in range(count)]
    for view in views:
        check_image_size(view.model_name, view.image_size, view.image_size)
    return views


def _numbers(flag: str, words: Sequence[str], kind: type, expected: str) -> list:
    try:
        return [kind(word) for word in words]
    except ValueError:
        raise UserError(f"--{flag}={','.join(words)}: expected {expected}") from None


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
