"""The networks that are evaluated together."""

from dataclasses import dataclass, replace
from pathlib import Path

from absl import flags

from slim.checkpoints.description import read_model_description
from slim.checkpoints.trained_input import choose_input
from slim.common.errors import UserError
from slim.nets.nets_factory import check_image_size, get_network
from slim.preprocessing.preprocessing_factory import get_views

MODEL_NAME, IMAGE_SIZE = "inception_v3", 299  # the published defaults


@dataclass(frozen=True)
class EnsembleMember:
    """A network, and the images it sees.

    Attributes:
        checkpoint_path: A checkpoint, or a folder of checkpoints.
        model_name: The network; None until `as_trained` if it is not given.
        preprocessing_name: The preprocessing; None likewise.
        image_size: Height and width of the images in pixels; None likewise.
        central_fraction: Fraction of each side that a crop covers; None for the default.
    """

    checkpoint_path: str
    model_name: str | None
    preprocessing_name: str | None
    image_size: int | None
    central_fraction: float | None

    def as_trained(self, checkpoint: str) -> "EnsembleMember":
        """Returns the member with all that is not given taken from `model.json`, else published.

        Args:
            checkpoint: The prefix of the checkpoint to evaluate.

        Raises:
            UserError: `model.json` is invalid, or the images are too small.
        """
        folder = Path(checkpoint).parent
        trained = read_model_description(folder)
        name = self.model_name or (trained.model_name if trained else MODEL_NAME)
        size = get_network(name).default_image_size if self.image_size == 0 else self.image_size
        size, preprocessing_name = choose_input(
            folder,
            name,
            image_size=size,
            preprocessing_name=self.preprocessing_name,
            default_size=IMAGE_SIZE,
            size_flag="eval_image_size",
        )
        return replace(
            self, model_name=name, preprocessing_name=preprocessing_name, image_size=size
        )

    def __str__(self) -> str:
        """Returns the size and crop, which tell members of one network apart."""
        fraction = "" if self.central_fraction is None else f", central {self.central_fraction:g}"
        return f"{self.image_size} pixels{fraction}"


def find_members(values: flags.FlagValues) -> list[EnsembleMember]:
    """Returns the networks that the flags of evaluation list; single values apply to all.

    Raises:
        UserError: The numbers of values differ, or a value is invalid.
    """
    given = {
        "checkpoint_path": _words(values, "checkpoint_path"),
        "model_name": _words(values, "model_name"),
        "preprocessing_name": _words(values, "preprocessing_name"),
        "eval_image_size": _numbers(values, "eval_image_size", int, "pixels"),
        "central_fraction": _numbers(values, "central_fraction", float, "a fraction such as 0.875"),
    }
    longest = max(given, key=lambda flag: len(given[flag]))
    count = len(given[longest])
    for flag, found in given.items():
        if "" in found:
            raise UserError(
                f"--{flag}={','.join(found)}: a value is empty; leave out the flag or the comma"
            )
        if len(found) not in (1, count):
            raise UserError(
                f"--{flag} has {len(found)} values and --{longest} has {count}: expected 1 or "
                f"{count}"
            )
    members = [EnsembleMember(*(v[i % len(v)] for v in given.values())) for i in range(count)]
    for member in members:
        if member.model_name:
            size = member.image_size or None
            check_image_size(member.model_name, size, size)
        get_views(
            member.preprocessing_name or MODEL_NAME, values.num_crops, member.central_fraction
        )
    return members


def _words(values: flags.FlagValues, flag: str) -> list[str | None]:
    """Returns the words of a flag on the command line; a single None if it is not given."""
    value = values[flag].value if values[flag].present else None
    return (value.split(",") if isinstance(value, str) and value else value) or [None]


def _numbers(values: flags.FlagValues, flag: str, kind: type, expected: str) -> list:
    """Returns the numbers of a flag on the command line; a single None if it is not given."""
    words = _words(values, flag)
    try:
        return [None if word is None else kind(word) for word in words]
    except ValueError:
        raise UserError(f"--{flag}={','.join(words)}: expected {expected}") from None
