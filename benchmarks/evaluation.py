"""Evaluation: Inception-V3 on the images of shards."""

from benchmarks.measure import PEER, THIS, Comparison, Settings, Task, alternate
from benchmarks.networks import (
    bare_task,
    input_settings,
    keras_model,
    one_image_task,
    write_checkpoint,
)
from benchmarks.photographs import NAME, NUM_CLASSES
from slim.checkpoints.freezing import FrozenNetwork, build_network, freeze
from slim.checkpoints.reading import read_tensors
from slim.common.compat import tf
from slim.common.devices import session_config
from slim.datasets.input import evaluation_batches, get_dataset
from slim.evaluation.ranking import rank_batch, run_batches
from slim.nets.nets_factory import get_network_fn
from slim.preprocessing.preprocessing_factory import get_preprocessing


def measure(settings: Settings) -> list[Comparison]:
    """Compares evaluation with one image per call, with Keras, and with the network alone."""
    network_fn = get_network_fn(
        settings.model_name, NUM_CLASSES, dtype=tf.as_dtype(settings.precision)
    )

    def logits(images: tf.Tensor) -> tf.Tensor:
        return network_fn(images, create_aux_logits=False)[0]

    network = build_network(
        settings.model_name,
        NUM_CLASSES,
        settings.image_size,
        outputs=lambda logits, _: logits,
        precision=settings.precision,
    )
    checkpoint = write_checkpoint(network, settings.folder / "evaluation.ckpt")
    frozen = freeze(network, read_tensors(checkpoint, [v.op.name for v in network.variables]))
    tasks = [
        evaluation_task(frozen, settings),
        one_image_task(logits, settings),
        keras_task(settings),
        bare_task(frozen, settings),
    ]
    return [Comparison(settings.batches, "images/s", alternate(tasks, settings))]


def input_batches(settings: Settings) -> tf.data.Dataset:
    """Returns the batches of evaluation, repeated."""
    return evaluation_batches(
        get_dataset(NAME, "validation", str(settings.folder)),
        get_preprocessing(settings.model_name),
        input_settings(settings),
    ).repeat()


def evaluation_task(network: FrozenNetwork, settings: Settings) -> Task:
    """Returns the evaluation of a checkpoint that has been read."""
    with tf.Graph().as_default():
        batches = input_batches(settings).take(settings.steps)
        iterator = tf.data.make_initializable_iterator(batches)
        images, labels = iterator.get_next()
        outputs = rank_batch(network(images, settings.xla), labels)
        session = tf.Session(config=session_config())

    def run() -> int:
        session.run(iterator.initializer)
        num_images = settings.steps * settings.batch_size
        return len(run_batches(session, outputs, "evaluation", num_images)["labels"])

    return Task("eval_image_classifier", THIS, run)


def keras_task(settings: Settings) -> Task:
    """Returns the prediction of Keras on the same input."""
    model = keras_model(settings, classes=NUM_CLASSES)
    images = input_batches(settings).map(lambda images, _: images)

    def run() -> int:
        return len(model.predict(images, verbose=0, steps=settings.steps))

    return Task("Keras' predict", PEER, run)
