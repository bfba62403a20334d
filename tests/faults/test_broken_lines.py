"""Lines that break often: what came is kept and gone on with, also by another process, and never trusted."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.servers import Reply, ScriptedServer, Seen, files, ranged
from tests.support.stores import command, quiet_env
from yarnstore import Progress, Store
from yarnstore.backends import RetryPolicy
from yarnstore.backends.sources.tries import Tries
from yarnstore.errors import BackendError, TransientError
from yarnstore.store import fsread

Tree = dict[str, bytes]
Script = Callable[[Seen], Reply]

WEIGHTS = random.Random(1).randbytes(1_500_000)


def tree_of(registry: Path) -> Tree:
    return {
        path.relative_to(registry).as_posix(): path.read_bytes()
        for path in registry.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A registry of one model of one file, which no compressor makes smaller."""
    root = tmp_path_factory.mktemp("broken")
    (root / "w.bin").write_bytes(WEIGHTS)
    Store.publish(root / "w.bin", "m@1.0.0", registry=root / "registry", changelog="c")
    return tree_of(root / "registry")


def cutting(tree: Tree, every: int, *suffixes: str, ranges: bool = True) -> Script:
    """A server whose line breaks after `every` bytes of a body, for files that end in one of `suffixes`."""

    def script(seen: Seen) -> Reply:
        data = tree.get(seen.path[1:])
        if data is None:
            return Reply(status=404)
        reply = ranged(data, seen) if ranges else Reply(body=data)
        long = seen.path.endswith(suffixes) and len(reply.body) > every
        return replace(reply, cut_at=every) if long else reply

    return script


@contextmanager
def served(script: Script, home: Path) -> Iterator[tuple[ScriptedServer, Store]]:
    with ScriptedServer(script) as server, Store.open(home) as store:
        store.add_registry("made", server.url)
        yield server, store


def starts(server: ScriptedServer, suffix: str) -> list[int]:
    return [seen.range[0] if seen.range else 0 for seen in server.seen if seen.path.endswith(suffix)]


def assert_installed(store: Store, data: bytes, spec: str = "m") -> None:
    path = Path(store.path(spec))
    found = path if path.is_file() else next(path.iterdir())
    assert hashlib.sha256(found.read_bytes()).digest() == hashlib.sha256(data).digest()
    assert store.fsck().problems == []
    assert not list((store.home / "tmp").glob("*.download"))


# --- in one process ------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [9_000, 60_000])
def test_a_line_that_breaks_within_each_chunk(tree: Tree, tmp_path: Path, every: int) -> None:
    with served(cutting(tree, every, ".pack"), tmp_path / "home") as (server, store):
        store.checkout("m@1.0.0")
        assert_installed(store, WEIGHTS)
        begins = starts(server, ".pack")
        assert len(begins) == len(set(begins)), "a byte was asked for twice"


def test_manifests_and_indexes_on_a_line_that_breaks(tree: Tree, tmp_path: Path) -> None:
    script = cutting(tree, 100, ".json", ".zst", ".idx")

    def but_the_registry(seen: Seen) -> Reply:
        return files(tree)(seen) if seen.path == "/registry.json" else script(seen)

    with served(but_the_registry, tmp_path / "home") as (server, store):
        store.checkout("m@1.0.0")
        assert_installed(store, WEIGHTS)
        assert max(starts(server, ".idx")) > 100
        assert max(starts(server, ".zst")) >= 100


def test_a_pack_without_an_index_on_a_line_that_breaks(tree: Tree, tmp_path: Path) -> None:
    bare = {key: data for key, data in tree.items() if not key.endswith(".idx")}
    with served(cutting(bare, 90_000, ".pack"), tmp_path / "home") as (server, store):
        store.checkout("m@1.0.0")
        assert_installed(store, WEIGHTS)
        begins = starts(server, ".pack")
        assert begins == sorted(set(begins))


