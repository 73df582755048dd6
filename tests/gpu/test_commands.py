"""Commands on a GPU: alone, two at once, with XLA, on several clones, in a cluster."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from slim import classify, eval_image_classifier, export, feature_extraction, train_image_classifier
from slim.common.compat import tf
from tests.support import (
    SMALL_NETWORK,
    SMALL_SIZE,
    THIS_MACHINE,
    Process,
    free_addresses,
    invoke,
)

pytestmark = pytest.mark.usefixtures("small_network")


def dataset(data: Path) -> list[str]:
    return [f"--dataset_dir={data}", "--dataset_name=colours"]


def training(data: Path, train_dir: Path, *more: str) -> list[str]:
    """Returns the flags of a training run of the small network."""
    return [
        *dataset(data),
        f"--train_dir={train_dir}",
        f"--model_name={SMALL_NETWORK}",
        f"--train_image_size={SMALL_SIZE}",
        "--batch_size=10",
        "--learning_rate=0.001",
        "--batch_norm_decay=0.9",
        "--log_every_n_steps=1",
        *more,
    ]


def evaluation(data: Path, checkpoint: Path, *more: str) -> list[str]:
    """Returns the flags of an evaluation of the small network."""
    return [
        *dataset(data),
        f"--checkpoint_path={checkpoint}",
        f"--model_name={SMALL_NETWORK}",
        f"--eval_image_size={SMALL_SIZE}",
        "--eval_interval_secs=0",
        *more,
    ]


def train(data: Path, train_dir: Path, *more: str) -> str:
    """Trains for three steps and returns the output of the command."""
    flags = training(data, train_dir, "--max_number_of_steps=3", *more)
    done = invoke(train_image_classifier, *flags)
    assert done.code == 0, done.error
    assert re.findall(r"^step (\d) of 3, loss \d+\.\d+,", done.output, re.M) == ["1", "2", "3"]
    return done.output


def memory_used() -> tuple[int, int]:
    """Returns the memory of the first visible GPU that is in use, and the whole, in MiB."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    query = ["--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.check_output(["nvidia-smi", f"--id={gpu}", *query], text=True)
    used, total = map(int, answer.split(","))
    return used, total


def test_memory_grows_even_where_no_session_asks_for_it(tmp_path):
    if not tf.config.list_physical_devices("GPU"):
        pytest.skip("the CPU has no memory of its own")
    before, total = memory_used()
    with Process("tests.gpu.first_use", log=tmp_path / "log") as process:
        process.wait_for("^sum 1000")
        after, _ = memory_used()
    assert after - before < total / 4


def test_evaluation_beside_training(colours, machine, tmp_path):
    flags = training(colours, tmp_path / "run", "--save_interval_secs=1")
    with Process("slim.train_image_classifier", *flags, log=tmp_path / "train.log") as trainer:
        trainer.wait_for("^step 1,")
        flags = evaluation(colours, tmp_path / "run", "--max_number_of_evaluations=2")
        with Process("slim.eval_image_classifier", *flags, log=tmp_path / "eval.log") as evaluator:
            assert evaluator.wait() == 0, evaluator.output
        done = len(re.findall("^step ", trainer.output, re.M))
        trainer.wait_for(f"^step {done + 2},")
        trainer.send(signal.SIGTERM)
        assert trainer.wait() == 128 + signal.SIGTERM, trainer.output
    assert len(re.findall(r"^step \d+: eval/Accuracy ", evaluator.output, re.M)) == 2
    lines = [
        re.search(f" on {machine}$", process.output, re.M)[0] for process in (trainer, evaluator)
    ]
    if "GiB free" in machine:
        alone, beside = (float(re.search(r"([\d.]+) GiB free", line)[1]) for line in lines)
        assert beside > alone / 2


def test_training(colours, machine, tmp_path):
    assert re.search(f" on {machine}\n", train(colours, tmp_path))


def test_evaluation_with_xla_gives_the_same(colours, classifier_dir, machine):
    lines = []
    for more in ([], ["--xla"]):
        more = ("--max_number_of_evaluations=1", "--moving_average_decay=0.9", *more)
        flags = evaluation(colours, classifier_dir, *more)
        done = invoke(eval_image_classifier, *flags)
        assert done.code == 0, done.error
        compiled = " with XLA" if "--xla" in more else ""
        assert re.search(f" parameters, float32{compiled}, on {machine}\n", done.error)
        lines.append(done.output)
    assert lines[0] == lines[1]
    assert "eval/Accuracy 1.0000" in lines[0]


def test_training_with_xla(colours, machine, tmp_path):
    assert re.search(f", float32 with XLA, on {machine}\n", train(colours, tmp_path, "--xla"))


@pytest.mark.also_on_cpu
def test_extraction(colours, classifier_dir, machine, tmp_path):
    done = invoke(
        feature_extraction,
        *dataset(colours),
        f"--checkpoint_path={classifier_dir}",
        f"--model_name={SMALL_NETWORK}",
        f"--image_size={SMALL_SIZE}",
        f"--output_dir={tmp_path}",
    )
    assert done.code == 0, done.error
    assert re.search(f" on {machine}\n", done.error)


def test_classification_and_export(colours, classifier_dir, tmp_path):
    image = colours / "colours/images/val_001.jpg"
    done = invoke(classify, image, f"--checkpoint_path={classifier_dir}", "--top_k=1")
    assert done.code == 0, done.error
    assert "green" in done.output
    flags = (f"--checkpoint_path={classifier_dir}", f"--output_dir={tmp_path / '1'}")
    done = invoke(export, *flags)
    assert done.code == 0, done.error


def test_clones_on_the_cpu(colours, tmp_path):
    output = train(colours, tmp_path, "--num_clones=2", "--clone_on_cpu")
    assert f", float32, 2 clones on {THIS_MACHINE}\n" in output


def test_two_clones_on_two_gpus(colours, machine, tmp_path):
    if (found := len(tf.config.list_physical_devices("GPU"))) < 2:
        pytest.skip(f"needs 2 GPUs, found {found}")
    output = train(colours, tmp_path, "--num_clones=2")
    assert re.search(f", 2 clones on {machine}, {machine}\n", output)


@pytest.mark.parametrize("kind", ["parameter server", "all-reduce"])
def test_two_workers_on_one_gpu(kind, colours, machine, tmp_path):
    hosts = free_addresses(3)
    flags = training(
        colours,
        tmp_path / "run",
        "--max_number_of_steps=5",
        f"--worker_hosts={','.join(hosts[:2])}",
        "--all_reduce" if kind == "all-reduce" else f"--ps_hosts={hosts[2]}",
    )
    tasks = [("worker", 0), ("worker", 1)] + [("ps", 0)] * (kind == "parameter server")
    processes = [
        Process(
            "slim.train_image_classifier",
            *flags,
            f"--job_name={job}",
            f"--task={task}",
            log=tmp_path / f"{job}_{task}.log",
        )
        for job, task in tasks
    ]
    try:
        for process in processes:
            assert process.wait() == 0, process.output
    finally:
        for process in processes:
            process.kill()
    for worker in processes[:2]:
        assert re.search(f" on {machine}\n", worker.output)
