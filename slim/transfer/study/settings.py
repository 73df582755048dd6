"""Settings of a transfer study."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Settings that all parts of a study share, see the flags of the command."""

    dataset_dir: str
    feature_dir: Path
    output_dir: Path
    image_size: int
    batch_size: int
    similarity_features: tuple[str, ...]
    gamma: float
    min_count: int


@dataclass(frozen=True, kw_only=True)
class FineTuningSettings:
    """Settings of fine-tuning."""

    steps: tuple[int, ...]  # one number, or one per target; empty for 30 epochs
    flags: str  # of training, as on a command line
