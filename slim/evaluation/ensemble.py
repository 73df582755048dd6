"""The networks that are evaluated together."""

from collections.abc import Sequence
from dataclasses import dataclass

from absl import flags

from slim.common.errors import UserError
from slim.nets.nets_factory import check_image_size


@dataclass(frozen=True)
class EnsembleMember:
    """A network, and the images it sees.

    Attributes:
        checkpoint_path: A checkpoint, or a folder of checkpoints.
        model_name: The network.
        preprocessing_name: The preprocessing.
        image_size: Height and width of the images in pixels.
        central_fraction: Fraction of each side that a crop covers; None for the default.
    """

    checkpoint_path: str
    model_name: str
    preprocessing_name: str
    image_size: int
    central_fraction: float | None

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
        "checkpoint_path": values.checkpoint_path.split(","),
        "model_name": values.model_name.split(","),
        "preprocessing_name": (values.preprocessing_name or values.model_name).split(","),
        "eval_image_size": _numbers("eval_image_size", values.eval_image_size, int, "pixels"),
        "central_fraction": _numbers(
            "central_fraction", values.central_fraction, float, "a fraction such as 0.875"
        )
        or [None],
    }
    longest = max(given, key=lambda flag: len(given[flag]))
    count = len(given[longest])
    for flag, found in given.items():
        if len(found) not in (1, count):
            raise UserError(
                f"--{flag} has {len(found)} values and --{longest} has {count}: expected 1 or "
                f"{count}"
            )
    members = [EnsembleMember(*(v[i % len(v)] for v in given.values())) for i in range(count)]
    for member in members:
        check_image_size(member.model_name, member.image_size, member.image_size)
    return members


def _numbers(flag: str, words: Sequence[str], kind: type, expected: str) -> list:
    try:
        return [kind(word) for word in words]
    except ValueError:
        raise UserError(f"--{flag}={','.join(words)}: expected {expected}") from None
