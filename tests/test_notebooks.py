"""Both notebooks from top to bottom, in a folder of their own with small made-up features."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import nbformat
import numpy as np
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from tests.support import ROOT

TOYS = ("toy_birds", "toy_flowers", "toy_cars", "toy_inat", "toy_imagenet")
LIMIT = 1_000_000  # bytes of a notebook with its outputs


@pytest.fixture(scope="module")
def kernel() -> Iterator[AsyncKernelManager]:
    """One kernel for all notebooks, because starting it and loading libraries take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        manager = AsyncKernelManager()
        yield manager
    run_sync(manager.shutdown_kernel)(now=True)


@pytest.fixture
def execute(kernel, tmp_path) -> Callable[[str], tuple[str, int]]:
    return partial(run_notebook, kernel, tmp_path)


def run_notebook(kernel: AsyncKernelManager, folder: Path, name: str) -> tuple[str, int]:
    """Runs a notebook in a folder.

    Returns:
        What it printed, and how many pictures it shows.
    """
    notebook = nbformat.read(ROOT / f"{name}.ipynb", as_version=4)
    begin = nbformat.v4.new_code_cell(f"import os\nos.chdir({str(folder)!r})\n%reset -f")
    notebook.cells.insert(0, begin)
    NotebookClient(notebook, km=kernel, timeout=170).execute()
    text, pictures = "", 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                text += output.text if output.name == "stdout" else ""
            else:
                pictures += any(kind.startswith("image/") for kind in output.data)
    nbformat.write(notebook, folder / "executed.ipynb")
    assert (folder / "executed.ipynb").stat().st_size < LIMIT
    return text, pictures


def write_features(network: Path, dataset: str, split: str, num_classes: int, each: int) -> None:
    """Features in which classes are clouds, those of a dataset near to each other."""
    network.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(dataset))
    centres = random.normal(size=(num_classes, 16)) + 2 * random.normal(size=16)
    labels = np.repeat(np.arange(num_classes, dtype=np.int32), each)
    values = (centres[labels] + random.normal(size=(len(labels), 16))).astype(np.float32)
    ending = f"_{split}" if split else ""
    np.save(network / f"{dataset}_feature{ending}.npy", values)
    np.save(network / f"{dataset}_label{ending}.npy", labels)


def write_toys(folder: Path) -> None:
    for network in ("toy_inat", "toy_imagenet"):
        for dataset in TOYS:
            for split, each in (("train", 5), ("val", 15)):
                write_features(folder / "feature" / network, dataset, split, 12, each)


def write_images(folder: Path, dataset: str) -> None:
    for split, each in (("train", 5), ("val", 15)):
        lines = [f"images/{split}{i}.jpg: {i // each}\n" for i in range(12 * each)]
        (folder / "data" / dataset / "images").mkdir(parents=True, exist_ok=True)
        (folder / "data" / dataset / f"{split}.txt").write_text("".join(lines))
        for i, line in enumerate(lines):
            image = Image.new("RGB", (60, 40), (i, 90, 255 - i))
            image.save(folder / "data" / dataset / line.split(":")[0])


def test_linear_classifier_on_toys(execute, tmp_path):
    write_toys(tmp_path)
    write_images(tmp_path, "toy_birds")
    text, pictures = execute("LinearClassifierDemo")
    assert "toy_birds, features in feature/toy_inat: toy domains, as the paper's" in text
    assert "validation: (180, 16) float32, 12 classes" in text
    assert "(chance 8.3%)" in text and "published" not in text
    assert "of the 20 neighbours have the query's class" in text
    assert pictures == 4


def test_linear_classifier_on_published_features(execute, tmp_path):
    network = tmp_path / "feature" / "inception_v3_iNat_299"
    write_features(network, "cub_200", "train", 50, 4)
    write_features(network, "cub_200", "val", 50, 72)
    text, pictures = execute("LinearClassifierDemo")
    assert "cub_200, features in feature/inception_v3_iNat_299: the paper's setting" in text
    assert ", published 89.9%" in text
    assert "no images: data/cub_200 is not there" in text and "no features of nabirds in" in text
    assert pictures == 1


def test_domain_similarity_on_toys(execute, tmp_path):
    write_toys(tmp_path)
    text, pictures = execute("DomainSimilarityDemo")
    assert "toy domains, as feature/resnet_101_JFT_299 is not there" in text
    assert "the paper leaves out source classes of fewer than 200" in text
    assert "| toy_imagenet+toy_inat | " in text
    assert text.count(": accuracy ") == 6
    assert text.count(" of toy_imagenet, ") == 3
    assert pictures == 2


def test_domain_similarity_on_published_features(execute, tmp_path):
    network = tmp_path / "feature" / "resnet_101_JFT_299"
    targets = ["cub_200", "flower_102", "stanford_cars", "stanford_dogs"]
    for target in [*targets, "aircraft", "nabirds", "food_101"]:
        write_features(network, target, "", 5, 4)
    for source in ("ImageNet_train", "inat_train"):  # as the published notebook leaves them
        np.save(network / f"{source}.npy", np.eye(150, 16, dtype=np.float32))
        np.save(network / f"{source}_weight.npy", np.full(150, 300, np.float32))
    text, pictures = execute("DomainSimilarityDemo")
    assert "features in feature/resnet_101_JFT_299: the paper's setting" in text
    assert "EMD, measured and published:" in text
    name = "ImageNet+iNat2017 -> cub_200: "
    measured = [line for line in text.splitlines() if line.startswith(name)]
    assert len(measured) == 1 and measured[0].endswith(", 53.868")
    assert "no features of two sources and a target" in text
    assert pictures == 1


@pytest.mark.parametrize("name", ["LinearClassifierDemo", "DomainSimilarityDemo"])
def test_without_features_it_says_what_to_do(execute, name):
    with pytest.raises(CellExecutionError, match=r"error: no features .*\./demo\.sh") as caught:
        execute(name)
    assert "Traceback" not in str(caught.value)
