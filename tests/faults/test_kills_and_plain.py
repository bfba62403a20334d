"""Downloads killed at random moments against a slow server; and versions of the plain schema."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.servers import Reply, ScriptedServer, Seen, files, static_server, throttled
from tests.support.stores import (
    MODEL,
    Site,
    assert_whole,
    chunks_of,
    command,
    make_site,
    quiet_env,
    refs_of,
    ystore,
)
from yarnstore import Store
from yarnstore.errors import BackendError, IntegrityError
from yarnstore.store import fsread
from yarnstore.store.packs import iter_entries

# What one kill may cost: entries on the way on each of the four connections, sent and not written.
_LOSS_PER_KILL = 4 * 300_000


def _tree(registry: Path) -> dict[str, bytes]:
    found = [path for path in registry.rglob("*") if path.is_file()]
    return {path.relative_to(registry).as_posix(): path.read_bytes() for path in found}


def _kill_after(home: Path, words: list[str], seconds: float) -> int | None:
    """Run a command and kill it after a while; its exit code, None where it was killed."""
    environment = {**os.environ, **quiet_env()}
    with subprocess.Popen(
        command(home, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return None


def _kill_when(home: Path, words: list[str], arrived: int) -> None:
    """Run a command and kill it as soon as the store has `arrived` bytes of packs and downloads."""
    with subprocess.Popen(
        command(home, *words),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **quiet_env()},
    ) as process:
        give_up_s = time.monotonic() + 30
        while _arrived(home) < arrived:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < give_up_s, "nothing arrives"
            time.sleep(0.01)
        process.kill()


def _arrived(home: Path) -> int:
    """Bytes of packs and partial downloads that a store has."""
    found = [*(home / "tmp").glob("*"), *(home / "packs").glob("*.pack")]
    sizes = (fsread.stat_or_none(path) for path in found)  # they come and go
    return sum(item.st_size for item in sizes if item is not None)


def _campaign(site: Site, root: Path, seed: int, *, kills: int) -> None:
    pick = random.Random(seed)
    home = root / "home"
    with ScriptedServer(throttled(_tree(site.registry), pause_s=0.02)) as server:
        Store.open(home).add_registry("made", server.url)
        killed = 0
        kept = [set[bytes]()]
        for _ in range(kills):
            if _kill_after(home, ["fetch", f"{MODEL}@1.0.0"], pick.uniform(0.35, 1.2)) is not None:
                break
            killed += 1
            with Store.open(home) as store:
                assert store.fsck().problems == []
            kept.append(chunks_of(home / "packs", home / "tmp"))
        assert killed, "the command ended before any kill: the campaign is broken"
        for before, after in pairwise(kept):
            assert before <= after, f"what had arrived was lost: {[len(chunks) for chunks in kept]}"
        with Store.open(home) as store:
            missing = store.fetch(f"{MODEL}@1.0.0").download_bytes
    sizes = {
        entry.chunk_id: entry.stored_bytes
        for path in (site.registry / "packs").glob("*.pack")
        for _, entry in iter_entries(path)
    }
    total, arrived = sum(sizes.values()), sum(sizes[chunk_id] for chunk_id in kept[-1])
    assert missing <= total - arrived + _LOSS_PER_KILL, (missing, total, arrived)
    if arrived > 300_000:
        assert missing < total, "everything was downloaded again"
    assert_whole(home, site)


def test_killed_downloads_go_on(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", versions=("1.0.0",))
    for seed in range(2):
        _campaign(site, tmp_path / str(seed), seed, kills=3)


@pytest.mark.deep
def test_many_killed_downloads_go_on(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", versions=("1.0.0",))
    for seed in range(60):
        _campaign(site, tmp_path / str(seed), seed, kills=4)


# --- the plain schema: download_url and checksum, no manifest ----------------------------------

_BODY = random.Random(7).randbytes(900_000)


def _plain_registry(url: str, *, checksum: str | None = None, size: int | None = len(_BODY)) -> bytes:
    version = {
        "model_id": "old", "version": "1.0.0", "download_url": url, "size_bytes": size,
        "checksum": checksum or "sha256:" + hashlib.sha256(_BODY).hexdigest(),
        "compatibility": [], "release_date": "2024-01-01T00:00:00Z", "changelog": "", "deprecated": False,
    }  # fmt: skip
    model = {
        "model_id": "old", "name": "Old", "description": "", "current_version": "1.0.0", "tags": [],
        "category": "test", "versions": {"1.0.0": version},
    }  # fmt: skip
    whole = {"registry_version": "1.0.0", "last_updated": "2024-01-01T00:00:00Z", "models": {"old": model}}
    return json.dumps(whole).encode()


def _assert_plain(home: Path) -> None:
    with Store.open(home) as store:
        path = Path(store.path("old@1.0.0"))
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(_BODY).digest()
        assert store.fsck().problems == []


def test_a_plain_download_goes_on_after_kills(tmp_path: Path) -> None:
    with ScriptedServer([]) as server:
        tree = {"registry.json": _plain_registry(f"{server.url}old.bin"), "old.bin": _BODY}
        server.rescript(throttled(tree, pause_s=0.02))
        home = tmp_path / "home"
        Store.open(home).add_registry("old", server.url)
        kept = [0]
        for _ in range(2):
            _kill_when(home, ["fetch", "old@1.0.0"], kept[-1] + 100_000)
            kept.append(_arrived(home))
        assert 0 < kept[1] < kept[2], kept
        Store.open(home).fetch("old@1.0.0")
        starts = [seen.range[0] for seen in server.seen if seen.path == "/old.bin" and seen.range]
        assert starts[-1] >= kept[1], (starts, kept)
        _assert_plain(home)
        assert not list((home / "tmp").glob("*.download"))


def test_two_plain_downloads_at_once_are_one(tmp_path: Path) -> None:
    """Whoever waited for the other finds the version, and asks for nothing."""
    with ScriptedServer([]) as server:
        tree = {"registry.json": _plain_registry(f"{server.url}old.bin"), "old.bin": _BODY}
        server.rescript(throttled(tree, pause_s=0.01))
        home = tmp_path / "home"
        Store.open(home).add_registry("old", server.url)
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda _: Store.open(home).fetch("old@1.0.0"), range(2)))
        assert sorted(result.download_bytes for result in results) == [0, len(_BODY)]
        assert len([seen for seen in server.seen if seen.path == "/old.bin"]) == 1
        _assert_plain(home)
        assert not list((home / "tmp").glob("*.download"))


def test_a_plain_download_with_a_wrong_checksum_ends(tmp_path: Path) -> None:
    wrong = "sha256:" + "0" * 64
    with ScriptedServer([]) as server:
        tree = {"registry.json": _plain_registry(f"{server.url}old.bin", checksum=wrong), "old.bin": _BODY}
        server.rescript(files(tree))
        home = tmp_path / "home"
        Store.open(home).add_registry("old", server.url)
        done = ystore(home, "checkout", "old@1.0.0", "--json")
        downloads = sum(seen.path == "/old.bin" for seen in server.seen)
    assert done.returncode == 4, done
    assert wrong in done.stdout + done.stderr
    assert hashlib.sha256(_BODY).hexdigest() in done.stdout + done.stderr
    assert 1 <= downloads <= 3
    assert refs_of(home) == {}
    assert not (home / "models").exists()
    with Store.open(home) as store:
        assert store.fsck().problems == []


def test_a_plain_download_from_a_server_without_ranges(tmp_path: Path) -> None:
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "old.bin").write_bytes(_BODY)
    with static_server(folder) as url:
        (folder / "registry.json").write_bytes(_plain_registry(f"{url}old.bin"))
        home = tmp_path / "home"
        Store.open(home).add_registry("old", url)
        Store.open(home).fetch("old@1.0.0")
        _assert_plain(home)


@pytest.mark.parametrize("size", [len(_BODY), None])
def test_a_plain_download_cut_again_and_again_goes_on(size: int | None, tmp_path: Path) -> None:
    """Each answer brings a quarter; with ranges that is enough."""
    with ScriptedServer([]) as server:
        tree = {"registry.json": _plain_registry(f"{server.url}old.bin", size=size), "old.bin": _BODY}
        good = files(tree)

        def cut(seen: Seen) -> Reply:
            reply = good(seen)
            return replace(reply, cut_at=len(_BODY) // 3) if seen.path == "/old.bin" else reply

        server.rescript(cut)
        home = tmp_path / "home"
        Store.open(home).add_registry("old", server.url)
        Store.open(home).fetch("old@1.0.0")
        asked = [seen.range for seen in server.seen if seen.path == "/old.bin"]
        assert len(asked) <= 6
        _assert_plain(home)


@pytest.mark.parametrize("length", [len(_BODY) - 5, len(_BODY) + 5])
def test_a_plain_download_of_another_length_is_refused(length: int, tmp_path: Path) -> None:
    body = (_BODY + b"extra")[:length]
    with ScriptedServer([]) as server:
        server.rescript(files({"registry.json": _plain_registry(f"{server.url}old.bin"), "old.bin": body}))
        home = tmp_path / "home"
        Store.open(home).add_registry("old", server.url)
        with pytest.raises((IntegrityError, BackendError)):
            Store.open(home).fetch("old@1.0.0")
        assert sum(seen.path == "/old.bin" for seen in server.seen) <= 6
    assert refs_of(home) == {}


def test_a_stalled_plain_download_is_given_up_and_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server sends a third and falls silent: killed there, the next run asks for the rest."""
    stalled = True
    with ScriptedServer([]) as server:
        good = files({"registry.json": _plain_registry(f"{server.url}old.bin"), "old.bin": _BODY})

        def stall(seen: Seen) -> Reply:
            reply = good(seen)
            if seen.path != "/old.bin" or not stalled:
                return reply
            assert isinstance(reply.body, bytes)
            third = len(reply.body) // 3
            return replace(reply, body=[reply.body[:third], reply.body[third:]], pause_s=30.0)

        server.rescript(stall)
        home = tmp_path / "home"
        Store.open(home).add_registry("old", server.url)
        _kill_when(home, ["fetch", "old@1.0.0"], 100_000)
        stalled = False
        started = time.monotonic()
        Store.open(home).fetch("old@1.0.0")
        assert time.monotonic() - started < 10
        last = [seen.range for seen in server.seen if seen.path == "/old.bin"][-1]
        assert last is not None, "asked for the whole again"
        assert last[0] > 0
        _assert_plain(home)
