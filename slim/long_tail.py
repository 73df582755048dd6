"""Compares the accuracy of classes with few and with many training images.

    python -m slim.long_tail BEFORE.npz AFTER.npz --group_bounds=20,100 --plot=long_tail.png

reads files that `python -m slim.eval_image_classifier --per_class --eval_dir=...` wrote for the
same images, for example before and after fine-tuning on a balanced subset. A folder stands for its
file of the highest step.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.common.command_line import FlagSet, python_command, run_command
from slim.common.errors import UserError


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command."""
    define = FlagSet(values)
    define.words("files", [], "predictions-<step>.npz files or folders; the flag name is optional.")
    define.words(
        "group_bounds",
        ["20", "100"],  # as in Liu et al., Large-Scale Long-Tailed Recognition, CVPR 2019
        "Classes of the tail have fewer training images than the first, of the head more than the "
        "second.",
    )
    define.words("names", [], "Column names, one per file. Default: before, after.")
    define.string(
        "plot", None, "The plot (PNG). Default: long_tail-<step>.png beside the last file."
    )


def main(values: flags.FlagValues) -> None:
    """Prints a table of accuracy by class size, and plots it."""
    if not values.files:
        raise UserError(
            f"FILE is missing: {python_command()} -m slim.long_tail BEFORE.npz AFTER.npz, with "
            "files that evaluation with --per_class writes to --eval_dir, or such folders"
        )
    from slim.common.figures import save_figure
    from slim.evaluation.long_tail import (
        column_names,
        group_table,
        load_comparable,
        parse_bounds,
        plot_groups,
    )

    bounds = parse_bounds(values.group_bounds)
    names = column_names(values.names, len(values.files))
    files, predictions = load_comparable(values.files)
    print(f"{group_table(predictions, names, bounds)}\n")
    plot = Path(values.plot or files[-1].with_name(f"long_tail-{predictions[-1].step}.png"))
    save_figure(plot_groups(predictions, names, bounds), plot)
    print(f"plot: {plot}")


command = partial(run_command, define_flags, main, description=__doc__, positional="files")

if __name__ == "__main__":
    command()
