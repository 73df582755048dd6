"""Training step: Inception-V3 from shards to updated variables."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np

from benchmarks.measure import LIMIT, PEER, THIS, Comparison, Settings, Task, alternate
from benchmarks.networks import input_settings, keras, keras_model, on_device, ready_batch
from benchmarks.photographs import NAME, NUM_CLASSES
from slim.common.compat import tf
from slim.common.devices import session_config
from slim.datasets.input import get_dataset, next_batch, training_batches
from slim.deployment.model_deploy import (
    DeploymentConfig,
    create_clones,
    optimize_clones,
)
from slim.nets.describe import count_multiply_adds
from slim.nets.nets_factory import get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing
from slim.train_image_classifier import build_clone, build_train_op
from slim.training.batches import CloneOutputs
from slim.training.start import frozen_variables, variables_to_train

LAST_LAYER = ("Logits", "logits")  # the scopes that train.sh trains; ResNets use the second
SIDE = 3072  # rows and columns of the matrices
# The backward pass has two products of the size of the forward one.
PASSES = 3
LEARNING_RATE, MOMENTUM = 1e-3, 0.9


def measure(settings: Settings) -> list[Comparison]:
    """Measures steps of all layers and of the last, and compares them with a matrix product.

    Without --freeze_batch_norm, training of the last layer updates the averages of all batch norm.
    """
    *all_layers, product = alternate(
        [*step_tasks((), settings), matrix_product(settings)], settings
    )
    last_layer = alternate(step_tasks(LAST_LAYER, settings), settings)
    frozen = alternate(step_tasks(LAST_LAYER, settings, freeze_batch_norm=True), settings)
    gflop = PASSES * forward_gflop(settings)
    return [
        Comparison(f"all layers, {settings.batches}", "images/s", all_layers),
        Comparison(f"the last layer, {settings.batches}", "images/s", last_layer),
        Comparison(f"the same with --freeze_batch_norm, {settings.batches}", "images/s", frozen),
        Comparison(
            f"arithmetic of all layers, {gflop:.0f} GFLOP per image",
            "GFLOP/s",
            [all_layers[0].scaled(gflop), product],
        ),
    ]


def step_tasks(
    scopes: tuple[str, ...], settings: Settings, *, freeze_batch_norm: bool = False
) -> list[Task]:
    """Returns training of the variables in some scopes (default: all), of Keras, and a limit."""
    steps = partial(training, scopes, settings, freeze_batch_norm=freeze_batch_norm)
    return [
        Task("train_image_classifier", THIS, *steps(ready=False)),
        keras_task(bool(scopes), settings, freeze_batch_norm=freeze_batch_norm),
        Task("the same on a ready batch", LIMIT, *steps(ready=True)),
    ]


def forward_gflop(settings: Settings) -> float:
    """Returns the operations of a forward pass per image, auxiliary classifier included."""
    size = settings.image_size
    with tf.Graph().as_default() as graph:
        get_network_fn(settings.model_name, NUM_CLASSES)(tf.zeros([1, size, size, 3]))
        return 2 * count_multiply_adds(graph) / 1e9


def training(
    scopes: tuple[str, ...], settings: Settings, *, ready: bool, freeze_batch_norm: bool = False
) -> tuple[Callable[[], int], Callable[[], None]]:
    """Returns the passes of training, without summaries and checkpoints, and their preparation.

    Args:
        scopes: Scopes of the trained variables; empty for all.
        settings: Batches and sizes.
        ready: Whether to use one batch on the device instead of input.
        freeze_batch_norm: The flag of `train_image_classifier`.
    """
    trainable_scopes = ",".join(scopes)
    flags = SimpleNamespace(freeze_batch_norm=freeze_batch_norm, trainable_scopes=trainable_scopes)
    with tf.Graph().as_default():
        if ready:
            images, labels = [on_device(array) for array in ready_batch(settings)]
            begin, waited = tf.no_op(), tf.constant(0, tf.float64)
        else:
            with tf.device("/device:CPU:0"):
                iterator = tf.data.make_initializable_iterator(input_batches(settings))
            begin, (images, labels, waited) = iterator.initializer, next_batch(iterator)
        network_fn = get_network_fn(
            settings.model_name,
            NUM_CLASSES,
            weight_decay=4e-5,
            is_training=True,
            is_frozen=frozen_variables(flags),
            dtype=tf.as_dtype(settings.precision),
        )
        batches = SimpleNamespace(
            build=lambda network_fn: CloneOutputs(labels, *network_fn(images), waited)
        )
        clones = create_clones(
            DeploymentConfig(), build_clone, network_fn, batches, NUM_CLASSES, label_smoothing=0.0
        )
        optimizer = tf.train.MomentumOptimizer(LEARNING_RATE, MOMENTUM)
        loss, gradients = optimize_clones(clones, optimizer, variables_to_train(trainable_scopes))
        train_op, _ = build_train_op(
            loss,
            gradients,
            optimizer,
            global_step=tf.train.get_or_create_global_step(),
            update_ops=tf.get_collection(tf.GraphKeys.UPDATE_OPS),
        )
        session = tf.Session(config=session_config(settings.xla))
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])

    def run() -> int:
        for _ in range(settings.steps):
            session.run(train_op)
        return settings.steps * settings.batch_size

    # A pass begins without batches made before it.
    return run, lambda: session.run(begin)


def input_batches(settings: Settings) -> tf.data.Dataset:
    """Returns the batches of training."""
    return training_batches(
        get_dataset(NAME, "train", str(settings.folder)),
        get_preprocessing(settings.model_name, is_training=True),
        input_settings(settings),
    )


def keras_task(last_layer_only: bool, settings: Settings, *, freeze_batch_norm: bool) -> Task:
    """Returns the step of Keras on a ready batch in the memory of the host."""
    images, labels = ready_batch(settings)
    model = keras_model(settings, classes=NUM_CLASSES)
    if last_layer_only:
        # Keras' frozen layers keep the averages of batch norm; with frozen variables they change.
        for layer in model.layers[:-1]:
            for part in [layer] if freeze_batch_norm else layer.trainable_variables:
                part.trainable = False
    compile_keras(model)

    def run() -> int:
        for _ in range(settings.steps):
            model.train_on_batch(images, labels)
        return settings.steps * settings.batch_size

    return Task("Keras' Inception-V3 on a ready batch", PEER, run)


def compile_keras(model: keras.Model, jit_compile: bool | str = "auto") -> None:
    """Prepares Keras' network for training; by default, Keras decides about XLA."""
    optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=jit_compile)


