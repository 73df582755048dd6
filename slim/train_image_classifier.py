"""Trains an image classifier: `python -m slim.train_image_classifier --train_dir=...`.

The flags and their meanings are those of the published script. New are `--max_number_of_epochs`,
`--batch_norm_decay`, `--seed`, `--histograms`, `--noaugment`, `--cache_features`, `--precision` and
`--xla`. A cluster is given by `--ps_hosts`, `--worker_hosts`, `--job_name`, `--all_reduce` and
`--cluster_timeout_secs`, or by `TF_CONFIG`.
"""

import os
from functools import partial

from absl import flags

from slim.common.command_line import run_command
from slim.common.errors import UserError
from slim.training.flags import define_training_flags as define_flags


def main(values: flags.FlagValues) -> None:
    """Trains an image classifier on the shards that convert_dataset.py wrote."""
    from slim.checkpoints.description import write_model_description
    from slim.checkpoints.finding import find_checkpoint
    from slim.common.devices import describe_devices
    from slim.datasets.registry import get_dataset
    from slim.deployment.cluster import Cluster, find_cluster, place_clones
    from slim.deployment.membership import join, serve
    from slim.deployment.model_deploy import replica_graph
    from slim.training import settings
    from slim.training.graph import build_training_graph
    from slim.training.loop import train
    from slim.training.phases import Phases
    from slim.training.start import StartSettings, begin_run, choose_replicas, start_from

    cluster = find_cluster(settings.from_flags(Cluster, values), os.environ)
    if cluster.job_name == "ps":
        serve(cluster)
        return
    check_flags(values, cluster.worker_replicas)
    dataset = get_dataset(values.dataset_name, values.dataset_split_name, values.dataset_dir)
    model = settings.describe_model(values, dataset)
    replicas = choose_replicas(cluster, values.sync_replicas, values.replicas_to_aggregate)
    run = settings.run_settings(values, dataset, replicas.gradients_per_step)
    with begin_run(run, values.checkpoint_path, cluster.is_chief) as first_step:
        # The other processes of a cluster learn from the variables that the run is complete.
        if cluster.is_alone and run.ends_at(first_step):
            return
        config = place_clones(cluster, values.num_clones, values.clone_on_cpu)
        devices = describe_devices(values.num_clones, values.clone_on_cpu)
        data = settings.input_settings(values, dataset, cluster)
        if values.cache_features:  # a folder may get newer checkpoints while features are computed
            values.checkpoint_path = find_checkpoint(values.checkpoint_path)
        build_network = settings.choose_builder(values, dataset, data)
        optimizer = settings.optimizer_settings(values, dataset, replicas.gradients_per_step)
        with join(cluster) as target, replica_graph(config, values.seed) as global_step:
            phases = Phases()
            phases.begin("building the graph")
            network = build_network(config)
            graph = build_training_graph(
                network, optimizer, run, global_step=global_step, replicas=replicas
            )
            print(settings.describe_network(values, network, devices), flush=True)
            set_variables = None
            if cluster.is_chief:
                start = settings.from_flags(StartSettings, values)
                set_variables = start_from(run.train_dir, start, graph.averages)
                write_model_description(run.train_dir, model)
            train(
                graph,
                run,
                replicas,
                phases=phases,
                cluster=cluster,
                target=target,
                session_options=cluster.session_config(values.xla, network.session_options),
                set_variables=set_variables,
            )


def check_flags(values: flags.FlagValues, num_workers: int) -> None:
    """Checks the flags that can be checked without the dataset.

    Raises:
        UserError: A flag is missing or invalid.
    """
    from slim.nets.nets_factory import check_image_size
    from slim.training.settings import image_size

    if values.quantize_delay >= 0:
        raise UserError(
            f"--quantize_delay={values.quantize_delay}: TensorFlow 2 has no contrib quantizer; "
            "leave the flag out"
        )
    if not values.train_dir:
        raise UserError(
            "--train_dir is missing: expected a folder for checkpoints and event files, such as "
            "--train_dir=./checkpoints/cub_200"
        )
    size = image_size(values)
    check_image_size(values.model_name, size, size)
    if values.precision == "float16" and num_workers > 1:
        raise UserError(
            "--precision=float16: several workers cannot skip a step together when gradients "
            "overflow; give --precision=bfloat16"
        )
    if values.cache_features:
        check_cache_flags(values)


def check_cache_flags(values: flags.FlagValues) -> None:
    """Checks the flags of training on cached features, see `check_flags`."""
    for flag, expected, reason in (
        ("augment", False, "distorted images have different features every time"),
        ("preprocessing_name", None, "images are preprocessed as for feature extraction"),
        ("num_clones", 1, "one layer is too small for several GPUs"),
        ("worker_replicas", 1, "one layer is too small for several machines"),
    ):
        if values[flag].value != expected:
            to_do = "give --noaugment" if flag == "augment" else f"leave --{flag} out"
            raise UserError(f"--cache_features: {reason}; {to_do}")
    if not values.checkpoint_path:
        raise UserError(
            "--cache_features: --checkpoint_path is missing, the checkpoint to compute features "
            "from"
        )


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
