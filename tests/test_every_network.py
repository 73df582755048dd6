"""Inception-V4 through the commands: a training step, then evaluation.

`tests/nets` compares every network with the published figures. Inception-ResNet-V2 has the same
classifiers; other tests train a small ResNet-V2 and an Inception-V3 with squeeze-and-excitation.
"""

import re

from slim import eval_image_classifier, train_image_classifier
from slim.nets.nets_factory import get_network
from tests.conftest import NUM_VALIDATION
from tests.support import invoke

NAME = "inception_v4"


def test_trains_and_evaluates(colours, tmp_path):
    size = get_network(NAME).smallest_image_size
    common = [f"--dataset_dir={colours}", "--dataset_name=colours", f"--model_name={NAME}"]
    done = invoke(
        train_image_classifier,
        *common,
        f"--train_dir={tmp_path}",
        f"--train_image_size={size}",
        "--trainable_scopes=Logits",  # all gradients take long to build
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
