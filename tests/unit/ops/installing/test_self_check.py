"""What was installed is tried out by the application's own command, and taken back where that fails."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from tests.support.stores import MODEL, Site, command, make_site, ystore
from yarnstore import Progress, Store
from yarnstore.core.digest import Sha256
from yarnstore.core.reflog import Installed, Move, format_move
from yarnstore.errors import CancelledError, NotFoundError, SelfCheckError
from yarnstore.ops.installing.self_check import run_check
from yarnstore.registry.policies import VerifyCommand
from yarnstore.store.layout import StoreLayout
from yarnstore.store.trials import trying

# Connects to a port of the test and ends with that connection, so the test sees whether it runs, and ends it.
WAITS = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(1)"
# Starts that in a process of its own, which has the same output.
STARTS = (
    "import subprocess, sys; "
    f"child = subprocess.Popen([sys.executable, '-S', '-c', {WAITS!r}, sys.argv[1]], stdout=sys.stdout); "
)


def python(code: str, *words: str | Path) -> tuple[str, ...]:
    """A command that runs on each system."""
    return (sys.executable, "-S", "-c", code, *map(str, words))


PASSES, FAILS = python(""), python("raise SystemExit(1)")


def listen() -> socket.socket:
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(60)
    return server


def port_of(server: socket.socket) -> str:
    return str(server.getsockname()[1])


def runs(connection: socket.socket, *, within_s: float = 0.2) -> bool:
    """Whether the process at the other end runs; one that is ended may take some time."""
    connection.settimeout(within_s)
    try:
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionError:  # what Windows says of a process that was ended
        return False


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = make_site(tmp_path_factory.mktemp("check"), versions=("1.0.0", "1.1.0"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
    return site


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    return made.copy(tmp_path)


def checked_by(site: Site, *words: str, timeout: float = 20) -> Store:
    config = site.home / "config.toml"
    with config.open("a") as file:
        file.write(f'[models."{MODEL}"]\nverify_command = {json.dumps(words)}\nverify_timeout = {timeout}\n')
    return Store.open(site.home)


@pytest.mark.parametrize(
    "path", ["/m/{version}", "/m/{path}/{model}", "/m/two words", '/m/it\'s "quoted" $HOME']
)
def test_what_stands_in_for_a_place_is_neither_split_nor_replaced_again(path: str, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    code = "import json, sys; json.dump(sys.argv[2:], open(sys.argv[1], 'w'))"
    words = python(code, seen, "{path}", "{model}={version}", "{other}")
    run_check(VerifyCommand(words, 20), "m", "1.0.0", path)
    assert json.loads(seen.read_text()) == [path, "m=1.0.0", "{other}"]


@pytest.mark.skipif(os.name == "nt", reason="there, programs get no variable that only C libraries see")
def test_a_self_check_does_not_get_what_the_command_sets_for_its_own_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YSTORE_TEST_KEPT", "1")
    os.putenv("YSTORE_TEST_OWN", "1")
    try:
        seen = tmp_path / "seen"
        words = ("sh", "-c", f'echo "$YSTORE_TEST_KEPT" "$YSTORE_TEST_OWN" > {seen}')
        run_check(VerifyCommand(words, 20), "m", "1.0.0", "/m")
    finally:
        os.unsetenv("YSTORE_TEST_OWN")
    assert seen.read_text().split() == ["1"]


def operations(store: Store) -> list[tuple[str, str | None]]:
    return [(move.operation, move.new) for move in store.get_version_history(MODEL).moves]


def test_a_check_that_passes_gets_the_new_path(site: Site, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    code = (
        "import sys; seen = open(sys.argv[1], 'a'); print(*sys.argv[2:], file=seen); "
        "seen.write(open(sys.argv[2] + '/config.json').read())"
    )
    with checked_by(site, *python(code, seen, "{path}", "{model}", "{version}")) as store:
        done = store.update_model(MODEL)
        assert done.version == "1.1.0"
        store.checkout(f"{MODEL}@1.1.0")  # is installed already: nothing to try out
        store.rollback_model(MODEL)  # leads back to what was
    lines = seen.read_text().splitlines()
    assert lines[0] == f"{done.path} {MODEL} 1.1.0"
    assert json.loads(lines[1])["version"] == "1.1.0"
    assert len(lines) == 2


@pytest.mark.parametrize("how", ["update", "checkout"])
def test_one_that_fails_is_rolled_back_and_said(site: Site, how: str) -> None:
    code = "import os, sys; os.write(1, b'loading\\n'); os.write(2, b'cannot load\\n'); sys.exit(3)"
    with checked_by(site, *python(code)) as store:
        install = {
            "update": partial(store.update_model, MODEL),
            "checkout": partial(store.checkout, f"{MODEL}@1.1.0"),
        }
        with pytest.raises(SelfCheckError) as caught:
            install[how]()
        assert "exited with code 3" in caught.value.message
        assert "loading\ncannot load" in str(caught.value.fields["output"])
        assert caught.value.fields["back_to"] == "1.0.0"
        assert caught.value.hint == f"rolled back: {MODEL} 1.0.0 is installed"
        assert operations(store) == [("checkout", "1.0.0"), (how, "1.1.0"), ("self-check", "1.0.0")]
        assert [move.direction for move in store.get_version_history(MODEL).moves[1:]] == ["forward", "back"]
        assert '"version": "1.0.0"' in Path(store.path(MODEL), "config.json").read_text()
        assert store.fsck().problems == []
        with pytest.raises(NotFoundError):
            store.rollback_model(MODEL)  # what was refused is not what was installed before
    state = json.loads((site.home / "local-state.json").read_text())
    assert state["installed_models"][MODEL]["version"] == "1.0.0"


def test_a_first_install_is_taken_back(tmp_path: Path) -> None:
    site = make_site(tmp_path, versions=("1.0.0",))
    with checked_by(site, *FAILS) as store:
        with pytest.raises(SelfCheckError) as caught:
            store.checkout(MODEL)
        assert caught.value.hint == f"undone: {MODEL} is not installed"
        assert store.list_installed_models() == []
        assert not (site.home / "models" / MODEL).is_symlink()
        assert store.fsck().problems == []
        shutil.rmtree(site.registry)
        assert Path(store.path(f"{MODEL}@1.0.0")).is_dir(), "what came stays"


def test_one_that_cannot_be_run(site: Site) -> None:
    with checked_by(site, "no-such-application", "{path}") as store:
        with pytest.raises(SelfCheckError, match="no-such-application cannot be run"):
            store.update_model(MODEL)
        assert store.list_installed_models()[0].version == "1.0.0"


def test_one_that_takes_too_long_is_ended_with_its_children() -> None:
    limit_s = 1.0 if os.name == "posix" else 6.0  # processes start slowly on Windows
    with listen() as server:
        command = VerifyCommand(python(STARTS + "child.wait()", port_of(server)), limit_s)
        started = time.monotonic()
        with pytest.raises(SelfCheckError, match=f"did not finish within {limit_s:g} s"):
            run_check(command, MODEL, "1.0.0", "x")
        assert time.monotonic() - started < limit_s + 10
        with server.accept()[0] as child:
            assert not runs(child, within_s=10), "its child still runs"


def test_one_that_prints_without_end_takes_no_memory() -> None:
    code = "[print('y\\n' * 500_000) for _ in range(64)]; print('the end'); raise SystemExit(3)"
    tracemalloc.start()
    try:
        with pytest.raises(SelfCheckError) as caught:
            run_check(VerifyCommand(python(code), 60), MODEL, "1.0.0", "x")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert str(caught.value.fields["output"]).endswith("y\n\nthe end")


def test_one_that_leaves_something_running_is_done_when_it_ends() -> None:
    with listen() as server:
        words = python(STARTS + "print('started'); sys.exit(int(sys.argv[2]))", port_of(server))
        started = time.monotonic()
        run_check(VerifyCommand((*words, "0"), 20), MODEL, "1.0.0", "x")
        with server.accept()[0] as child:
            assert runs(child)
        with pytest.raises(SelfCheckError, match="exited with code 4") as caught:
            run_check(VerifyCommand((*words, "4"), 20), MODEL, "1.0.0", "x")
        assert caught.value.fields["output"] == "started"
        with server.accept()[0] as child:
            assert runs(child)
        assert time.monotonic() - started < 20


def test_no_shell_sees_the_words(tmp_path: Path) -> None:
    bait = tmp_path / "bait"
    run_check(VerifyCommand((*PASSES, "{path}"), 9), MODEL, "1.0.0", f"; touch {bait}; $(touch {bait})")
    run_check(VerifyCommand((*PASSES, "{path}"), 9), MODEL, "1.0.0", f"& type nul > {bait}")
    assert not bait.exists()


@pytest.mark.skipif(
    os.name == "nt", reason="Windows has no signals: a process that was ended has an exit code"
)
def test_one_that_a_signal_kills_is_said() -> None:
    with pytest.raises(SelfCheckError, match="signal 9"):
        run_check(VerifyCommand(python("import os; os.kill(os.getpid(), 9)"), 9), MODEL, "1.0.0", "x")


def test_an_interrupt_takes_it_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("yarnstore.ops.installing.self_check.run_check", interrupted)
    with checked_by(site, *PASSES) as store:
        with pytest.raises(KeyboardInterrupt):
            store.update_model(MODEL)
        assert store.list_installed_models()[0].version == "1.0.0"


def test_an_interrupt_does_not_wait_for_the_command(site: Site) -> None:
    def stop(event: Progress) -> None:
        if event.phase == "check":
            raise CancelledError("interrupted")

    with checked_by(site, *python("import time; time.sleep(60)"), timeout=50) as store:
        started = time.monotonic()
        with pytest.raises(CancelledError):
            store.update_models(progress=stop)
        assert time.monotonic() - started < 20
        assert store.list_installed_models()[0].version == "1.0.0"


def test_another_models_command_is_not_run(tmp_path: Path) -> None:
    site = make_site(tmp_path, models=("other",), versions=("1.0.0",))
    with checked_by(site, *FAILS) as store:
        assert store.checkout("other").version == "1.0.0"


def test_the_command_has_an_exit_code_of_its_own(site: Site) -> None:
    checked_by(site, *FAILS).close()
    ran = ystore(site.home, "update", MODEL)
    assert ran.returncode == 9, ran.stderr
    assert "failed its self-check" in ran.stderr
    assert "rolled back" in ran.stderr


# --- killed while it is tried out ----------------------------------------------------------------


def killed_trying(site: Site, *, before_kill: Callable[[], None] = lambda: None) -> None:
    """Kill -9 an update, without its check, while that runs."""
    with listen() as server:
        checked_by(site, *python(WAITS, port_of(server)), timeout=90).close()
        update = subprocess.Popen(command(site.home, "update", MODEL), stderr=subprocess.DEVNULL)
        try:
            with server.accept()[0]:
                before_kill()
                update.kill()
        finally:
            update.kill()
            update.wait()


def config_of(path: str) -> str:
    return Path(path.strip(), "config.json").read_text()


def test_a_kill_during_the_check_leaves_the_version_before(site: Site) -> None:
    def look() -> None:
        """A living check is left alone."""
        found = ystore(site.home, "path", MODEL)
        assert '"version": "1.1.0"' in config_of(found.stdout), found.stderr

    killed_trying(site, before_kill=look)
    if os.name == "posix":  # elsewhere no link leads to what is installed
        assert '"version": "1.1.0"' in config_of(f"{site.home}/models/{MODEL}")
    found = ystore(site.home, "path", MODEL)
    assert '"version": "1.0.0"' in config_of(found.stdout)
    assert f"the self-check of {MODEL} 1.1.0 was killed before it ended" in found.stderr
    assert "1.0.0 is installed again" in found.stderr
    with Store.open(site.home) as store:
        assert operations(store) == [("checkout", "1.0.0"), ("update", "1.1.0"), ("self-check", "1.0.0")]
        assert store.fsck().problems == []
    assert ystore(site.home, "path", MODEL).stderr == ""
    assert os.listdir(site.home / "logs" / "trying") == []


def test_a_first_install_that_was_killed_is_taken_back(tmp_path: Path) -> None:
    site = make_site(tmp_path, versions=("1.0.0",))
    with site.store() as store:
        done = store.checkout(MODEL)
        manifest = store.list_installed_models()[0].manifest
        move = Move(1, "checkout", None, Installed(Sha256.parse(manifest), done.variant, done.version))
    leave_record(site, format_move(move))
    with site.store() as store:
        assert store.list_installed_models() == []
        assert store.fsck().problems == []


def leave_record(site: Site, data: bytes) -> Path:
    record = site.home / "logs" / "trying" / MODEL
    record.parent.mkdir(exist_ok=True)
    record.write_bytes(data)
    return record


@pytest.mark.parametrize("how", ["moved on", "not made", "damaged", "empty"])
def test_a_record_of_what_is_not_installed_changes_nothing(site: Site, how: str) -> None:
    with site.store() as store:
        current = Installed(Sha256.parse(store.list_installed_models()[0].manifest), "default", "1.0.0")
    other = Installed(Sha256.parse("sha256:" + 64 * "a"), "default", "1.1.0")
    line = format_move(Move(1, "update", current, other))
    if how == "moved on":
        line = format_move(Move(1, "update", other, msgspec.structs.replace(other, version="2.0.0")))
    record = leave_record(site, {"damaged": line[:-9], "empty": b""}.get(how, line))
    with site.store() as store:
        assert [item.version for item in store.list_installed_models()] == ["1.0.0"]
        assert operations(store) == [("checkout", "1.0.0")]
        assert store.fsck().problems == []
    assert not record.exists()


def test_a_check_that_runs_keeps_no_command_waiting_for_the_lock(site: Site) -> None:
    """`path` needs no lock, as when no check runs: such as one that the check itself starts beside `gc`."""
    with site.store() as store:
        current = Installed(Sha256.parse(store.list_installed_models()[0].manifest), "default", "1.0.0")
    layout, notes = StoreLayout(site.home), list[Progress]()
    with (
        trying(layout, MODEL, Move(1, "checkout", None, current)),
        layout.exclusive(),
        site.store(lock_timeout_s=0.2) as store,
    ):
        store.path(MODEL, progress=notes.append)
    assert [note.text for note in notes if note.text] == []


def test_the_record_goes_with_the_check(site: Site) -> None:
    with checked_by(site, *PASSES) as store:
        assert store.update_model(MODEL).version == "1.1.0"
    assert os.listdir(site.home / "logs" / "trying") == []
    with site.store() as store:
        assert store.list_installed_models()[0].version == "1.1.0"
