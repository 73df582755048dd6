"""Settings of a transfer study."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from absl import flags


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Settings that the parts of a study share, named like the flags of the command."""

    dataset_dir: str
    feature_dir: str
    output_dir: str
    image_size: int | None
    batch_size: int
    similarity_features: Sequence[str]
    normalize_features: bool
    gamma: float
    min_count: int
    fine_tune_steps: Sequence[str]
    fine_tune_flags: str

    @classmethod
    def from_flags(cls, values: flags.FlagValues) -> "StudySettings":
        """Returns the values of the flags."""
        return cls(**{field.name: values[field.name].value for field in fields(cls)})
