"""Commands to kill or to start twice, and comparisons with their undisturbed results."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from slim import convert_dataset
from slim.checkpoints.description import ModelDescription, write_model_description
from slim.common.compat import tf
from slim.datasets.tfrecord import LISTS
from slim.weights.catalogue import DRIVE_IDS
from tests.conftest import COLOURS, NUM_CLASSES, draw_images, small_values
from tests.loopback import Loopback, pack
from tests.support import (
    ROOT,
    SMALL_COMMANDS,
    SMALL_NETWORK,
    SMALL_SIZE,
    free_addresses,
    invoke,
    write_checkpoint,
)

Command = list[str]  # a module and its flags
TRAIN = "slim.train_image_classifier"
SOURCE, DATASET = "source", "colours"
# Of variables, relative to the largest value. Two undisturbed trainings of a last layer are equal.
TOLERANCE = 1e-5
OUT = "out"  # the folder of a command's results
# Files that differ between equal runs: event files, logs, times, leftovers of killed runs.
DIFFERENT = r"events\.out\..*|\.lock|checkpoint|.*\.log|eval\.txt|log\.txt|.*\.tmp"


@dataclass(frozen=True)
class Inputs:
    """The inputs of the commands: datasets, a checkpoint, and a server of downloads."""

    data: Path  # with the converted dataset `colours`
    checkpoint: str
    address: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables for every process."""
        python = str(self.data.parent / "python")
        return {"SMALL_PYTHON": python, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}


@dataclass(frozen=True)
class Kind:
    """A command, or several that work together.

    Attributes:
        commands: Returns the commands that produce a result in a folder.
        compare: Returns the differences between the result in a folder and the undisturbed one.
        resumes: Whether a run that resumes from a checkpoint has other values than an undisturbed
            one, because it sees other images.
    """

    name: str
    commands: Callable[[Inputs, Path], list[Command]]
    compare: Callable[[Path, Path], list[str]]
    resumes: bool = False
    prepare: Callable[[Inputs, Path], None] = field(default=lambda inputs, folder: None)


def make_inputs(folder: Path, server: Loopback, num_images: int) -> Inputs:
    """Draws and converts a dataset, and writes a checkpoint and an archive to download."""
    data = folder / "data"
    draw_images(data / DATASET, seed=0)
    lengthen_lists(data / DATASET, num_images)
    done = invoke(
        convert_dataset, f"--dataset_name={DATASET}", f"--dataset_dir={data}", "--num_shards=3"
    )
    assert done.code == 0, done.error
    source = folder / SOURCE
    values = {**small_values(NUM_CLASSES), "global_step": 7}
    checkpoint = write_checkpoint(source / "model.ckpt-7", values)
    write_model_description(
        source, ModelDescription(SMALL_NETWORK, SMALL_SIZE, SMALL_NETWORK, DATASET, COLOURS)
    )
    random = np.random.default_rng(0)
    files = {f"feature/{n}/a_feature_val.npy": random.bytes(2_000_000) for n in ("a", "b", "c")}
    server.files[DRIVE_IDS["feature"]] = pack(files)
    python = folder / "python"
    python.write_text(f"#!{sys.executable}\n{SMALL_COMMANDS}")
    python.chmod(0o755)
    return Inputs(data, checkpoint, f"{server.address}/{{id}}")


def lengthen_lists(folder: Path, num_images: int) -> None:
    """Links to the images of the training list under more names."""
    path = folder / LISTS["train"]
    lines = path.read_text().splitlines()
    for index in range(num_images):
        name, label = lines[index % len(lines)].split(": ")
        link = f"images/more_{index:05d}.jpg"
        (folder / link).symlink_to(Path(name).name)
        lines.append(f"{link}: {label}")
    path.write_text("".join(f"{line}\n" for line in lines))


def copy_lists(inputs: Inputs, folder: Path) -> None:
    """Makes the dataset without its shards in another folder."""
    for name in (DATASET, "other"):
        (folder / OUT / name).mkdir(parents=True)
        (folder / OUT / name / "images").symlink_to(inputs.data / DATASET / "images")
        for list_name in LISTS.values():
            shutil.copy(inputs.data / DATASET / list_name, folder / OUT / name)


def make_folders(inputs: Inputs, folder: Path) -> None:
    """Makes one folder of images per class."""
    for index in range(60):
        image = inputs.data / f"{DATASET}/images/train_{index % 30:03d}.jpg"
        path = folder / f"classes/{COLOURS[index % 3]}/{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, path)


def convert(inputs: Inputs, folder: Path) -> list[Command]:
    return [
        [
            "slim.convert_dataset",
            f"--dataset_dir={folder / OUT}",
            f"--dataset_name={DATASET}",
            "--num_shards=5",
            "--num_workers=2",
        ]
    ]


