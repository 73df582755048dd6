"""Processes that train together, described by flags or by `TF_CONFIG`, with TensorFlow's runtime.

The variables are on parameter servers (job `ps`). Each worker (job `worker`) computes on its own
batches; worker 0, the chief, also initializes the variables and writes the checkpoints. With
all-reduce there are only workers. Workers tell the parameter servers when they begin and end, and a
parameter server ends after the last worker. Ctrl-C and SIGTERM are requests to stop.
"""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum

from absl import flags

from slim.common.compat import tf
from slim.common.devices import session_config
from slim.common.errors import UserError

CHIEF_JOBS = ("chief", "master")  # names of worker 0 in TF_CONFIG
POLL_SECS = 0.5
CONNECT_SECS = 2.0
FAREWELL_SECS = 10  # for the last message, which is useful but not essential

# Errors of a session whose other end is gone or does not answer in time.
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


# The state of a worker, as it is sent to the parameter servers.
State = IntEnum("State", ("RUNNING", "ENDED", "FAILED"))


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The processes that train together."""

    job_name: str  # the job of this process: "worker" | "ps"
    task: int  # its index in the job
    worker_hosts: Sequence[str]  # host:port; empty if unknown or on one machine
    ps_hosts: Sequence[str]
    worker_replicas: int
    num_ps_tasks: int
    master: str  # the address of a server that runs already; empty to start one
    all_reduce: bool
    timeout_secs: int

    @property
    def is_chief(self) -> bool:
        """Whether this process initializes the variables and writes checkpoints."""
        return self.job_name == "worker" and self.task == 0

    @property
    def is_alone(self) -> bool:
        """Whether there are no other workers and no parameter servers."""
        return self.worker_replicas == 1 and not self.num_ps_tasks

    @property
    def required(self) -> list[str]:
        """The addresses of the processes without which this one cannot go on."""
        if self.all_reduce:
            return [host for task, host in enumerate(self.worker_hosts) if task != self.task]
        return list(self.ps_hosts)

    def session_config(self, xla: bool = False) -> tf.ConfigProto:
        """Returns the options of a session, with a timeout for operations on other processes."""
        config = session_config(xla)
        # A session that saw the other workers would fail with the first of them.
        if self.worker_hosts or self.num_ps_tasks:
            config.device_filters.append(f"/job:{self.job_name}/task:{self.task}")
        if self.num_ps_tasks:
            config.device_filters.append("/job:ps")
        if self.all_reduce:
            config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
        if self.worker_hosts or self.master:
            config.operation_timeout_in_ms = 1000 * self.timeout_secs
        return config


def find_cluster(values: flags.FlagValues, environment: Mapping[str, str]) -> Cluster:
    """Returns the cluster of the flags, otherwise of `TF_CONFIG`, otherwise this process alone."""
    workers, ps, master = values.worker_hosts, values.ps_hosts, values.master
    job, task = values.job_name, values.task
    if environment.get("TF_CONFIG") and not (ps or workers or master):
        workers, ps, job, task = read_tf_config(environment["TF_CONFIG"])

    # 1. Every process has an address of its own.
    hosts = [*workers, *ps]
    for host in hosts:
        if not _is_address(host):
            raise UserError(
                f"'{host}' is not an address of a worker or parameter server: expected host:port, "
                "with a port from 1 to 65535"
            )
        if hosts.count(host) > 1:
            raise UserError(f"{host} occurs twice: each process needs its own port")
    if master and not (master.startswith("grpc://") and _is_address(master[7:])):
        raise UserError(f"--master={master}: expected grpc://host:port")
    if ps and not workers:
        raise UserError("--ps_hosts without --worker_hosts: pass both, the same to every process")

    # 2. The published numbers of processes agree with the addresses.
    for flag, default, known in (("worker_replicas", 1, workers), ("num_ps_tasks", 0, ps)):
        number = getattr(values, flag)
        if hosts and number not in (default, len(known)):
            raise UserError(f"--{flag}={number}, but {len(known)} addresses are set: omit --{flag}")
        if not (hosts or master) and number != default:
            raise UserError(
                f"--{flag}={number}: addresses are missing; pass --ps_hosts and --worker_hosts, "
                f"TF_CONFIG or --master, or omit --{flag} to train on one machine"
            )
    num_workers, num_ps = len(workers) or values.worker_replicas, len(ps) or values.num_ps_tasks
    # 3. The variables are on parameter servers or, with all-reduce, on every worker.
    if values.all_reduce and (num_ps or master):
        raise UserError(
            "--all_reduce needs no parameter server and no --master: pass --worker_hosts alone"
        )
    if num_workers > 1 and not num_ps and not values.all_reduce:
        raise UserError(
            f"{num_workers} workers need a place for the variables that they share: pass "
            "--ps_hosts (with --master: --num_ps_tasks) or --all_reduce"
        )
    if job == "ps" and not ps:
        raise UserError("--job_name=ps needs --ps_hosts and --worker_hosts, or TF_CONFIG")
    tasks = num_ps if job == "ps" else num_workers
    if task >= tasks:
        raise UserError(f"--task={task}: expected 0 to {tasks - 1}, {job} has {tasks} tasks")
    return Cluster(
        job_name=job,
        task=task,
        worker_hosts=workers,
        ps_hosts=ps,
        worker_replicas=num_workers,
        num_ps_tasks=num_ps,
        master=master,
        all_reduce=values.all_reduce and num_workers > 1,
        timeout_secs=values.cluster_timeout_secs,
    )


def _is_address(host: str) -> bool:
    found = re.fullmatch(r"[^\s/]+:(\d{1,5})", host)
    return bool(found) and 1 <= int(found[1]) <= 65535


def read_tf_config(text: str) -> tuple[list[str], list[str], str, int]:
    """Returns workers, parameter servers, job and task of a scheduler's `TF_CONFIG`.

    The chief becomes worker 0, followed by the others. A process alone has no addresses.
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
        if task < 0 or not all(isinstance(host, str) for host in (*workers, *ps)):
            raise ValueError
    except (ArithmeticError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"TF_CONFIG={text}: {expected}") from error
    if job == "evaluator":
        raise UserError(
            "TF_CONFIG makes this process an evaluator: run slim.eval_image_classifier instead"
        )
    if job not in ("worker", "ps", *CHIEF_JOBS):
        raise UserError(f"TF_CONFIG: the task has the type '{job}'; {expected}")
    if job in CHIEF_JOBS:
        return workers, ps, "worker", task
    return workers, ps, job, task + (len(chief) if job == "worker" else 0)


