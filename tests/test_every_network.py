"""A training step of Inception-V4.

`tests/nets` compares every network with the published figures, and `tests/checkpoints` freezes them
as evaluation does. Inception-ResNet-V2 has the same classifiers; other tests train and evaluate a
small ResNet-V2 and the first layers of an Inception-V3 with squeeze-and-excitation.
"""

import re

from slim import train_image_classifier
from slim.nets.nets_factory import get_network
from tests.nets.conftest import few_repeats
from tests.support import invoke

NAME = "inception_v4"


def test_inception_v4_trains(colours, tmp_path):
    size = get_network(NAME).smallest_image_size
    with few_repeats():
        done = invoke(
            train_image_classifier,
            f"--dataset_dir={colours}",
            "--dataset_name=colours",
            f"--model_name={NAME}",
            f"--train_dir={tmp_path}",
            f"--train_image_size={size}",
            "--trainable_scopes=Logits",  # all gradients take long to build
            "--batch_size=4",
            # One position per image is little for dozens of batch norms: no large steps.
            "--learning_rate=0.00001",
            "--optimizer=sgd",  # has no slots, which would double the checkpoint
            "--seed=1",
            "--max_number_of_steps=1",
            "--save_interval_secs=0",
        )
    assert done.code == 0, done.error
    assert re.search(r"^step 1 of 1, loss [\d.]+,", done.output, re.M)
