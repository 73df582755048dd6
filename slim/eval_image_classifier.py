"""Evaluates an image classifier: `python -m slim.eval_image_classifier --checkpoint_path=...`.

The flags have their published meaning, except that every image counts exactly once. New flags:
`--max_number_of_evaluations`, `--stop_at_step`, `--stop_when_done`, `--keep_best`, `--num_crops`,
`--central_fraction`, `--per_class`, `--precision` and `--xla`. Several comma-separated checkpoints,
networks or sizes are evaluated in turn, and then the mean of their probabilities.
"""

import gc
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from slim.common.command_line import (
    FlagSet,
    define_shared_flags,
    define_speed_flags,
    require_checkpoint,
    run_command,
)
from slim.common.errors import UserError, warn

if TYPE_CHECKING:
    from slim.checkpoints.freezing import FrozenNetwork
    from slim.datasets.input import Dataset
    from slim.evaluation.members import Member


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
        "size of training if model.json next to the checkpoint has it, otherwise 299.",
    )
    define.words("central_fraction", [], "Fraction of each side that is cropped. Default: 0.875.")
    define.integer("num_crops", 1, "Crops per image to average over: 1, 5, 10 or 12.")
    define.boolean(
        "per_class",
        False,
        "Also write predictions, accuracy per class and the confusion matrix to --eval_dir.",
    )
    text = "Keep a copy of the checkpoint of the highest accuracy in --eval_dir/best."
    define.boolean("keep_best", False, text)
    most = 10**9
    text = "Number of batches to evaluate. Default: all."
    define.integer("max_num_batches", None, text, 1, most)
    text = "Minimum seconds between two evaluations."
    define.integer("eval_interval_secs", 60, text, 0, most)
    text = "Number of evaluations. Default: until stopped."
    define.integer("max_number_of_evaluations", None, text, 1, most)
    text = "Stop after the first checkpoint of this step or a later one."
    define.integer("stop_at_step", None, text, 0)
    define.boolean("stop_when_done", False, "Stop after the last checkpoint of complete training.")
    define.boolean("quantize", False, "Not supported by TensorFlow 2.")
    define_speed_flags(define)


