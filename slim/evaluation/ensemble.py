"""The networks that are evaluated together."""

from dataclasses import dataclass, replace

from absl import flags

from slim.checkpoints.choosing import choose_input
from slim.checkpoints.description import PUBLISHED_MODEL
from slim.common.command_line import check_names
from slim.common.errors import UserError
from slim.nets.nets_factory import check_image_size
from slim.preprocessing.preprocessing_factory import get_views


@dataclass(frozen=True)
class EnsembleMember:
    """A network, and the images it sees.

    Attributes:
        checkpoint_path: A checkpoint, or a folder of checkpoints.
        model_name: The network. This and the next two are None until `as_trained` if not given.
        preprocessing_name: The preprocessing.
        image_size: Height and width of the images in pixels.
        central_fraction: Fraction of each side that a crop covers; None for the default.
    """

    checkpoint_path: str
    model_name: str | None
    preprocessing_name: str | None
    image_size: int | None
    central_fraction: float | None

    def as_trained(self, checkpoint: str) -> "EnsembleMember":
        """Returns the member with network, size and preprocessing, see `choose_input`.

        Args:
            checkpoint: The prefix of the checkpoint to evaluate.

        Raises:
            UserError: `model.json` is invalid, or the images are too small.
        """
        chosen = choose_input(
            checkpoint,
            self.model_name,
            self.image_size,
            self.preprocessing_name,
            size_flag="eval_image_size",
        )
        return replace(self, **chosen._asdict())

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
        check_names(flag, found, distinct=False)
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
            member.preprocessing_name or PUBLISHED_MODEL, values.num_crops, member.central_fraction
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
