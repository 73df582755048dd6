"""Both notebooks from top to bottom, in a folder of their own with small made-up features."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree

import nbformat
import numpy as np
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from tests.support import ROOT, TIMEOUT

TOYS = ("toy_birds", "toy_flowers", "toy_cars", "toy_inat", "toy_imagenet")
NOTEBOOKS = ("LinearClassifierDemo", "DomainSimilarityDemo")
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
def execute(kernel, tmp_path) -> Callable[..., tuple[str, int]]:
    return partial(run_notebook, kernel, tmp_path)


def run_notebook(
    kernel: AsyncKernelManager, folder: Path, name: str, **variables: str
) -> tuple[str, int]:
    """Runs a notebook in a folder with environment variables.

    Returns:
        What it printed, with tables as lines of cells, and how many pictures it shows.
    """
    notebook = nbformat.read(ROOT / f"{name}.ipynb", as_version=4)
    begin = f"""
        import os
        os.chdir({str(folder)!r})
        os.environ.update({variables})
        %reset -f
    """
    end = f"import os\nfor name in {list(variables)}: del os.environ[name]"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(dedent(begin)))
    notebook.cells.append(nbformat.v4.new_code_cell(end))
    NotebookClient(notebook, km=kernel, timeout=TIMEOUT).execute()
    text, pictures = "", 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                text += output.text if output.name == "stdout" else ""
            elif table := output.data.get("text/html"):
                rows = ElementTree.fromstring(table)
                text += "".join(f"{' | '.join(c.text or '' for c in row)}\n" for row in rows)
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


def write_images(folder: Path, dataset: str, splits: Sequence[str] = ("train", "val")) -> None:
    for split in splits:
        each = {"train": 5, "val": 15}[split]
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
    assert "The toy domains, because feature/inception_v3_iNat_299 has no features of cub" in text
    assert "validation | 180 | 16 | 12\n" in text
    assert "chance | 8.3% | \n" in text and "published" not in text
    # The features of both networks are the same.
    claim = "feature/toy_inat classifies better than feature/toy_imagenet"
    assert f"{claim} | +0.0 (+0.0 to +0.0) | within noise\n" in text
    assert "of the 20 neighbours have the query's class" in text
    assert re.search(r"toy_inat: accuracy [\d.]+% \([\d.]+% to [\d.]+%\)", text)
    assert pictures == 5


def test_linear_classifier_on_published_features(execute, tmp_path):
    network = tmp_path / "feature" / "inception_v3_iNat_299"
    write_features(network, "cub_200", "train", 50, 4)
    write_features(network, "cub_200", "val", 50, 12)
    text, pictures = execute("LinearClassifierDemo")
    assert "The paper's setting." in text
    assert "feature/inception_v3_iNat_299, published | 89.9% | \n" in text
    assert "no images: data/cub_200 is not there" in text
    assert "no second network with features of cub_200" in text
    assert pictures == 3


def test_linear_classifier_on_own_features(execute, tmp_path):
    for split in ("train", "val"):
        write_features(tmp_path / "mine" / "net", "moths", split, 3, 4)
    own = {"FEATURE_DIR": "mine", "NETWORK": "net", "DATASET_NAME": "moths"}
    text, pictures = execute("LinearClassifierDemo", **own)
    assert "Own settings." in text and "features | mine/net\n" in text
    assert "validation | 12 | 16 | 3\n" in text
    assert pictures == 3


def test_domain_similarity_on_toys(execute, tmp_path):
    write_toys(tmp_path)
    for name in TOYS:
        write_images(tmp_path, name, ["train"])
    text, pictures = execute("DomainSimilarityDemo")
    assert "The toy domains, because feature/resnet_101_JFT_299 is not there." in text
    assert "each image's features scaled to length 1" in text
    assert "toy_imagenet+toy_inat | " in text
    assert len(re.findall(r" \| [\d.]+% \([\d.]+% to [\d.]+%\)", text)) == 6
    # The features of both networks are the same, and so are their classifiers.
    assert "The nearer source classifies better: within noise for 3 of 3 pairs." in text
    interval = r"[+-][\d.]+ \([+-][\d.]+ to [+-][\d.]+\) \| (holds|within noise)"
    assert (
        len(re.findall(rf"\| {interval} \| \+0\.0 \(\+0\.0 to \+0\.0\) \| within noise", text)) == 3
    )
    assert len(re.findall(r"toy_\w+ \| \d of toy_\w+", text)) == 3
    assert pictures == 1 + 3 + 1 + 1


def test_domain_similarity_on_published_features(execute, tmp_path):
    network = tmp_path / "feature" / "resnet_101_JFT_299"
    targets = ["cub_200", "flower_102", "stanford_cars", "stanford_dogs"]
    for target in [*targets, "aircraft", "nabirds", "food_101"]:
        write_features(network, target, "", 5, 4)
    for source in ("ImageNet_train", "inat_train"):  # as the published notebook leaves them
        np.save(network / f"{source}.npy", np.eye(150, 16, dtype=np.float32))
        np.save(network / f"{source}_weight.npy", np.full(150, 300, np.float32))
    text, pictures = execute("DomainSimilarityDemo")
    assert "The paper's setting." in text and "as extracted" in text
    assert re.search(r"ImageNet\+iNat2017 \| cub_200 \| [\d.]+ \| 53\.868\n", text)
    assert "no images of ImageNet_train, aircraft, " in text
    assert "no features of two sources and a target" in text
    assert "no intervals of distances: there are only class means" in text
    assert pictures == 2


def test_domain_similarity_on_own_features(execute, tmp_path):
    for network in ("moths", "bees"):
        for dataset in ("moths", "bees", "wasps"):
            for split in ("train", "val"):
                write_features(tmp_path / "feature" / network, dataset, split, 3, 4)
    own = {"SOURCES": "moths,bees", "TARGETS": "wasps", "MIN_COUNT": "1", "TOP_K": "2"}
    text, pictures = execute("DomainSimilarityDemo", **own)
    assert "Own settings." in text
    assert "features | feature/moths next to feature/bees\n" in text
    assert "wasps | 3 | 32 | 4 | 4\n" in text
    assert "EMD of the nearest 2" in text and "toy" not in text
    assert pictures == 3


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_all_settings_are_in_one_cell_for_papermill(name):
    notebook = nbformat.read(ROOT / f"{name}.ipynb", as_version=4)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.metadata.get("tags") for cell in codes] == [["parameters"]] + [None] * (
        len(codes) - 1
    )
    assert not any("environ" in cell.source for cell in codes[1:])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_without_features_it_says_what_to_do(execute, name):
    with pytest.raises(CellExecutionError, match=r"error: no features .*\./demo\.sh") as caught:
        execute(name)
    assert "Traceback" not in str(caught.value)
