"""Tests of all-reduce between two servers of this process."""

import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from slim.common.compat import tf
from slim.deployment.cluster import find_cluster
from slim.deployment.replicas import AllReduce
from tests.support import TIMEOUT, free_addresses, training_flags

START = np.float32([[1, 2], [3, 4]])


def replica(task: int, cluster, server: tf.train.Server) -> list:
    """Runs two steps of a replica with the gradient task + 1; returns values of all of them."""
    with tf.Graph().as_default(), tf.device(f"/job:worker/task:{task}"):
        global_step = tf.train.create_global_step()
        variable = tf.get_variable("w", initializer=START if task == 0 else np.zeros_like(START))
        all_reduce = AllReduce(2, task)
        gradient = tf.fill([2, 2], task + 1.0)
        loss, gradients = all_reduce.combine(tf.constant(10.0 * task), [(gradient, variable)])
        step = tf.train.GradientDescentOptimizer(1.0).apply_gradients(gradients, global_step)
        # Only worker 1 is asked to stop, in its second step.
        with tf.train.SingularMonitoredSession(
            hooks=all_reduce.around([]), master=server.target, config=cluster.session_config()
        ) as session:
            found = [session.raw_session().run(variable)]
            for number in (1, 2):
                stop_requests = [signal.SIGINT] if task == 1 and number == 2 else []
                (mean, _), stopping = all_reduce.run_step(session, [loss, step], {}, stop_requests)
                found += [mean, stopping]
            return [*found, *session.raw_session().run([variable, global_step])]


def test_replicas_have_equal_variables_and_stop_together():
    addresses = free_addresses(2)
    limits = {"all_reduce": True, "cluster_timeout_secs": int(TIMEOUT)}
    clusters = [
        find_cluster(training_flags(worker_hosts=addresses, task=task, **limits), {})
        for task in (0, 1)
    ]
    servers = [
        tf.train.Server({"worker": addresses}, "worker", task, config=cluster.session_config())
        for task, cluster in enumerate(clusters)
    ]
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(replica, (0, 1), clusters, servers))
    for before, loss, stopping, second_loss, second_stopping, after, step in results:
        np.testing.assert_array_equal(before, START)
        assert (loss, second_loss) == (5.0, 5.0)
        assert (stopping, second_stopping) == (False, True)
        np.testing.assert_array_equal(after, START - 2 * 1.5)
        assert step == 2
