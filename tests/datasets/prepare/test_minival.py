"""The list of validation images of iNaturalist 2017."""

import hashlib
from dataclasses import replace
from functools import partial

import pytest

from slim.common.errors import UserError
from slim.datasets import minival
from slim.datasets.prepare.archives import MINIVAL
from slim.datasets.prepare.minival import read_minival
from tests.conftest import run, shared
from tests.datasets.conftest import check
from tests.loopback import Loopback

LIST = "train_val_images/Aves/Corvus cornix/1.jpg\ntrain_val_images/Aves/Pica pica/2.jpg\n"
NAMES = frozenset(LIST.splitlines())


@pytest.fixture
def server():
    with Loopback(**{MINIVAL.name: LIST.encode()}) as server:
        yield server


@pytest.fixture
def source(server):
    """Returns the address and hash of a short list."""
    return replace(
        MINIVAL,
        address=f"{server.address}/{MINIVAL.name}",
        known_hash=f"sha256:{hashlib.sha256(LIST.encode()).hexdigest()}",
    )


def test_fetch_and_read(server, source, tmp_path):
    path = tmp_path / "list.txt"
    source.fetch(path)
    source.fetch(path)
    assert len(server.requests) == 1
    assert path.read_text() == LIST
    assert read_minival(path, source=source) == NAMES


def test_another_list_is_not_fetched(server, source, tmp_path):
    with pytest.raises(UserError, match=r"minival\.txt: .* hash .*35cf431f20792f43"):
        replace(MINIVAL, address=source.address).fetch(tmp_path / "list.txt")
    assert list(tmp_path.iterdir()) == []


def test_another_list_is_refused_and_kept(server, source, tmp_path, capsys):
    path = tmp_path / "list.txt"
    path.write_text(LIST.replace("Pica", "Picus"))
    for refused in (source.fetch, partial(read_minival, source=source)):
        found = r"list\.txt (differs from|is not the published list).*move it away"
        with pytest.raises(UserError, match=found):
            refused(path)
    assert "Picus" in path.read_text()
    assert server.requests == []
    assert capsys.readouterr().err == ""
    names = read_minival(path, allow_other=True, source=source)
    assert "train_val_images/Aves/Picus pica/2.jpg" in names
    assert capsys.readouterr().err.startswith(f"warning: {path} is not the published list: sha256:")


def test_a_missing_list_is_reported(tmp_path):
    expected = "list.txt: No such file .* -m slim.datasets.minival --path=.*list.txt fetches"
    with pytest.raises(UserError, match=expected):
        read_minival(tmp_path / "list.txt")


def test_the_published_list():
    path = shared("data/inat_minival.txt")
    MINIVAL.fetch(path)  # exists and is valid
    names = read_minival(path)
    assert len(names) == 9697
    assert {name.count("/") for name in names} == {3}
    assert all(name.startswith("train_val_images/") for name in names)
    assert "train_val_images/Aves/Corvus cornix/013b616c7ef3f337d80f21cd8d4b7456.jpg" in names


def test_command():
    path = shared("data/inat_minival.txt")
    done = run("python", "-m", "slim.datasets.minival", f"--path={path}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path}: 9,697 images, as published\n"


def test_command_refuses_another_list(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(LIST)
    for folder in ("/", tmp_path):
        error = check(minival, f"--path={folder}", code=1).error
        assert error == f"error: {folder} exists but is not a file: pass the path of a file\n"
    error = check(minival, f"--path={path}", code=1).error
    assert error.startswith(f"error: {path} differs from https://raw.")
    assert path.read_text() == LIST
