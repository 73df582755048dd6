"""Command lines: flags in a set of their own, parsing, and exit codes."""

import os
import sys
from collections.abc import Callable, Sequence

from absl import flags

from slim.common.errors import UserError, did_you_mean

INTERRUPTED = 130  # what a shell reports for Ctrl-C: 128 + SIGINT
NOBODY_READS = 141  # and where output goes to a process that has ended: 128 + SIGPIPE


def run_command(
    define: Callable[[flags.FlagValues], None],
    main: Callable[[flags.FlagValues], None],
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
    positional: str | None = None,
) -> None:
    """Parses a command line, runs `main` on its flags, and exits.

    Flags live in an object of their own rather than in `absl.flags.FLAGS`, so that commands can be
    imported side by side.

    Args:
        define: Adds the command's flags to an empty `FlagValues`.
        main: The command; it raises `UserError` for what the user can mend.
        argv: The command line, the program's name first. Default: `sys.argv`.
        description: The first line of `--help`.
        positional: A flag that may be given without its name, as the one word among the flags;
            where its value is a list, as all of them.

    Raises:
        SystemExit: 0 when done, 1 with one line on stderr after a `UserError` or a wrong flag,
            130 after Ctrl-C, 141 when what the output is piped to has ended.
    """
    argv = list(sys.argv if argv is None else argv)
    values = flags.FlagValues()
    define(values)
    try:
        if any(argument in ("-h", "--help", "-help", "--helpfull") for argument in argv[1:]):
            print(description or main.__doc__)
            print(values.main_module_help() or values.get_help(), flush=True)
            raise SystemExit(0)
        unused = values(argv)[1:]
        if positional and unused:
            if isinstance(values[positional].value, list):
                values[positional].value, unused = unused, []
            else:
                values[positional].value = unused.pop(0)
        if unused:
            raise UserError(f"unexpected argument '{unused[0]}': flags are given as --name=value")
        main(values)
        sys.stdout.flush()
    except BrokenPipeError:  # such as of `... | head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(NOBODY_READS) from None
    except (UserError, flags.Error) as error:
        message = " ".join(str(error).split())
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    raise SystemExit(0)


PRECISIONS = ("float32", "bfloat16", "float16")


class FlagSet:
    """Adds flags to a `FlagValues`: a method a type, each with name, default and text."""

    def __init__(self, values: flags.FlagValues) -> None:
        self._values = values

    def string(self, name: str, default: str | None, text: str) -> None:
        """A text."""
        flags.DEFINE_string(name, default, text, flag_values=self._values)

    def integer(self, name: str, default: int | None, text: str, least: int | None = None) -> None:
        """A whole number, `least` at the smallest."""
        flags.DEFINE_integer(name, default, text, flag_values=self._values, lower_bound=least)

    def real(self, name: str, default: float | None, text: str, least: float | None = None) -> None:
        """A number, `least` at the smallest."""
        flags.DEFINE_float(name, default, text, flag_values=self._values, lower_bound=least)

    def boolean(self, name: str, default: bool, text: str) -> None:
        """A switch: --name or --noname."""
        flags.DEFINE_boolean(name, default, text, flag_values=self._values)

    def words(self, name: str, default: Sequence[str], text: str) -> None:
        """Words with commas between them."""
        flags.DEFINE_list(name, list(default), text, flag_values=self._values)

    def choice(self, name: str, default: str, choices: Sequence[str], text: str) -> None:
        """One of a few words."""
        flags.DEFINE_enum(name, default, choices, text, flag_values=self._values)


def define_shared_flags(define: FlagSet, split: str, batch_size: int) -> None:
    """Adds the flags that say which data and which network.

    Args:
        define: Receives the flags.
        split: The default split.
        batch_size: The default batch size.
    """
    define.string("dataset_name", "cub_200", "The dataset: a folder in --dataset_dir.")
    define.string("dataset_split_name", split, "The split: train or validation.")
    define.string("dataset_dir", "./data/", "The folder that holds the datasets.")
    define.integer(
        "labels_offset",
        0,
        "Subtracted from every label and from the number of classes: 1 where label 0 is a "
        "background class that the network does not have.",
    )
    define.string("model_name", "inception_v3", "The network.")
    define.string("preprocessing_name", None, "inception or vgg. Default: the network's.")
    define.integer("batch_size", batch_size, "Images in a batch (of each clone).", 1)
    define.integer("num_preprocessing_threads", 4, "Images prepared side by side.", 1)
    define.string("master", "", "The address of the TensorFlow master.")
    define.real(
        "moving_average_decay", None, "Decay of the variables' moving averages. Default: none.", 0
    )


def define_speed_flags(define: FlagSet) -> None:
    """Adds the flags that say how the network is computed.

    Args:
        define: Receives the flags.
    """
    define.choice(
        "precision",
        PRECISIONS[0],
        PRECISIONS,
        "What the layers compute in; variables and results stay float32.",
    )
    define.boolean("xla", False, "Compile the network with XLA.")


def check_words(flag: str, words: Sequence[str], known: Sequence[str]) -> None:
    """Refuses words that a flag does not know, and none at all.

    Args:
        flag: Its name.
        words: What was given.
        known: What there is.

    Raises:
        UserError: Naming the flag, and the known words nearest to the first unknown one.
    """
    unknown = [word for word in words if word not in known]
    if unknown or not words:
        raise UserError(f"--{flag}={','.join(words)}: {did_you_mean(''.join(unknown[:1]), known)}")
