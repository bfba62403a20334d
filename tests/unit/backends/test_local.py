from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from yarnstore.backends import LocalBackend, MemoryBackend, Retrying, connect_file
from yarnstore.backends.connect import connect
from yarnstore.backends.http import HttpBackend
from yarnstore.errors import BackendError, MissingKeyError, TransientError, UsageError


def test_an_unplugged_drive_is_not_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no such folder") as caught:
        LocalBackend(tmp_path / "gone").get("registry.json", limit_bytes=9)
    assert not isinstance(caught.value, MissingKeyError)


def test_a_file_in_the_place_of_a_registrys_folder_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "registry.json").write_text("{}")
    with pytest.raises(BackendError, match="a file, and not a folder") as caught:
        LocalBackend(tmp_path / "registry.json").get("registry.json", limit_bytes=9)
    assert not isinstance(caught.value, MissingKeyError | TransientError)
    assert "drive" not in caught.value.hint


def test_what_is_no_regular_file_is_missing_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    backend = LocalBackend(tmp_path)
    for key in ("fifo", "folder", "null"):
        with pytest.raises(MissingKeyError, match="not a file"):
            backend.get(key, limit_bytes=9)


def test_other_errors_are_backend_errors(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BackendError, match="symbolic links") as caught:
        LocalBackend(tmp_path).get("loop", limit_bytes=9)
    assert not isinstance(caught.value, MissingKeyError | TransientError)


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may read everything")
def test_no_permission_is_a_backend_error(tmp_path: Path) -> None:
    (tmp_path / "x").touch(mode=0)
    with pytest.raises(BackendError, match="ermission") as caught:
        LocalBackend(tmp_path).get("x", limit_bytes=9)
    assert not isinstance(caught.value, MissingKeyError)


def test_a_file_that_shrinks_ends_short(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"a" * 3_000_000)
    with LocalBackend(tmp_path).open("x") as body:
        assert body.total == 3_000_000
        blocks = iter(body)
        next(blocks)
        os.truncate(file, 1_500_000)
        with pytest.raises(TransientError, match="of 3000000 bytes"):
            list(blocks)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "folder").mkdir()
    backend = LocalBackend(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        backend.get("x", limit_bytes=9)
        with backend.open("x"):
            pass
        with pytest.raises(MissingKeyError):
            backend.get("folder", limit_bytes=9)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_same_sized_change_changes_the_etag(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"one")
    os.utime(file, ns=(0, 0))
    first = LocalBackend(tmp_path).get("x", limit_bytes=9)
    assert first is not None
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 0))
    second = LocalBackend(tmp_path).get("x", limit_bytes=9, etag=first.etag)
    assert second is not None
    assert second.data == b"two"


def test_memory_lists_its_requests() -> None:
    backend = MemoryBackend({"x": b"abc"})
    backend.get("x", limit_bytes=3)
    with backend.open("x", start=1, length=1) as body:
        assert b"".join(body) == b"b"
    with pytest.raises(MissingKeyError):
        backend.get("y", limit_bytes=3)
    assert [(a.verb, a.key, a.start, a.length) for a in backend.requests] == [
        ("get", "x", 0, None),
        ("open", "x", 1, 1),
        ("get", "y", 0, None),
    ]


def test_connect(tmp_path: Path) -> None:
    for address in (tmp_path, str(tmp_path), tmp_path.as_uri(), f"FILE://localhost{tmp_path}"):
        backend = connect(address)
        assert isinstance(backend, LocalBackend)
        assert backend.url == str(tmp_path)
    web = connect("HTTPS://host.test/models", token="t")
    assert isinstance(web, Retrying)
    assert web.url == "https://host.test/models/"
    web.close()


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/x",
        "s3://bucket",
        "git+ssh://x/y",
        "file://otherhost/x",
        "file:relative",
        "file:///a?b",
        "",
    ],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UsageError):
        connect(address)


def test_connect_file(tmp_path: Path) -> None:
    (tmp_path / "a b.bin").write_bytes(b"content")
    backend, key = connect_file((tmp_path / "a b.bin").as_uri())
    fetched = backend.get(key, limit_bytes=10)
    assert fetched is not None
    assert fetched.data == b"content"
    web, key = connect_file("https://host.test:99/a/b?sig=1")
    assert (web.url, key) == ("https://host.test:99/", "https://host.test:99/a/b?sig=1")
    web.close()
    for url in ("a/b", "ftp://host/x", "https://me:pw@host/x"):
        with pytest.raises(UsageError) as caught:
            connect_file(url)
        assert "pw" not in caught.value.message


def test_httpx_is_imported_only_for_http() -> None:
    program = (
        "import sys, yarnstore.backends.connect as b; b.connect('/tmp'); "
        "assert not {'httpx', 'httpcore', 'ssl'} & set(sys.modules), 'too early'; "
        "b.connect('http://127.0.0.1/').close(); assert 'httpx' in sys.modules"
    )
    root = str(Path(__file__).parents[3])
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=root)


def test_making_an_http_backend_reads_no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    HttpBackend("https://host.test/").close()