@contextmanager
def join(cluster: Cluster) -> Iterator[str]:
    """Joins a cluster as a worker; the parameter servers learn how the block ends.

    Yields the target of sessions, which is empty on one machine.
    """
    if not (cluster.worker_hosts or cluster.master):
        yield ""
        return
    # Otherwise the session to a lost parameter server stays open until the timeout.
    os.environ["GRPC_FAIL_FAST"] = "true"
    server = None if cluster.master else _start_server(cluster)
    target = cluster.master or server.target
    end = State.FAILED
    try:
        # All required processes have to listen; a session would wait forever.
        required = [*cluster.required, *filter(None, [cluster.master.removeprefix("grpc://")])]
        limit = time.monotonic() + cluster.timeout_secs
        while silent := [address for address in required if not _answers(address)]:
            if time.monotonic() > limit:
                raise UserError(
                    f"no answer from {', '.join(silent)} within {cluster.timeout_secs} s "
                    "(--cluster_timeout_secs): start the process there, or correct the address"
                )
            time.sleep(POLL_SECS)
        _tell(cluster, target, State.RUNNING)
        yield target
        end = State.ENDED
    except LOST as error:
        silent = [address for address in cluster.required if not _answers(address)]
        end = None if silent else State.FAILED
        again = "start every process again, training resumes from its last checkpoint"
        if silent:
            job = "worker" if cluster.all_reduce else "parameter server"
            lost = f"lost the {job} at {', '.join(silent)}: {again}"
        elif isinstance(error, tf.errors.DeadlineExceededError):
            lost = (
                f"waited {cluster.timeout_secs} s for another process of the cluster "
                "(--cluster_timeout_secs): is every worker running, including the chief (task 0)? "
                f"{again}"
            )
        else:
            first_line = error.message.strip().splitlines()[0]
            lost = f"lost the connection to the cluster ({first_line}): {again}"
        raise UserError(lost) from error
    except (SystemExit, KeyboardInterrupt):
        end = State.ENDED
        raise
    finally:
        if end is not None:
            _tell(cluster, target, end)


