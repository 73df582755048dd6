"""Feature extraction: features of image files by Inception-V3."""

from itertools import cycle, islice

from benchmarks.measure import PEER, THIS, Comparison, Settings, Task, alternate
from benchmarks.networks import bare_task, keras, keras_model, one_image_task, write_checkpoint
from benchmarks.photographs import NAME, image_files
from slim.checkpoints.freezing import FrozenNetwork, build_network, pool_features
from slim.common.compat import tf
from slim.features.extractor import Extractor, load_network
from slim.features.feature_files import Settings as Extraction
from slim.nets.nets_factory import get_network, get_network_fn


def measure(settings: Settings) -> list[Comparison]:
    """Compares extraction with one image per call, with Keras, and with the network alone."""
    endpoint = get_network(settings.model_name).feature_endpoint
    extraction = Extraction(
        settings.model_name,
        "random values",
        False,
        endpoint,
        settings.image_size,
        settings.precision,
    )

    network_fn = get_network_fn(settings.model_name, None, dtype=tf.as_dtype(settings.precision))

    def features(images: tf.Tensor) -> tf.Tensor:
        return pool_features(network_fn(images)[1], endpoint)

    network = build_network(
        settings.model_name,
        None,
        settings.image_size,
        outputs=lambda _, end_points: pool_features(end_points, endpoint),
        precision=settings.precision,
    )
    checkpoint = write_checkpoint(network, settings.folder / "extraction.ckpt")
    frozen = load_network(extraction, checkpoint)
    tasks = [
        extraction_task(frozen, extraction, settings),
        one_image_task(features, settings),
        keras_task(settings),
        bare_task(frozen, settings),
    ]
    return [Comparison(settings.batches, "images/s", alternate(tasks, settings))]


def extraction_task(network: FrozenNetwork, extraction: Extraction, settings: Settings) -> Task:
    """Returns extraction without opening and writing feature files."""
    extractor = Extractor(network, extraction, settings.batch_size, xla=settings.xla)
    files = cycle(map(str, image_files(settings.folder)))
    paths = list(islice(files, settings.steps * settings.batch_size))
    return Task(
        "feature_extraction.py", THIS, lambda: sum(len(rows) for rows in extractor.features(paths))
    )


def keras_task(settings: Settings) -> Task:
    """Returns the prediction of Keras on the same files, read as in its guides."""
    model = keras_model(settings, include_top=False, pooling="avg")
    images = keras.utils.image_dataset_from_directory(
        settings.folder / NAME / "images",
        labels=None,
        batch_size=settings.batch_size,
        image_size=(settings.image_size, settings.image_size),
        shuffle=False,
        verbose=False,
    )
    batches = images.take(settings.steps).map(keras.applications.inception_v3.preprocess_input)
    return Task("Keras' predict", PEER, lambda: len(model.predict(batches, verbose=0)))
