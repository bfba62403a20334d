"""What `store.native` promises on every system, and a store on a system that cannot open folders."""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.stores import MODEL, make_site
from yarnstore.core.digest import Sha256
from yarnstore.errors import NotFoundError, ReadOnlyError, StorageError
from yarnstore.store import filepath as paths
from yarnstore.store import folders, fsio, fsread, lock, native, views
from yarnstore.store.layout import StoreLayout
from yarnstore.store.patience import hurried

NEW = os.O_RDWR | os.O_CREAT | native.NOFOLLOW
# What text mode of Windows would change or end at.
BYTES = b"one\r\ntwo\n\x1athree"


def made(path: Path, data: bytes = BYTES) -> int:
    fd = native.open_file(path, NEW)
    assert native.pwrite(fd, memoryview(data), 0) == len(data)
    return fd


def test_bytes_come_back_at_every_offset(tmp_path: Path) -> None:
    fd = made(tmp_path / "file")
    try:
        assert native.pwrite(fd, memoryview(b"end"), 100) == 3
        assert native.pread(fd, len(BYTES), 0) == BYTES
        assert native.pread(fd, 10, 98) == b"\0\0end"
        assert native.pread(fd, 10, 103) == native.pread(fd, 0, 0) == b""
        native.truncate(fd, 5)
        native.sync(fd)
        native.sync_data(fd)
        assert native.pread(fd, 100, 0) == BYTES[:5]
    finally:
        os.close(fd)
    assert (tmp_path / "file").read_bytes() == BYTES[:5]


def test_threads_read_one_file_at_once(tmp_path: Path) -> None:
    data = os.urandom(200_000)
    fd = made(tmp_path / "file", data)
    wrong: list[int] = []

    def read(step: int) -> None:
        places = range(step, len(data), 997)
        wrong.extend(at for at in places if native.pread(fd, 50, at) != data[at : at + 50])

    threads = [threading.Thread(target=read, args=(step,)) for step in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(fd)
    assert wrong == []


def test_what_is_appended_goes_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    first, second = (native.open_file(path, NEW | os.O_APPEND) for _ in range(2))
    for fd, data in ((first, b"a\n"), (second, b"b\n"), (first, b"c\n")):
        assert native.write(fd, data) == 2
    assert native.pread(second, 10, 2) == b"b\nc\n"
    os.close(first)
    os.close(second)


def test_a_new_file_is_new_and_a_folder_is_no_file(tmp_path: Path) -> None:
    os.close(made(tmp_path / "file"))
    with pytest.raises(FileExistsError):
        native.open_file(tmp_path / "file", NEW | os.O_EXCL)
    with pytest.raises(FileNotFoundError):
        native.open_file(tmp_path / "none", os.O_RDONLY | native.NOFOLLOW)
    with pytest.raises(IsADirectoryError):
        native.open_file(tmp_path, os.O_RDWR | native.NOFOLLOW)


def test_a_read_only_file_that_is_open_is_replaced_and_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        fd = made(path, path.name.encode())
        native.set_mode(fd, path, 0o444)
        os.close(fd)
    fd = native.open_file(old, os.O_RDONLY | native.NOFOLLOW)
    try:
        native.replace(new, old)
        assert old.read_bytes() == b"new"
        assert not old.stat().st_mode & stat.S_IWRITE
        assert native.pread(fd, 9, 0) == b"old"
        native.unlink(old)
    finally:
        os.close(fd)
    assert list(tmp_path.iterdir()) == []


def test_a_link_keeps_the_mode_when_the_other_name_goes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    os.close(made(one))
    native.chmod(one, 0o444)
    native.link(one, two)
    native.unlink(one)
    assert two.read_bytes() == BYTES
    assert not two.stat().st_mode & stat.S_IWRITE
    with pytest.raises(IsADirectoryError if sys.platform != "darwin" else PermissionError):
        native.unlink(tmp_path)


def test_a_tree_with_read_only_files_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "tree" / "inner"
    folder.mkdir(parents=True)
    os.close(made(folder / "file"))
    native.chmod(folder / "file", 0o444)
    native.remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_locks_exclude_as_flock_does(tmp_path: Path) -> None:
    one, two = made(tmp_path / "file"), native.open_file(tmp_path / "file", NEW)
    try:
        assert native.lock(one, exclusive=False, wait=False)
        assert native.lock(two, exclusive=False, wait=True)
        assert not native.lock(two, exclusive=True, wait=False)
        os.close(one)
        one = native.open_file(tmp_path / "file", NEW)
        assert native.lock(two, exclusive=True, wait=True)
        assert native.lock(two, exclusive=True, wait=False)  # again
        assert not native.lock(one, exclusive=False, wait=False)
        assert native.pread(one, len(BYTES), 0) == BYTES, "what is locked cannot be read"
        assert native.pwrite(one, memoryview(b"1"), 0) == 1
    finally:
        os.close(one)
        os.close(two)


def test_a_file_that_is_open_for_writing_is_known(tmp_path: Path) -> None:
    fd = made(tmp_path / "file")
    reader = native.open_file(tmp_path / "file", os.O_RDONLY | native.NOFOLLOW)
    assert native.is_being_written(reader) in (True, None)
    os.close(fd)
    assert native.is_being_written(reader) in (False, None)
    os.close(reader)


def test_a_killed_command_takes_its_children_along(tmp_path: Path) -> None:
    born = tmp_path / "born"
    child = f"import time; open({str(born)!r}, 'w').close(); print(1, flush=True); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, **native.ProcessTree.OPTIONS
    ) as process:
        tree = native.ProcessTree(process)
        assert process.stdout is not None
        process.stdout.readline()
        assert born.exists()
        tree.kill()
        assert process.stdout.read() == b"", "the child still has the pipe"
        tree.leave()


