"""Clusters of processes that train together, described by flags or by `TF_CONFIG`.

The variables are on parameter servers (job `ps`). Each worker (job `worker`) computes on its own
batches; worker 0, the chief, also initializes the variables and writes the checkpoints. With
all-reduce there are only workers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from slim.common.compat import tf
from slim.common.devices import session_config
from slim.common.errors import UserError
from slim.deployment.model_deploy import DeploymentConfig

ADDRESS = r"[^\s/]+:(\d{1,5})"
CHIEF_JOBS = ("chief", "master")  # names of worker 0 in TF_CONFIG


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The processes that train together, from the flags of the same names.

    `find_cluster` checks them and completes the numbers of processes.
    """

    job_name: str = "worker"  # the job of this process: "worker" | "ps"
    task: int = 0  # its index in the job
    worker_hosts: Sequence[str] = ()  # host:port; empty if unknown or on one machine
    ps_hosts: Sequence[str] = ()
    worker_replicas: int = 1
    num_ps_tasks: int = 0
    master: str = ""  # the address of a server that runs already; empty to start one
    all_reduce: bool = False
    cluster_timeout_secs: int = 600

    @property
    def is_chief(self) -> bool:
        """Returns whether this process initializes the variables and writes checkpoints."""
        return self.job_name == "worker" and self.task == 0

    @property
    def is_alone(self) -> bool:
        """Returns whether there is no other process."""
        return self.worker_replicas == 1 and not self.num_ps_tasks

    @property
    def required(self) -> list[str]:
        """Returns the addresses of the processes without which this one cannot go on."""
        if self.all_reduce:
            return [host for task, host in enumerate(self.worker_hosts) if task != self.task]
        return list(self.ps_hosts)

    def session_config(
        self, xla: bool = False, others: tf.ConfigProto | None = None
    ) -> tf.ConfigProto:
        """Returns session options, with a timeout for operations on other processes.

        Args:
            xla: Whether XLA compiles the network.
            others: Other options to add.
        """
        config = session_config(xla)
        # A session that saw the other workers would fail with the first of them.
        if self.worker_hosts or self.num_ps_tasks:
            config.device_filters.append(f"/job:{self.job_name}/task:{self.task}")
        if self.num_ps_tasks:
            config.device_filters.append("/job:ps")
        if self.all_reduce:
            config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
        if self.worker_hosts or self.master:
            config.operation_timeout_in_ms = 1000 * self.cluster_timeout_secs
        config.MergeFrom(others or tf.ConfigProto())
        return config


def find_cluster(given: Cluster, environment: Mapping[str, str]) -> Cluster:
    """Returns the cluster that the flags describe, else `TF_CONFIG`, else this process alone.

    Raises:
        UserError: The description is invalid.
    """
    if not (given.ps_hosts or given.worker_hosts or given.master) and environment.get("TF_CONFIG"):
        given = replace(given, **read_tf_config(environment["TF_CONFIG"]))
    _check_addresses(given)
    _check_counts(given)
    num_workers = len(given.worker_hosts) or given.worker_replicas
    num_ps = len(given.ps_hosts) or given.num_ps_tasks
    if given.all_reduce and (num_ps or given.master):
        raise UserError(
            "--all_reduce needs no parameter server and no --master: give --worker_hosts alone"
        )
    if num_workers > 1 and not num_ps and not given.all_reduce:
        raise UserError(
            f"{num_workers} workers need a place for the variables that they share: give "
            "--ps_hosts (with --master: --num_ps_tasks) or --all_reduce"
        )
    if given.job_name == "ps" and not given.ps_hosts:
        raise UserError("--job_name=ps needs --ps_hosts and --worker_hosts, or TF_CONFIG")
    tasks = num_ps if given.job_name == "ps" else num_workers
    if given.task >= tasks:
        raise UserError(
            f"--task={given.task}: expected 0 to {tasks - 1}, {given.job_name} has {tasks} tasks"
        )
    return replace(
        given,
        worker_replicas=num_workers,
        num_ps_tasks=num_ps,
        all_reduce=given.all_reduce and num_workers > 1,
    )


