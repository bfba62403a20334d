"""The store's lock, between real processes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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

# Holds the shared lock again and again, for 0.1 s each, and then prints the longest wait.
READER = """
import time
from yarnstore.store import lock
path, end, longest = Path(sys.argv[1]), Path(sys.argv[2]), 0.0
gate = path.with_name("lock.gate")
print("ready", flush=True)
while not end.exists():
    began = time.monotonic()
    with lock.acquire(path, exclusive=False, timeout_s=60, gate=gate):
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.1)
print(longest, flush=True)
sys.stdin.read()
"""

WAITER = """
from yarnstore.store import lock
path = Path(sys.argv[1])
print("ready", flush=True)
with lock.acquire(path, exclusive=True, timeout_s=60, gate=path.with_name("lock.gate")):
    sys.stdin.read()
"""


@contextmanager
def waiting(path: Path) -> Iterator[Path]:
    """A process waits for the exclusive lock, which others hold, and has closed this gate."""
    gate = path.with_name("lock.gate")
    with other_process(WAITER, str(path)):
        while not lock.is_closed(gate):
            time.sleep(0.01)
        yield gate


def test_gc_gets_its_turn_among_readers_that_overlap(tmp_path: Path) -> None:
    path, end = tmp_path / "lock", tmp_path / "end"
    with ExitStack() as stack:
        readers = [stack.enter_context(other_process(READER, str(path), str(end))) for _ in range(5)]
        for _ in range(3):
            time.sleep(0.3)
            began = time.monotonic()
            with lock.acquire(path, exclusive=True, timeout_s=20, gate=tmp_path / "lock.gate"):
                assert time.monotonic() - began < 10
                time.sleep(0.2)
        end.touch()
        for reader in readers:
            assert reader.stdout is not None
            assert float(reader.stdout.readline()) < 10  # 2 s at the gate, the hold, and a slow machine


def test_one_who_holds_the_lock_passes_the_gate_and_others_after_two_seconds(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    waits = []

    def take(timeout_s: float = 60) -> None:
        began = time.monotonic()
        with lock.acquire(path, exclusive=False, timeout_s=timeout_s, gate=tmp_path / "lock.gate"):
            waits.append(time.monotonic() - began)

    first = lock.acquire(path, exclusive=False, timeout_s=0, gate=tmp_path / "lock.gate")
    with first, waiting(path) as gate:
        take()
        thread = threading.Thread(target=take)  # as a process that this one waits for
        thread.start()
        thread.join(30)
        take(timeout_s=0)
        assert lock.is_closed(gate)
    assert waits[0] < 1.5 < waits[1]
    assert waits[2] < 1.5


CHILD = """
import time
from yarnstore.store import lock
path, began = Path(sys.argv[1]), time.monotonic()
print("ready", flush=True)
for _ in range(5):
    with lock.acquire(path, exclusive=False, timeout_s=60, gate=path.with_name("lock.gate")):
        pass
print(time.monotonic() - began, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say who holds a lock")
def test_a_child_of_one_who_holds_the_lock_passes_the_gate_each_time(tmp_path: Path) -> None:
    """The waiter cannot go on before the child's parent does, which may wait for the child."""
    path = tmp_path / "lock"
    first = lock.acquire(path, exclusive=False, timeout_s=0, gate=tmp_path / "lock.gate")
    with first, waiting(path) as gate, other_process(CHILD, str(path)) as child:
        assert child.stdout is not None
        assert float(child.stdout.readline()) < 2
        assert lock.is_closed(gate)


def test_a_gate_is_made_by_a_waiter_alone_and_not_needed(tmp_path: Path) -> None:
    path, gate = tmp_path / "lock", tmp_path / "lock.gate"
    for exclusive in (False, True):
        with lock.acquire(path, exclusive=exclusive, timeout_s=0, gate=gate):
            assert not gate.exists()
    gate.mkdir()  # cannot be opened as a file
    with lock.acquire(path, exclusive=False, timeout_s=5, gate=gate):
        with pytest.raises(LockTimeoutError), lock.acquire(path, exclusive=True, timeout_s=0.1, gate=gate):
            pass
        with lock.acquire(path, exclusive=False, timeout_s=5, gate=gate):
            pass


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
