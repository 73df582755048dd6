"""The table of sources, and downloads from a local server."""

import hashlib
import re

import pytest

from slim.common.errors import UserError
from slim.datasets.prepare.archives import (
    MINIVAL,
    SOURCES,
    ArchiveSource,
    RemoteFile,
    download,
    where_to_get,
)
from slim.datasets.registry import KNOWN
from tests.conftest import run
from tests.loopback import Loopback, pack

REQUIRE_A_LOGIN = {"nabirds", "stanford_cars", "ILSVRC2012"}


FILES = {
    "images.tgz": pack({"Images/a dog/1.jpg": b"jpeg" * 50_000}),
    "lists.tar": pack({"train_list.mat": b"train", "test_list.mat": b"test"}),
    "setid.mat": b"set",
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


@pytest.fixture
def sources(server):
    """Returns a source with a file of each kind and a source that requires a login."""
    hashes = {name: f"md5:{hashlib.md5(content).hexdigest()}" for name, content in FILES.items()}

    def archive(name, *rest, **options):
        return RemoteFile(
            f"{server.address}/{name}", hashes[name], len(FILES[name]), *rest, **options
        )

    archives = (
        archive("images.tgz", "Images"),
        archive("lists.tar", "train_list.mat", into="lists"),
        archive("setid.mat"),
    )
    return {
        "dogs": ArchiveSource("https://dogs", archives),
        "cats": ArchiveSource("https://cats", (), "ask"),
    }


def read_tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_download(server, sources, tmp_path):
    download("dogs", tmp_path / "new", sources)
    assert read_tree(tmp_path / "new") == TREE  # the archives are removed
    assert [path for path, _ in server.requests] == ["/images.tgz", "/lists.tar", "/setid.mat"]
    download("dogs", tmp_path / "new", sources)
    assert len(server.requests) == 3


def test_download_resumes(server, sources, tmp_path):
    server.stops_after = 100
    with pytest.raises(UserError, match=r"images\.tgz: the connection failed after 100B"):
        download("dogs", tmp_path, sources)
    server.stops_after = None
    lists = server.files.pop("lists.tar")
    with pytest.raises(UserError, match=r"lists\.tar: the server answered 404"):
        download("dogs", tmp_path, sources)
    server.files["lists.tar"] = lists
    download("dogs", tmp_path, sources)
    assert server.requests == [
        ("/images.tgz", None),
        ("/images.tgz", "bytes=100-"),
        ("/lists.tar", None),
        ("/lists.tar", None),
        ("/setid.mat", None),
    ]
    assert read_tree(tmp_path) == TREE


def test_an_existing_archive_is_not_fetched(server, sources, tmp_path):
    (tmp_path / "images.tgz").write_bytes(FILES["images.tgz"])
    download("dogs", tmp_path, sources)
    assert [path for path, _ in server.requests] == ["/lists.tar", "/setid.mat"]
    assert read_tree(tmp_path) == TREE


def test_existing_files_are_not_overwritten(server, sources, tmp_path):
    (tmp_path / "Images").mkdir()
    with pytest.raises(UserError, match="Images exists already"):
        download("dogs", tmp_path, sources)
    assert server.requests == []


def test_an_archive_with_another_hash_is_not_unpacked(server, sources, tmp_path):
    server.files["images.tgz"] = pack({"Images/other.jpg": b"other"})
    with pytest.raises(UserError, match=r"images.tgz: .* hash .* expected md5:"):
        download("dogs", tmp_path, sources)
    assert read_tree(tmp_path) == {}


def test_a_source_that_requires_a_login(sources, tmp_path):
    with pytest.raises(
        UserError, match=r"cats cannot be downloaded automatically: .* https://cats; ask"
    ):
        download("cats", tmp_path / "new", sources)
    assert not (tmp_path / "new").exists()


def test_an_unknown_dataset_is_refused(tmp_path):
    with pytest.raises(UserError, match="food_102: unknown, did you mean food_101"):
        download("food_102", tmp_path)


def test_sources_are_well_formed():
    assert set(SOURCES) == set(KNOWN)
    assert {name for name, source in SOURCES.items() if source.by_hand} == REQUIRE_A_LOGIN
    assert {name for name, source in SOURCES.items() if not source.files} == REQUIRE_A_LOGIN
    archives = [archive for source in SOURCES.values() for archive in source.files]
    for archive in [*archives, MINIVAL]:
        assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", archive.known_hash)
        assert re.fullmatch(r"https?://[\w.-]+/[^?]+", archive.address)
        assert archive.size > 0
        assert (archive.top is None) == (archive.name.rpartition(".")[2] in ("mat", "txt"))
    for name, source in SOURCES.items():
        assert source.page in where_to_get(name)
        assert ("--download fetches it" in where_to_get(name)) == (name not in REQUIRE_A_LOGIN)
        assert "\n" not in where_to_get(name)


def test_the_minival_command_does_not_load_tensorflow():
    code = "import sys, slim.datasets.minival; sys.exit('tensorflow' in sys.modules)"
    assert run("python", "-c", code).returncode == 0
