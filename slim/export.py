"""Exports a checkpoint: `python -m slim.export --checkpoint_path=...`.

A SavedModel includes preprocessing: it maps encoded images to probabilities, class names and
features. Using it requires TensorFlow, but no code of this project. With --format=keras or tflite,
the checkpoint becomes a model of Keras Applications or TensorFlow Lite, which maps ready images to
probabilities.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.common.command_line import FlagSet, require_checkpoint, run_command
from slim.common.errors import UserError
from slim.serving.classifier_flags import (
    classifier_flags,
    define_classifier_flags,
    describing_flags,
)

SAVED_MODEL, KERAS, TFLITE = "saved_model", "keras", "tflite"


def define_flags(values: flags.FlagValues) -> None:
    define = FlagSet(values)
    define_classifier_flags(define)
    define.string(
        "output_dir",
        None,
        "The folder to write, or the .keras or .tflite file. Default: export/<step> next to the "
        "checkpoint, or export/<name>/<step> if its name is not model.ckpt.",
    )
    text = "Classes that the signature top_k of a SavedModel returns, or all if it has fewer."
    define.integer("top_k", 5, text, 1)
    define.boolean("overwrite", False, "Replace an existing export.")
    define.choice("format", SAVED_MODEL, [SAVED_MODEL, KERAS, TFLITE], "What to write.")
    define.boolean("float16", False, "Store the weights of --format=tflite in 16 bits.")


def main(values: flags.FlagValues) -> None:
    """Exports a checkpoint."""
    require_checkpoint(values)
    from slim.checkpoints.choosing import describe_classifier
    from slim.checkpoints.finding import check_path, find_checkpoint
    from slim.checkpoints.reading import choose_averages
    from slim.serving import model_files, saved_model
    from slim.serving.classifier import load_classifier, load_network

    # 1. Options that do not go together, and a place that is taken, before anything is loaded.
    if values.float16 and values.format != TFLITE:
        raise UserError(f"--float16: only for --format={TFLITE}")
    for flag in (values["num_crops"], values["top_k"]):
        if flag.present and values.format != SAVED_MODEL:
            raise UserError(
                f"--{flag.name}={flag.value}: only for --format={SAVED_MODEL}, the others map "
                "ready images to all probabilities"
            )
    check_path(values.output_dir or "", "--output_dir")
    checkpoint = find_checkpoint(values.checkpoint_path)
    suffix = "" if values.format == SAVED_MODEL else f".{values.format}"
    path = Path(values.output_dir or f"{saved_model.default_folder(checkpoint)}{suffix}")

    # 2. A SavedModel: the classifier of `slim.classify` with its preprocessing.
    if values.format == SAVED_MODEL:
        saved_model.check_folder(path, values.overwrite)
        with (
            load_classifier(**{**classifier_flags(values), "checkpoint_path": checkpoint}) as model,
            saved_model.replacing_folder(path, values.overwrite) as temporary,
        ):
            description, top_k = model.description, min(values.top_k, len(model.class_names))
            json_sizes = saved_model.save(model.outputs, description, temporary, top_k)
        summary = saved_model.compose_summary(
            path,
            checkpoint,
            description,
            num_crops=values.num_crops,
            top_k=top_k,
            json_sizes=json_sizes,
        )
        print(summary, flush=True)
        return

    # 3. A file for another library: the network alone.
    model_files.check_file(path, suffix, values.overwrite)
    description = describe_classifier(checkpoint, **describing_flags(values))
    if values.format == KERAS:
        averages = choose_averages(checkpoint, values.moving_average_decay)
        model_files.save_keras(checkpoint, description, path, averages)
    else:
        network = load_network(checkpoint, description, values.moving_average_decay)
        model_files.save_tflite(
            network, description, path, checkpoint=checkpoint, float16=values.float16
        )


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
