"""The store's lock, between real processes."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.small_stores import other_process
from yarnstore.errors import LockTimeoutError, StorageError
from yarnstore.store import lock

HOLDER = """
from yarnstore.store import lock
with lock.acquire(Path(sys.argv[1]), exclusive=sys.argv[2] == "exclusive", timeout_s=5):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("theirs", "ours", "waits"),
    [("shared", False, False), ("shared", True, True), ("exclusive", False, True), ("exclusive", True, True)],
)
def test_readers_share_and_gc_is_alone(tmp_path: Path, theirs: str, ours: bool, waits: bool) -> None:
    path = tmp_path / "lock"
    with other_process(HOLDER, str(path), theirs):
        if waits:
            with pytest.raises(LockTimeoutError), lock.acquire(path, exclusive=ours, timeout_s=0):
                pass
        else:
            with lock.acquire(path, exclusive=ours, timeout_s=0):
                pass


def test_waiting_is_bounded_and_names_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    told: list[list[int]] = []
    with other_process(HOLDER, str(path), "exclusive") as process:
        started = time.monotonic()
        with (
            pytest.raises(LockTimeoutError) as caught,
            lock.acquire(path, exclusive=False, timeout_s=0.4, on_wait=told.append),
        ):
            pass
        waited = time.monotonic() - started
        assert 0.4 <= waited < 2
        if sys.platform == "linux":
            assert told == [[process.pid]]
            assert caught.value.fields["holders"] == [process.pid]
            assert f"process {process.pid}" in caught.value.message


def test_a_killed_holder_frees_the_lock_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with other_process(HOLDER, str(path), "exclusive") as process:
        threading.Timer(0.1, process.kill).start()
        started = time.monotonic()
        with lock.acquire(path, exclusive=True, timeout_s=10):
            assert time.monotonic() - started < 2
            assert os.getpid() in lock.holders(path) or sys.platform != "linux"
    assert path.exists()
    assert lock.holders(path) == []


def test_threads_wait_for_each_other_too(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        lock.acquire(path, exclusive=True, timeout_s=0),
        pytest.raises(LockTimeoutError),
        lock.acquire(path, exclusive=False, timeout_s=0),
    ):
        pass
    with lock.acquire(path, exclusive=False, timeout_s=0), lock.acquire(path, exclusive=False, timeout_s=0):
        pass


def test_the_lock_file_is_neither_emptied_nor_deleted_nor_a_link(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"somebody's")
    with lock.acquire(path, exclusive=True, timeout_s=0):
        pass
    assert path.read_bytes() == b"somebody's"
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(StorageError), lock.acquire(tmp_path / "link", exclusive=True, timeout_s=0):
        pass


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock.acquire(tmp_path / "lock", exclusive=True, timeout_s=0):
        raise KeyError
    with lock.acquire(tmp_path / "lock", exclusive=True, timeout_s=0):
        pass


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everything")
def test_a_lock_that_may_only_be_read_is_held_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(mode=0o444)
    with lock.acquire(path, exclusive=False, timeout_s=0):
        assert os.getpid() in lock.holders(path) or sys.platform != "linux"


def test_who_holds_a_lock_that_is_not_there(tmp_path: Path) -> None:
    assert lock.holders(tmp_path / "gone") == []
