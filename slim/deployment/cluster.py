"""Several machines: which there are, how a process takes its place among them, how all of them end.

Variables live on parameter servers (job `ps`); each worker (job `worker`) computes on batches of
its own, and worker 0, the chief, also initializes the variables and writes the checkpoints. The
runtime is TensorFlow's own. A parameter server hears from the workers when they begin and end, and
ends after the last one. With all-reduce there are only workers.
"""

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.signals import stop_signals
from slim.deployment.model_deploy import session_config

ADDRESS = r"[^\s/]+:\d+"
POLL_SECS = 0.5
CONNECT_SECS = 2.0
FAREWELL_SECS = 10.0  # for what is good to say and not needed
CHIEF_JOBS = ("chief", "master")  # as schedulers call worker 0

# What a session says when a process at its other end is gone, or does not answer in time.
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


class State(IntEnum):
    """What a worker tells the parameter servers."""

    RUNNING = 0
    ENDED = 1
    FAILED = 2


@dataclass(frozen=True)
class Cluster:
    """The processes that train together, and which of them this one is.

    Attributes:
        job: `worker` or `ps`.
        task: Its index in the job.
        num_workers: Number of workers.
        num_ps: Number of parameter servers.
        workers: Their addresses, `host:port`; empty on one machine, and where only `master` knows.
        ps: The parameter servers' addresses, likewise.
        master: The address of a server that was started for this process; else it starts its own.
        all_reduce: Whether workers take means among themselves, without parameter servers.
        timeout_secs: How long to wait for another process.
    """

    job: str = "worker"
    task: int = 0
    num_workers: int = 1
    num_ps: int = 0
    workers: tuple[str, ...] = ()
    ps: tuple[str, ...] = ()
    master: str = ""
    all_reduce: bool = False
    timeout_secs: int = 600

    @property
    def is_chief(self) -> bool:
        """Whether this process initializes the variables and writes the checkpoints."""
        return self.job == "worker" and self.task == 0

    @property
    def needed(self) -> list[str]:
        """Addresses of the processes that this one cannot do without."""
        if self.all_reduce:
            return [worker for task, worker in enumerate(self.workers) if task != self.task]
        return list(self.ps)

    def session_config(self, xla: bool = False) -> tf.ConfigProto:
        """Sessions that see the parameter servers and this process, and that wait with an end.

        A session that saw the other workers would fail with the first of them.
        """
        config = session_config(xla)
        if self.workers or self.num_ps:
            config.device_filters.append(f"/job:{self.job}/task:{self.task}")
        if self.num_ps:
            config.device_filters.append("/job:ps")
        if self.all_reduce:
            config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
        if self.workers or self.master:
            config.operation_timeout_in_ms = 1000 * self.timeout_secs
        return config


def find_cluster(
    ps_hosts: Sequence[str],
    worker_hosts: Sequence[str],
    job_name: str,
    task: int,
    master: str,
    worker_replicas: int,
    num_ps_tasks: int,
    all_reduce: bool,
    timeout_secs: int,
    environment: Mapping[str, str],
) -> Cluster:
    """The cluster that the flags describe, else `TF_CONFIG`, else this machine alone.

    Args:
        ps_hosts: Addresses of the parameter servers.
        worker_hosts: Addresses of the workers, the chief's first.
        job_name: This process's job.
        task: Its index in the job.
        master: The address of a server that was started for this process.
        worker_replicas: Number of workers; where addresses are given 1 or their number.
        num_ps_tasks: Number of parameter servers; where addresses are given 0 or their number.
        all_reduce: Whether workers do without parameter servers.
        timeout_secs: How long to wait for another process.
        environment: Where `TF_CONFIG` is looked for.

    Returns:
        The cluster.

    Raises:
        UserError: The description does not fit together.
    """
    if not (ps_hosts or worker_hosts or master) and environment.get("TF_CONFIG"):
        ps_hosts, worker_hosts, job_name, task = read_tf_config(environment["TF_CONFIG"])
    hosts = [*worker_hosts, *ps_hosts]
    for host in hosts:
        if not re.fullmatch(ADDRESS, host):
            raise UserError(f"'{host}' is no address of a worker or parameter server: host:port")
        if hosts.count(host) > 1:
            raise UserError(f"{host} is given twice: each process needs a port of its own")
    if master and not re.fullmatch(rf"grpc://{ADDRESS}", master):
        raise UserError(f"--master={master}: expected grpc://host:port")
    if ps_hosts and not worker_hosts:
        raise UserError("--ps_hosts without --worker_hosts: give both, the same to every process")
    for flag, given, default, listed in (
        ("worker_replicas", worker_replicas, 1, len(worker_hosts)),
        ("num_ps_tasks", num_ps_tasks, 0, len(ps_hosts)),
    ):
        if hosts and given not in (default, listed):
            raise UserError(f"--{flag}={given}, but {listed} addresses are given: leave it out")
        if not hosts and not master and given != default:
            raise UserError(
                f"--{flag}={given}: where they are is missing; give --ps_hosts and --worker_hosts, "
                "TF_CONFIG or --master, or leave it out to train on one machine"
            )
    num_workers = len(worker_hosts) or worker_replicas
    cluster = Cluster(
        job_name,
        task,
        num_workers,
        len(ps_hosts) or num_ps_tasks,
        tuple(worker_hosts),
        tuple(ps_hosts),
        master,
        all_reduce and num_workers > 1,
        timeout_secs,
    )
    if all_reduce and (cluster.num_ps or master):
        raise UserError(
            "--all_reduce needs no parameter server and no --master: give --worker_hosts alone"
        )
    if cluster.num_workers > 1 and not cluster.num_ps and not all_reduce:
        raise UserError(
            f"{cluster.num_workers} workers need a place for the variables that they share: give "
            "--ps_hosts (with --master: --num_ps_tasks) or --all_reduce"
        )
    if job_name == "ps" and not ps_hosts:
        raise UserError("--job_name=ps needs --ps_hosts and --worker_hosts, or TF_CONFIG")
    most = cluster.num_ps if job_name == "ps" else cluster.num_workers
    if task >= most:
        raise UserError(f"--task={task}: expected 0 to {most - 1}, {job_name} has {most} tasks")
    return cluster


