"""`python -m slim.checkpoints` against a server on this machine, in place of Google Drive."""

import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slim.checkpoints import __main__ as command
from slim.checkpoints.description import read_model_description
from slim.checkpoints.finding import find_checkpoint
from slim.common import files
from slim.common.compat import tf
from slim.common.files import exclusive
from slim.datasets.prepare.archives import RemoteFile
from slim.nets.nets_factory import NETWORKS
from slim.weights import catalogue, class_names
from slim.weights.catalogue import CLASSES, DRIVE_IDS, MODELS
from tests.conftest import run
from tests.loopback import Loopback, pack
from tests.support import ROOT, SMALL_NETWORK, invoke, variable_shapes, write_checkpoint

RESNET = "resnet_50_ILSVRC_iNat_299"
TF_SLIM = "resnet_v2_50_2017_04_14"
PAGE = b"<!DOCTYPE html><html><body>Too many users have viewed this file</body></html>"


def class_files() -> dict[str, bytes]:
    """The files with the names of 1,000 and 5,089 classes, of which each split has some."""
    index = {str(label): [f"n{label}", f"object_{label}"] for label in range(1000)}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        for split, ids in (("train", range(1, 5089)), ("val", range(5089))):
            categories = [{"id": i, "name": f"species {i}"} for i in reversed(ids)]
            content = {"categories": categories, "annotations": [], "images": []}
            members.writestr(f"{split}2017.json", json.dumps(content))
    return {"index.json": json.dumps(index).encode(), "inat.zip": archive.getvalue()}


@pytest.fixture
def drive(monkeypatch) -> Iterator[Loopback]:
    with Loopback(**class_files()) as drive:
        for name, value in (
            ("IMAGENET_INDEX", f"{drive.address}/index.json"),
            ("_INDEX_HASH", None),
            ("_INAT_ARCHIVE", RemoteFile(f"{drive.address}/inat.zip", None, 0)),
        ):
            monkeypatch.setattr(class_names, name, value)
        monkeypatch.setattr(catalogue, "TF_SLIM_ADDRESS", f"{drive.address}/{{name}}.tar.gz")
        yield drive


@pytest.fixture
def fetch(drive, tmp_path, small_network, monkeypatch):
    """The command, for which `RESNET` is a small network: exit code, output, lines on stderr."""
    small = (RESNET, TF_SLIM)
    models = [replace(m, network=small_network) if m.name in small else m for m in MODELS]
    for module in (catalogue, command):
        monkeypatch.setattr(module, "MODELS", models)

    def fetch(*arguments: str) -> tuple[int, str, list[str]]:
        folders = [f"--{name}_dir={tmp_path / name}" for name in ("dataset", "feature")]
        folders.append(f"--checkpoints_dir={tmp_path}")
        done = invoke(command, *arguments, *folders, f"--address={drive.address}/{{id}}")
        return done.code, done.output, done.error.splitlines()

    return fetch


def write(folder: Path, name: str, classes: int) -> dict[str, Path]:
    """Writes a small network of zeros, and returns its files by their names."""
    shapes = variable_shapes(SMALL_NETWORK, classes)
    values = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
    write_checkpoint(folder / name, values, latest=False)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def resnet(small_network, tmp_path_factory) -> dict[str, Path]:
    """A checkpoint as `RESNET` should be, called otherwise."""
    return write(tmp_path_factory.mktemp("written"), "model.ckpt-12345", 6089)


def row(printed: str, name: str) -> list[str]:
    """The columns of a line of --list."""
    line = next(line for line in printed.splitlines() if line.startswith(f"{name} "))
    return re.split(r"  +", line)


