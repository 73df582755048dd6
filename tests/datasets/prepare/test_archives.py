"""The table of sources, downloads from a local server, and the list of iNat2017's validation."""

import hashlib
import re
from dataclasses import replace

import pytest

from slim.common.errors import UserError
from slim.datasets import minival
from slim.datasets.prepare import archives
from slim.datasets.prepare.archives import (
    MINIVAL,
    SOURCES,
    ArchiveSource,
    RemoteFile,
    download,
    read_minival,
)
from slim.datasets.registry import KNOWN
from tests.conftest import run, shared
from tests.datasets.conftest import check
from tests.loopback import Loopback, pack

REQUIRE_A_LOGIN = {"nabirds", "stanford_cars", "ILSVRC2012"}
LIST = "train_val_images/Aves/Corvus cornix/1.jpg\ntrain_val_images/Aves/Pica pica/2.jpg\n"
NAMES = frozenset(LIST.splitlines())


FILES = {
    "images.tgz": pack({"Images/a dog/1.jpg": b"jpeg" * 50_000}),
    "lists.tar": pack({"train_list.mat": b"train", "test_list.mat": b"test"}),
    "setid.mat": b"set",
    MINIVAL.name: LIST.encode(),
}
TREE = {
    "Images/a dog/1.jpg": b"jpeg" * 50_000,
    "lists/train_list.mat": b"train",
    "lists/test_list.mat": b"test",
    "setid.mat": b"set",
}


@pytest.fixture
def server():
    with Loopback(**FILES) as server:
        yield server


@pytest.fixture(autouse=True)
def sources(server, monkeypatch):
    """Adds a source with a file of each kind and a source that requires a login."""
    hashes = {name: f"md5:{hashlib.md5(content).hexdigest()}" for name, content in FILES.items()}

    def archive(name, *rest, **options):
        return RemoteFile(
            f"{server.address}/{name}", hashes[name], len(FILES[name]), *rest, **options
        )

    files = (
        archive("images.tgz", "Images"),
        archive("lists.tar", "train_list.mat", into="lists"),
        archive("setid.mat"),
    )
    monkeypatch.setitem(SOURCES, "dogs", ArchiveSource("https://dogs", files))
    monkeypatch.setitem(SOURCES, "cats", ArchiveSource("https://cats", (), "ask"))


def read_tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_download(server, tmp_path):
    download("dogs", tmp_path / "new")
    assert read_tree(tmp_path / "new") == TREE  # the archives are removed
    assert [path for path, _ in server.requests] == ["/images.tgz", "/lists.tar", "/setid.mat"]
    download("dogs", tmp_path / "new")
    assert len(server.requests) == 3


def test_download_resumes(server, tmp_path):
    server.stops_after = 100
    with pytest.raises(UserError, match=r"images\.tgz: the connection failed after 100B"):
        download("dogs", tmp_path)
    server.stops_after = None
    lists = server.files.pop("lists.tar")
    with pytest.raises(UserError, match=r"lists\.tar: the server answered 404"):
        download("dogs", tmp_path)
    server.files["lists.tar"] = lists
    download("dogs", tmp_path)
    assert server.requests == [
        ("/images.tgz", None),
        ("/images.tgz", "bytes=100-"),
        ("/lists.tar", None),
        ("/lists.tar", None),
        ("/setid.mat", None),
    ]
    assert read_tree(tmp_path) == TREE


def test_an_existing_archive_is_not_fetched(server, tmp_path):
    (tmp_path / "images.tgz").write_bytes(FILES["images.tgz"])
    download("dogs", tmp_path)
    assert [path for path, _ in server.requests] == ["/lists.tar", "/setid.mat"]
    assert read_tree(tmp_path) == TREE


def test_existing_files_are_not_overwritten(server, tmp_path):
    (tmp_path / "Images").mkdir()
    with pytest.raises(UserError, match="Images exists already"):
        download("dogs", tmp_path)
    assert server.requests == []


def test_an_archive_with_another_hash_is_not_unpacked(server, tmp_path):
    server.files["images.tgz"] = pack({"Images/other.jpg": b"other"})
    with pytest.raises(UserError, match=r"images.tgz: .* hash .* expected md5:"):
        download("dogs", tmp_path)
    assert read_tree(tmp_path) == {}


def test_a_source_that_requires_a_login(tmp_path):
    with pytest.raises(
        UserError, match=r"cats cannot be downloaded automatically: .* https://cats; ask"
    ):
        download("cats", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_sources_are_well_formed(monkeypatch):
    for name in ("dogs", "cats"):
        monkeypatch.delitem(SOURCES, name)
    assert set(SOURCES) == set(KNOWN)
    assert {name for name, source in SOURCES.items() if source.by_hand} == REQUIRE_A_LOGIN
    assert {name for name, source in SOURCES.items() if not source.files} == REQUIRE_A_LOGIN
    files = [archive for source in SOURCES.values() for archive in source.files]
    for archive in [*files, MINIVAL]:
        assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", archive.known_hash)
        assert re.fullmatch(r"https?://[\w.-]+/[^?]+", archive.address)
        assert archive.size > 0
        assert (archive.top is None) == (archive.name.rpartition(".")[2] in ("mat", "txt"))
    for name, source in SOURCES.items():
        assert source.page in archives.where_to_get(name)
        assert ("--download fetches it" in archives.where_to_get(name)) == (
            name not in REQUIRE_A_LOGIN
        )
        assert "\n" not in archives.where_to_get(name)


@pytest.fixture
def source(server, monkeypatch):
    """Replaces the published list with a short one, and returns its address and hash."""
    address = f"{server.address}/{MINIVAL.name}"
    known_hash = f"sha256:{hashlib.sha256(LIST.encode()).hexdigest()}"
    monkeypatch.setattr(
        archives, "MINIVAL", replace(MINIVAL, address=address, known_hash=known_hash)
    )
    return archives.MINIVAL


def test_fetch_and_read(server, source, tmp_path):
    path = tmp_path / "list.txt"
    source.fetch(path)
    source.fetch(path)
    assert len(server.requests) == 1
    assert path.read_text() == LIST
    assert read_minival(path) == NAMES


def test_another_list_is_not_fetched(server, source, tmp_path):
    with pytest.raises(UserError, match=r"minival\.txt: .* hash .*35cf431f20792f43"):
        replace(MINIVAL, address=source.address).fetch(tmp_path / "list.txt")
    assert list(tmp_path.iterdir()) == []


def test_another_list_is_refused_and_kept(server, source, tmp_path, capsys):
    path = tmp_path / "list.txt"
    path.write_text(LIST.replace("Pica", "Picus"))
    for refused in (source.fetch, read_minival):
        found = r"list\.txt (differs from|is not the published list).*move it away"
        with pytest.raises(UserError, match=found):
            refused(path)
    assert "Picus" in path.read_text()
    assert server.requests == []
    assert capsys.readouterr().err == ""
    names = read_minival(path, allow_other=True)
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