@pytest.mark.skipif(sys.platform != "win32", reason="only a job of Windows is made after its process")
def test_a_command_runs_only_once_it_can_be_killed_with_its_children(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    code = f"open({str(runs)!r}, 'w').close(); print(1, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, **native.ProcessTree.OPTIONS
    ) as process:
        time.sleep(3)
        assert not runs.exists()
        native.ProcessTree(process).leave()
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"1"
        assert process.wait() == 0


def test_the_parent_of_a_process_is_known() -> None:
    code = "from yarnstore.store import native; print(native.parent_pid())"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == os.getpid()


def test_the_end_of_the_parent_is_waited_for() -> None:
    child = (
        "import sys; from yarnstore.store import native; print('waits', flush=True); "
        "native.wait_for_parent(int(sys.argv[1])); print('ended', flush=True)"
    )
    # By its own number: Python's `os.getppid` is aborted by Wine.
    code = (
        "import os, subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())]); time.sleep(2); "
        "sys.stdin.readline(); print('alive', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        said = [parent.stdout.readline().strip()]
        parent.stdin.write(b"\n")
        parent.stdin.flush()
        said.append(parent.stdout.readline().strip())
        parent.kill()
        said += parent.stdout.read().split()
    assert said == [b"waits", b"alive", b"ended"]


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows starts Python by another program")
@pytest.mark.parametrize(
    ("image", "own", "executable", "command", "frozen", "expected"),
    [
        # A virtual environment: its python.exe starts the one that it was made of.
        (r"c:\v\scripts\python.exe", r"c:\py\python.exe", r"C:\v\Scripts\python.exe", "m", False, True),
        (r"c:\v\scripts\ystore.exe", r"c:\py\python.exe", r"C:\v\Scripts\python.exe",
         r"C:\v\Scripts\ystore", False, True),
        (r"c:\py\python.exe", r"c:\py\python.exe", r"C:\v\Scripts\python.exe", "m", False, False),
        # Python itself, of which a program and this process are two processes.
        (r"c:\py\python.exe", r"c:\py\python.exe", r"C:\py\python.exe", "m", False, False),
        (r"c:\py\scripts\ystore.exe", r"c:\py\python.exe", r"C:\py\python.exe",
         r"C:\py\Scripts\ystore.exe", False, True),
        (r"c:\app\app.exe", r"c:\py\python.exe", r"C:\py\python.exe", "m", False, False),
        # PyInstaller with one file: the program starts itself; with a folder it does not.
        (r"c:\app\ystore.exe", r"c:\app\ystore.exe", r"C:\app\ystore.exe", r"C:\app\ystore.exe", True, True),
        (r"c:\app\app.exe", r"c:\app\ystore.exe", r"C:\app\ystore.exe", r"C:\app\ystore.exe", True, False),
        ("", r"c:\py\python.exe", r"C:\py\python.exe", "m", False, False),
    ],
)  # fmt: skip
def test_programs_that_only_start_python_are_told_from_others(
    image: str,
    own: str,
    executable: str,
    command: str,
    frozen: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from yarnstore.store import native_machine_windows

    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "argv", [command])
    if frozen:
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert native_machine_windows._only_starts(image, own) is expected


# --- power and memory --------------------------------------------------------------------------


def test_the_memory_of_the_machine_is_known() -> None:
    size_bytes = native.memory_bytes()
    assert size_bytes is not None
    assert 1 << 28 < size_bytes < 1 << 50


MAINS, BATTERY = {"type": "Mains"}, {"type": "Battery", "scope": "System"}


def test_a_system_says_whether_it_runs_on_battery_power_or_not_at_all() -> None:
    assert native.on_battery() in (True, False, None)


@pytest.mark.skipif(sys.platform != "linux", reason="/sys is of Linux")
@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ({}, None),
        ({"AC": MAINS | {"online": "1"}}, False),
        ({"AC": MAINS | {"online": "1"}, "BAT0": BATTERY | {"status": "Charging"}}, False),
        ({"AC": MAINS | {"online": "1"}, "BAT0": BATTERY | {"status": "Discharging"}}, False),
        ({"AC": MAINS | {"online": "0"}, "BAT0": BATTERY | {"status": "Discharging"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}}, True),
        ({"usb": {"type": "USB", "online": "0"}, "BAT0": BATTERY | {"status": "Full"}}, False),
        ({"ups": {"type": "UPS", "status": "Discharging"}}, True),
        ({"mouse": {"type": "Battery", "scope": "Device", "status": "Discharging"}}, None),
        ({"broken": {}}, False),
    ],
)
def test_the_power_supplies_of_linux_say_whether_it_runs_on_battery_power(
    supplies: dict[str, dict[str, str]],
    expected: bool | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, attributes in supplies.items():
        (tmp_path / name).mkdir()
        for attribute, value in attributes.items():
            (tmp_path / name / attribute).write_text(value + "\n")
    monkeypatch.setattr(native, "_POWER_SUPPLIES", str(tmp_path))
    assert native.on_battery() is expected
    monkeypatch.setattr(native, "_POWER_SUPPLIES", str(tmp_path / "missing"))
    assert native.on_battery() is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has a function of its own")
@pytest.mark.parametrize(("remaining_s", "expected"), [(-2.0, False), (-1.0, True), (5400.0, True)])
def test_the_time_that_macos_expects_its_power_to_last_says_whether_it_is_a_battery(
    remaining_s: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Framework:
        def __init__(self, path: str) -> None:
            assert path.endswith("/IOKit")
            self.IOPSGetTimeRemainingEstimate = lambda: remaining_s

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", Framework)
    assert native.on_battery() is expected


# --- systems that cannot open folders ------------------------------------------------------------


@pytest.fixture
def _no_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "HAS_DIR_FD", False)
    monkeypatch.setattr(folders, "HAS_DIR_FD", False)


@pytest.mark.usefixtures("_no_folders")
def test_a_store_works_by_paths(tmp_path: Path) -> None:
    site = make_site(tmp_path, versions=("1.0.0", "1.1.0"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.update_model(MODEL)
        store.rollback_model(MODEL)
        store.gc()
        assert store.fsck().problems == []
    assert {path.name for path in (site.home / "locks").iterdir()} >= {"logs.installed", "logs.hashed"}


@pytest.mark.usefixtures("_no_folders")
def test_a_folder_is_locked_by_a_file_in_its_place(tmp_path: Path) -> None:
    layout = StoreLayout(paths.Path(tmp_path / "home"))
    layout.ensure()
    digest = Sha256(b"v" * 32)
    fsio.ensure_dir(layout.view(digest))
    fd = views.lease(layout, digest)
    assert fd is not None
    assert views.view_in_use(layout, digest)
    os.close(fd)
    assert not views.view_in_use(layout, digest)
    with pytest.raises(NotFoundError):
        lock.open_folder(layout.view(Sha256(b"w" * 32)))
    assert views.lease(layout, Sha256(b"w" * 32)) is None


@pytest.mark.parametrize(("number", "in_use"), [(5, True), (32, True), (33, True), (2, False), (None, False)])
def test_a_file_that_another_program_has_open_is_known(number: int | None, in_use: bool) -> None:
    error = OSError(errno.EACCES, "denied")
    error.winerror = number  # type: ignore[attr-defined] - Windows sets it
    found = fsread.translate(error, "place")
    found.__cause__ = error
    assert isinstance(found, StorageError)
    assert fsread.is_in_use(found) is in_use
    assert ("another program has it open" in found.message) is (number in (32, 33))
    assert isinstance(found, ReadOnlyError) is (number not in (32, 33))


@pytest.mark.parametrize(
    ("word", "posix", "windows"),
    [
        ("m@1.0.0", "m@1.0.0", "m@1.0.0"),
        ("base@^1.0", "'base@^1.0'", '"base@^1.0"'),
        ("base@>=1.0", "'base@>=1.0'", '"base@>=1.0"'),
        ("/home/a b", "'/home/a b'", '"/home/a b"'),
        ("/home/it's", "'/home/it'\"'\"'s'", '"/home/it\'s"'),
        (r"C:\Users\Ann\store", r"'C:\Users\Ann\store'", r"C:\Users\Ann\store"),
        (r"C:\Ann & Bo\store", r"'C:\Ann & Bo\store'", r'"C:\Ann & Bo\store"'),
        ("D:\\a b\\", "'D:\\a b\\'", '"D:\\a b\\\\"'),
        ("@x", "'@x'", '"@x"'),
        ("", "''", '""'),
    ],
)
def test_a_word_is_quoted_for_the_shells_of_the_system(word: str, posix: str, windows: str) -> None:
    assert native.quoted(word, windows=False) == posix
    assert shlex.split(posix) == [word]
    assert native.quoted(word, windows=True) == windows
    assert native.quoted(word) == (windows if sys.platform == "win32" else posix)


def held_alone(path: Path) -> Callable[[], object]:
    """Open a file as a program does that shares it with no other; return what closes it."""
    kernel = vars(ctypes)["WinDLL"]("kernel32")
    kernel.CreateFileW.restype = ctypes.c_void_p
    handle = kernel.CreateFileW(str(path), 0x80000000, 0, None, 3, 0x80, None)
    assert handle not in (None, ctypes.c_void_p(-1).value)
    return lambda: kernel.CloseHandle(ctypes.c_void_p(handle))


@pytest.mark.skipif(sys.platform != "win32", reason="only on Windows a program can refuse to share a file")
def test_a_file_that_another_program_holds_for_a_moment_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BYTES)
    timer = threading.Timer(0.5, held_alone(tmp_path / "file"))
    began = time.monotonic()
    with pytest.raises(PermissionError), hurried():
        native.open_file(tmp_path / "file", os.O_RDONLY | native.PLAIN)
    assert time.monotonic() - began >= 0.9
    timer.start()
    fd = native.open_file(tmp_path / "file", os.O_RDONLY | native.PLAIN)
    assert native.pread(fd, 100, 0) == BYTES
    os.close(fd)
    timer.join()
    for refused, error in ((tmp_path / "none", FileNotFoundError), (tmp_path, IsADirectoryError)):
        began = time.monotonic()
        with pytest.raises(error):
            native.open_file(refused, os.O_RDONLY | native.PLAIN)
        assert time.monotonic() - began < 0.9  # it never helps to wait
