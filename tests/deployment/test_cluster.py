"""Tests of clusters: flags, TF_CONFIG, the placement of variables, and joining a master."""

import json
import math
import re

import pytest

from slim import train_image_classifier as training
from slim.common.compat import slim, tf
from slim.common.errors import UserError
from slim.deployment.cluster import find_cluster
from slim.deployment.model_deploy import DeploymentConfig
from tests.conftest import NUM_CLASSES
from tests.support import SMALL_NETWORK, SMALL_SIZE, free_addresses, invoke, training_flags

PS, WORKERS = ["a:1"], ["b:1", "c:1"]


def find(environment: dict | None = None, **given):
    return find_cluster(training_flags(**given), environment or {})


def tf_config(cluster: dict, job: str, index: int) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})}


def test_one_machine():
    for cluster in (
        find(),
        find({"TF_CONFIG": "{}"}),
        find(tf_config({"chief": ["a:1"]}, "chief", 0)),
    ):
        assert (cluster.worker_replicas, cluster.num_ps_tasks, cluster.is_chief) == (1, 0, True)
        assert not cluster.session_config().device_filters


def test_hosts():
    cluster = find(ps_hosts=PS, worker_hosts=WORKERS, task=1)
    assert (cluster.worker_replicas, cluster.num_ps_tasks, cluster.is_chief) == (2, 1, False)
    assert set(cluster.session_config().device_filters) == {"/job:ps", "/job:worker/task:1"}
    # The published flags may repeat the numbers; the environment is ignored.
    again = find(
        tf_config({"worker": ["x:1", "y:1"]}, "worker", 1),
        ps_hosts=PS,
        worker_hosts=WORKERS,
        task=1,
        worker_replicas=2,
        num_ps_tasks=1,
    )
    assert again == cluster
    assert not find(ps_hosts=PS, worker_hosts=WORKERS, job_name="ps").is_chief


def test_tf_config_numbers_the_workers_from_the_chief():
    jobs = {"chief": ["b:1"], "worker": ["c:1", "d:1"], "ps": ["a:1"]}
    found = [find(tf_config(jobs, *task)) for task in (("chief", 0), ("worker", 1), ("ps", 0))]
    assert [(cluster.job_name, cluster.task) for cluster in found] == [
        ("worker", 0),
        ("worker", 2),
        ("ps", 0),
    ]
    for cluster in found:
        assert cluster.worker_hosts == ["b:1", "c:1", "d:1"]
        assert cluster.ps_hosts == ["a:1"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"worker_hosts": WORKERS}, "2 workers need .*--ps_hosts .* or --all_reduce"),
        (
            {"ps_hosts": PS, "worker_hosts": WORKERS, "all_reduce": True},
            "--all_reduce needs no parameter server",
        ),
        ({"master": "grpc://a:1", "worker_replicas": 2, "all_reduce": True}, "--worker_hosts"),
        ({"ps_hosts": PS}, "--ps_hosts without --worker_hosts"),
        ({"ps_hosts": PS, "worker_hosts": ["b"]}, "'b' is not an address"),
        ({"ps_hosts": PS, "worker_hosts": ["b:0"]}, "'b:0' is not .* a port from 1 to 65535"),
        ({"ps_hosts": ["a:65536"], "worker_hosts": WORKERS}, "'a:65536' is not .* 1 to 65535"),
        ({"ps_hosts": ["a:" + 5000 * "1"], "worker_hosts": WORKERS}, "is not an address"),
        ({"master": "grpc://a:65536"}, "--master=grpc://a:65536: expected grpc://host:port"),
        ({"ps_hosts": PS, "worker_hosts": ["b:1", "a:1"]}, "a:1 occurs twice"),
        ({"ps_hosts": PS, "worker_hosts": WORKERS, "task": 2}, "--task=2: expected 0 to 1, worker"),
        (
            {"ps_hosts": PS, "worker_hosts": WORKERS, "task": 1, "job_name": "ps"},
            "--task=1: expected 0 to 0, ps has 1",
        ),
        (
            {"ps_hosts": PS, "worker_hosts": WORKERS, "worker_replicas": 3},
            "--worker_replicas=3, but 2 addresses",
        ),
        (
            {"master": "grpc://a:1", "worker_replicas": 2},
            "2 workers need .*--num_ps_tasks",
        ),
        ({"job_name": "ps"}, "--job_name=ps needs --ps_hosts"),
        ({"environment": {"TF_CONFIG": "{"}}, 'TF_CONFIG={: expected {"cluster"'),
        # The last of Python's negative indices would be the chief.
        (
            {"environment": tf_config({"chief": ["d:1"], "worker": WORKERS}, "worker", -1)},
            'TF_CONFIG=.*"index": -1.*: expected {"cluster"',
        ),
        (
            {"environment": tf_config({"worker": WORKERS, "ps": PS}, "worker", math.inf)},
            'TF_CONFIG=.*: expected {"cluster"',
        ),
        (
            {"environment": tf_config({"worker": [1, 2], "ps": PS}, "worker", 0)},
            'TF_CONFIG=.*: expected {"cluster"',
        ),
        (
            {"environment": tf_config({"worker": WORKERS, "ps": PS}, "evaluator", 0)},
            "evaluator: run slim.eval_image_classifier",
        ),
    ],
)
def test_invalid_descriptions(given, message):
    with pytest.raises(UserError, match=message):
        find(**given)