def main(values: flags.FlagValues) -> None:
    """Evaluates a checkpoint, each new checkpoint of a folder, or an ensemble."""
    if values.master:
        raise UserError(f"--master={values.master}: evaluation runs on one machine; omit the flag")
    if values.quantize:
        raise UserError("--quantize: TensorFlow 2 has no contrib quantizer; omit the flag")
    require_checkpoint(values)
    for flag in ("per_class", "keep_best"):
        if values[flag].value and not values.eval_dir:
            raise UserError(f"--{flag}: --eval_dir is missing, the folder to write to")

    # TensorFlow takes seconds to load. --help and the errors above do not wait for it.
    from slim.checkpoints.description import trained_size
    from slim.checkpoints.finding import find_checkpoint
    from slim.checkpoints.freezing import freeze_checkpoint
    from slim.checkpoints.reading import MissingCheckpointError, choose_averages, read_step
    from slim.common.compat import tf
    from slim.datasets.input import get_dataset
    from slim.evaluation.candidates import Candidate
    from slim.evaluation.members import build_member, list_members
    from slim.evaluation.predictions import Predictions
    from slim.evaluation.publishing import Publisher, run_name
    from slim.evaluation.ranking import rank

    # 1. What to evaluate: one network or several, on the images of a split.
    members = list_members(values)
    ensemble = len(members) > 1
    if ensemble and values.keep_best:
        raise UserError("--keep_best: several networks have no best checkpoint; omit the flag")
    dataset = get_dataset(values.dataset_name, values.dataset_split_name, values.dataset_dir)
    predicted = partial(Predictions, **describe_images(values, dataset))

    # 2. The checkpoints, in rounds: for a single network a round per new checkpoint, for an
    # ensemble one round with a checkpoint of each network.
    if ensemble:
        rounds = [[find_checkpoint(member.checkpoint_path) for member in members]]
    else:
        path, limit = members[0].checkpoint_path, values.max_number_of_evaluations
        interval, until_done = values.eval_interval_secs, values.stop_when_done
        single = checkpoints_to_evaluate(path, interval, wait=limit is None, until_done=until_done)
        rounds = ([checkpoint] for checkpoint in single)
    publisher = Publisher(values.eval_dir, dataset, per_class=values.per_class)

    graphs, evaluations = [], 0
    for checkpoints in rounds:
        # 3. Build the networks, once, as soon as there is a checkpoint: training writes model.json,
        # which names the network, its preprocessing and image size, just before its first one.
        if not graphs:
            built = [
                build_member(values, member, checkpoint, dataset)
                for member, checkpoint in zip(members, checkpoints, strict=True)
            ]
            members, graphs = zip(*built, strict=True)

        # 4. Read all checkpoints of the round before the first evaluation, which may take hours:
        # one that does not match is refused at once. Training deletes old checkpoints, in fast
        # runs before they are read here; then a newer one follows.
        decay, networks, candidate = values.moving_average_decay, [], None
        try:
            for graph, checkpoint in zip(graphs, checkpoints, strict=True):
                averages = choose_averages(checkpoint, decay, default=False)
                if values.keep_best:
                    candidate = Candidate(checkpoint, averages=averages)
                network = freeze_checkpoint(
                    graph,
                    checkpoint,
                    averages=averages,
                    hint="does it match --model_name?",
                    shape_hint="does it match --model_name, and the classes of --dataset_name (see "
                    "--labels_offset)?",
                )
                networks.append(network)
            steps = [read_step(checkpoint) for checkpoint in checkpoints]
        except MissingCheckpointError as error:
            if ensemble or not Path(path).is_dir():
                raise
            print(f"note: {error}", file=sys.stderr)
            continue

        # 5. Evaluate each network. Those of an ensemble are reported by themselves, and need image
        # sizes of their own to be told apart in TensorBoard.
        sizes, mean, log_sum = [member.image_size for member in members], 0.0, -np.inf
        kind = dataset.split_name, properties(values, members)
        for member, network, checkpoint, step in zip(
            members, networks, checkpoints, steps, strict=True
        ):
            found, probabilities = run_network(
                values, network, member, dataset, name=f"step {step}", all_classes=ensemble
            )
            # Graphs refer to themselves: without this the graphs of several checkpoints pile up.
            gc.collect()
            predictions, name = predicted(step, **found), checkpoint
            run = run_name([member.image_size], trained_size(checkpoint), *kind)
            if ensemble:
                mean += probabilities / len(members)
                log_sum = np.logaddexp(log_sum, -found["losses"])
                name += f", {member.image_size} pixels"
                if member.central_fraction is not None:
                    name += f", central {member.central_fraction:g}"
                publisher.report(predictions, name, run if len(set(sizes)) == len(sizes) else None)

        # 6. The mean of the probabilities, which may exceed the 2 GB of a graph: ranked eagerly.
        if ensemble:
            with tf.device("/device:CPU:0"):
                ranked = rank(mean, found["labels"])
            found |= {name: tensor.numpy() for name, tensor in ranked.items()}
            found["losses"] = np.log(len(members)) - log_sum
            predictions = predicted(max(steps), **found)
            name = f"mean of {len(members)}"
            run = run_name(sizes, trained_size(checkpoints[0]), *kind)

        # 7. The line, the event file, results.json, and the predictions.
        publisher.report(predictions, name, run)
        publisher.save(predictions, name, run, candidate)
        evaluations += 1
        reached = values.stop_at_step is not None and max(steps) >= values.stop_at_step
        if reached or evaluations == values.max_number_of_evaluations:
            break


