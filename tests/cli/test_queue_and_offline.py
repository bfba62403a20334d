"""`--offline`, `--limit-rate`, `fetch --queue` and `queue`: the commands, over real servers and processes."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Ystore
from tests.support.servers import Reply, ScriptedServer, Seen, files
from tests.support.stores import MODEL, Site, assert_whole, command, make_site, ystore
from yarnstore import Store
from yarnstore.store.registry_cache import CachedRegistry, read_cached, write_cached

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("queue"), models=(MODEL, "whisper"), versions=("1.0.0", "1.1.0"))


@pytest.fixture
def tree(made: Site) -> dict[str, bytes]:
    return {
        path.relative_to(made.registry).as_posix(): path.read_bytes()
        for path in made.registry.rglob("*")
        if path.is_file()
    }


# --- offline ---------------------------------------------------------------------------------------

LOCAL = [
    "list", "log phi-3-mini", "path phi-3-mini", "status", "search", "search phi", "registry list",
    "show phi-3-mini@1.1.0", "outdated", "checkout phi-3-mini@1.0.0", "fetch phi-3-mini@1.0.0",
    "fsck", "gc --dry-run", "diff phi-3-mini@1.0.0 phi-3-mini@1.0.0", "inspect phi-3-mini@1.0.0",
    "queue", "pin phi-3-mini@1.0.0", "unpin phi-3-mini@1.0.0", "log whisper", "path phi-3-mini@1.0.0",
]  # fmt: skip
REMOTE = ["fetch phi-3-mini@1.1.0", "checkout phi-3-mini@1.1.0", "registry refresh", "update phi-3-mini"]


@pytest.mark.parametrize("how", ["option", "variable", "config"])
def test_everything_local_works_offline_and_nothing_is_asked(
    made: Site,
    tree: dict[str, bytes],
    tmp_path: Path,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    ystore: Ystore,
) -> None:
    home = tmp_path / "home"
    with ScriptedServer(files(tree)) as server:
        with Store.open(home) as store:
            store.add_registry("made", server.url)
            store.checkout(f"{MODEL}@1.0.0")
        asked = len(server.seen)
        extra: list[str] = ["--offline"] if how == "option" else []
        if how == "variable":
            monkeypatch.setenv("YSTORE_OFFLINE", "1")
        if how == "config":
            (home / "config.toml").write_text("offline = true\n")
        for line in LOCAL:
            first, *rest = line.split()
            ran = ystore(first, *rest, *extra, "--home", home)
            assert ran.code == 0, (line, ran)
        for line in REMOTE:
            ran = ystore(*line.split(), *extra, "--home", home, "--json")
            assert ran.code == 5, (line, ran)
            if not line.startswith("update"):
                assert ran.json["error"]["code"] == "offline"
        assert len(server.seen) == asked
    ran = ystore("fetch", "phi-3-mini@1.1.0", *extra, "--home", home)
    assert "phi-3-mini 1.1.0" in ran.err, "it says what would be needed"
    assert "--offline" in ran.err


def test_a_registry_in_a_folder_needs_no_network(made: Site, tmp_path: Path, ystore: Ystore) -> None:
    home = tmp_path / "home"
    assert ystore("registry", "add", "made", made.registry, "--home", home, "--offline").code == 0
    assert ystore("checkout", f"{MODEL}@1.0.0", "--home", home, "--offline").code == 0


def test_no_network_at_all_with_a_cached_registry(
    made: Site, tree: dict[str, bytes], tmp_path: Path, ystore: Ystore
) -> None:
    """The server is gone: what is cached answers, says its age, and a download is a clear error."""
    home = tmp_path / "home"
    with ScriptedServer(files(tree)) as server, Store.open(home) as store:
        store.add_registry("made", server.url)
        store.checkout(f"{MODEL}@1.0.0")
    with store._session() as session:
        cached = read_cached(session.layout, "made")
        assert isinstance(cached, CachedRegistry)
        write_cached(
            session.layout, msgspec.structs.replace(cached, fetched_ms=cached.fetched_ms - 3 * DAY_MS)
        )
    shown = ystore("show", f"{MODEL}@1.1.0", "--home", home)
    assert shown.code == 0
    assert "made: using a cached copy from 3 days ago" in shown.err
    assert ystore("log", MODEL, "--home", home, "--offline").code == 0
    assert ystore("checkout", f"{MODEL}@1.0.0", "--home", home).code == 0
    assert ystore("search", "--home", home).code == 0
    failed = ystore("fetch", f"{MODEL}@1.1.0", "--home", home)
    assert failed.code == 5
    assert "cannot connect" in failed.err


def test_a_fresh_cache_does_not_say_its_age(ready: Ystore) -> None:
    assert "ago" not in ready("show", "phi-3-mini@1.1.0").err


# --- politely --------------------------------------------------------------------------------------


def test_limit_rate_over_all_workers(made: Site, tree: dict[str, bytes], tmp_path: Path) -> None:
    """One version of 790 kB at 400 kB/s takes its two seconds, whatever the connections."""
    home = tmp_path / "home"
    with ScriptedServer(files(tree)) as server, Store.open(home) as store:
        store.add_registry("made", server.url)
        store.set_network(limit_rate=400_000, connections=8)
        began_s = time.monotonic()
        done = store.fetch(f"{MODEL}@1.0.0")
        took_s = time.monotonic() - began_s
    rate = done.download_bytes / took_s  # what is not downloading takes time, too
    assert 100_000 < rate < 440_000


@pytest.mark.parametrize("word", ["fast", "-5M", "5T"])
def test_a_rate_that_is_none_is_a_usage_error(ready: Ystore, word: str) -> None:
    ran = ready("fetch", "phi-3-mini@1.0.0", f"--limit-rate={word}")
    assert ran.code == 2
    assert "is not a rate" in ran.err


# --- the queue -------------------------------------------------------------------------------------


def test_the_queue_runs_in_order_and_each_stands_alone(ready: Ystore, tmp_home: Path) -> None:
    assert ready("queue", "list").out == ""
    assert ready("fetch", "--queue", "phi-3-mini@1.1.0", "nobody@1.0.0", "phi-3-mini@1.0.0").code == 0
    assert ready("fetch", "--queue", "phi-3-mini@1.1.0").code == 0
    assert [row[0] for row in ready("queue", "list").table] == [
        "phi-3-mini@1.1.0", "nobody@1.0.0", "phi-3-mini@1.0.0",
    ]  # fmt: skip
    ran = ready("queue", "run")
    assert ran.code == 1
    assert [row[:2] for row in ran.table] == [
        ["phi-3-mini@1.1.0", "fetched"], ["nobody@1.0.0", "failed"], ["phi-3-mini@1.0.0", "fetched"],
    ]  # fmt: skip
    left = ready("queue", "list", "--json").json
    assert [(item["spec"], item["status"], item["tries"]) for item in left] == [("nobody@1.0.0", "failed", 1)]
    assert "nobody" in left[0]["error"]
    assert ready("queue", "remove", "nobody@1.0.0").code == 0
    assert ready("queue", "run").code == 0
    assert ready("queue", "remove", "nobody@1.0.0").code == 3
    assert {item.name for item in (tmp_home / "refs/versions/phi-3-mini/default").iterdir()} == {
        "1.0.0",
        "1.1.0",
    }


def test_a_queued_download_remembers_its_registry(ready: Ystore, registry: Path) -> None:
    assert ready("fetch", "--queue", "--registry", "other", "phi-3-mini@1.0.0").code == 3
    assert ready("registry", "add", "other", registry).code == 0
    assert ready("fetch", "--queue", "--registry", "other", "phi-3-mini@1.0.0").code == 0
    assert ready("registry", "remove", "other").code == 0
    ran = ready("queue", "run", "--json")
    assert (ran.code, ran.json[0]["code"]) == (1, "not-found")


def test_bad_specs_and_combinations_do_not_get_into_the_queue(ready: Ystore) -> None:
    assert ready("fetch", "--queue", "@@").code == 2
    assert ready("fetch", "--queue", "--force", "phi-3-mini").code == 2
    assert ready("queue", "list").out == ""


def test_a_damaged_queue_is_told(ready: Ystore, tmp_home: Path) -> None:
    for text, code in (("{", 4), ('{"items": [], "format": 9}', 6)):
        (tmp_home / "queue.json").write_text(text)
        assert ready("queue", "list").code == code
        assert ready("fetch", "--queue", "phi-3-mini").code == code
    assert (tmp_home / "queue.json").read_text() == '{"items": [], "format": 9}'


def test_many_processes_queue_at_once(made: Site, tmp_path: Path) -> None:
    home = tmp_path / "home"
    running = [
        subprocess.Popen(
            command(home, "fetch", "--queue", f"m{n}@1.0.0"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for n in range(6)
    ]
    for process in running:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    with Store.open(home) as store:
        assert sorted(item.spec for item in store.list_queue()) == [f"m{n}@1.0.0" for n in range(6)]


def test_the_queue_survives_kill_9_and_goes_on_where_it_was(
    made: Site, tree: dict[str, bytes], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    good = files(tree)

    def slow(seen: Seen) -> Reply:
        reply = good(seen)
        if not seen.path.endswith(".pack"):
            return reply
        assert isinstance(reply.body, bytes)
        pieces = [reply.body[at : at + 8192] for at in range(0, len(reply.body), 8192)]
        return replace(reply, body=pieces, pause_s=0.02)

    with ScriptedServer(slow) as server:
        with Store.open(home) as store:
            store.add_registry("made", server.url)
            store.enqueue(f"{MODEL}@1.0.0", "whisper@1.1.0")
        for _ in range(2):
            process = subprocess.Popen(
                command(home, "queue", "run", "--connections", "1"),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            asked = len(server.seen)
            deadline_s = time.monotonic() + 20
            while not any(seen.path.endswith(".pack") for seen in server.seen[asked:]):
                assert process.poll() is None
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
            time.sleep(0.3)
            process.kill()
            process.wait(10)
            queued = json.loads((home / "queue.json").read_text())["items"]
            assert [item["spec"] for item in queued] == [f"{MODEL}@1.0.0", "whisper@1.1.0"]
        server.rescript(good)
        ran = ystore(home, "queue", "run", "--json")
        assert ran.returncode == 0, ran
        done = json.loads(ran.stdout)
        assert [item["status"] for item in done] == ["fetched", "fetched"]
        assert done[0]["result"]["download_bytes"] < 790_000, "what came before the kills is kept"
    with Store.open(home) as store:
        assert store.list_queue() == []
    assert_whole(home, made)


def test_only_one_runs_the_queue(ready: Ystore, tmp_home: Path) -> None:
    from yarnstore.store.layout import StoreLayout
    from yarnstore.store.queue import running

    assert ready("fetch", "--queue", "phi-3-mini@1.0.0").code == 0
    with running(StoreLayout(tmp_home)):
        assert ready("queue", "run", "--lock-timeout", "0.1").code == 8
        assert ready("fetch", "--queue", "phi-3-mini@1.1.0", "--lock-timeout", "0.1").code == 0
    assert len(ready("queue", "run").table) == 2


def test_one_registry_that_fails_stops_no_other(ready: Ystore, tmp_home: Path) -> None:
    path = tmp_home / "config.toml"
    bad = '[[registries]]\nname = "bad"\nurl = "/nowhere/at/all"\n\n'
    path.write_text(bad)
    before = (tmp_home / "registries" / "yarn" / "fetched.json").read_bytes()
    ran = ready("registry", "refresh")
    assert ran.code == 5
    assert [row[0] for row in ran.table] == ["yarn"]
    assert f"error: bad: {Path('/nowhere/at/all').absolute()}" in ran.err
    assert (tmp_home / "registries" / "yarn" / "fetched.json").read_bytes() != before
    told = ready("registry", "refresh", "--json")
    assert (told.code, [item["error"] is None for item in told.json]) == (5, [False, True])
    assert ready("registry", "refresh", "bad").code == 5
    assert ready("registry", "remove", "yarn").code == 0
    assert ready("registry", "refresh").code == 5


def test_an_older_registry_is_accepted_by_name(ready: Ystore, registry: Path, tmp_home: Path) -> None:
    assert ready("registry", "remove", "yarn").code == 0
    assert ready("registry", "add", "yarn", registry).code == 0
    raw = json.loads((registry / "registry.json").read_text())
    (registry / "registry.json").write_text(json.dumps({**raw, "last_updated": "2001-01-01T00:00:00Z"}))
    refused = ready("registry", "refresh", "yarn", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (5, "rolled-back")
    assert ready("doctor").code == 1
    assert ready("search", "phi").code == 0
    assert ready("registry", "refresh", "--accept-rollback").code == 2
    command = refused.json["error"]["hint"].partition("ystore ")[2].split()
    assert ready(*command).code == 0
    assert ready("registry", "refresh").code == 0
    assert ready("doctor").code == 0
