"""The keys of the cells of the transfer study."""

from pathlib import Path

import pytest

from slim.features.files import Settings
from slim.transfer.study.domains import Domains, ExtractingView
from slim.transfer.study.settings import StudySettings
from slim.transfer.study.sources import StudySource, find_targets, linear_cell
from slim.transfer.study.training import plan_trainings
from tests.transfer.study.world import write_lists

SETTINGS = Settings("inception_v3", "hash", False, "Mixed_7c", 299)
SOURCE = StudySource("plants", "plants.ckpt", SETTINGS, Path("feature/plants"), 64)


def test_cells_of_earlier_versions_are_found(tmp_path):
    """A key that changes without need makes users compute finished studies again."""
    write_lists(tmp_path)
    (birds,) = find_targets(["birds"], str(tmp_path))
    assert linear_cell(SOURCE, birds).key == "3484258f966903ea"
    plants, things = (t.splits["train"] for t in find_targets(["plants", "things"], str(tmp_path)))
    splits = {"birds": birds.splits["train"], "plants": plants, "things": things}
    view = ExtractingView(SOURCE.folder, SOURCE, splits)
    domains = Domains(views=[view], sources=["plants+things"], targets=["birds"], min_count=200)
    assert domains.emd_cell("plants+things", "birds").key == "b536118681eac452"


@pytest.mark.parametrize(
    ("steps", "user_flags", "key"),
    [
        ([], "", "a8160b381b762f89"),
        (
            ["60"],
            "--optimizer=adam --batch_size=16 --moving_average_decay=0.99",
            "e49409a23050192b",
        ),
    ],
)
def test_trainings_of_earlier_versions_are_found(colours, steps, user_flags, key):
    study = StudySettings(
        dataset_dir=str(colours),
        feature_dir="feature",
        output_dir="study",
        image_size=299,
        batch_size=64,
        similarity_features=(),
        gamma=0.01,
        min_count=200,
        fine_tune_steps=steps,
        fine_tune_flags=user_flags,
    )
    (target,) = find_targets(["colours"], str(colours))
    (training,) = plan_trainings([SOURCE], [target], study)
    assert training.cell.key == key
    assert training.train_dir == Path(f"study/fine_tuned/plants/colours-{key}")