def describe_images(values: flags.FlagValues, dataset: "Dataset") -> dict[str, Any]:
    """Returns what is known for `Predictions` of the classes and images of a split."""
    from slim.checkpoints.description import shift_names
    from slim.datasets.input import images_per_class, number_of_classes
    from slim.datasets.registry import dataset_folder, find_entries
    from slim.datasets.tfrecord import LISTS

    offset, names = values.labels_offset, dataset.class_names
    num_classes = number_of_classes(dataset.num_classes, offset)
    folder = dataset_folder(dataset.name, values.dataset_dir)
    entries = find_entries(folder, dataset.split_name)
    if values.per_class and not entries:
        warn(
            f"{folder} does not tell which images its shards have, because another program wrote "
            f"them or {LISTS[dataset.split_name]} has gone: results are without their names"
        )
    return {
        "num_classes": num_classes,
        "class_names": names and shift_names(names, offset),
        "class_sizes": images_per_class(folder, "train", num_classes, offset),
        "entries": entries,
    }


def properties(values: flags.FlagValues, members: "Sequence[Member]") -> list[str]:
    """Names how an evaluation differs from the published one, apart from size and split."""
    fractions = {member.central_fraction for member in members} - {None}
    return [
        *[f"{values.num_crops}_crops"] * (values.num_crops > 1),
        *[f"central_{fraction:g}" for fraction in fractions if len(fractions) == 1],
        *["part"] * bool(values.max_num_batches),
    ]


def checkpoints_to_evaluate(
    path: str, interval_secs: int, *, wait: bool, until_done: bool = False
) -> Iterator[str]:
    """Returns a checkpoint, or each of a folder, which with `wait` may be empty or missing."""
    from slim.checkpoints.finding import find_checkpoint, latest_checkpoint, new_checkpoints

    folder = Path(path)
    to_come = wait and not (folder.exists() or ".ckpt" in folder.name)
    if not (folder.is_dir() or to_come):
        return iter([find_checkpoint(path)])
    if latest_checkpoint(path) is None:
        if not wait:
            find_checkpoint(path)  # says what is missing
        missing = ", which does not exist yet" if to_come else ""
        print(f"waiting for a first checkpoint in {path}{missing}", flush=True)
    return new_checkpoints(path, interval_secs, until_done=until_done)


def run_network(
    values: flags.FlagValues,
    network: "FrozenNetwork",
    member: "Member",
    dataset: "Dataset",
    *,
    name: str,
    all_classes: bool,
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Returns arrays of `Predictions` of a split, and on request gigabytes of all probabilities."""
    from slim.common.compat import tf
    from slim.common.devices import session_config
    from slim.datasets.input import InputSettings, evaluation_batches
    from slim.evaluation.ranking import average_views, rank_batch, run_batches
    from slim.preprocessing.preprocessing_factory import get_views

    preprocess = get_views(member.preprocessing_name, values.num_crops, member.central_fraction)
    settings = InputSettings(
        image_size=member.image_size,
        batch_size=max(1, values.batch_size // values.num_crops),
        num_classes=dataset.num_classes - values.labels_offset,
        labels_offset=values.labels_offset,
        num_threads=values.num_preprocessing_threads,
    )
    num_images = dataset.num_samples
    with tf.Graph().as_default(), tf.Session(config=session_config()) as session:
        # 1. The images of the split, each with several views if there are several crops.
        batches = evaluation_batches(dataset, preprocess, settings)
        if limit := values.max_num_batches:
            batches = batches.take(limit)
            num_images = min(num_images, limit * settings.batch_size)
        iterator = tf.data.make_initializable_iterator(batches)
        session.run(iterator.initializer)
        views, labels = iterator.get_next()  # [batch, num_crops, height, width, 3]
        # 2. The network takes views as if they were images; their probabilities are averaged.
        logits = network(tf.reshape(views, [-1, *views.shape[2:]]), xla=values.xla)
        logits = average_views(logits, values.num_crops)
        outputs = rank_batch(logits, labels, all_classes=all_classes)
        found = run_batches(session, outputs, name, num_images)
    if (number := len(found["labels"])) != num_images:
        warn(
            f"the shards of {dataset.name} have {number} {dataset.split_name} images, expected "
            f"{num_images}: the results are those of {number} images"
        )
    probabilities = found.pop("all", None)
    return found, probabilities


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