def prepare(inputs: Inputs, folder: Path) -> list[Command]:
    flags = [f"--from_folders={folder / 'classes'}", f"--dataset_dir={folder / OUT}", "--copy"]
    return [["slim.datasets.prepare", "--dataset_name=folders", *flags]]


def derive(module: str, flag: str, inputs: Inputs, folder: Path) -> list[Command]:
    return [[module, f"--dataset_dir={folder / OUT}", *flag.split()]]


def draw_toy(inputs: Inputs, folder: Path) -> list[Command]:
    flags = ["--domains=toy_cars", "--image_size=32", f"--dataset_dir={folder / OUT}"]
    return [["demo.toy", *flags]]


def download(inputs: Inputs, folder: Path) -> list[Command]:
    flags = ["--features", f"--feature_dir={folder / OUT}", f"--address={inputs.address}"]
    return [["slim.checkpoints", *flags]]


def network_flags(inputs: Inputs, size: str) -> Command:
    return [
        f"--dataset_dir={inputs.data}",
        f"--dataset_name={DATASET}",
        f"--model_name={SMALL_NETWORK}",
        f"--{size}={SMALL_SIZE}",
    ]


def train(more: str, inputs: Inputs, folder: Path) -> list[Command]:
    return [
        [
            TRAIN,
            *network_flags(inputs, "train_image_size"),
            f"--train_dir={folder / OUT}",
            f"--checkpoint_path={inputs.checkpoint}",
            "--checkpoint_exclude_scopes=logits",
            "--trainable_scopes=logits",
            "--log_every_n_steps=1",
            "--save_interval_secs=1",
            "--save_summaries_secs=1",
            "--seed=5",
            "--learning_rate=0.001",
            "--moving_average_decay=0.9",
            *more.split(),
        ]
    ]


def train_with_two_workers(more: str, inputs: Inputs, folder: Path) -> list[Command]:
    (command,) = train(more, inputs, folder)
    hosts = f"--worker_hosts={','.join(free_addresses(2))}"
    return [[*command, "--all_reduce", hosts, f"--task={task}"] for task in (0, 1)]


def evaluate(inputs: Inputs, folder: Path) -> list[Command]:
    flags = [*network_flags(inputs, "eval_image_size"), f"--checkpoint_path={inputs.checkpoint}"]
    more = [f"--eval_dir={folder / OUT}", "--per_class", "--max_number_of_evaluations=1"]
    return [["slim.eval_image_classifier", *flags, *more]]


def extract(inputs: Inputs, folder: Path) -> list[Command]:
    flags = [*network_flags(inputs, "image_size"), f"--checkpoint_path={inputs.checkpoint}"]
    more = [f"--output_dir={folder / OUT}", "--batch_size=8", "--merge_splits"]
    return [["slim.feature_extraction", *flags, *more]]


def export(inputs: Inputs, folder: Path) -> list[Command]:
    flags = [f"--checkpoint_path={inputs.checkpoint}", f"--output_dir={folder / OUT / '7'}"]
    return [["slim.export", *flags, "--overwrite"]]


def study(inputs: Inputs, folder: Path) -> list[Command]:
    tuning = "--seed=5 --learning_rate=0 --end_learning_rate=0 --batch_norm_decay=1"
    return [
        [
            "slim.transfer.study",
            f"--sources={DATASET}",
            f"--targets={DATASET}",
            f"--checkpoints={inputs.checkpoint}",
            f"--dataset_dir={inputs.data}",
            f"--model_name={SMALL_NETWORK}",
            f"--image_size={SMALL_SIZE}",
            "--batch_size=8",
            f"--feature_dir={folder / OUT / 'feature'}",
            f"--output_dir={folder / OUT / 'study'}",
            "--min_count=1",
            "--fine_tune",
            "--fine_tune_steps=20",
            f"--fine_tune_flags={tuning}",
        ]
    ]


def result_files(folder: Path) -> dict[str, Path]:
    """Returns the files of a result that equal runs have in common, by relative path."""
    return {
        str(path.relative_to(folder / OUT)): path
        for path in (folder / OUT).rglob("*")
        if (path.is_file() or path.is_symlink()) and not re.fullmatch(DIFFERENT, path.name)
    }


def compare_names(expected: Path, found: Path) -> list[str]:
    names = result_files(expected).keys() ^ result_files(found).keys()
    return [f"only one result has {name}" for name in sorted(names)]


def compare_bytes(expected: Path, found: Path) -> list[str]:
    differences = compare_names(expected, found)
    files = result_files(found)
    for name, path in result_files(expected).items():
        if name in files and not path.is_dir() and path.read_bytes() != files[name].read_bytes():
            differences.append(f"{name} differs")
    return differences


