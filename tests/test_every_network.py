"""Each published network through the commands: two steps at its smallest size, then evaluation."""

import re

import pytest

from slim import eval_image_classifier as evaluation
from slim import train_image_classifier as training
from slim.errors import run_command
from slim.nets.nets_factory import get_network
from tests.conftest import NUM_VALIDATION

PUBLISHED = (
    "inception_v3",
    "inception_v3_se",
    "inception_v4",
    "inception_resnet_v2",
    "inception_resnet_v2_se",
    "resnet_v2_50",
    "resnet_v2_101",
    "resnet_v2_152",
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_trains_and_evaluates(name, colours, tmp_path, capsys):
    size = get_network(name).smallest_image_size
    common = [f"--dataset_dir={colours}", "--dataset_name=colours", f"--model_name={name}"]
    with pytest.raises(SystemExit) as stopped:
        run_command(
            training.define_flags,
            training.main,
            [
                "train",
                *common,
                f"--train_dir={tmp_path}",
                f"--train_image_size={size}",
                "--batch_size=4",
                # One position an image is little for a hundred batch norms: no large steps.
                "--learning_rate=0.00001",
                "--seed=1",
                "--max_number_of_steps=2",
                "--log_every_n_steps=1",
                "--save_interval_secs=1000",
            ],
        )
    out, error = capsys.readouterr()
    assert stopped.value.code == 0, error
    losses = [float(loss) for loss in re.findall(r"^step \d+ of 2, loss ([\d.]+)", out, re.M)]
    assert len(losses) == 2
    with pytest.raises(SystemExit) as stopped:
        run_command(
            evaluation.define_flags,
            evaluation.main,
            [
                "eval",
                *common,
                f"--checkpoint_path={tmp_path}/model.ckpt-2",
                f"--eval_image_size={size}",
                "--batch_size=10",
            ],
        )
    out, error = capsys.readouterr()
    assert stopped.value.code == 0, error
    assert re.match(rf"step 2: eval/Accuracy [\d.]+, .* {NUM_VALIDATION} images, ", out)
