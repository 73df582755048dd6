"""The keys of the cells of the transfer study, and the settings of its networks."""

import json
import math
from pathlib import Path

import pytest
from absl import flags

from slim.checkpoints.description import ModelDescription, write_model_description
from slim.common.errors import UserError
from slim.features.feature_files import Settings
from slim.train_image_classifier import define_flags
from slim.transfer import study
from slim.transfer.fine_tuning import plan_trainings
from slim.transfer.study_steps import (
    Domains,
    ExtractingView,
    StudySource,
    find_sources,
    find_targets,
    linear_cell,
)
from tests.conftest import NUM_TRAIN
from tests.transfer.study_world import write_lists

SETTINGS = Settings("inception_v3", "hash", False, "Mixed_7c", 299)
SOURCE = StudySource("plants", "plants.ckpt", SETTINGS, Path("feature/plants"), 64)


def parse(**settings: object) -> flags.FlagValues:
    """Parses flags of the study."""
    values = flags.FlagValues()
    study.define_flags(values)
    values(["study", *(f"--{name}={value}" for name, value in settings.items())])
    return values


def test_cells_of_earlier_versions_are_found(tmp_path):
    """A key that changes without need makes users compute finished studies again."""
    write_lists(tmp_path)
    plants, things, birds = find_targets(parse(targets="plants,things,birds", dataset_dir=tmp_path))
    assert linear_cell(SOURCE, birds).key == "3484258f966903ea"
    splits = {target.name: target.splits["train"] for target in (plants, things, birds)}
    view = ExtractingView(SOURCE.folder, SOURCE, splits)
    domains = Domains([view], 200, normalize=False)
    assert domains.emd_cell("plants+things", "birds").key == "b536118681eac452"


def test_network_size_and_preprocessing_are_those_of_training(world, colours, capsys):
    folder = world / "checkpoints/plants"
    write_model_description(folder, ModelDescription("inception_v3", 107, "vgg", "", ()))
    flags = {"sources": "plants", "checkpoints": folder, "targets": "colours"}
    values = parse(**flags, dataset_dir=colours)
    (source,) = find_sources(values)
    assert (source.settings.model_name, source.settings.image_size) == ("inception_v3", 107)
    assert source.settings.preprocessing == "vgg"
    (training,) = plan_trainings([source], find_targets(values), values, define_flags)
    assert {"--train_image_size=107", "--preprocessing_name=vgg"} <= set(training.train_flags)
    assert {"--eval_image_size=107", "--preprocessing_name=vgg"} <= set(training.eval_flags)
    assert capsys.readouterr().err == ""
    (source,) = find_sources(parse(**flags, dataset_dir=colours, image_size=299))
    assert source.settings.image_size == 299
    assert "note: --image_size=299: trained at 107" in capsys.readouterr().err


def test_epochs_are_counted_over_all_clones(colours, monkeypatch):
    tuning = {"fine_tune": True, "fine_tune_flags": "--batch_size=4 --num_clones=2"}
    values = parse(targets="colours", dataset_dir=colours, **tuning)
    (training,) = plan_trainings([SOURCE], find_targets(values), values, define_flags)
    assert training.steps == math.ceil(30 * NUM_TRAIN / 8)
    # The learning rate decays over the steps: a decay is counted in batches of one clone.
    decayed = 30 * NUM_TRAIN / 8 * 4 / NUM_TRAIN
    (flag,) = (flag for flag in training.train_flags if "per_decay" in flag)
    assert float(flag.partition("=")[2]) == pytest.approx(decayed, rel=0.01)
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    for described in ({"fine_tune_flags": "--worker_hosts=a:1,b:1 --all_reduce"}, {}):
        monkeypatch.setenv("TF_CONFIG", "" if described else json.dumps(cluster))
        flags = {"fine_tune_flags": "--all_reduce"} | described
        values = parse(targets="colours", dataset_dir=colours, **flags)
        with pytest.raises(UserError, match=r"on this machine alone: omit .* unset TF_CONFIG"):
            plan_trainings([SOURCE], find_targets(values), values, define_flags)


@pytest.mark.parametrize(
    ("steps", "user_flags", "key"),
    [
        ("", "", "a8160b381b762f89"),
        (
            "60",
            "--optimizer=adam --batch_size=16 --moving_average_decay=0.99",
            "e49409a23050192b",
        ),
    ],
)
def test_trainings_of_earlier_versions_are_found(colours, steps, user_flags, key):
    tuning = {"fine_tune_steps": steps, "fine_tune_flags": user_flags}
    values = parse(targets="colours", dataset_dir=colours, **tuning)
    (training,) = plan_trainings([SOURCE], find_targets(values), values, define_flags)
    assert training.cell.key == key
    assert training.train_dir == Path(f"study/fine_tuned/plants/colours-{key}")
