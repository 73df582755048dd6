"""The library within a program of its own: imports, forks, copies, memory."""

import copy
import gc
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slim import load_classifier
from slim.common.command_line import COMMAND
from slim.common.compat import tf
from slim.common.errors import UserError
from tests.support import ROOT, TIMEOUT

pytestmark = pytest.mark.usefixtures("small_network")

# What TensorFlow and the libraries that this one uses change is theirs.
IMPORT = """
import logging, os, warnings
import tensorflow, tf_keras, tf_slim, scipy.special, PIL.Image
def state():
    filters = [text and text.pattern for _, text, *_ in warnings.filters]
    return dict(os.environ), filters, logging.getLogger("tensorflow").level, os.fstat(2)[:3]
before = state()
from slim import load_classifier
import slim.feature_extraction, slim.features.extractor, slim.datasets.input
assert state() == before
from tests.support import small_network
with small_network():
    before = state()
    load_classifier(FOLDER)
    assert state() == before
"""

FORK = """
import multiprocessing, sys
from tests.support import SMALL_SIZE, small_network
import numpy as np
from slim import load_classifier
from slim.common.errors import UserError
pixels = np.zeros([40, 40, 3], np.uint8)

def load_and_predict(_):
    with small_network(), load_classifier(FOLDER) as own:
        return own.class_names.index(own.predict([pixels])[0][0].class_name)

def use_the_parents(_):
    return model.predict([pixels])

def extract(_):
    from slim.common.devices import describe_devices, session_config
    session_config()

fork = multiprocessing.get_context("fork")
with fork.Pool(1) as pool:  # nothing has run yet
    first = pool.map(load_and_predict, [0])
assert first == [load_and_predict(0)]
with small_network():
    model = load_classifier(FOLDER)
model.predict([pixels])
for function in (load_and_predict, use_the_parents, extract):
    with fork.Pool(1) as pool:
        try:
            pool.map(function, [0])
        except UserError as error:
            print(function.__name__, error)
with multiprocessing.pool.ThreadPool(2) as pool:
    assert pool.map(use_the_parents, [0, 1])[0] == model.predict([pixels])
"""


def run(program: str, folder: Path, **options) -> subprocess.CompletedProcess:
    """Runs a program that is not a command."""
    env = {name: value for name, value in os.environ.items() if name != COMMAND}
    env = {name: value for name, value in env.items() if not name.startswith("TF_")}
    program = program.replace("FOLDER", repr(str(folder)))
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=env,
        text=True,
        timeout=TIMEOUT,
        **options,
    )


def test_an_import_changes_nothing_else(classifier_dir):
    done = run(IMPORT, classifier_dir, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr


def test_an_import_without_stderr():
    program = "import os; os.close(2); import sys; sys.stderr = None; import slim.common.compat"
    assert run(program, Path()).returncode == 0
    command = [sys.executable, "-m", "slim.inspect_checkpoint", "nowhere"]
    done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", *command], cwd=ROOT, timeout=TIMEOUT)
    assert done.returncode == 1


def test_a_process_that_is_forked_later_is_refused_rather_than_hangs(classifier_dir):
    """What was forked before works, and so do threads."""
    done = run(FORK, classifier_dir, capture_output=True)
    assert done.returncode == 0, done.stderr
    refusal = "this process was forked after TensorFlow ran, which hangs in such a process: "
    for name, line in zip(
        ("load_and_predict", "use_the_parents", "extract"), done.stdout.splitlines(), strict=True
    ):
        assert line.startswith(f"{name} {refusal}")


def test_a_classifier_stays_in_its_process(classifier_dir):
    with load_classifier(classifier_dir) as model:
        for send in (pickle.dumps, copy.deepcopy):
            with pytest.raises(UserError, match="call load_classifier in the other process"):
                send(model.predict)


def test_closing_releases_the_network(classifier_dir):
    def graphs() -> int:
        gc.collect()
        return sum(isinstance(thing, tf.Graph) for thing in gc.get_objects())

    before, kept = graphs(), []
    for _ in range(3):
        model = load_classifier(classifier_dir)
        model.features([np.zeros([40, 40, 3], np.uint8)])
        model.close()
        kept.append(model)
    assert graphs() == before
    assert not [
        thing
        for model in kept
        for thing in gc.get_referents(model.__dict__)
        if isinstance(thing, (tf.Session, tf.Tensor))
    ]
    model.close()  # again
    with pytest.raises(RuntimeError, match="the classifier is closed: load it again"):
        model.predict([np.zeros([40, 40, 3], np.uint8)])
