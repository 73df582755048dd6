"""Exports a checkpoint as a SavedModel: `python -m slim.export --checkpoint_path=...`.

The SavedModel includes preprocessing: it maps encoded images to probabilities, class names and
features. Using it requires TensorFlow, but no code of this project.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.common.command_line import FlagSet, require_checkpoint, run_command
from slim.serving.flags import classifier_flags, define_classifier_flags


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command."""
    define = FlagSet(values)
    define_classifier_flags(define)
    define.string(
        "output_dir",
        None,
        "The folder to write. Default: export/<step> beside the checkpoint, or "
        "export/<name>/<step> if the checkpoint is not called model.ckpt.",
    )
    define.boolean("overwrite", False, "Replace an existing SavedModel.")


def main(values: flags.FlagValues) -> None:
    """Exports a checkpoint as a SavedModel that includes preprocessing."""
    require_checkpoint(values)
    from slim.checkpoints.reading import find_checkpoint
    from slim.serving.classifier import load_classifier
    from slim.serving.export import (
        check_folder,
        compose_summary,
        default_folder,
        replacing_folder,
        save,
    )

    checkpoint = find_checkpoint(values.checkpoint_path)
    folder = Path(values.output_dir or default_folder(checkpoint))
    given = {**classifier_flags(values), "checkpoint_path": checkpoint}
    check_folder(folder, values.overwrite)
    with load_classifier(**given) as model, replacing_folder(folder, values.overwrite) as temporary:
        save(model.outputs, model.class_names, temporary)
    print(compose_summary(folder, checkpoint, model.description, values.num_crops), flush=True)


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
