"""Command lines: flags, `--help`, and exit codes. Nothing here loads TensorFlow."""

import codecs
import errno
import math
import operator
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path

from absl import flags

from slim.common.errors import UserError, did_you_mean
from slim.common.files import check_local

INTERRUPTED = 130  # 128 + SIGINT, which a shell reports for Ctrl-C
BROKEN_PIPE = 141  # 128 + SIGPIPE
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ADDRESSES = ("address", "mirror", "master", "ray_address")  # flags that are not local paths
COMMAND = "SLIM_COMMAND"  # a variable of the environment of commands and of their workers
PRECISIONS = ("float32", "bfloat16", "float16")
COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


def run_command(
    define: Callable[[flags.FlagValues], None],
    main: Callable[[flags.FlagValues], None],
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
    positional: str | None = None,
) -> None:
    """Parses a command line, runs `main` with its flags, and exits.

    The exit code is 0 on success, 1 after a `UserError` or an invalid flag, 130 after Ctrl-C, and
    141 if the process that reads the output has ended.

    Args:
        define: Adds the flags of the command.
        main: The command.
        argv: The command line, starting with the name of the program. Default: `sys.argv`.
        description: The text above the flags in `--help`.
        positional: A flag whose name may be omitted. It takes one argument, or all arguments if
            its value is a list.
    """
    argv = list(sys.argv if argv is None else argv)
    if isinstance(sys.stdout, TextIOWrapper):  # notebooks have another one
        codecs.register_error("slim", _encode_character)
        sys.stdout.reconfigure(errors="slim")
    # Not `absl.flags.FLAGS`: one process can import several commands.
    values = flags.FlagValues()
    define(values)
    try:
        if any(argument in ("-h", "--help", "-help", "--helpfull") for argument in argv[1:]):
            print(description or main.__doc__)
            values.flags_by_module_dict().clear()  # one list, not one per module that defines flags
            print(values.get_help(include_special_flags=False), flush=True)
            raise SystemExit(0)
        unused = values(argv)[1:]
        if positional and isinstance(values[positional].value, list):
            values[positional].value, unused = values[positional].value + unused, []
        elif positional and unused and not values[positional].present:
            values[positional].value = unused.pop(0)
        if unused:
            raise UserError(f"unexpected argument '{unused[0]}': pass flags as --name=value")
        for name in values:
            value = () if name in ADDRESSES else values[name].value
            for word in value if isinstance(value, (list, tuple)) else [value]:
                check_local(str(word), f"--{name}")
        set_environment()
        main(values)
        sys.stdout.flush()
    except BrokenPipeError:  # as in `... | head`
        _discard_output()
        raise SystemExit(BROKEN_PIPE) from None
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print(
            f"error: cannot write {error.filename or 'the output'}: {error.strerror}; free some "
            "space, then run the command again",
            file=sys.stderr,
        )
        _discard_output()
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        needs = "figures need Matplotlib; run 'pip install -r requirements-notebooks.txt'"
        print(f"error: {needs}", file=sys.stderr)
        raise SystemExit(1) from None
    except (UserError, flags.Error) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    raise SystemExit(0)


def set_environment() -> None:
    """Sets what TensorFlow reads when a command loads it; workers inherit the variables."""
    os.environ[COMMAND] = "1"
    # On a machine without a GPU, TensorFlow logs an irrelevant error about CUDA.
    has_gpu = Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1" if has_gpu else "3")
    # TensorFlow takes the whole memory of a GPU when it first uses it, unless told otherwise. The
    # options of a session come too late, because tf.data uses the GPU before there is a session.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def _encode_character(error: UnicodeError) -> tuple[str | bytes, int]:
    """Keeps a byte of a file name that is not UTF-8; escapes other characters that are lacking."""
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return ascii(character)[1:-1], error.start + 1


def _discard_output() -> None:
    # Python would report once more at its end that it cannot write the output.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def python_command() -> str:
    """Returns the shortest command that runs this interpreter here, quoted for the shell."""
    executable = Path(sys.executable or "python")
    found = shutil.which("python")
    if found and Path(found) == executable:
        return "python"
    folder = Path.cwd()
    inside = executable.is_relative_to(folder)
    return shlex.quote(str(executable.relative_to(folder) if inside else executable))