def compare_arrays(expected: Path, found: Path, pattern: str = "*.npy") -> list[str]:
    """Compares arrays; features may differ by the rounding of another batch's size."""
    differences = []
    for path in sorted((expected / OUT).rglob(pattern)):
        other = found / path.relative_to(expected)
        if not other.exists():
            differences.append(f"{other} is missing")
            continue
        a, b = np.load(path), np.load(other)
        if a.shape != b.shape or not np.allclose(a, b, rtol=1e-5, atol=1e-6):
            differences.append(f"{other} differs")
    return differences


def compare_extraction(expected: Path, found: Path) -> list[str]:
    return compare_names(expected, found) + compare_arrays(expected, found)


def read_variables(folder: Path) -> dict[str, np.ndarray]:
    """Returns the variables of the latest checkpoint."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder / OUT)))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def distance(expected: Path, found: Path) -> float:
    """Returns the largest difference of a variable, relative to its largest value."""
    a, b = read_variables(expected), read_variables(found)
    return max(np.abs(a[n] - b[n]).max() / max(np.abs(a[n]).max(), 1e-3) for n in a)


def compare_training(expected: Path, found: Path) -> list[str]:
    """Compares the last checkpoints, their number of variables, and the losses of the last run."""
    a, b = read_variables(expected), read_variables(found)
    differences = compare_arrays(expected, found, "features/*.npy")
    if a.keys() != b.keys() or a["global_step"] != b["global_step"]:
        return [*differences, f"{found / OUT}: another step or other variables"]
    if (largest := distance(expected, found)) > TOLERANCE:
        differences.append(f"{found / OUT}: variables differ by {largest:.1e}")
    (steps, losses), (other_steps, other_losses) = map(last_losses, (expected, found))
    if steps != other_steps:
        differences.append(f"{found}: steps {steps[:1]} to {steps[-1:]} differ")
    # Other images have other losses.
    elif not np.allclose(losses, other_losses, rtol=0.01, atol=0.01):
        differences.append(f"{found}: losses differ, so the images do")
    return differences


def last_losses(folder: Path) -> tuple[list[int], list[float]]:
    """Returns the steps and losses of the last run that was not refused, if it took steps."""
    logs = [path.read_text() for path in sorted(folder.glob("*.0.log"))]
    *_, last = (text for text in logs if not re.search("^error: ", text, re.M))
    found = re.findall(r"^step (\d+) .*?loss ([\d.]+)", last, re.M)
    return [int(step) for step, _ in found], [float(loss) for _, loss in found]


def compare_studies(expected: Path, found: Path) -> list[str]:
    differences = compare_arrays(expected, found)
    a, b = map(read_study, (expected, found))
    if a != b:
        differences.append(f"{found}: {b}, expected {a}")
    return differences


def read_study(folder: Path) -> Any:
    """Returns the figures of a study without times and paths."""
    cells = json.loads((folder / OUT / "study/study.json").read_text())["cells"]
    for cell in cells:
        for key in ("seconds", "train_dir"):
            (cell["fine_tuned"] or {}).pop(key, None)
    return json.loads(json.dumps(cells), parse_float=lambda text: round(float(text), 6))


def all_kinds(steps: int) -> Iterator[Kind]:
    """Yields all kinds; training takes a number of steps."""
    length = f"--max_number_of_steps={steps}"
    cached = f"--noaugment --cache_features --batch_size=30 --max_number_of_steps={4 * steps}"
    yield Kind("conversion", convert, compare_bytes, prepare=copy_lists)
    yield Kind("training", partial(train, f"--batch_size=8 {length}"), compare_training, True)
    yield Kind(
        "two_workers",
        partial(train_with_two_workers, f"--batch_size=8 {length}"),
        compare_training,
        True,
    )
    yield Kind("extraction", extract, compare_extraction)
    yield Kind("cached_features", partial(train, cached), compare_training, True)
    yield Kind("study", study, compare_studies)
    yield Kind("preparation", prepare, compare_bytes, prepare=make_folders)
    yield Kind("evaluation", evaluate, compare_bytes)
    union = partial(derive, "slim.datasets.union", f"--dataset_names={DATASET},other")
    yield Kind("union", union, compare_bytes, prepare=copy_lists)
    balance = "--dataset_name=other --max_per_class=3"
    balance = partial(derive, "slim.datasets.balance", balance)
    yield Kind("balance", balance, compare_bytes, prepare=copy_lists)
    yield Kind("toy", draw_toy, compare_bytes)
    yield Kind("download", download, compare_bytes)
    yield Kind("export", export, compare_names)
