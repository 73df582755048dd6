"""Settings of training from its flags."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from absl import flags

from slim.checkpoints.description import ModelDescription
from slim.common.compat import tf
from slim.common.devices import describe_run
from slim.datasets.input import InputSettings
from slim.datasets.registry import Dataset, number_of_classes
from slim.deployment.cluster import Cluster
from slim.deployment.model_deploy import DeploymentConfig
from slim.nets.nets_factory import get_network
from slim.nets.sizes import count_parameters
from slim.preprocessing.preprocessing_factory import get_preprocessing
from slim.training.cached_features import FeatureSource, build_on_features
from slim.training.graph import RunSettings
from slim.training.networks import NetworkSettings, TrainingNetwork, build_on_images, split_scopes
from slim.training.optimizers import OptimizerSettings, find_decay_steps
from slim.training.start import find_last_step

Settings = TypeVar("Settings")


def from_flags(settings: type[Settings], values: flags.FlagValues, **others: Any) -> Settings:
    """Returns a dataclass with the values of the flags of the same names, and others."""
    names = [field.name for field in fields(settings) if field.name not in others]
    return settings(**{name: values[name].value for name in names}, **others)


def run_settings(
    values: flags.FlagValues, dataset: Dataset, gradients_per_step: int
) -> RunSettings:
    """Returns the settings of a run, see `Replicas.gradients_per_step`."""
    images_per_step = values.batch_size * values.num_clones * gradients_per_step
    last_step = find_last_step(
        values.max_number_of_steps,
        values.max_number_of_epochs,
        dataset.num_samples,
        images_per_step,
    )
    return from_flags(
        RunSettings,
        values,
        train_dir=Path(values.train_dir),
        last_step=last_step,
        images_per_step=images_per_step,
        images_per_epoch=dataset.num_samples,
        flags=values.flag_values_dict(),
    )


def optimizer_settings(
    values: flags.FlagValues, dataset: Dataset, gradients_per_step: int
) -> OptimizerSettings:
    """Returns the settings of the optimizer, see `Replicas.gradients_per_step`."""
    decay_steps = find_decay_steps(
        dataset.num_samples, values.num_epochs_per_decay, values.batch_size, gradients_per_step
    )
    return from_flags(OptimizerSettings, values, decay_steps=decay_steps)


def input_settings(values: flags.FlagValues, dataset: Dataset, cluster: Cluster) -> InputSettings:
    """Returns the settings of a worker's batches."""
    return from_flags(
        InputSettings,
        values,
        image_size=image_size(values),
        num_classes=number_of_classes(dataset.num_classes, values.labels_offset),
        num_threads=values.num_preprocessing_threads,
        seed=None if values.seed is None else values.seed + cluster.task,
        num_workers=cluster.worker_replicas,
        worker=cluster.task,
    )


def choose_builder(
    values: flags.FlagValues, dataset: Dataset, data: InputSettings
) -> Callable[[DeploymentConfig], TrainingNetwork]:
    """Returns the function that builds the network on images or on cached features."""
    settings = from_flags(NetworkSettings, values)
    if not values.cache_features:
        preprocess = get_preprocessing(_preprocessing(values), is_training=values.augment)
        return partial(
            build_on_images, settings=settings, data=data, dataset=dataset, preprocess=preprocess
        )
    source = FeatureSource(
        dataset=dataset,
        dataset_dir=values.dataset_dir,
        checkpoint=values.checkpoint_path,
        excluded=split_scopes(values.checkpoint_exclude_scopes),
        train_dir=Path(values.train_dir),
    )
    return partial(build_on_features, settings=settings, data=data, source=source)


def describe_model(values: flags.FlagValues, dataset: Dataset) -> ModelDescription:
    """Returns the description of the trained network for `model.json`."""
    number_of_classes(dataset.num_classes, values.labels_offset)  # checks the offset
    class_names = dataset.class_names or tuple(map(str, range(dataset.num_classes)))
    return ModelDescription(
        model_name=values.model_name,
        image_size=image_size(values),
        preprocessing_name=_preprocessing(values),
        dataset_name=dataset.name,
        class_names=class_names[values.labels_offset :],
    )


def describe_network(values: flags.FlagValues, network: TrainingNetwork, devices: str) -> str:
    """Returns the line about a network and its devices, see `describe_run`."""
    return describe_run(
        values.model_name,
        image_size(values),
        count_parameters(tf.trainable_variables()),
        devices=devices,
        trained=count_parameters(network.trained),
        num_clones=values.num_clones,
        precision=network.dtype.name,
        xla=values.xla,
    )


def image_size(values: flags.FlagValues) -> int:
    """Returns the height and width of training images; by default those of the network."""
    return values.train_image_size or get_network(values.model_name).default_image_size


def _preprocessing(values: flags.FlagValues) -> str:
    return values.preprocessing_name or values.model_name