def test_a_broken_download_goes_on_and_the_checkpoint_is_found(fetch, drive, resnet, tmp_path):
    files = {f"made/{name}": path for name, path in resnet.items()}
    # Random bytes make the archive long enough to break; macOS hides a file beside each.
    noise = {"made/notes": os.urandom(1_500_000), "made/._model.ckpt-12345.index": b"macOS"}
    content = drive.files[DRIVE_IDS[RESNET]] = pack(noise | files)
    assert row(fetch("--list")[1], RESNET)[-1] == "-"
    assert drive.requests == []

    drive.stops_after = 1_200_000
    code, _, lines = fetch(RESNET)
    assert code == 1
    assert "run the command again, it resumes" in lines[-1]
    assert f"drive.google.com/open?id={DRIVE_IDS[RESNET]}" in lines[-1]
    (part,) = (tmp_path / "resnet").iterdir()
    have = part.stat().st_size
    assert 0 < have < len(content)
    assert part.read_bytes() == content[:have]

    drive.stops_after = None
    drive.requests.clear()
    code, printed, lines = fetch(RESNET)
    assert code == 0, lines
    assert (f"/{DRIVE_IDS[RESNET]}", f"bytes={have}-") in drive.requests
    path = tmp_path / "resnet" / RESNET / "model.ckpt-12345"
    assert f"{RESNET} is {SMALL_NETWORK} with 6,089 classes" in printed
    assert f"path: {path}\n" in printed
    assert (
        f"CHECKPOINT_PATH={path} MODEL_NAME={SMALL_NETWORK} CHECKPOINT_EXCLUDE_SCOPES=logits "
        "TRAINABLE_SCOPES=logits ./train.sh\n" in printed
    )
    for name, original in resnet.items():
        assert path.with_name(name).read_bytes() == original.read_bytes()
    assert (tmp_path / "resnet" / f"{RESNET}.archive").read_bytes() == content
    names = [path.name for path in sorted((tmp_path / "resnet").iterdir())]
    assert names == ["fetched.json", RESNET, f"{RESNET}.archive"]
    described = read_model_description(path.parent)
    assert (described.model_name, described.image_size) == (SMALL_NETWORK, 299)
    assert described.class_names[999:1001] == ("object_999", "species 0")
    assert described.class_names[-1] == "species 5088"
    # Also by its name, and where ./train.sh looks for it.
    assert find_checkpoint(f"{tmp_path}/resnet/{RESNET}.ckpt") == str(path)

    drive.requests.clear()
    code, printed, _ = fetch(RESNET)
    assert code == 0
    assert f"{RESNET} exists already\npath: {path}\n" in printed
    assert drive.requests == []
    assert row(fetch("--list")[1], RESNET) == [
        RESNET,
        SMALL_NETWORK,
        "ImageNet + iNat2017",
        "299",
        "6089 or 6090",
        str(path),
    ]


def test_a_page_instead_of_the_file_and_an_archive_put_there_by_hand(
    fetch, drive, resnet, tmp_path
):
    drive.files[DRIVE_IDS[RESNET]] = PAGE
    code, _, lines = fetch(RESNET)
    assert code == 1
    assert "sent a page instead of the file" in lines[-1]
    link, place = re.search(r"fetch (\S+) in a browser and save it as (\S+)$", lines[-1]).groups()
    assert link == f"https://drive.google.com/open?id={DRIVE_IDS[RESNET]}"
    assert list((tmp_path / "resnet").glob("*")) == []

    Path(place).parent.mkdir(exist_ok=True)
    Path(place).write_bytes(PAGE)
    code, _, lines = fetch(RESNET)
    assert code == 1
    assert len(lines) == 1 and f"{place} is not a tar or zip archive: move it away" in lines[0]

    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, path in resnet.items():
            archive.write(path, f"a/b/{name.replace('model.ckpt-12345', f'{RESNET}.ckpt')}")
    drive.requests.clear()
    code, printed, lines = fetch(RESNET)
    assert code == 0, lines
    assert [path for path, _ in drive.requests] == ["/index.json", "/inat.zip"]
    path = tmp_path / "resnet" / RESNET / f"{RESNET}.ckpt"
    assert f"path: {path}\n" in printed
    assert Path(f"{path}.index").read_bytes() == resnet["model.ckpt-12345.index"].read_bytes()


def write_v1(folder: Path, num_classes: int, value: float) -> Path:
    """Writes a small network in the format of TF-Slim's models, a single file."""
    with tf.Graph().as_default(), tf.Session() as session:
        for name, shape in variable_shapes(SMALL_NETWORK, num_classes).items():
            tf.get_variable(name, shape, initializer=tf.constant_initializer(value))
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(write_version=tf.train.SaverDef.V1)
        return Path(saver.save(session, str(folder / "resnet_v2_50.ckpt"), write_state=False))


