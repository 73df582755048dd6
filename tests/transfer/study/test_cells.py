"""The keys of the cells of the transfer study, and the settings of its networks."""

from dataclasses import replace
from pathlib import Path

import pytest

from slim.checkpoints.description import ModelDescription, write_model_description
from slim.features.files import Settings
from slim.transfer.study.domains import Domains, ExtractingView
from slim.transfer.study.settings import StudySettings
from slim.transfer.study.sources import StudySource, find_source, find_targets, linear_cell
from slim.transfer.study.training import plan_trainings
from tests.transfer.study.world import write_lists

SETTINGS = Settings("inception_v3", "hash", False, "Mixed_7c", 299)
SOURCE = StudySource("plants", "plants.ckpt", SETTINGS, Path("feature/plants"), 64)
STUDY = StudySettings(
    dataset_dir="data",
    feature_dir="feature",
    output_dir="study",
    image_size=299,
    batch_size=64,
    similarity_features=(),
    normalize_features=False,
    gamma=0.01,
    min_count=200,
    fine_tune_steps=(),
    fine_tune_flags="",
)


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


def test_network_size_and_preprocessing_are_those_of_training(world, colours, capsys):
    folder = world / "checkpoints/plants"
    write_model_description(folder, ModelDescription("inception_v3", 107, "vgg", "", ()))
    study = replace(STUDY, dataset_dir=str(colours), image_size=None)
    source = find_source("plants", str(folder), None, study=study)
    assert (source.settings.model_name, source.settings.image_size) == ("inception_v3", 107)
    assert source.settings.preprocessing == "vgg"
    (target,) = find_targets(["colours"], str(colours))
    (training,) = plan_trainings([source], [target], study)
    assert {"--train_image_size=107", "--preprocessing_name=vgg"} <= set(training.train_flags)
    assert {"--eval_image_size=107", "--preprocessing_name=vgg"} <= set(training.eval_flags)
    assert capsys.readouterr().err == ""
    source = find_source("plants", str(folder), None, study=replace(study, image_size=299))
    assert source.settings.image_size == 299
    assert "note: --image_size=299: trained at 107" in capsys.readouterr().err


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
    study = replace(
        STUDY, dataset_dir=str(colours), fine_tune_steps=steps, fine_tune_flags=user_flags
    )
    (target,) = find_targets(["colours"], str(colours))
    (training,) = plan_trainings([SOURCE], [target], study)
    assert training.cell.key == key
    assert training.train_dir == Path(f"study/fine_tuned/plants/colours-{key}")
