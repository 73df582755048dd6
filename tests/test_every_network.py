"""Networks through the commands: a training step, then evaluation.

`tests/nets` compares every network with the published figures. Inception-ResNet-V2 has the
classifiers of Inception-V4, and the small network of the other tests is a ResNet-V2.
"""

import re

import pytest

from slim import eval_image_classifier, train_image_classifier
from slim.nets.nets_factory import get_network
from tests.conftest import NUM_VALIDATION
from tests.support import invoke


@pytest.mark.parametrize(
    ("name", "trained"), [("inception_v3_se_025", ""), ("inception_v4", "Logits")]
)
def test_trains_and_evaluates(name, trained, colours, tmp_path):
    size = get_network(name).smallest_image_size
    common = [f"--dataset_dir={colours}", "--dataset_name=colours", f"--model_name={name}"]
    done = invoke(
        train_image_classifier,
        *common,
        f"--train_dir={tmp_path}",
        f"--train_image_size={size}",
        f"--trainable_scopes={trained}",  # all gradients of Inception-V4 take long to build
        "--batch_size=4",
        # One position per image is little for a hundred batch norms: no large steps.
        "--learning_rate=0.00001",
        "--optimizer=sgd",  # has no slots, which would double the checkpoint
        "--seed=1",
        "--max_number_of_steps=1",
        "--save_interval_secs=0",
    )
    assert done.code == 0, done.error
    assert re.search(r"^step 1 of 1, loss [\d.]+,", done.output, re.M)
    done = invoke(
        eval_image_classifier,
        *common,
        f"--checkpoint_path={tmp_path}/model.ckpt-1",
        f"--eval_image_size={size}",
        "--batch_size=10",
    )
    assert done.code == 0, done.error
    assert re.match(rf"step 1: eval/Accuracy [\d.]+, .* {NUM_VALIDATION} images, ", done.output)