def test_a_model_of_tf_slim_from_mirrors(fetch, drive, tmp_path):
    (tmp_path / "written").mkdir()
    checkpoint = write_v1(tmp_path / "written", 1001, 0)
    files = {"resnet_v2_50.ckpt": checkpoint, "noise": os.urandom(1_500_000)}
    drive.files[f"b/{TF_SLIM}.tgz"] = content = pack({**files, "train.graph": b"graph"})
    mirrors = f"--mirror={drive.address}/a/{{name}}.tgz,{drive.address}/b/{{name}}.tgz"
    drive.stops_after = 1_200_000
    code, _, lines = fetch(TF_SLIM, mirrors)
    assert code == 1
    assert [line.partition("/a/")[0] for line in lines[:1]] == [f"note: {drive.address}"]
    assert "the connection broke after" in lines[-2] or "connection failed" in lines[-2]
    assert f"{TF_SLIM}.tar.gz: the server answered 404" in lines[-1]

    drive.stops_after = None
    drive.requests.clear()
    code, printed, lines = fetch(TF_SLIM, mirrors)
    assert code == 0, lines
    assert any(path.startswith("/b/") and wanted for path, wanted in drive.requests)
    path = tmp_path / "resnet" / TF_SLIM / "resnet_v2_50.ckpt"
    assert f"{TF_SLIM} is {SMALL_NETWORK} with 1,001 classes" in printed
    assert f"path: {path}\n" in printed
    assert (
        find_checkpoint(str(path)) == find_checkpoint(f"{tmp_path}/resnet/{TF_SLIM}") == str(path)
    )
    described = read_model_description(path.parent)
    assert described.class_names[:2] == ("background", "object_0")
    assert described.labels_offset == -1

    # Another archive under the same name is refused, also if it holds such a model.
    (tmp_path / "resnet" / f"{TF_SLIM}.archive").unlink()
    path.unlink()
    other = {**files, "resnet_v2_50.ckpt": write_v1(tmp_path / "written", 1001, 1)}
    drive.files[f"{TF_SLIM}.tar.gz"] = pack(other)
    code, _, lines = fetch(TF_SLIM)
    assert code == 1
    assert "the file there has the hash" in lines[-1]
    archive = tmp_path / "resnet" / f"{TF_SLIM}.archive"
    archive.write_bytes(drive.files[f"{TF_SLIM}.tar.gz"])
    code, _, lines = fetch(TF_SLIM)
    assert code == 1
    assert f"{archive} differs from the archive that was fetched first" in lines[-1]
    archive.write_bytes(content)
    assert fetch(TF_SLIM)[0] == 0


def test_class_names_that_cannot_be_fetched(fetch, drive, resnet, tmp_path):
    drive.files[DRIVE_IDS[RESNET]] = pack(resnet)
    names = drive.files.pop("inat.zip")
    code, printed, lines = fetch(RESNET)
    assert code == 0 and "path: " in printed
    # One sentence, which says once what to do: of a broken connection, and of a missing file.
    start, end = "warning: the classes have numbers instead of names: .*/inat.zip: ", ", or pass .*"
    assert re.fullmatch(f"{start}[^;]*404[^;]*put it at [^;,]*{end}", lines[-1])
    drive.files["inat.zip"], drive.stops_after = names, 10
    found = fetch(RESNET)[2][-1]
    assert re.fullmatch(f"{start}the connection [^;]*: run this again to resume{end}", found), found
    drive.stops_after = None
    # What is known of the model is written, and the names when they can be fetched.
    described = read_model_description(tmp_path / "resnet" / RESNET)
    assert (described.class_names[6088], described.labels_offset) == ("6088", 0)
    drive.files["inat.zip"] = names
    assert fetch(RESNET)[0] == 0
    assert read_model_description(tmp_path / "resnet" / RESNET).class_names[1000] == "species 0"


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        (RESNET, 7, f"{SMALL_NETWORK}, 6089 or 6090 classes"),
        ("resnet_101_ILSVRC_iNat_299", 6089, "resnet_v2_101, 6089 or 6090 classes"),
    ],
)
def test_another_model_is_refused_and_its_archive_kept(
    fetch, drive, tmp_path, name, classes, expected
):
    content = drive.files[DRIVE_IDS[name]] = pack(
        write(tmp_path / "written", f"{name}.ckpt", classes)
    )
    code, _, lines = fetch(name)
    assert code == 1
    assert f"found {SMALL_NETWORK}, {classes} classes; expected {expected}" in lines[-1]
    (archive,) = (tmp_path / "resnet").iterdir()
    assert str(archive) in lines[-1]
    assert archive.read_bytes() == content
    assert row(fetch("--list")[1], name)[-1] == "-"


def test_archives_without_a_whole_checkpoint(fetch, drive, tmp_path):
    name = "inception_v3_iNat_299"
    archive = tmp_path / "inception" / f"{name}.archive"
    both = {f"{part}.ckpt{end}": b"" for part in "ab" for end in (".index", ".data-00000-of-00001")}
    whole = {f"{name}.ckpt.index": b"no index", f"{name}.ckpt.data-00000-of-00001": b""}
    for content, message in (
        (pack({"readme": b"", "a.ckpt.index": b""}), "holds 0 checkpoints, expected one"),
        (pack(both), "holds 2 checkpoints, expected one (.index and .data- files): it has a.ckpt"),
        (pack(both | whole), "): move it away to fetch it again"),
        (pack({"../out": b"", **whole}), "'../out'"),
        (pack({"noise": os.urandom(9999)})[:5000], "cannot be unpacked"),
    ):
        drive.files[DRIVE_IDS[name]] = content
        code, _, lines = fetch(name)
        assert code == 1
        assert message in lines[-1] and str(archive) in lines[-1]
        assert list(archive.parent.iterdir()) == [archive]
        archive.unlink()