class FlagSet:
    """The functions of absl that define a flag, for one `FlagValues`."""

    def __init__(self, values: flags.FlagValues) -> None:
        self._values = values
        self.string = partial(flags.DEFINE_string, flag_values=values)
        self.integer = partial(flags.DEFINE_integer, flag_values=values)  # with bounds, if any
        self.boolean = partial(flags.DEFINE_boolean, flag_values=values)
        self.choice = partial(flags.DEFINE_enum, flag_values=values)

    def words(self, name: str, default: Sequence[str], text: str) -> None:
        """Adds a list of words that are separated by commas."""
        flags.DEFINE_list(name, list(default), text, flag_values=self._values)

    def real(
        self,
        name: str,
        default: float | None,
        text: str,
        least: float | None = None,
        *,
        most: float | None = None,
        above: float | None = None,
        below: float | None = None,
    ) -> None:
        """Adds a finite number; `least` and `most` are allowed values, `above` and `below` not."""
        bounds = {">=": least, ">": above, "<=": most, "<": below}
        bounds = {sign: bound for sign, bound in bounds.items() if bound is not None}
        flags.DEFINE_float(name, default, text, flag_values=self._values)

        def is_allowed(value: float | None) -> bool:
            # The bounds of absl allow NaN.
            return value is None or (
                math.isfinite(value)
                and all(COMPARE[sign](value, bound) for sign, bound in bounds.items())
            )

        expected = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items())
        message = f"expected a finite number {expected}".rstrip()
        flags.register_validator(name, is_allowed, message, flag_values=self._values)


def define_shared_flags(define: FlagSet, split: str, batch_size: int) -> None:
    """Adds the flags that training and evaluation share; `split` and `batch_size` are defaults."""
    define.string("dataset_name", "cub_200", "The dataset, a folder in --dataset_dir.")
    define.string("dataset_split_name", split, "The split: train or validation.")
    define.string("dataset_dir", "./data/", "The folder that holds the datasets.")
    define.integer(
        "labels_offset",
        0,
        "Subtracted from every label and from the number of classes. Use 1 if label 0 is a "
        "background class that the network does not have, -1 if only the network has one.",
    )
    define_renamed_flag(define)
    define.string("model_name", "inception_v3", "The network.")
    text = "inception or vgg. Default: the preprocessing of the network."
    define.string("preprocessing_name", None, text)
    define.integer("batch_size", batch_size, "Images per batch and clone.", 1, 100_000)
    define_threads_flag(define)
    define.string("master", "", "The address of the TensorFlow master.")
    text = "Decay of the variables' moving averages. Default: none."
    define.real("moving_average_decay", None, text, 0, most=1)


def available_cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def define_threads_flag(define: FlagSet) -> None:
    text = "Images preprocessed in parallel. Default: one per core."
    define.integer("num_preprocessing_threads", None, text, 1, 1000)


def define_renamed_flag(define: FlagSet) -> None:
    text = "The dataset has the classes of the checkpoint under other names, in the same order."
    define.boolean("renamed_classes", False, text)


def define_averages_flag(define: FlagSet) -> None:
    """Adds the flag of inference that chooses between moving averages and plain variables."""
    text = "0 for the plain variables. Default: moving averages if the checkpoint has them."
    define.real("moving_average_decay", None, text, 0, most=1)


def define_speed_flags(define: FlagSet) -> None:
    """Adds the flags for the precision and the compilation of the network."""
    text = "The type in which the layers compute. Variables and results are always float32."
    define.choice("precision", PRECISIONS[0], PRECISIONS, text)
    define.boolean("xla", False, "Compile the network with XLA.")


def require_checkpoint(values: flags.FlagValues) -> None:
    """Refuses a command line without `--checkpoint_path`."""
    if not values.checkpoint_path:
        raise UserError(
            "--checkpoint_path is missing: pass a checkpoint, or a folder that training writes "
            "to, such as --checkpoint_path=./checkpoints/cub_200"
        )


def check_words(flag: str, words: Sequence[str], known: Sequence[str]) -> None:
    """Checks that a list flag is not empty and has only known words, each once."""
    check_distinct(flag, words)
    unknown = [word for word in words if word not in known]
    if unknown or not words:
        raise UserError(f"--{flag}={','.join(words)}: {did_you_mean(''.join(unknown[:1]), known)}")


def check_names(flag: str, names: Sequence[str], *, distinct: bool = True) -> None:
    """Checks that no name of a list flag is empty, or occurs twice if they have to be distinct."""
    if "" in names:
        raise UserError(f"--{flag}={','.join(names)}: a name is empty; omit the comma")
    if distinct:
        check_distinct(flag, names)


def check_distinct(flag: str, words: Sequence[str]) -> None:
    for word in words:
        if words.count(word) > 1:
            raise UserError(f"--{flag}={','.join(words)}: {word} occurs twice; pass it once")