def test_variables_are_distributed_over_the_parameter_servers():
    config = DeploymentConfig(2, clone_on_cpu=False, replica_id=3, num_replicas=4, num_ps_tasks=2)
    assert config.clone_device(1) == "/job:worker/task:3/device:GPU:1"
    assert config.inputs_device() == "/job:worker/task:3/device:CPU:0"
    with tf.Graph().as_default(), tf.device(config.worker_device):
        with slim.arg_scope([slim.model_variable], device=config.variables_device()):
            variables = [slim.model_variable(f"v{index}", [1]) for index in range(4)]
        product = variables[0] * variables[1]
    assert [variable.device for variable in variables] == [
        f"/job:ps/task:{task}/device:CPU:0" for task in (0, 1, 0, 1)
    ]
    assert product.device == "/job:worker/task:3"


def test_trains_with_the_master_of_another_process(small_network, colours, tmp_path):
    ps, worker = free_addresses(2)
    jobs = {"ps": [ps], "worker": [worker]}
    servers = [tf.train.Server(jobs, job, 0) for job in jobs]
    done = invoke(
        training,
        f"--master={servers[1].target.replace('localhost', '127.0.0.1')}",
        "--num_ps_tasks=1",
        "--replicas_to_aggregate=2",
        f"--dataset_dir={colours}",
        "--dataset_name=colours",
        f"--train_dir={tmp_path}",
        f"--model_name={SMALL_NETWORK}",
        f"--train_image_size={SMALL_SIZE}",
        "--batch_size=4",
        "--trainable_scopes=logits",
        "--max_number_of_steps=2",
        "--log_every_n_steps=1",
    )
    assert done.code == 0, done.error
    assert re.findall(r"^step (\d)", done.output, re.M) == ["1", "2"]
    # The variables are on the parameter server.
    name = f"{SMALL_NETWORK}/logits/biases"
    with tf.Graph().as_default(), tf.Session(servers[0].target) as session:
        with tf.device("/job:ps/task:0/device:CPU:0"):
            step = tf.train.create_global_step()
            biases = tf.get_variable(name, [NUM_CLASSES])
        assert session.run(step) == 2
        assert (session.run(biases) == tf.train.load_variable(str(tmp_path), name)).all()


def test_a_master_that_does_not_answer(colours, tmp_path):
    (address,) = free_addresses(1)
    code, _, error = invoke(
        training,
        f"--master=grpc://{address}",
        "--cluster_timeout_secs=1",
        f"--dataset_dir={colours}",
        "--dataset_name=colours",
        f"--train_dir={tmp_path}",
    )
    assert code == 1
    assert re.fullmatch(
        f"error: no answer from {address} within 1 s .*start the process there.*\n", error
    )