def test_data_and_features(fetch, drive, tmp_path):
    files = {
        "data/cub_200/train.txt": b"images/a b.jpg: 0\n",
        "data/cub_200/images/a b.jpg": b"\xff\xd8",
        "data/nabirds/val.txt": b"images/b.jpg: 1\n",
    }
    drive.files[DRIVE_IDS["data"]] = pack(files)
    drive.files[DRIVE_IDS["feature"]] = pack({"resnet/cub_200_label_val.npy": b"labels"})
    lists = tmp_path / "dataset" / "cub_200" / "train.txt"
    lists.parent.mkdir(parents=True)

    lists.write_text("my own\n")
    code, _, lines = fetch("--data")
    assert code == 1
    assert f"{lists}: move them away" in lines[-1]
    assert lists.read_text() == "my own\n"
    assert not (tmp_path / "dataset" / "nabirds").exists()

    lists.write_bytes(files["data/cub_200/train.txt"])
    drive.requests.clear()
    assert fetch("--data")[0] == 0
    assert drive.requests == []  # the archive was kept
    for name, content in files.items():
        assert (tmp_path / "dataset" / name.removeprefix("data/")).read_bytes() == content

    (tmp_path / "dataset" / "data.archive").unlink()
    code, printed, _ = fetch("--data", "--features")
    assert code == 0
    assert "data: 3 published files are in" in printed and "already" in printed
    assert {path for path, _ in drive.requests} == {f"/{DRIVE_IDS['feature']}"}
    assert (tmp_path / "feature/resnet/cub_200_label_val.npy").read_bytes() == b"labels"
    assert f"{tmp_path / 'feature'} (1 files)" in fetch("--list")[1]


def test_wrong_names_and_addresses_are_one_line(fetch, drive, tmp_path):
    for arguments, message in (
        ([], "NAME is missing"),
        (["inception_v3_inat_299"], "did you mean inception_v3_iNat_299 or "),
        ([RESNET, "resnet_50"], "unknown model 'resnet_50'; did you mean"),
    ):
        code, _, lines = fetch(*arguments)
        assert code == 1 and len(lines) == 1
        assert message in lines[0]
    assert drive.requests == []
    code, _, lines = fetch(RESNET)
    assert code == 1
    assert "cannot be fetched (404 Client Error" in lines[-1]
    assert list((tmp_path / "resnet").glob("*")) == []


def test_the_list_needs_no_tensorflow(tmp_path):
    script = (
        "import runpy, sys\n"
        f"sys.argv[1:] = ['--list', '--checkpoints_dir={tmp_path}']\n"
        "try:\n"
        "    runpy.run_module('slim.checkpoints', run_name='__main__', alter_sys=True)\n"
        "finally:\n"
        "    print('imported', *sorted({'tensorflow', 'gdown'} & set(sys.modules)), sep=':')\n"
    )
    done = run("python", "-c", script)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "imported"
    assert lines[8].split("  ")[0] == "inception_v4_iNat_560_ft"


def test_the_table_in_the_readme_is_the_one_of_the_command():
    titles = {
        "Inception-V3": "inception_v3",
        "Inception-V3 SE": "inception_v3_se",
        "Inception-V4": "inception_v4",
        "Inception-ResNet-V2": "inception_resnet_v2",
        "Inception-ResNet-V2 SE": "inception_resnet_v2_se",
        "ResNet-V2 50": "resnet_v2_50",
        "ResNet-V2 101": "resnet_v2_101",
        "ResNet-V2 152": "resnet_v2_152",
    }
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in (ROOT / "checkpoints/README.md").read_text().splitlines()
        if "open?id=" in line and line.startswith("| `")
    ]
    assert [
        (name, titles[network], trained_on, size, re.search(r"\?id=([\w-]+)\)", link)[1])
        for name, network, trained_on, size, link in rows
    ] == [
        (m.name, m.network, m.trained_on, ", then ".join(map(str, m.sizes)), DRIVE_IDS[m.name])
        for m in MODELS
        if m.name in DRIVE_IDS
    ]
    assert {model.network for model in MODELS} <= NETWORKS.keys()
    assert {model.trained_on for model in MODELS} == CLASSES.keys()


def test_two_at_once_and_what_a_killed_run_leaves(fetch, drive, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.2)
    folder = tmp_path / "feature"
    drive.files[DRIVE_IDS["feature"]] = pack({"resnet/cub_200_label_val.npy": b"labels"})
    folder.mkdir()
    with exclusive(folder):
        code, _, lines = fetch("--features")
    assert code == 1
    assert len(lines) == 1 and f"{folder} is in use by process {os.getpid()} on " in lines[0]
    assert drive.requests == []
    assert fetch("--features")[0] == 0
    # A run was killed after it had placed the files.
    before = sorted(tmp_path.rglob("*"))
    (folder / "feature.unpacked").mkdir()
    assert fetch("--features")[0] == 0
    assert sorted(tmp_path.rglob("*")) == before
