"""Tests of downloads from a server on this machine, and of safe and unsafe archives."""

import gzip
import hashlib
import io
import multiprocessing
import os
import pkgutil
import random
import signal
import socket
import stat
import tarfile
import zipfile
from functools import partial
from unittest import mock

import pytest

from slim.common.downloads import fetch
from slim.common.errors import UserError
from slim.common.files import exclusive
from slim.common.unpacking import unpack, unpacked
from tests.datasets.conftest import file_size_limit, wait_until
from tests.loopback import Loopback

CONTENT = random.Random(0).randbytes(1_000_000)
OTHER = random.Random(1).randbytes(1_000_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
BROKEN_AT = 600_000  # bytes
CHUNK = 65_536  # bytes that may be lost
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def server():
    with Loopback(file=CONTENT) as server:
        yield server


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def begun(path):
    """Returns the file that holds the bytes received so far."""
    return path.with_name(f"{path.name}.part") / ".begun"


def break_off(server, path, known_hash=SHA256):
    """Breaks the connection of a download, and returns the number of bytes received."""
    server.stops_after = BROKEN_AT
    with pytest.raises(UserError, match="the connection"):
        fetch(f"{server.address}/file", path, known_hash)
    server.stops_after = None
    assert not path.exists()
    return begun(path).stat().st_size


def killed(action):
    """Calls a function in a process that SIGKILL ends."""
    process = FORK.Process(target=action)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def kill_itself(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("known_hash", [SHA256, MD5, None])
def test_a_complete_download(server, tmp_path, known_hash):
    path = tmp_path / "new" / "folder" / "file"
    fetch(f"{server.address}/file", path, known_hash)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["file"]
    assert path.stat().st_mode & 0o044 == 0o044  # others may read it
    fetch(f"{server.address}/file", path, known_hash)
    assert server.requests == [("/file", None)]  # once


def test_a_broken_download_resumes(server, tmp_path):
    path = tmp_path / "file"
    server.stops_after = BROKEN_AT
    with pytest.raises(UserError) as raised:
        fetch(f"{server.address}/file", path, SHA256)
    message = str(raised.value)
    assert message.startswith(f"{server.address}/file: the connection failed after ")
    assert message.endswith("): run this again to resume")
    came = begun(path).stat().st_size
    assert BROKEN_AT - CHUNK <= came <= BROKEN_AT
    assert begun(path).read_bytes() == CONTENT[:came]
    assert names(tmp_path) == ["file.part"]
    server.stops_after = None
    fetch(f"{server.address}/file", path, SHA256)
    assert server.requests == [("/file", None), ("/file", f"bytes={came}-")]
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["file"]


def test_killed_amid_the_download(server, tmp_path):
    path = tmp_path / "file"
    server.stalls_after = BROKEN_AT
    process = FORK.Process(target=fetch, args=(f"{server.address}/file", path, SHA256))
    process.start()
    wait_until(lambda: begun(path).exists() and begun(path).stat().st_size >= BROKEN_AT - CHUNK)
    with pytest.raises(UserError, match=r"in use by process [0-9]+ on .+: wait until it ends"):
        fetch(f"{server.address}/file", path, SHA256)
    process.kill()
    process.join()
    came = begun(path).stat().st_size
    assert not path.exists()
    server.stalls_after = None
    fetch(f"{server.address}/file", path, SHA256)
    assert server.requests[-1] == ("/file", f"bytes={came}-")
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["file"]


def test_killed_while_it_notes_the_version(server, tmp_path):
    path = tmp_path / "file"
    break_off(server, path, None)
    begun(path).with_name(".note.tmp").write_bytes(b"{")
    begun(path).unlink()
    fetch(f"{server.address}/file", path)
    assert path.read_bytes() == CONTENT


def test_killed_amid_the_check(server, tmp_path):
    path = tmp_path / "file"
    with mock.patch("slim.common.downloads.hash_file", kill_itself):
        killed(partial(fetch, f"{server.address}/file", path, SHA256))
    assert not path.exists()
    fetch(f"{server.address}/file", path, SHA256)
    assert len(server.requests) == 1  # all had come
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("known_hash", [SHA256, None])
@pytest.mark.parametrize(
    "server_has",
    [
        {},
        {"tags": False, "dates": True},
        {"tags": False},  # the size is all there is to go by
        {"ranges": False},
        {"checks_versions": False},
    ],
)
def test_servers(server, tmp_path, server_has, known_hash):
    vars(server).update(server_has)
    came = break_off(server, tmp_path / "file", known_hash)
    fetch(f"{server.address}/file", tmp_path / "file", known_hash)
    assert server.requests[1:] == [("/file", f"bytes={came}-")]
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("server_has", [{}, {"checks_versions": False}, {"ranges": False}])
@pytest.mark.parametrize("new", [OTHER, OTHER[:700_000], OTHER[:1000]])
def test_a_changed_file_is_downloaded_from_the_start(server, tmp_path, server_has, new):
    vars(server).update(server_has)
    break_off(server, tmp_path / "file", None)
    server.files["file"] = new
    fetch(f"{server.address}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == new
    # A server that heeds If-Range sends all of the new file at once, the others are asked for it.
    assert len(server.requests) == (2 if server.checks_versions or not server.ranges else 3)


def test_changed_in_size_where_there_are_no_versions(server, tmp_path):
    server.tags = False
    break_off(server, tmp_path / "file", None)
    server.files["file"] = OTHER[:-1]
    fetch(f"{server.address}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == OTHER[:-1]
    assert server.requests[2:] == [("/file", None)]


def test_neither_version_nor_size(server, tmp_path):
    server.tags, server.announces = False, 0
    fetch(f"{server.address}/file", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_an_archive_sent_as_encoded_content_is_not_decoded(server, tmp_path):
    server.files["file"], server.encoding = gzip.compress(b"content"), "x-gzip"
    fetch(f"{server.address}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == server.files["file"]


def test_a_wrong_hash(server, tmp_path):
    server.files["file"] = OTHER
    with pytest.raises(UserError) as raised:
        fetch(f"{server.address}/file", tmp_path / "file", MD5)
    message = str(raised.value)
    for part in (f"{server.address}/file", MD5, hashlib.md5(OTHER).hexdigest(), "run this again"):
        assert part in message
    assert "\n" not in message
    assert names(tmp_path) == []
    server.files["file"] = CONTENT
    fetch(f"{server.address}/file", tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_another_file_is_not_overwritten(server, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"file differs from .*move it away"):
        fetch(f"{server.address}/file", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert server.requests == []


@pytest.mark.parametrize(("status", "name"), [(200, "missing"), (403, "file"), (503, "file")])
def test_no_such_file(server, tmp_path, status, name):
    server.status = status
    expected = f"{server.address}/{name}: the server answered {404 if status == 200 else status} "
    with pytest.raises(UserError) as raised:
        fetch(f"{server.address}/{name}", tmp_path / "file")
    assert str(raised.value).startswith(expected)
    assert f"put it at {tmp_path / 'file'}" in str(raised.value)
    assert names(tmp_path) == []


def test_received_data_outlive_server_errors(server, tmp_path):
    came = break_off(server, tmp_path / "file")
    server.status = 503
    with pytest.raises(UserError, match="answered 503"):
        fetch(f"{server.address}/file", tmp_path / "file", SHA256)
    server.status = 200
    fetch(f"{server.address}/file", tmp_path / "file", SHA256)
    assert server.requests[-1] == ("/file", f"bytes={came}-")


def test_no_server(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
        with pytest.raises(UserError) as raised:
            fetch(address, tmp_path / "file")
    assert str(raised.value) == (
        f"{address}: the connection failed after 0.00B ([Errno 111] Connection refused): "
        "run this again to resume"
    )
    assert names(tmp_path) == []


@pytest.mark.parametrize("known_hash", [SHA256, None])
def test_another_run_completes_the_download_meanwhile(server, tmp_path, monkeypatch, known_hash):
    """It removes the folder that this run waits to lock."""
    path = tmp_path / "file"

    def wait(folder):
        monkeypatch.setattr("slim.common.downloads.exclusive", exclusive)
        fetch(f"{server.address}/file", path, known_hash)
        return exclusive(folder)

    monkeypatch.setattr("slim.common.downloads.exclusive", wait)
    fetch(f"{server.address}/file", path, known_hash)
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert names(tmp_path) == ["file"]


def test_no_such_kind_of_address(tmp_path):
    with pytest.raises(UserError, match="No connection adapters"):
        fetch("gopher://127.0.0.1/file", tmp_path / "file")


def test_a_file_larger_than_the_disk(server, tmp_path):
    server.announces = 10**18
    with pytest.raises(UserError, match=r"file needs 1.00EB more, .* are free: make room"):
        fetch(f"{server.address}/file", tmp_path / "file")


def test_a_disk_that_fills_up(server, tmp_path):
    with (
        file_size_limit(BROKEN_AT),
        pytest.raises(UserError, match="File too large: fix this, then run this again"),
    ):
        fetch(f"{server.address}/file", tmp_path / "file", SHA256)
    fetch(f"{server.address}/file", tmp_path / "file", SHA256)
    assert server.requests[-1][1] is not None
    assert (tmp_path / "file").read_bytes() == CONTENT


# What the archives below hold.
TREE = {
    "birds/images/001.Black footed/a b.jpg": b"jpeg" * 1000,
    "birds/classes.txt": b"1 001.Black footed\n",
    "README": b"read me",
}


def tar(path, *members, mode="w"):
    """Writes a tar file of (name, content or a dictionary of the member's attributes)."""
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, dict):
                for key, value in content.items():
                    setattr(member, key, value)
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def make_zip(path, *members):
    """Writes a zip file of (name or ZipInfo, content)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def read_tree(folder):
    """The visible files of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


ARCHIVES = {
    "birds.tar": tar,
    "birds.tgz": lambda *arguments: tar(*arguments, mode="w:gz"),
    "birds.zip": make_zip,
}


@pytest.fixture(params=ARCHIVES)
def archive(request, tmp_path):
    return ARCHIVES[request.param](tmp_path / request.param, *TREE.items())


def test_unpack(archive, tmp_path):
    folder = tmp_path / "new" / "folder"
    assert not unpacked(archive, folder)
    unpack(archive, folder)
    assert read_tree(folder) == TREE
    assert names(folder) == [f".{archive.name}.unpacked", "README", "birds"]
    aside = archive.rename(tmp_path / "aside")
    assert unpacked(archive, folder)
    unpack(archive, folder)
    aside.rename(archive)
    (folder / "README").unlink()
    (folder / "birds").rename(tmp_path / "elsewhere")
    unpack(archive, folder)  # removed content is unpacked again
    assert read_tree(folder) == TREE


def test_unpack_overwrites_nothing(archive, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "birds").write_text("mine")
    with pytest.raises(UserError, match="birds exists already"):
        unpack(archive, tmp_path / "folder")
    assert read_tree(tmp_path / "folder") == {"birds": b"mine"}
    assert names(tmp_path / "folder") == ["birds"]


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize(
    "where", ["tarfile.TarFile.extract", "zipfile.ZipFile.extract", "pathlib.Path.replace"]
)
def test_killed_amid_unpacking(tmp_path, where, step):
    """At each member, at the stamp, and between the moves of top-level files."""
    name = "birds.zip" if "zip" in where else "birds.tgz"
    archive = ARCHIVES[name](tmp_path / name, *TREE.items())
    real, calls = pkgutil.resolve_name(where), []

    def until_killed(*arguments, **options):
        if len(calls) == step:
            kill_itself()
        calls.append(1)
        return real(*arguments, **options)

    with mock.patch(where, until_killed):
        killed(partial(unpack, archive, tmp_path / "folder"))
    visible = [name for name in names(tmp_path / "folder") if not name.startswith(".")]
    assert set(visible) <= {"README", "birds"}
    unpack(archive, tmp_path / "folder")
    assert read_tree(tmp_path / "folder") == TREE
    assert names(tmp_path / "folder") == [f".{name}.unpacked", "README", "birds"]


GOOD = ("good.txt", b"good")
SYMLINK, HARDLINK = {"type": tarfile.SYMTYPE}, {"type": tarfile.LNKTYPE}
UNSAFE = {
    "up": [("../out.txt", {})],
    "up in between": [("a/../../out.txt", {})],
    "absolute": [("{outside}/out.txt", {})],
    "symlink up": [("link", SYMLINK | {"linkname": "../outside"})],
    "symlink absolute": [("link", SYMLINK | {"linkname": "{outside}"})],
    "through a symlink": [
        ("link", SYMLINK | {"linkname": "{outside}"}),
        ("link/out.txt", {}),
    ],
    "through a chain": [
        ("here", SYMLINK | {"linkname": "."}),
        ("up", SYMLINK | {"linkname": "here/../../outside"}),
        ("up/out.txt", {}),
    ],
    "hard link up": [("link", HARDLINK | {"linkname": "../outside/secret"})],
    "hard link absolute": [("link", HARDLINK | {"linkname": "{outside}/secret"})],
    "pipe": [("pipe", {"type": tarfile.FIFOTYPE})],
    "device": [("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})],
}


@pytest.mark.parametrize("case", UNSAFE)
def test_unsafe_members_of_tar(tmp_path, case):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    members = []
    for name, content in UNSAFE[case]:
        if "linkname" in content:
            content = content | {"linkname": content["linkname"].format(outside=outside)}
        members.append((name.format(outside=outside), content))
    archive = tar(tmp_path / "bad.tar", GOOD, *members)
    with pytest.raises(UserError, match="its member '") as raised:
        unpack(archive, tmp_path / "folder")
    assert any(f"'{name}'" in str(raised.value) for name, _ in members)
    assert names(tmp_path / "folder") == []
    assert names(tmp_path) == ["bad.tar", "folder", "outside"]
    assert names(outside) == ["secret"]


def link_of_zip(target):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return link, target


@pytest.mark.parametrize(
    "member", [("../out.txt", "bad"), ("/tmp/out.txt", "bad"), link_of_zip("../outside")]
)
def test_unsafe_members_of_zip(tmp_path, member):
    archive = make_zip(tmp_path / "bad.zip", GOOD, member)
    with pytest.raises(UserError, match="its member '"):
        unpack(archive, tmp_path / "folder")
    assert names(tmp_path / "folder") == []
    assert names(tmp_path) == ["bad.zip", "folder"]


def test_old_releases_of_python_refuse_tar_files(tmp_path, monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter")
    archive = tar(tmp_path / "good.tar", GOOD)
    with pytest.raises(
        UserError, match=r"cannot unpack tar files safely: update to Python 3\.10\.12"
    ):
        unpack(archive, tmp_path / "folder")
    assert names(tmp_path / "folder") == []
    archive = make_zip(tmp_path / "good.zip", GOOD)
    unpack(archive, tmp_path / "folder")
    assert (tmp_path / "folder" / "good.txt").exists()


def test_links_inside_and_modes(tmp_path):
    archive = tar(
        tmp_path / "good.tar",
        ("a", {"type": tarfile.DIRTYPE, "mode": 0o500}),
        ("a/b.txt", b"b"),
        ("a/link", SYMLINK | {"linkname": "b.txt"}),
        ("hard", HARDLINK | {"linkname": "a/b.txt"}),
        ("run", {"mode": 0o6777}),
    )
    folder = tmp_path / "folder"
    unpack(archive, folder)
    assert (folder / "a" / "link").read_bytes() == (folder / "hard").read_bytes() == b"b"
    assert (folder / "run").stat().st_mode & 0o7777 == 0o755
    assert os.access(folder / "a", os.W_OK)


@pytest.mark.parametrize("kept", [0, 100, 2000, 4500])
@pytest.mark.parametrize("name", ARCHIVES)
def test_broken_archives(tmp_path, name, kept):
    whole = ARCHIVES[name](tmp_path / name, ("noise", CONTENT[:9000])).read_bytes()
    (tmp_path / name).write_bytes(whole[:kept])
    with pytest.raises(UserError, match=r"cannot be unpacked \(.*\), expected a complete \.tar"):
        unpack(tmp_path / name, tmp_path / "folder")
    assert names(tmp_path / "folder") == []


def test_no_archive(tmp_path):
    with pytest.raises(UserError, match=r"none.tar: No such file or directory"):
        unpack(tmp_path / "none.tar", tmp_path / "folder")
