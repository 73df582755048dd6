"""Defining flags in a set of their own, and the flags that training and evaluation share."""

from collections.abc import Sequence

from absl import flags

from slim.errors import UserError, did_you_mean

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


def number_of_classes(dataset_classes: int, labels_offset: int) -> int:
    """The classes that the network tells apart.

    Raises:
        UserError: The offset leaves none.
    """
    if not 0 <= labels_offset < dataset_classes:
        raise UserError(
            f"--labels_offset={labels_offset}: expected 0 to {dataset_classes - 1}, "
            f"the dataset has {dataset_classes} classes"
        )
    return dataset_classes - labels_offset