def _check_addresses(given: Cluster) -> None:
    hosts = [*given.worker_hosts, *given.ps_hosts]
    for host in hosts:
        if not _is_address(host):
            raise UserError(
                f"'{host}' is not an address of a worker or parameter server: expected host:port, "
                "with a port from 1 to 65535"
            )
        if hosts.count(host) > 1:
            raise UserError(f"{host} is given twice: each process needs its own port")
    scheme, _, address = given.master.rpartition("://")
    if given.master and not (scheme == "grpc" and _is_address(address)):
        raise UserError(f"--master={given.master}: expected grpc://host:port")
    if given.ps_hosts and not given.worker_hosts:
        raise UserError("--ps_hosts without --worker_hosts: give both, the same to every process")


def _is_address(host: str) -> bool:
    return bool(found := re.fullmatch(ADDRESS, host)) and 1 <= int(found[1]) <= 65535


def _check_counts(given: Cluster) -> None:
    """Checks the numbers of workers and parameter servers against their addresses."""
    has_hosts = bool(given.worker_hosts or given.ps_hosts)
    for flag, count, default, hosts in (
        ("worker_replicas", given.worker_replicas, 1, given.worker_hosts),
        ("num_ps_tasks", given.num_ps_tasks, 0, given.ps_hosts),
    ):
        if has_hosts and count not in (default, len(hosts)):
            raise UserError(
                f"--{flag}={count}, but {len(hosts)} addresses are given: leave --{flag} out"
            )
        if not has_hosts and not given.master and count != default:
            raise UserError(
                f"--{flag}={count}: addresses are missing; give --ps_hosts and --worker_hosts, "
                f"TF_CONFIG or --master, or leave --{flag} out to train on one machine"
            )


def read_tf_config(text: str) -> dict[str, Any]:
    """Reads the environment variable `TF_CONFIG` of a scheduler.

    Args:
        text: JSON: `{"cluster": {"chief": [address], "worker": [...], "ps": [...]}, "task":
            {"type": "worker", "index": 0}}`. The chief becomes worker 0, followed by the others.

    Returns:
        Fields of `Cluster`, without addresses if there is only one process.

    Raises:
        UserError: The text is invalid.
    """
    expected = (
        'expected {"cluster": {"worker": ["host:port", ...], "ps": [...]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    try:
        config = json.loads(text)
        jobs = {job: list(hosts) for job, hosts in config.get("cluster", {}).items()}
        chief = [host for job in CHIEF_JOBS for host in jobs.pop(job, [])]
        workers, ps = chief + jobs.pop("worker", []), jobs.pop("ps", [])
        if not ps and len(workers) < 2:
            return {"job_name": "worker", "task": 0}
        job, task = config["task"]["type"], int(config["task"]["index"])
        if task < 0 or not all(isinstance(host, str) for host in (*workers, *ps)):
            raise ValueError
    except (ArithmeticError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"TF_CONFIG={text}: {expected}") from error
    if job == "evaluator":
        raise UserError(
            "TF_CONFIG makes this process an evaluator: run slim.eval_image_classifier instead"
        )
    if job in CHIEF_JOBS:
        job = "worker"
    elif job == "worker":
        task += len(chief)
    if job not in ("worker", "ps"):
        raise UserError(f"TF_CONFIG: the task has the type '{job}'; {expected}")
    return {"ps_hosts": ps, "worker_hosts": workers, "job_name": job, "task": task}


def place_clones(cluster: Cluster, num_clones: int, clone_on_cpu: bool) -> DeploymentConfig:
    """Returns the placement of the clones of a worker, and checks that there are enough GPUs."""
    config = DeploymentConfig(
        num_clones, clone_on_cpu, cluster.task, cluster.worker_replicas, cluster.num_ps_tasks
    )
    config.check_devices(len(tf.config.list_physical_devices("GPU")))
    return config
