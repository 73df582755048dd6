"""Exports a checkpoint: `python -m slim.export --checkpoint_path=...`.

A SavedModel includes preprocessing: it maps encoded images to probabilities, class names and
features. Using it requires TensorFlow, but no code of this project. With --format=keras, tflite or
timm, the checkpoint becomes a model of Keras Applications, TensorFlow Lite or PyTorch Image Models,
which maps ready images to probabilities or logits.
"""

from functools import partial
from pathlib import Path
from types import ModuleType

from absl import flags

from slim.common.command_line import FlagSet, require_checkpoint, run_command
from slim.common.errors import UserError
from slim.serving.flags import classifier_flags, define_classifier_flags, describing_flags

SAVED_MODEL, KERAS, TFLITE, TIMM = "saved_model", "keras", "tflite", "timm"


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command."""
    define = FlagSet(values)
    define_classifier_flags(define)
    define.string(
        "output_dir",
        None,
        "The folder to write, or the .keras, .tflite or .safetensors file. Default: export/<step> "
        "beside the checkpoint, or export/<name>/<step> if its name is not model.ckpt.",
    )
    define.boolean("overwrite", False, "Replace an existing export.")
    define.choice("format", SAVED_MODEL, list(FORMATS), "What to write.")
    define.boolean("float16", False, "Store the weights of --format=tflite in 16 bits.")


def main(values: flags.FlagValues) -> None:
    """Exports a checkpoint."""
    require_checkpoint(values)
    from slim.checkpoints.reading import find_checkpoint

    if values.float16 and values.format != TFLITE:
        raise UserError(f"--float16: only for --format={TFLITE}")
    if values.num_crops != 1 and values.format != SAVED_MODEL:
        raise UserError(
            f"--num_crops={values.num_crops}: only for --format={SAVED_MODEL}, the others expect "
            "ready images"
        )
    FORMATS[values.format](values, find_checkpoint(values.checkpoint_path))


def export_saved_model(values: flags.FlagValues, checkpoint: str) -> None:
    """Exports a checkpoint as a SavedModel that includes preprocessing."""
    from slim.serving.classifier import load_classifier
    from slim.serving.export import (
        check_folder,
        compose_summary,
        default_folder,
        replacing_folder,
        save,
    )

    folder = Path(values.output_dir or default_folder(checkpoint))
    check_folder(folder, values.overwrite)
    given = {**classifier_flags(values), "checkpoint_path": checkpoint}
    with load_classifier(**given) as model, replacing_folder(folder, values.overwrite) as temporary:
        save(model.outputs, model.class_names, temporary)
    print(compose_summary(folder, checkpoint, model.description, values.num_crops), flush=True)


def export_weights(exporter: ModuleType, values: flags.FlagValues, checkpoint: str) -> None:
    """Exports a checkpoint as a model of another library."""
    from slim.checkpoints.loading import choose_averages
    from slim.serving.description import describe_classifier
    from slim.serving.export import default_folder
    from slim.serving.export_file import check_file

    path = Path(values.output_dir or f"{default_folder(checkpoint)}{exporter.SUFFIX}")
    check_file(path, exporter.SUFFIX, values.overwrite)
    description = describe_classifier(checkpoint, **describing_flags(values))
    averages = choose_averages(checkpoint, values.moving_average_decay)
    exporter.save(checkpoint, description, path, averages)
    print(exporter.compose_summary(path, checkpoint, description), flush=True)


def export_keras(values: flags.FlagValues, checkpoint: str) -> None:
    """Exports a checkpoint as a model of Keras Applications."""
    from slim.serving import keras_export

    export_weights(keras_export, values, checkpoint)


def export_timm(values: flags.FlagValues, checkpoint: str) -> None:
    """Exports a checkpoint as weights of a model of PyTorch Image Models."""
    from slim.serving import timm_export

    export_weights(timm_export, values, checkpoint)


def export_tflite(values: flags.FlagValues, checkpoint: str) -> None:
    """Exports a checkpoint for TensorFlow Lite."""
    from slim.serving import tflite_export
    from slim.serving.classifier import load_network
    from slim.serving.description import describe_classifier
    from slim.serving.export import default_folder
    from slim.serving.export_file import check_file, writing_file

    path = Path(values.output_dir or f"{default_folder(checkpoint)}{tflite_export.SUFFIX}")
    check_file(path, tflite_export.SUFFIX, values.overwrite)
    description = describe_classifier(checkpoint, **describing_flags(values))
    network = load_network(checkpoint, description, values.moving_average_decay)
    content = tflite_export.convert(network, description.image_size)
    difference = None
    if values.float16:
        smaller = tflite_export.convert(network, description.image_size, float16=True)
        difference = tflite_export.compare_accuracy(
            content, smaller, description, values.dataset_dir
        )
        content = smaller
    with writing_file(path, description.class_names) as temporary:
        temporary.write_bytes(content)
    print(tflite_export.compose_summary(path, checkpoint, description), flush=True)
    if difference:
        print(difference, flush=True)


FORMATS = {
    SAVED_MODEL: export_saved_model,
    KERAS: export_keras,
    TFLITE: export_tflite,
    TIMM: export_timm,
}
command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