def keras_fit(settings: Settings) -> Task:
    """Returns the steps of Keras' `fit` on a batch that stays on the device."""
    model = keras_model(settings, classes=NUM_CLASSES)
    compile_keras(model, jit_compile=settings.xla)
    batches = tf.data.Dataset.from_tensors(ready_batch(settings)).repeat()
    if tf.config.list_physical_devices("GPU"):
        batches = batches.apply(tf.data.experimental.prefetch_to_device("/GPU:0"))

    def run() -> int:
        model.fit(batches, steps_per_epoch=settings.steps, shuffle=False, verbose=0)
        return settings.steps * settings.batch_size

    return Task("Keras' fit", PEER, run)


def convolutions(settings: Settings) -> Task:
    """Returns the convolutions of a network, each with both of its gradients, and nothing else."""
    size, dtype = settings.image_size, tf.as_dtype(settings.precision)
    with tf.Graph().as_default() as network:
        images = tf.zeros([settings.batch_size, size, size, 3])
        get_network_fn(settings.model_name, NUM_CLASSES, is_training=True)(images)
        found = [operation for operation in network.get_operations() if operation.type == "Conv2D"]
        shapes = [[tensor.shape.as_list() for tensor in (*o.inputs, *o.outputs)] for o in found]
        options = [(o.get_attr("strides"), o.get_attr("padding").decode()) for o in found]
    with tf.Graph().as_default():
        values = {}  # one tensor for each shape

        def tensor(shape: list[int]) -> tf.Tensor:
            if (key := tuple(shape)) not in values:
                noise = np.random.default_rng(0).standard_normal(shape, np.float32)
                values[key] = tf.Variable(
                    tf.cast(noise, dtype), collections=[tf.GraphKeys.LOCAL_VARIABLES]
                )
            return values[key]

        done = []
        for (input_shape, filter_shape, output_shape), (strides, padding) in zip(
            shapes, options, strict=True
        ):
            x, w, dy = tensor(input_shape), tensor(filter_shape), tensor(output_shape)
            common = {"strides": strides, "padding": padding}
            done += [
                tf.raw_ops.Conv2D(input=x, filter=w, **common),
                tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=input_shape, filter=w, out_backprop=dy, **common
                ),
                tf.raw_ops.Conv2DBackpropFilter(
                    input=x, filter_sizes=filter_shape, out_backprop=dy, **common
                ),
            ]
        step = tf.group(*done)
        session = tf.Session(config=session_config())
        session.run(tf.local_variables_initializer())

    def run() -> int:
        for _ in range(settings.steps):
            session.run(step)
        return settings.steps * settings.batch_size

    return Task("convolutions alone, with their gradients", LIMIT, run)


def matrix_product(settings: Settings) -> Task:
    """Returns products of square matrices, in GFLOP."""
    dtype = tf.as_dtype(settings.precision).as_numpy_dtype
    numbers = np.random.default_rng(0).standard_normal((SIDE, SIDE)) / np.sqrt(SIDE)
    with tf.Graph().as_default():
        factor = on_device(numbers.astype(dtype))
        product = tf.identity(factor)
        for _ in range(settings.steps):
            product @= factor
        product = product[0, 0]  # a single number, so that copying is not measured
        session = tf.Session(config=session_config())
        session.run(tf.local_variables_initializer())

    def run() -> float:
        session.run(product)
        return settings.steps * 2 * SIDE**3 / 1e9

    return Task(f"matrix product of {SIDE:,} x {SIDE:,}", LIMIT, run)
