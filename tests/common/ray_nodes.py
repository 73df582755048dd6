"""A Ray cluster of two nodes with one CPU each on this machine, until it receives SIGUSR1."""

import signal
import threading

from ray.cluster_utils import Cluster

from tests.support import TIMEOUT

if __name__ == "__main__":
    node = {"num_cpus": 1, "object_store_memory": 150 * 2**20, "include_dashboard": False}
    head = {**node, "wait": False, "no_monitor": True, "include_log_monitor": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(wait=False, **node)
    cluster.wait_for_nodes(TIMEOUT)
    ended = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: ended.set())
    print(f"cluster at {cluster.address}", flush=True)
    ended.wait()
    cluster.shutdown()
