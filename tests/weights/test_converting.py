"""The Hub module of the paper, in both forms of SavedModels, made here from our own network."""

import os
from pathlib import Path

import numpy as np
import pytest

from slim.checkpoints import __main__ as checkpoints
from slim.checkpoints.description import read_model_description
from slim.common.compat import slim, tf
from slim.nets.nets_factory import get_network_fn
from slim.weights.catalogue import HUB_MODELS
from tests.conftest import small_values
from tests.loopback import Loopback, pack
from tests.support import SMALL_NETWORK, invoke

NAME = "inaturalist_inception_v3"
SIZE = 64

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    """Makes the module one of a small network."""
    entry = (SMALL_NETWORK, "iNat2017", SIZE, "http://127.0.0.1:9/none")
    monkeypatch.setitem(HUB_MODELS, NAME, entry)


def save_tf1(folder: Path) -> None:
    """As TensorFlow Hub for TensorFlow 1: a graph without tags, and one for training."""
    values = small_values(None)
    builder = tf.saved_model.Builder(str(folder))
    for tags in ([], ["train"]):
        with tf.Graph().as_default(), tf.Session() as session:
            with tf.variable_scope("module"):
                images = tf.placeholder(tf.float32, [None, SIZE, SIZE, 3])
                get_network_fn(SMALL_NETWORK, None)(images)
            for variable in slim.get_model_variables():
                variable.load(values[variable.op.name.removeprefix("module/")], session)
            if tags:
                builder.add_meta_graph(tags)
            else:
                builder.add_meta_graph_and_variables(session, tags)
    builder.save()


def save_tf2(folder: Path) -> None:
    """With the variables of the network, in any function."""
    module = tf.Module()
    module.held = [tf.compat.v2.Variable(v, name=k) for k, v in small_values(None).items()]
    module.serve = tf.function(
        lambda images: tf.reduce_sum(images) * module.held[0],
        input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)],
    )
    tf.saved_model.save(module, str(folder))


def check(folder: Path) -> None:
    """Checks that a converted checkpoint has the values of the SavedModel, and no classifier."""
    reader, expected = tf.train.load_checkpoint(str(folder)), small_values(None)
    assert reader.get_variable_to_shape_map().keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(reader.get_tensor(name), value)
    described = read_model_description(folder)
    assert (described.model_name, described.image_size) == (SMALL_NETWORK, SIZE)
    assert (described.dataset_name, described.class_names) == ("iNat2017", ())


@pytest.mark.parametrize("save", [save_tf1, save_tf2])
def test_both_forms(save, tmp_path):
    save(tmp_path / "model")
    given = [f"--path={tmp_path / 'model'}", f"--checkpoints_dir={tmp_path}"]
    done = invoke(checkpoints, f"hub:{NAME}", *given)
    assert done.code == 0, done.error
    assert f"hub:{NAME} is {SMALL_NETWORK} without classifier\n" in done.output
    check(tmp_path / "hub" / NAME)
    assert (
        f" features only   {tmp_path}/hub/{NAME}\n"
        in invoke(checkpoints, "--list", given[1]).output
    )


def test_an_archive_that_is_interrupted_and_one_of_another_network(tmp_path, monkeypatch):
    save_tf2(tmp_path / "model")
    files = {
        str(path.relative_to(tmp_path / "model")): path
        for path in (tmp_path / "model").rglob("*")
        if path.is_file()
    }
    with Loopback(model=pack({**files, "noise": os.urandom(1_500_000)})) as server:
        entry = (SMALL_NETWORK, "iNat2017", SIZE, f"{server.address}/model")
        monkeypatch.setitem(HUB_MODELS, NAME, entry)
        server.stops_after = 1_200_000
        done = invoke(checkpoints, f"hub:{NAME}", f"--checkpoints_dir={tmp_path}")
        assert done.code == 1 and "run this again to resume" in done.error
        server.stops_after = None
        server.requests.clear()
        done = invoke(checkpoints, f"hub:{NAME}", f"--checkpoints_dir={tmp_path}")
        assert done.code == 0, done.error
        assert server.requests[0][1] is not None
        check(tmp_path / "hub" / NAME)

        # Another archive, from a mirror, is refused.
        for path in (tmp_path / "hub" / NAME).glob("*"):
            if path.name != "fetched.json":
                path.unlink()
        server.files["mirror"] = pack({**files, "noise": os.urandom(99)})
        mirror = f"--mirror={server.address}/mirror"
        server.files.pop("model")
        done = invoke(checkpoints, f"hub:{NAME}", mirror, f"--checkpoints_dir={tmp_path}")
        assert done.code == 1
        assert "the file there has the hash" in done.error.splitlines()[0]
        assert "the server answered 404" in done.error.splitlines()[-1]
    given = [f"--path={tmp_path / 'model'}", f"--checkpoints_dir={tmp_path}"]
    assert invoke(checkpoints, f"hub:{NAME}", *given).code == 0
    entry = ("inception_v4", "iNat2017", 299, "")
    monkeypatch.setitem(HUB_MODELS, "other", entry)
    for name, path, message in (
        (
            "other",
            tmp_path / "model",
            "model is not inception_v4: InceptionV4/Conv2d_1a_3x3/weights",
        ),
        ("other", tmp_path / "none", "none: no such file or folder; expected a SavedModel"),
        ("other", tmp_path / "hub", "has 0 files saved_model.pb, expected one"),
        (NAME, tmp_path / "model", "exists already: move "),
        ("inaturalist", tmp_path / "model", "unknown model 'hub:inaturalist'; did you mean"),
    ):
        done = invoke(checkpoints, f"hub:{name}", f"--path={path}", f"--checkpoints_dir={tmp_path}")
        assert done.code == 1 and message in done.error
