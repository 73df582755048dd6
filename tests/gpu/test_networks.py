"""Every network on a GPU: logits as on the CPU, training in 16 bits."""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags

from slim.common.compat import tf
from slim.common.devices import session_config
from slim.deployment.model_deploy import (
    DeploymentConfig,
    create_clones,
    replica_graph,
)
from slim.deployment.replicas import Replicas
from slim.nets.nets_factory import NETWORKS, get_network_fn
from slim.training import settings
from slim.training.flags import define_training_flags
from slim.training.graph import RunSettings, TrainingGraph, build_training_graph
from slim.training.networks import (
    NetworkSettings,
    TrainingNetwork,
    build_clone,
    training_network_fn,
)
from slim.training.optimizers import OptimizerSettings
from tests.conftest import recipe_initializers
from tests.support import SMALL_NETWORK

pytestmark = pytest.mark.usefixtures("small_network")

NUM_CLASSES = 20
LAYERS = ("Conv2D", "BatchNorm", "MaxPool", "AvgPool", "MatMul")  # in names of operations
FLOAT16 = ["inception_v3", "inception_v4_se", "inception_resnet_v2_se", "resnet_v2_50"]


@pytest.fixture
def exact_products() -> Iterator[None]:
    """Computes in float32 throughout; TensorFloat-32 rounds the factors of products to 10 bits."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(before)


@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize(
    "name", [pytest.param(SMALL_NETWORK, marks=pytest.mark.also_on_cpu), *NETWORKS]
)
def test_logits_are_those_of_the_cpu(name):
    size = NETWORKS[name].default_image_size
    images = np.random.RandomState(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    with tf.Graph().as_default():
        pixels = tf.placeholder(tf.float32, images.shape)
        logits, _ = get_network_fn(name, NUM_CLASSES)(pixels, create_aux_logits=False)
        weights = recipe_initializers()
        found = []
        for config in (tf.ConfigProto(device_count={"GPU": 0}), session_config()):
            with tf.Session(config=config) as session:
                session.run(*weights)
                found.append(session.run(logits, {pixels: images}))
    on_cpu, on_gpu = found
    difference = np.abs(on_gpu - on_cpu).max() / on_cpu.std()
    print(f"{name}: {difference:.1e} of the standard deviation {on_cpu.std():.3g}")
    assert difference <= 1e-3


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(SMALL_NETWORK, "bfloat16", marks=pytest.mark.also_on_cpu),
        pytest.param(SMALL_NETWORK, "float16", marks=pytest.mark.also_on_cpu),
        *((name, "bfloat16") for name in NETWORKS),
        *((name, "float16") for name in FLOAT16),
    ],
)
def test_trains_in_16_bits(name, precision):
    """The loss on one batch falls within five steps, and no layer falls back to the CPU.

    With float16, steps that overflow are skipped and not counted.
    """
    with replica_graph(DeploymentConfig(), seed=1) as global_step:
        graph = training_graph(name, precision, global_step)
        with tf.Session(config=session_config()) as session:
            session.run(tf.global_variables_initializer())
            losses, step, feed = [], 0, {graph.wants_summary: False}
            while step < 5 and len(losses) < 15:
                done = session.run(graph.step, feed)
                losses.append(float(done["loss"]))
                step = int(done["step"])
            metadata = tf.RunMetadata()
            options = tf.RunOptions(output_partition_graphs=True)
            session.run(graph.step, feed, options=options, run_metadata=metadata)
    print(f"{name} in {precision}: losses {losses}")
    assert np.isfinite(losses).all()
    assert step == 5
    assert losses[-1] < losses[0]
    layers = [
        node
        for part in metadata.partition_graphs
        for node in part.node
        if any(layer in node.op for layer in LAYERS)
    ]
    assert len(layers) > 20
    elsewhere = "CPU" if tf.config.list_physical_devices("GPU") else "GPU"
    assert not {node.op for node in layers if f"/device:{elsewhere}:" in node.device}


def training_graph(name: str, precision: str, global_step: tf.Variable) -> TrainingGraph:
    """Builds the training of a network, as the command does, on one batch of colours in noise."""
    values = flags.FlagValues()
    define_training_flags(values)
    values(
        [
            "",
            "--train_dir=",
            f"--model_name={name}",
            f"--precision={precision}",
            "--momentum=0.5",
            "--learning_rate=0.02",
        ]
    )
    # Convolutions in float16 are slow on a CPU.
    size = (1 if name == SMALL_NETWORK else 2) * NETWORKS[name].smallest_image_size
    random = np.random.RandomState(0)
    quarters = random.uniform(-1, 1, (8, 2, 2, 3)).repeat(size // 2, 1).repeat(size // 2, 2)
    images = tf.constant((quarters + random.normal(0, 0.1, quarters.shape)).astype(np.float32))
    batch = (images, tf.constant(random.randint(NUM_CLASSES, size=8), tf.int64))
    network_settings = settings.from_flags(NetworkSettings, values)
    dtype = tf.as_dtype(precision)
    clones = create_clones(
        DeploymentConfig(),
        build_clone,
        training_network_fn(network_settings, NUM_CLASSES, dtype),
        SimpleNamespace(get_next=lambda: batch),
        NUM_CLASSES,
        0.0,
    )
    network = TrainingNetwork(
        clones=clones,
        trained=tf.trainable_variables(),
        update_ops=tf.get_collection(tf.GraphKeys.UPDATE_OPS),
        begin_input=lambda session, step: repeat({}),
        dtype=dtype,
    )
    run = settings.from_flags(
        RunSettings,
        values,
        train_dir=Path(),
        last_step=5,
        images_per_step=8,
        images_per_epoch=8,
        flags={},
    )
    optimizer = settings.from_flags(OptimizerSettings, values, decay_steps=1000)
    return build_training_graph(
        network, optimizer, run, global_step=global_step, replicas=Replicas()
    )
