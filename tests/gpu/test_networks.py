"""Every network on a GPU: logits as on the CPU, training in 16 bits."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from slim.common.compat import tf
from slim.common.devices import session_config
from slim.deployment.model_deploy import (
    DeploymentConfig,
    create_clones,
    optimize_clones,
    replica_graph,
)
from slim.nets.nets_factory import NETWORKS, get_network_fn
from slim.train_image_classifier import build_clone, build_train_op
from slim.training.batches import CloneOutputs
from slim.training.optimizers import configure_optimizer
from tests.conftest import recipe_initializers, run
from tests.support import SMALL_NETWORK, training_flags

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


def test_persistent_batch_norm_has_the_same_statistics_and_gradients(tmp_path):
    """If this passes, cuDNN's faster batch norm may become the default."""
    found = []
    for mode in ("0", "1"):
        path = tmp_path / f"{mode}.npz"
        variable = {"TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT": mode}
        done = run("python", "-m", "tests.gpu.batch_norm", path, env=variable)
        assert done.returncode == 0, done.stderr
        found.append(np.load(path))
    usual, persistent = found
    for name, values in usual.items():
        tolerance = 2**-7 if "bfloat16" in name else 1e-4
        scale = tolerance * np.abs(values).max()
        np.testing.assert_allclose(persistent[name], values, tolerance, scale, err_msg=name)


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
        training = training_step(name, precision, global_step)
        with tf.Session(config=session_config()) as session:
            session.run(tf.global_variables_initializer())
            losses, step = [], 0
            while step < 5 and len(losses) < 15:
                done = session.run(training)
                losses.append(float(done["loss"]))
                step = int(done["step"])
            metadata = tf.RunMetadata()
            options = tf.RunOptions(output_partition_graphs=True)
            session.run(training, options=options, run_metadata=metadata)
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


def training_step(name: str, precision: str, global_step: tf.Variable) -> dict[str, tf.Tensor]:
    """Builds a training step, as the command does, on one batch of colours in noise."""
    values = training_flags("--momentum=0.5", "--learning_rate=0.02", "--optimizer=momentum")
    # Convolutions in float16 are slow on a CPU.
    size = (1 if name == SMALL_NETWORK else 2) * NETWORKS[name].smallest_image_size
    random = np.random.RandomState(0)
    quarters = random.uniform(-1, 1, (8, 2, 2, 3)).repeat(size // 2, 1).repeat(size // 2, 2)
    images = tf.constant((quarters + random.normal(0, 0.1, quarters.shape)).astype(np.float32))
    labels, waited = tf.constant(random.randint(NUM_CLASSES, size=8)), tf.constant(0, tf.float64)
    batches = SimpleNamespace(
        build=lambda network_fn: CloneOutputs(labels, *network_fn(images), waited)
    )
    dtype = tf.as_dtype(precision)
    network_fn = get_network_fn(
        name, NUM_CLASSES, weight_decay=values.weight_decay, is_training=True, dtype=dtype
    )
    clones = create_clones(
        DeploymentConfig(), build_clone, network_fn, batches, NUM_CLASSES, label_smoothing=0.0
    )
    rate = tf.constant(values.learning_rate)
    optimizer, loss_scale = configure_optimizer(values, rate, dtype)
    loss, gradients = optimize_clones(clones, optimizer)
    step, _ = build_train_op(
        loss,
        gradients,
        optimizer,
        global_step=global_step,
        update_ops=tf.get_collection(tf.GraphKeys.UPDATE_OPS),
        loss_scale=loss_scale,
    )
    return step