def read_tf_config(text: str) -> tuple[list[str], list[str], str, int]:
    """What a scheduler says in the environment variable `TF_CONFIG`.

    Args:
        text: JSON: `{"cluster": {"chief": [address], "worker": [...], "ps": [...]}, "task":
            {"type": "worker", "index": 0}}`; a chief is worker 0, the others follow it.

    Returns:
        Addresses of the parameter servers, of the workers, and this process's job and task; no
        addresses where there is but one process.

    Raises:
        UserError: It is something else.
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
            return [], [], "worker", 0
        job, task = config["task"]["type"], int(config["task"]["index"])
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"TF_CONFIG={text}: {expected}") from error
    if job == "evaluator":
        raise UserError(
            "TF_CONFIG makes this process an evaluator: run slim.eval_image_classifier in it"
        )
    if job in CHIEF_JOBS:
        job = "worker"
    elif job == "worker":
        task += len(chief)
    if job not in ("worker", "ps"):
        raise UserError(f"TF_CONFIG: the task's type is '{job}'; {expected}")
    return ps, workers, job, task


@contextmanager
def join(cluster: Cluster) -> Iterator[str]:
    """Takes a worker's place in the cluster while the block runs, and tells the others how it went.

    Args:
        cluster: The cluster; where it is one machine nothing is done.

    Yields:
        What sessions connect to.

    Raises:
        UserError: A parameter server does not answer, or is lost.
    """
    if not (cluster.workers or cluster.master):
        yield ""
        return
    # Else the session to a lost parameter server is not closed before the timeout.
    os.environ["GRPC_FAIL_FAST"] = "true"
    server = None if cluster.master else _start_server(cluster)
    target = cluster.master or server.target
    try:
        _wait_for_others(cluster)
        _tell(cluster, target, State.RUNNING)
        yield target
    except LOST as error:
        silent = [address for address in cluster.needed if not _answers(address)]
        if not silent:
            _tell(cluster, target, State.FAILED)
        raise _lost(cluster, error, silent) from error
    except (SystemExit, KeyboardInterrupt):
        _tell(cluster, target, State.ENDED)
        raise
    except BaseException:
        _tell(cluster, target, State.FAILED)
        raise
    else:
        _tell(cluster, target, State.ENDED)


def serve(cluster: Cluster) -> None:
    """Runs a parameter server until every worker has ended.

    Args:
        cluster: The cluster; this process's job is `ps`.

    Raises:
        UserError: A worker failed, or none answers for `timeout_secs`.
        SystemExit: After Ctrl-C or SIGTERM, once the workers have ended: 128 + the signal.
    """
    server = _start_server(cluster)
    print(
        f"parameter server {cluster.task} of {cluster.num_ps} at {cluster.ps[cluster.task]}, for "
        f"workers at {', '.join(cluster.workers)}",
        flush=True,
    )
    config = tf.ConfigProto(device_filters=[f"/job:ps/task:{cluster.task}"])
    with (
        stop_signals("stopping when the workers have ended") as stopped_by,
        tf.Graph().as_default(),
        tf.Session(server.target, config=config) as session,
    ):
        queue = _messages(cluster.task)
        waiting, message = queue.size(), queue.dequeue()
        running = set(range(cluster.num_workers))
        last_seen = time.monotonic()
        while running:
            for _ in range(session.run(waiting)):
                task, state = session.run(message)
                if state == State.FAILED:
                    raise UserError(
                        f"worker {task} failed, its own message says why; the training ends"
                    )
                running = running | {task} if state == State.RUNNING else running - {task}
            if any(_answers(cluster.workers[task]) for task in running):
                last_seen = time.monotonic()
            elif stopped_by or time.monotonic() > last_seen + cluster.timeout_secs:
                break
            time.sleep(POLL_SECS)
    if stopped_by:
        raise SystemExit(128 + stopped_by[0])
    if len(running) == cluster.num_workers:
        raise UserError(
            f"no worker answered for {cluster.timeout_secs} s (--cluster_timeout_secs): start them "
            f"({', '.join(cluster.workers)}), and this parameter server again"
        )
    print("done: the workers have ended", flush=True)


def wait_for_chief(cluster: Cluster, target: str) -> None:
    """Waits until the chief has initialized or restored every variable of the current graph.

    Raises:
        tf.errors.DeadlineExceededError: It has not within `timeout_secs`.
    """
    ready = tf.report_uninitialized_variables(tf.global_variables())
    manager = tf.train.SessionManager(ready_op=ready, recovery_wait_secs=1)
    config = cluster.session_config()
    manager.wait_for_session(target, config, max_wait_secs=cluster.timeout_secs).close()


def _start_server(cluster: Cluster) -> tf.train.Server:
    jobs = {"worker": list(cluster.workers), "ps": list(cluster.ps)}
    config = cluster.session_config()
    config.ClearField("device_filters")
    if cluster.job == "ps":
        config.device_count["GPU"] = 0
    try:
        return tf.train.Server(jobs, cluster.job, cluster.task, config=config)
    except tf.errors.OpError as error:
        raise UserError(
            f"cannot listen at {jobs[cluster.job][cluster.task]} as {cluster.job} {cluster.task} "
            f"({error.message}): is the port in use, by an earlier run maybe?"
        ) from error


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), CONNECT_SECS):
        return True
    return False


def _wait_for_others(cluster: Cluster) -> None:
    """Waits until all that is needed listens: a session would wait without an end."""
    master = [cluster.master.removeprefix("grpc://")] if cluster.master else []
    limit = time.monotonic() + cluster.timeout_secs
    while silent := [address for address in [*master, *cluster.needed] if not _answers(address)]:
        if time.monotonic() > limit:
            raise UserError(
                f"no answer from {', '.join(silent)} within {cluster.timeout_secs} s "
                "(--cluster_timeout_secs): start the process there, or mend the address"
            )
        time.sleep(POLL_SECS)


def _messages(task: int) -> tf.FIFOQueue:
    """The queue on a parameter server in which it hears from workers: task, `State`."""
    with tf.device(f"/job:ps/task:{task}/device:CPU:0"):
        return tf.FIFOQueue(-1, tf.int32, shapes=[[2]], shared_name="messages")


def _tell(cluster: Cluster, target: str, state: State) -> None:
    if not cluster.num_ps:
        return
    config = cluster.session_config()
    if state != State.RUNNING:
        config.operation_timeout_in_ms = int(1000 * FAREWELL_SECS)
    with (
        tf.Graph().as_default(),
        suppress(*(LOST if state != State.RUNNING else ())),
        tf.Session(target, config=config) as session,
    ):
        message = tf.constant([cluster.task, state])
        session.run([_messages(task).enqueue(message) for task in range(cluster.num_ps)])


def _lost(cluster: Cluster, error: tf.errors.OpError, silent: Sequence[str]) -> UserError:
    """What a user can do about an error in `LOST`; `silent` parameter servers do not answer."""
    again = "start every process again, the training goes on from its last checkpoint"
    if silent:
        what = "worker" if cluster.all_reduce else "parameter server"
        return UserError(f"lost the {what} at {', '.join(silent)}: {again}")
    if isinstance(error, tf.errors.DeadlineExceededError):
        return UserError(
            f"waited {cluster.timeout_secs} s in vain for another process of the cluster "
            f"(--cluster_timeout_secs): is every worker running, the chief (task 0) too? {again}"
        )
    first_line = error.message.strip().splitlines()[0]
    return UserError(f"lost the connection to the cluster ({first_line}): {again}")