def serve(cluster: Cluster) -> None:
    """Runs a parameter server until every worker has ended; Ctrl-C lets them end first."""
    server, task, seconds = _start_server(cluster), cluster.task, cluster.timeout_secs
    workers = ", ".join(cluster.worker_hosts)
    place = f"{task} of {cluster.num_ps_tasks} at {cluster.ps_hosts[task]}"
    print(f"parameter server {place}, for workers at {workers}", flush=True)
    config = tf.ConfigProto(device_filters=[f"/job:ps/task:{task}"])
    with (
        stop_signals("stopping after the workers") as received,
        tf.Graph().as_default(),
        tf.Session(server.target, config=config) as session,
    ):
        # A worker runs until it says that it has ended. A killed worker says nothing: the server
        # ends once no running worker has answered for a while.
        queue = _messages(task)
        waiting, message = queue.size(), queue.dequeue()
        running, last_seen = set(range(cluster.worker_replicas)), time.monotonic()
        while running:
            for _ in range(session.run(waiting)):
                worker, state = session.run(message)
                if state == State.FAILED:
                    raise UserError(f"worker {worker} failed, see its output; training ends")
                running = running | {worker} if state == State.RUNNING else running - {worker}
            if any(_answers(cluster.worker_hosts[worker]) for worker in running):
                last_seen = time.monotonic()
            elif received or time.monotonic() > last_seen + seconds:
                break
            time.sleep(POLL_SECS)
    if received:
        raise SystemExit(128 + received[0])
    if len(running) == cluster.worker_replicas:
        raise UserError(
            f"no worker answered for {seconds} s (--cluster_timeout_secs): start the workers "
            f"({workers}) and this parameter server again"
        )
    print("done: the workers have ended", flush=True)


@contextmanager
def stop_signals(note: str) -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM while the block runs.

    Yields a list that receives the first signal, at which the note is printed; the second ends the
    process at once.
    """
    # A thread receives the signals, since the main thread may be waiting in TensorFlow.
    received: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def receive() -> None:
        while number := os.read(reader, 1):
            if received:
                os._exit(128 + number[0])
            received.append(number[0])
            print(f"{note}; repeat to end at once", flush=True)
        os.close(reader)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    waked_before = signal.set_wakeup_fd(writer)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(waked_before)
        os.close(writer)
        thread.join()


def _start_server(cluster: Cluster) -> tf.train.Server:
    job, task = cluster.job_name, cluster.task
    jobs = {"worker": list(cluster.worker_hosts), "ps": list(cluster.ps_hosts)}
    config = cluster.session_config()
    config.ClearField("device_filters")
    if job == "ps":
        config.device_count["GPU"] = 0
    try:
        return tf.train.Server(jobs, job, task, config=config)
    except tf.errors.OpError as error:
        raise UserError(
            f"cannot listen at {jobs[job][task]} as {job} {task} ({error.message}): is the port in "
            "use, perhaps by an earlier run?"
        ) from error


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), CONNECT_SECS):
        return True
    return False


def _messages(task: int) -> tf.FIFOQueue:
    """Returns the queue of a parameter server for (task, `State`) messages of the workers."""
    with tf.device(f"/job:ps/task:{task}/device:CPU:0"):
        return tf.FIFOQueue(-1, tf.int32, shapes=[[2]], shared_name="messages")


def _tell(cluster: Cluster, target: str, state: State) -> None:
    if not cluster.num_ps_tasks:
        return
    config, ignored = cluster.session_config(), ()
    if state != State.RUNNING:
        config.operation_timeout_in_ms, ignored = 1000 * FAREWELL_SECS, LOST
    with (
        tf.Graph().as_default(),
        suppress(*ignored),
        tf.Session(target, config=config) as session,
    ):
        message = tf.constant([cluster.task, state])
        session.run([_messages(task).enqueue(message) for task in range(cluster.num_ps_tasks)])
