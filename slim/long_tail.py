"""Accuracy by how many training images a class has: the tail, the middle and the head.

    python -m slim.long_tail BEFORE.npz AFTER.npz --group_bounds=20,100 --plot=long_tail.png

compares what `python -m slim.eval_image_classifier --per_class --eval_dir=...` wrote of the same
images, such as before and after fine-tuning on a balanced subset. A folder stands for the file of
the highest step in it.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from absl import flags
from matplotlib.figure import Figure

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError
from slim.common.files import replacing
from slim.evaluation.long_tail import GROUP_BOUNDS, group_table, load_comparable, plot_groups


def parse_bounds(words: Sequence[str]) -> tuple[int, int]:
    """The two numbers of --group_bounds.

    Raises:
        UserError: They are not two numbers, or the second is smaller.
    """
    numbers = [int(word) for word in words if word.strip().isdecimal()]
    if len(words) != 2 or len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        raise UserError(
            f"--group_bounds={','.join(words)}: expected two numbers, the smaller first, such as "
            f"{','.join(map(str, GROUP_BOUNDS))}: the tail has fewer training images than the "
            "first, the head more than the second"
        )
    return numbers[0], numbers[1]


def column_names(given: Sequence[str], count: int) -> list[str]:
    """The names given, else `accuracy` of one file, `before` and `after` of more.

    Raises:
        UserError: There are not as many as files.
    """
    if not given:
        after = ["after"] if count == 2 else [f"after {index}" for index in range(1, count)]
        return ["before", *after] if count > 1 else ["accuracy"]
    if len(given) != count:
        raise UserError(f"--names={','.join(given)}: expected {count}, one for each file")
    return list(given)


def write_plot(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; give --plot=FILE.png") from error


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.words("files", [], "predictions-<step>.npz, or folders; their names alone will do.")
    define.words(
        "group_bounds",
        [str(bound) for bound in GROUP_BOUNDS],
        "The tail's classes have fewer training images than the first, the head's more than the "
        "second.",
    )
    define.words("names", [], "Names of the files, for the columns. Default: before, after.")
    define.string(
        "plot", None, "The picture, PNG. Default: long_tail-<step>.png beside the last file."
    )


def main(values: flags.FlagValues) -> None:
    """Prints a table of accuracy by class size, and plots it."""
    if not values.files:
        raise UserError(
            "FILE is missing: python -m slim.long_tail BEFORE.npz AFTER.npz, files that evaluation "
            "with --per_class writes to --eval_dir, or such folders"
        )
    bounds = parse_bounds(values.group_bounds)
    names = column_names(values.names, len(values.files))
    files, predictions = load_comparable(values.files)
    print(f"{group_table(predictions, names, bounds)}\n")
    plot = Path(values.plot or files[-1].with_name(f"long_tail-{predictions[-1].step}.png"))
    write_plot(plot_groups(predictions, names, bounds), plot)
    print(f"plot: {plot}")


command = partial(run_command, define_flags, main, description=__doc__, positional="files")

if __name__ == "__main__":
    command()
