"""The part of a process in a cluster: it joins, serves, waits for others, and leaves.

The runtime is TensorFlow's. Workers tell the parameter servers when they begin and end, and a
parameter server ends after the last worker.
"""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum

from slim.common.compat import tf
from slim.common.errors import UserError
from slim.common.signals import stop_signals
from slim.deployment.cluster import Cluster

POLL_SECS = 0.5
CONNECT_SECS = 2.0
FAREWELL_SECS = 10.0  # for the last message, which is useful but not essential

# Errors of a session whose other end is gone or does not answer in time.
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


class State(IntEnum):
    """State of a worker, as it is sent to the parameter servers."""

    RUNNING = 0
    ENDED = 1
    FAILED = 2


@contextmanager
def join(cluster: Cluster) -> Iterator[str]:
    """Joins a cluster as a worker, and tells the parameter servers how the block ends.

    Yields:
        The target of sessions; empty on one machine.

    Raises:
        UserError: A required process does not answer or is lost.
    """
    if not (cluster.worker_hosts or cluster.master):
        yield ""
        return
    # Otherwise the session to a lost parameter server stays open until the timeout.
    os.environ["GRPC_FAIL_FAST"] = "true"
    server = None if cluster.master else _start_server(cluster)
    target = cluster.master or server.target
    try:
        _wait_for_others(cluster)
        _tell(cluster, target, State.RUNNING)
        yield target
    except LOST as error:
        silent = [address for address in cluster.required if not _answers(address)]
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

    Raises:
        UserError: A worker failed, or no worker answered in time.
        SystemExit: After Ctrl-C or SIGTERM and the end of the workers, with 128 + the signal.
    """
    server, task, seconds = _start_server(cluster), cluster.task, cluster.cluster_timeout_secs
    workers = ", ".join(cluster.worker_hosts)
    print(
        f"parameter server {task} of {cluster.num_ps_tasks} at {cluster.ps_hosts[task]}, for "
        f"workers at {workers}",
        flush=True,
    )
    config = tf.ConfigProto(device_filters=[f"/job:ps/task:{task}"])
    with (
        stop_signals("stopping after the workers") as received,
        tf.Graph().as_default(),
        tf.Session(server.target, config=config) as session,
    ):
        queue = _messages(task)
        waiting, message = queue.size(), queue.dequeue()
        running = set(range(cluster.worker_replicas))
        last_seen = time.monotonic()
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


def wait_for_chief(cluster: Cluster, target: str) -> None:
    """Waits until the chief has initialized or restored all variables of the default graph.

    Raises:
        tf.errors.DeadlineExceededError: The chief takes longer than the timeout.
    """
    ready = tf.report_uninitialized_variables(tf.global_variables())
    manager = tf.train.SessionManager(ready_op=ready, recovery_wait_secs=1)
    config = cluster.session_config()
    manager.wait_for_session(target, config, max_wait_secs=cluster.cluster_timeout_secs).close()


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


def _wait_for_others(cluster: Cluster) -> None:
    """Waits until all required processes listen; a session would wait forever."""
    required = [*cluster.required]
    if cluster.master:
        required.append(cluster.master.removeprefix("grpc://"))
    limit = time.monotonic() + cluster.cluster_timeout_secs
    while silent := [address for address in required if not _answers(address)]:
        if time.monotonic() > limit:
            raise UserError(
                f"no answer from {', '.join(silent)} within {cluster.cluster_timeout_secs} s "
                "(--cluster_timeout_secs): start the process there, or correct the address"
            )
        time.sleep(POLL_SECS)


def _messages(task: int) -> tf.FIFOQueue:
    """Returns the queue of a parameter server for (task, `State`) messages of the workers."""
    with tf.device(f"/job:ps/task:{task}/device:CPU:0"):
        return tf.FIFOQueue(-1, tf.int32, shapes=[[2]], shared_name="messages")


def _tell(cluster: Cluster, target: str, state: State) -> None:
    if not cluster.num_ps_tasks:
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
        session.run([_messages(task).enqueue(message) for task in range(cluster.num_ps_tasks)])


def _lost(cluster: Cluster, error: tf.errors.OpError, silent: Sequence[str]) -> UserError:
    """Returns the error to raise for one of `LOST`; `silent` addresses do not answer."""
    again = "start every process again, training resumes from its last checkpoint"
    if silent:
        job = "worker" if cluster.all_reduce else "parameter server"
        return UserError(f"lost the {job} at {', '.join(silent)}: {again}")
    if isinstance(error, tf.errors.DeadlineExceededError):
        return UserError(
            f"waited {cluster.cluster_timeout_secs} s for another process of the cluster "
            f"(--cluster_timeout_secs): is every worker running, including the chief (task 0)? "
            f"{again}"
        )
    first_line = error.message.strip().splitlines()[0]
    return UserError(f"lost the connection to the cluster ({first_line}): {again}")