def test_a_delta_on_a_line_that_breaks(made_models: Path, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    for version in ("1.0.0", "1.1.0"):
        Store.publish(
            made_models / "phi-3-mini" / version, f"m@{version}", registry=registry, changelog=version
        )
    good = files(tree_of(registry))
    with served(good, tmp_path / "home") as (server, store):
        store.checkout("m@1.0.0")
        server.rescript(cutting(tree_of(registry), 15_000, ".pack"))
        done = store.fetch("m@1.1.0")
        assert done.delta_from == "1.0.0"
        begins: dict[str, list[int]] = {}
        for seen in server.seen:
            if seen.range and "/deltas/" in seen.path:
                begins.setdefault(seen.path, []).append(seen.range[0])
        assert sum(map(len, begins.values())) > 2
        for each in begins.values():
            assert each == sorted(set(each))
        assert store.fsck().problems == []


@pytest.mark.parametrize("suffix", [".pack", ".bin"])
def test_a_line_that_breaks_without_ranges_ends_with_an_error(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Nothing can be gone on with there; but it does not go on for ever."""
    monkeypatch.setattr(RetryPolicy, "delay_s", lambda *_: 0.0)
    plain = {**tree, **plain_tree("w.bin")} if suffix == ".bin" else tree
    with served(cutting(plain, 40_000, suffix, ranges=False), tmp_path / "home") as (server, store):
        with pytest.raises(TransientError):
            store.fetch("m@1.0.0")
        assert len(server.seen) < 30


def test_a_line_without_ranges_that_breaks_now_and_then(tmp_path: Path) -> None:
    """What came before is kept where a later answer breaks off sooner."""
    tree = plain_tree("w.bin")
    cuts = iter([900_000, 100_000, 500_000])

    def script(seen: Seen) -> Reply:
        reply = Reply(body=tree[seen.path[1:]])
        cut = next(cuts, None) if seen.path.endswith(".bin") else None
        return replace(reply, cut_at=cut)

    with served(script, tmp_path / "home") as (_, store):
        told: list[Progress] = []
        store.fetch("m@1.0.0", progress=told.append)
        done = [event.bytes_done for event in told if event.phase == "download"]
        assert max(done) == len(WEIGHTS), "a byte was counted twice"
        store.checkout("m@1.0.0")
        assert_installed(store, WEIGHTS)


# --- across processes ----------------------------------------------------------------------------


def hanging(tree: Tree, after: int, *suffixes: str) -> Script:
    """A server that sends `after` bytes and then nothing more."""

    def script(seen: Seen) -> Reply:
        reply = files(tree)(seen)
        body = reply.body
        if not isinstance(body, bytes) or not seen.path.endswith(suffixes) or len(body) <= after:
            return reply
        return replace(reply, body=[body[:after], body[after:]], pause_s=60.0)

    return script


# More than twice as long as it takes until what came is written down.
_SETTLED_S = 0.5


def kill_when_kept(home: Path, before: int) -> bool:
    """Run `fetch` and kill it when more than `before` bytes are kept, and no more come.

    False where it ended by itself.
    """
    words = command(home, "fetch", "m@1.0.0", "--connections", "1")
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **quiet_env()}
    ) as process:
        give_up_s = time.monotonic() + 60
        last, since_s = before, time.monotonic()
        while process.poll() is None:
            now_s = time.monotonic()
            assert now_s < give_up_s, "nothing more is kept"
            kept = kept_bytes(home)
            if kept != last:
                last, since_s = kept, now_s
            if kept > before and now_s - since_s > _SETTLED_S:
                process.kill()
                return True
            time.sleep(0.02)
        assert process.returncode == 0
        return False


def kept_bytes(home: Path) -> int:
    paths = [*(home / "tmp").glob("*.download"), *(home / "tmp").glob("*.pack")]
    sizes = (fsread.stat_or_none(path) for path in [*paths, *(home / "packs").glob("*.pack")])
    return sum(item.st_size for item in sizes if item is not None)


def test_a_process_that_is_killed_goes_on_within_the_chunk(tree: Tree, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with served(hanging(tree, 30_000, ".pack"), home) as (server, store):
        for _ in range(4):
            assert kill_when_kept(home, kept_bytes(home))
        begins = starts(server, ".pack")
        assert begins == sorted(set(begins))
        assert begins[-1] - begins[0] == 3 * 30_000
        server.rescript(files(tree))
        store.checkout("m@1.0.0")
        assert starts(server, ".pack")[-1] == begins[-1] + 30_000
        assert_installed(store, WEIGHTS)


@pytest.mark.parametrize("suffix", [".idx", ".zst"])
def test_a_process_that_is_killed_goes_on_within_a_small_file(
    tree: Tree, tmp_path: Path, suffix: str
) -> None:
    home = tmp_path / "home"
    with served(hanging(tree, 60, suffix), home) as (server, store):
        for _ in range(2):
            assert kill_when_kept(home, kept_bytes(home))
        assert starts(server, suffix) == [0, 60]
        server.rescript(files(tree))
        store.checkout("m@1.0.0")
        assert starts(server, suffix)[2:] == [120]
        assert_installed(store, WEIGHTS)


def test_what_is_kept_is_not_trusted(tree: Tree, tmp_path: Path) -> None:
    """One poisoned byte costs its chunk once, not for ever, and blames nobody."""
    home = tmp_path / "home"
    with served(hanging(tree, 30_000, ".pack"), home) as (server, store):
        assert kill_when_kept(home, 0)
        (kept,) = (home / "tmp").glob("*.download")
        poisoned = bytearray(kept.read_bytes())
        poisoned[1000] ^= 1
        kept.write_bytes(poisoned)
        server.rescript(cutting(tree, 30_000, ".pack"))
        store.checkout("m@1.0.0")
        begins = starts(server, ".pack")
        assert begins.count(begins[0]) == 2, "dropped whole, and begun again"
        assert_installed(store, WEIGHTS)


@pytest.mark.parametrize("junk", [b"", b"x" * 10_000_000])
def test_leftovers_that_cannot_be_parts_are_in_nobodys_way(tree: Tree, tmp_path: Path, junk: bytes) -> None:
    home = tmp_path / "home"
    with served(hanging(tree, 30_000, ".pack"), home) as (server, store):
        assert kill_when_kept(home, 0)
        (kept,) = (home / "tmp").glob("*.download")
        kept.write_bytes(junk)
        server.rescript(files(tree))
        store.checkout("m@1.0.0")
        assert hashlib.sha256(Path(store.path("m")).read_bytes()).digest() == hashlib.sha256(WEIGHTS).digest()


def test_gc_keeps_young_parts_and_frees_old_ones(tree: Tree, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with served(hanging(tree, 30_000, ".pack"), home) as (_, store):
        assert kill_when_kept(home, 0)
        (kept,) = (home / "tmp").glob("*.download")
        store.gc()
        assert kept.exists()
        old_s = time.time() - 8 * 86_400
        os.utime(kept, (old_s, old_s))
        store.gc()
        assert not kept.exists()


# --- files of the plain schema -------------------------------------------------------------------


def plain_tree(name: str, *, size: int | None = len(WEIGHTS), data: bytes = WEIGHTS) -> Tree:
    """A registry of the plain schema, whose file is `name` in it."""
    version: dict[str, object] = {
        "model_id": "m", "version": "1.0.0", "download_url": name, "size_bytes": size,
        "checksum": "sha256:" + hashlib.sha256(WEIGHTS).hexdigest(),
        "compatibility": [], "release_date": "2024-01-01T00:00:00Z", "changelog": "", "deprecated": False,
    }  # fmt: skip
    model = {
        "model_id": "m", "name": "M", "description": "", "current_version": "1.0.0", "tags": [],
        "category": "test", "versions": {"1.0.0": version},
    }  # fmt: skip
    whole = {"registry_version": "1.0.0", "last_updated": "2024-01-01T00:00:00Z", "models": {"m": model}}
    return {"registry.json": json.dumps(whole).encode(), name: data}


def test_a_plain_file_on_a_line_that_breaks(tmp_path: Path) -> None:
    with served(cutting(plain_tree("w.bin"), 20_000, ".bin"), tmp_path / "home") as (server, store):
        store.checkout("m@1.0.0")
        begins = starts(server, ".bin")
        assert begins == list(range(0, len(WEIGHTS), 20_000))
        assert_installed(store, WEIGHTS)


@pytest.mark.parametrize("if_range", [True, False])
def test_a_plain_file_that_changed_while_it_came(tmp_path: Path, if_range: bool) -> None:
    """The beginning is that of another file: dropped whole, and begun again."""
    home = tmp_path / "home"
    old = random.Random(2).randbytes(len(WEIGHTS))
    with served(hanging(plain_tree("w.bin", data=old), 200_000, ".bin"), home) as (server, store):
        assert kill_when_kept(home, 0)
        now = plain_tree("w.bin")

        def changed(seen: Seen) -> Reply:
            # One that is asked with If-Range for the old file would answer with the whole new one.
            reply = files(now)(seen) if if_range else cutting(now, 300_000, ".bin")(seen)
            return replace(reply, headers={**reply.headers, "ETag": '"new"'})

        server.rescript(changed)
        store.checkout("m@1.0.0")
        assert_installed(store, WEIGHTS)


def test_a_signed_address_that_changes_goes_on_with_what_came(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with served(hanging(plain_tree("w.bin"), 200_000, ".bin"), home) as (server, store):
        assert kill_when_kept(home, 0)
        doc = json.loads(plain_tree("w.bin")["registry.json"])
        doc["models"]["m"]["versions"]["1.0.0"]["download_url"] = f"{server.url}w.bin?sig=2"
        server.rescript(files({**plain_tree("w.bin"), "registry.json": json.dumps(doc).encode()}))
        store.refresh_registries("made")
        store.checkout("m@1.0.0")
        (last,) = [seen.range for seen in server.seen if seen.path.endswith("sig=2")]
        assert last is not None
        assert last[0] == 200_000


PAGE = b"<!DOCTYPE html><html>Please log in</html>"


@pytest.mark.parametrize("size", [len(WEIGHTS), None])
def test_a_web_page_in_place_of_a_plain_file(tmp_path: Path, size: int | None) -> None:
    """It is called that, is no lie of the server's, and costs nothing of what had come."""
    home = tmp_path / "home"
    tree = plain_tree("w.bin", size=size)
    with served(files({**tree, "w.bin": PAGE}), home) as (server, store):
        with pytest.raises(BackendError, match=r"a web page instead of w\.bin"):
            store.fetch("m@1.0.0")
        server.rescript(hanging(tree, 200_000, ".bin"))
        assert kill_when_kept(home, 0)
        server.rescript(lambda seen: Reply(body=PAGE) if seen.path == "/w.bin" else files(tree)(seen))
        with pytest.raises(BackendError, match=r"a web page instead of w\.bin"):
            store.fetch("m@1.0.0")
        server.rescript(files(tree))
        store.checkout("m@1.0.0")
        assert starts(server, ".bin")[-1] == 200_000
        assert_installed(store, WEIGHTS)


# --- how long ------------------------------------------------------------------------------------


def test_a_few_bytes_before_each_stall_are_no_progress() -> None:
    stall = TransientError("u", "stalled: no byte for 30 s", reason="stalled")
    tries = Tries(RetryPolicy(attempts=3, base_s=0.0))
    for _ in range(2):
        tries.failed("u", stall, 10)
    assert not tries.is_spent("u")
    tries.failed("u", stall, 10)
    assert tries.is_spent("u")
    tries = Tries(RetryPolicy(attempts=3, base_s=0.0))
    for _ in range(100):
        assert tries.failed("u", TransientError("u", "the connection broke"), 1) == 0.0
        assert not tries.is_spent("u")


def test_the_pause_is_no_longer_than_the_answer_was() -> None:
    tries = Tries(RetryPolicy(base_s=100.0, cap_s=100.0), random=lambda: 0.99)
    tries.begin()
    assert tries.failed("u", TransientError("u", "the connection broke"), 1) < 1.0
    assert tries.failed("u", TransientError("u", "busy", retry_after_s=30.0), 1) == pytest.approx(99.0)
    assert tries.failed("u", TransientError("u", "the connection broke"), 0) > 50.0


@pytest.mark.parametrize("path", ["/registry.json", ".pack", ".bin"])
def test_waiting_for_a_busy_server_is_told(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Once, whatever the number of connections; and it waits no longer than that."""
    monkeypatch.setattr("yarnstore.ops.session.connections._WAIT_TOLD_S", 0.5)
    tree = plain_tree("w.bin") if path == ".bin" else tree
    home = tmp_path / "home"
    busy = iter([Reply(status=503, headers={"Retry-After": "1"})])

    def script(seen: Seen) -> Reply:
        return next(busy, None) or files(tree)(seen) if seen.path.endswith(path) else files(tree)(seen)

    with served(files(tree), home) as (server, store):
        server.rescript(script)
        told: list[Progress] = []
        if path == "/registry.json":
            with Store.open(home, progress=told.append) as other:
                other.refresh_registries("made")
        else:
            store.fetch("m@1.0.0", progress=told.append)
    notes = [event.text for event in told if event.phase == "note"]
    assert notes.count("made is busy; retrying in 1 s") == 1
