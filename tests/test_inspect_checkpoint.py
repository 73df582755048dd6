"""What `python -m slim.inspect_checkpoint` says of checkpoints."""

import shutil

import numpy as np
import pytest

from slim import inspect_checkpoint
from slim.checkpoints.choosing import sort_variables
from slim.checkpoints.reading import AVERAGE
from slim.common.compat import slim, tf
from slim.nets.nets_factory import NETWORKS, get_network_fn
from tests.support import SMALL_NETWORK, invoke, variable_shapes, write_checkpoint

pytestmark = pytest.mark.usefixtures("small_network")


def inspect(*arguments: object) -> dict[str, str]:
    """Returns what the command prints, by label."""
    done = invoke(inspect_checkpoint, *arguments)
    assert done.code == 0, done.error
    return {line[:24].strip(): line[24:] for line in done.output.splitlines()}


@pytest.fixture(scope="module")
def trained(small_network, tmp_path_factory) -> str:
    """A checkpoint of a ResNet with momentum, averages and seven classes."""
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.train.create_global_step()
        logits, _ = get_network_fn(SMALL_NETWORK, 7, is_training=True)(tf.zeros([1, 32, 32, 3]))
        last = tf.trainable_variables()[-1]
        tf.train.MomentumOptimizer(0.1, 0.9).minimize(tf.reduce_sum(logits), step, [last])
        averages = tf.train.ExponentialMovingAverage(0.9999)
        averages.apply(slim.get_model_variables())
        session.run(tf.global_variables_initializer())
        session.run(step.assign(30))
        folder = tmp_path_factory.mktemp("trained")
        return tf.train.Saver().save(session, str(folder / "model.ckpt"), step)


def test_a_checkpoint_written_here(trained):
    lines = inspect(trained)
    count = len(variable_shapes(SMALL_NETWORK, 7))
    assert lines.pop("checkpoint") == trained
    expected = {
        "step": "30",
        "network": SMALL_NETWORK,
        "classes": "7",
        "auxiliary classifier": "no",
        "averages": f"of all {count} variables",
        "optimizer slots": "Momentum",
        SMALL_NETWORK: f"fits: all {count} variables",
    }
    for name in NETWORKS.keys() - {SMALL_NETWORK}:
        expected[name] = f"missing all variables (there is no {NETWORKS[name].scope}/)"
    assert lines == expected


@pytest.mark.parametrize("first", ["--checkpoint_path={}", "{}"])
def test_one_checkpoint_at_a_time(trained, first):
    done = invoke(inspect_checkpoint, first.format(trained), "another")
    assert (done.code, done.output) == (1, "")
    assert done.error == "error: unexpected argument 'another': pass flags as --name=value\n"


def test_a_network_of_another_name(trained):
    lines = inspect(trained, "--model_name=inception_v3")
    assert lines["network"] == "none that fits"
    assert lines["inception_v3"].startswith(
        "missing 376 of 376 variables: InceptionV3/Conv2d_1a_3x3/weights, "
    )
    assert "inception_v4" not in lines


def test_a_tensorflow_1_checkpoint_of_a_narrow_network(reference):
    lines = inspect(reference / "tf1_checkpoint/inception_v3_w8.ckpt")
    assert lines["step"] == "12345"
    assert lines["network"].startswith("inception_v3 by its names, with other shapes")
    assert lines["classes"] == "16"
    assert lines["auxiliary classifier"] == "yes"
    assert lines["averages"] == "of all 388 variables"
    assert lines["optimizer slots"] == "none"
    assert lines["inception_v3"].startswith(
        "of another shape 377: InceptionV3/Conv2d_1a_3x3/weights is [3, 3, 3, 8] there and "
        "[3, 3, 3, 32] here, "
    )
    assert lines["inception_v4"] == "missing all variables (there is no InceptionV4/)"


def test_missing_and_extra_variables(tmp_path):
    values = {
        "resnet_v2_50/conv1/weights": np.zeros([7, 7, 3, 64], np.float32),
        "resnet_v2_50/conv1/other": np.zeros(2, np.float32),
    }
    lines = inspect(write_checkpoint(tmp_path / "model.ckpt", values))
    assert lines["step"] == "0"
    assert lines["network"] == "none that fits; the nearest is resnet_v2_50"
    assert lines["averages"] == "none"
    assert lines["resnet_v2_50"] == (
        "missing 269 of 270 variables: resnet_v2_50/conv1/biases, "
        "resnet_v2_50/block1/unit_1/bottleneck_v2/preact/gamma, "
        "resnet_v2_50/block1/unit_1/bottleneck_v2/preact/beta and 266 more; "
        "extra 1: resnet_v2_50/conv1/other"
    )


def test_averages_alone_are_seen_as_such():
    name = f"InceptionV3/Conv2d_1a_3x3/weights{AVERAGE}"
    contents = sort_variables({name: [3, 3, 3, 32], "global_step": []})
    assert contents.shapes == {"InceptionV3/Conv2d_1a_3x3/weights": [3, 3, 3, 32]}
    said = inspect_checkpoint.averages_text(contents)
    assert said == "of all 1 variables, which have no plain value"


def test_damaged_and_missing_checkpoints_are_one_line(trained, tmp_path):
    for name in ("index", "data-00000-of-00001"):
        shutil.copy(f"{trained}.{name}", tmp_path / f"model.ckpt.{name}")
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    with data.open("r+b") as file:
        file.truncate(data.stat().st_size // 2)
    for arguments, message in (
        ([tmp_path / "model.ckpt"], "model.ckpt cannot be read"),
        ([tmp_path / "other.ckpt"], "CHECKPOINT: no checkpoint at"),
        ([], "CHECKPOINT is missing"),
        ([trained, "--model_name=resnet_50"], "unknown network 'resnet_50'; did you mean"),
        ([trained, "more"], "unexpected argument 'more'"),
    ):
        done = invoke(inspect_checkpoint, *arguments)
        assert done.code == 1 and done.error.count("\n") == 1
        assert message in done.error
