"""Mirrors that lie, lack files, stall or are gone: what is installed is right, and who failed is told.

Each fault is served by real servers over loopback.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli_w

from tests.support.servers import PATIENCE_S, Reply, ScriptedServer, Seen, chunked, files, ranged
from tests.support.stores import MODEL, Site, assert_whole, make_site, refs_of
from yarnstore import Progress, Store
from yarnstore.backends import Timeouts
from yarnstore.errors import BackendError, IntegrityError, MissingKeyError, NotFoundError
from yarnstore.ops.session.sources import RecentFailures

SHORT = Timeouts(connect_s=2.0, stall_s=0.3, window_s=0.6)
Tree = dict[str, bytes]
Script = Callable[[Seen], Reply]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("mirrors"), versions=("1.0.0", "1.1.0"))


@pytest.fixture
def tree(made: Site) -> Tree:
    """The registry's files, which a test may change."""
    return {
        path.relative_to(made.registry).as_posix(): path.read_bytes()
        for path in made.registry.rglob("*")
        if path.is_file()
    }


@contextmanager
def sites(home: Path, *scripts: Script | Tree, listed: bool = True) -> Iterator[list[ScriptedServer]]:
    """A registry at the first server, its mirrors the others: `listed` in registry.json, else in the
    settings; the store at `home` knows it."""
    with ExitStack() as stack:
        servers = [stack.enter_context(ScriptedServer([])) for _ in scripts]
        for server, script in zip(servers, scripts, strict=True):
            if isinstance(script, dict):
                if listed and "registry.json" in script:
                    script = with_mirrors(script, [other.url for other in servers[1:]])
                script = files(script)
            server.rescript(script)
        with Store.open(home) as store:
            store.add_registry("made", servers[0].url)
        if not listed:
            urls = json.dumps([other.url for other in servers[1:]])
            (home / "config.toml").write_text(
                f'[[registries]]\nname = "made"\nurl = "{servers[0].url}"\nmirrors = {urls}\n'
            )
        yield servers


def with_mirrors(tree: Tree, urls: list[str]) -> Tree:
    doc = json.loads(tree["registry.json"])
    doc["mirrors"] = urls
    return {**tree, "registry.json": json.dumps(doc).encode()}


def opened(home: Path, notes: list[str] | None = None) -> Store:
    def tell(event: Progress) -> None:
        if notes is not None and event.phase == "note":
            notes.append(event.text)

    store = Store.open(home, progress=tell)
    network = msgspec.structs.replace(store.settings.network, timeouts=SHORT)
    store.settings = msgspec.structs.replace(store.settings, network=network, connections=2)
    return store


def faults_of(store: Store) -> dict[str, str]:
    return {item.url: item.fault or "" for item in store.list_registries()[0].mirrors}


def changed(tree: Tree, folder: str, suffix: str, change: Callable[[bytes], bytes]) -> Tree:
    return {
        key: change(data) if key.startswith(folder) and key.endswith(suffix) else data
        for key, data in tree.items()
    }


def flipped(data: bytes) -> bytes:
    """Every 997th byte wrong: no chunk survives."""
    bad = bytearray(data)
    for at in range(50, len(bad), 997):
        bad[at] ^= 0x55
    return bytes(bad)


def packs_only(tree: Tree) -> Tree:
    """Without deltas, which are only shortcuts."""
    return {key: data for key, data in tree.items() if not key.startswith("deltas/")}


def test_a_registry_that_lost_its_packs_is_helped_out_by_its_mirror(
    made: Site, tree: Tree, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    bare = {"registry.json": tree["registry.json"]}
    with sites(home, bare, tree), opened(home) as store:
        store.checkout(f"{MODEL}@1.1.0")
        assert set(faults_of(store).values()) == {""}
    assert_whole(home, replace(made, home=home))


@pytest.mark.parametrize(
    ("folder", "suffix"),
    [
        ("packs", ".pack"),
        ("packs", ".idx"),
        ("deltas", ".pack"),
        ("deltas", ".idx"),
        ("manifests", ".json"),
        ("manifests", ".json.zst"),
    ],
)
def test_a_lying_mirror_in_first_place(
    made: Site, tree: Tree, tmp_path: Path, folder: str, suffix: str
) -> None:
    """The registry's own files of one kind are altered; its mirror is right."""
    lying = changed(tree, folder, suffix, flipped)
    assert lying != tree
    home, notes = tmp_path / "home", list[str]()
    with sites(home, lying, tree) as (own, other), opened(home, notes) as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.update_model(MODEL)
        found = faults_of(store)
        assert list(found) == [own.url, other.url]
        assert found[other.url] == "", "the honest one is not blamed"
        if any(seen.path.endswith(suffix) and f"/{folder}/" in seen.path for seen in own.seen):
            assert found[own.url] == "lied"
            assert any(own.url in note and "served corrupt data" in note for note in notes)
    assert_whole(home, replace(made, home=home))


def test_a_liar_is_asked_a_bounded_number_of_times(made: Site, tree: Tree, tmp_path: Path) -> None:
    lying = changed(packs_only(tree), "packs", ".pack", flipped)
    home = tmp_path / "home"
    with sites(home, lying, packs_only(tree)) as (own, _), opened(home) as store:
        store.fetch(f"{MODEL}@1.0.0")
        asked = sum(seen.path.endswith(".pack") for seen in own.seen)
    assert asked <= 2 * 2, "two tries by each of two workers"


def test_when_all_mirrors_lie_the_error_names_all_and_both_hashes(tree: Tree, tmp_path: Path) -> None:
    lying = changed(packs_only(tree), "packs", ".pack", flipped)
    home = tmp_path / "home"
    with sites(home, lying, lying) as servers, opened(home) as store:
        with pytest.raises(IntegrityError) as caught:
            store.checkout(f"{MODEL}@1.0.0")
        for server in servers:
            assert f"{server.url} (twice)" in caught.value.message
        assert sum(seen.path.endswith(".pack") for server in servers for seen in server.seen) <= 16
    assert refs_of(home) == {}


def test_an_index_that_points_at_the_wrong_bytes_is_found_out(made: Site, tree: Tree, tmp_path: Path) -> None:
    """Well formed and false: the mirror that gave it is blamed, not those whose packs are right."""
    home = tmp_path / "home"
    pack = next(key for key in tree if key.startswith("packs/") and key.endswith(".idx"))
    lying = {**packs_only(tree), pack: shifted_index(tree[pack], pack)}
    with sites(home, lying, packs_only(tree)) as (own, other), opened(home) as store:
        for version in ("1.0.0", "1.1.0"):
            store.fetch(f"{MODEL}@{version}")
        assert faults_of(store) == {own.url: "lied", other.url: ""}
    assert_whole(home, replace(made, home=home))


def shifted_index(data: bytes, key: str) -> bytes:
    """The index with the places of its chunks swapped, and its own check right again."""
    from yarnstore.core.digest import PackId
    from yarnstore.core.index import encode_index, parse_index

    index = parse_index(data, pack=PackId.parse(Path(key).stem))
    return encode_index(replace(index, offsets=index.offsets[::-1], stored=index.stored[::-1]))


def only_for(bad: Script, good: Script, suffix: str) -> Script:
    """`bad` for what ends in `suffix`, but for registry.json; `good` for the rest."""

    def script(seen: Seen) -> Reply:
        is_bad = seen.path != "/registry.json" and seen.path.endswith(suffix)
        return bad(seen) if is_bad else good(seen)

    return script


def test_a_mirror_whose_answers_are_pages_or_go_on_for_ever(made: Site, tree: Tree, tmp_path: Path) -> None:
    """A login page in place of everything; answers longer than announced; answers shorter than the pack."""
    page = Reply(body=b"<html>log in</html>", headers={"Content-Type": "text/html"})

    def long(seen: Seen) -> Reply:
        reply = ranged(tree[seen.path[1:]], seen)
        first, last = seen.range or (0, len(reply.body) - 1)
        head = f"HTTP/1.1 206 OK\r\nContent-Range: bytes {first}-{last}/9999999\r\n"
        head += "Transfer-Encoding: chunked\r\n"
        pieces = chunked([b"x" * len(reply.body), b"y" * 5000])
        return Reply(raw=[f"{head}\r\n".encode(), *pieces])

    def short(seen: Seen) -> Reply:
        return ranged(tree[seen.path[1:]][:50], seen)

    for n, bad in enumerate((lambda _: page, long, short)):
        home = tmp_path / f"home-{n}"
        with sites(home, packs_only(tree), packs_only(tree)) as (own, other), opened(home) as store:
            good = files(with_mirrors(packs_only(tree), [other.url]))
            own.rescript(only_for(bad, good, "" if n == 0 else ".pack"))
            store.checkout(f"{MODEL}@1.0.0")
            assert faults_of(store)[other.url] == ""
        assert_whole(home, replace(made, home=home))


def test_404_everywhere_is_an_error_that_says_so(tree: Tree, tmp_path: Path) -> None:
    bare = {"registry.json": tree["registry.json"]}
    home = tmp_path / "home"
    with sites(home, bare, bare), opened(home) as store, pytest.raises((IntegrityError, MissingKeyError)):
        store.fetch(f"{MODEL}@1.0.0")
    assert refs_of(home) == {}


def test_503_then_200(made: Site, tree: Tree, tmp_path: Path) -> None:
    seen_once: set[str] = set()
    good = files(packs_only(tree))

    def shy(seen: Seen) -> Reply:
        if seen.path in seen_once or seen.path == "/registry.json":
            return good(seen)
        seen_once.add(seen.path)
        return Reply(status=503)

    home = tmp_path / "home"
    with sites(home, shy), opened(home) as store:
        store.checkout(f"{MODEL}@1.0.0")
    assert_whole(home, replace(made, home=home))


def test_a_mirror_that_stalls_is_put_last(made: Site, tree: Tree, tmp_path: Path) -> None:
    def stall(good: Script) -> Script:
        def script(seen: Seen) -> Reply:
            reply = good(seen)
            if not seen.path.endswith(".pack"):
                return reply
            assert isinstance(reply.body, bytes)
            return replace(reply, body=[reply.body[:1000], reply.body[1000:]], pause_s=PATIENCE_S)

        return script

    home, notes = tmp_path / "home", list[str]()
    with sites(home, tree, tree) as (own, other), opened(home, notes) as store:
        own.rescript(stall(files(with_mirrors(tree, [other.url]))))
        store.checkout(f"{MODEL}@1.0.0")
        assert faults_of(store) == {own.url: "stalled", other.url: ""}
        assert any("stalled" in note for note in notes)
    assert_whole(home, replace(made, home=home))


def test_a_server_that_is_gone_after_its_registry_was_read(made: Site, tree: Tree, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with ScriptedServer(files(tree)) as mirror:
        with sites(home, with_mirrors(tree, [mirror.url]), listed=False):
            pass  # its only server stops here
        with opened(home) as store:
            store.checkout(f"{MODEL}@1.0.0")
            assert "unreachable" in faults_of(store).values()
    assert_whole(home, replace(made, home=home))


def test_mirrors_of_the_settings_may_say_what_there_is_those_of_the_registry_may_not(
    made: Site, tree: Tree, tmp_path: Path
) -> None:
    down = lambda _: Reply(status=500)  # noqa: E731
    for listed in (True, False):
        home = tmp_path / f"home-{listed}"
        with sites(home, tree, tree, listed=listed) as (own, other):
            own.rescript(down)
            asked = len(other.seen)
            with opened(home) as store:
                if listed:
                    with pytest.raises(BackendError):
                        store.refresh_registries()
                else:
                    assert store.refresh_registries()[0].models == 1
                assert (len(other.seen) > asked) is not listed


def test_an_older_registry_from_a_mirror_is_not_believed(tree: Tree, tmp_path: Path) -> None:
    old = json.loads(tree["registry.json"])
    old["last_updated"] = "2001-01-01T00:00:00Z"
    del old["models"][MODEL]["versions"]["1.1.0"]
    home = tmp_path / "home"
    with sites(home, tree, {"registry.json": json.dumps(old).encode()}, listed=False) as (own, _):
        own.rescript(lambda _: Reply(status=500))
        with opened(home) as store:
            with pytest.raises(BackendError, match="older index"):
                store.refresh_registries()
            assert "1.1.0" in store.show(f"{MODEL}@1.1.0").versions


def test_a_registry_may_not_send_us_to_files_of_this_machine(tree: Tree, tmp_path: Path, made: Site) -> None:
    home = tmp_path / "home"
    bare = with_mirrors(
        {"registry.json": tree["registry.json"]}, [made.registry.as_uri(), str(made.registry)]
    )
    with sites(home, bare, listed=False), opened(home) as store:
        with pytest.raises((IntegrityError, BackendError)):
            store.fetch(f"{MODEL}@1.0.0")
        assert len(faults_of(store)) == 1


def test_health_is_kept_and_mended(tree: Tree, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with sites(home, tree, tree) as (own, _):
        good = files(with_mirrors(tree, []))
        own.rescript(lambda seen: good(seen) if seen.path == "/registry.json" else Reply(status=500))
        with opened(home) as store:
            store.fetch(f"{MODEL}@1.0.0")
            info = next(item for item in store.list_registries()[0].mirrors if item.url == own.url)
            assert (info.fault, info.count) == ("unreachable", 1)
            assert info.at_ms > 0
        own.rescript(files(tree))
        with opened(home) as store:
            store.fetch(f"{MODEL}@1.1.0")
            assert set(faults_of(store).values()) == {""}


# --- the plain schema ------------------------------------------------------------------------------

BODY = random.Random(5).randbytes(300_000)


def plain(url: str, mirrors: list[str]) -> bytes:
    version = {
        "version": "1.0.0",
        "download_url": url,
        "mirrors": mirrors,
        "size_bytes": len(BODY),
        "checksum": "sha256:" + hashlib.sha256(BODY).hexdigest(),
    }
    model = {"model_id": "old", "current_version": "1.0.0", "versions": {"1.0.0": version}}
    return json.dumps({"registry_version": "1.0.0", "models": {"old": model}}).encode()


def cut_short(seen: Seen) -> Reply:
    return Reply(body=BODY, cut_at=1000)


def silent(seen: Seen) -> Reply:
    return Reply(body=[BODY[:9], BODY[9:]], pause_s=PATIENCE_S)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(lambda _: Reply(status=404), id="404"),
        pytest.param(lambda _: Reply(status=503), id="503"),
        pytest.param(files({"a/old.bin": flipped(BODY)}), id="lie"),
        pytest.param(files({"a/old.bin": BODY + b"more"}), id="longer"),
        pytest.param(cut_short, id="cut"),
        pytest.param(silent, id="stall"),
    ],
)
def test_a_download_url_has_mirrors(bad: Script, tmp_path: Path) -> None:
    with ScriptedServer(bad) as first, ScriptedServer(files({"b/old.bin": BODY})) as second:
        url = f"{first.url}a/old.bin"
        tree = {"registry.json": plain(url, [f"{second.url}b/old.bin"])}
        home = tmp_path / "home"
        with sites(home, tree), opened(home) as store:
            done = store.checkout("old@1.0.0")
            assert Path(done.path).read_bytes() == BODY
            assert len(first.seen) <= 4
            assert store.fsck().problems == []
            if first.seen and bad(first.seen[0]).status != 404:
                assert url in faults_of(store)


def test_a_download_that_is_wrong_everywhere_names_everybody(tmp_path: Path) -> None:
    lie = files({"old.bin": flipped(BODY)})
    with ScriptedServer(lie) as first, ScriptedServer(lie) as second:
        urls = [f"{first.url}old.bin", f"{second.url}old.bin"]
        home = tmp_path / "home"
        with sites(home, {"registry.json": plain(urls[0], urls[1:])}), opened(home) as store:
            with pytest.raises(IntegrityError) as caught:
                store.checkout("old@1.0.0")
            for url in urls:
                assert f"{url} (twice)" in caught.value.message
            for digest in (BODY, flipped(BODY)):
                assert hashlib.sha256(digest).hexdigest() in caught.value.message
        assert (len(first.seen), len(second.seen)) == (2, 2)
    assert refs_of(home) == {}


def plain_models(names: str, **version: Any) -> bytes:
    entry = {"size_bytes": len(BODY), "checksum": "sha256:" + hashlib.sha256(BODY).hexdigest(), **version}
    models = {name: {"current_version": "1.0.0", "versions": {"1.0.0": entry}} for name in names}
    return json.dumps({"registry_version": "1.0.0", "models": models}).encode()


@pytest.mark.parametrize("way", ["fetch", "queue"])
def test_a_download_address_that_failed_is_put_last_for_the_rest_of_the_command(
    way: str, tmp_path: Path
) -> None:
    with ScriptedServer(lambda _: Reply(status=503)) as bad, ScriptedServer(files({"m.bin": BODY})) as good:
        registry = plain_models("abc", download_url=f"{bad.url}m.bin", mirrors=[f"{good.url}m.bin"])
        home = tmp_path / "home"
        with sites(home, {"registry.json": registry}), opened(home) as store:
            if way == "fetch":
                assert [store.fetch(name).version for name in "abc"] == ["1.0.0"] * 3
            else:
                store.enqueue(*"abc")
                assert [run.status for run in store.run_queue()] == ["fetched"] * 3
            assert len(bad.seen) == 2, "two tries, for the first of them alone"


def test_no_registry_can_have_us_ask_for_ever(tmp_path: Path) -> None:
    with ScriptedServer(lambda _: Reply(status=404)) as server:
        mirrors = [f"{server.url}{n}/m.bin" for n in range(1000)]
        registry = plain_models("a", download_url=f"{server.url}m.bin", mirrors=mirrors)
        home = tmp_path / "home"
        with sites(home, {"registry.json": registry}), opened(home) as store:
            with pytest.raises(BackendError):
                store.fetch("a")
            assert len(server.seen) <= 16


def test_a_mirror_that_failed_is_put_last_for_the_rest_of_the_command(tree: Tree, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with sites(home, tree, tree) as (own, other):
        good = files(with_mirrors(tree, [other.url]))
        own.rescript(lambda seen: good(seen) if seen.path == "/registry.json" else Reply(status=503))
        with opened(home) as store:
            store.refresh_registries()
            store.fetch(f"{MODEL}@1.0.0")
            asked = sum(seen.path != "/registry.json" for seen in own.seen)
            store.fetch(f"{MODEL}@1.1.0")
            assert sum(seen.path != "/registry.json" for seen in own.seen) == asked > 0


def test_what_failed_is_forgotten_in_time() -> None:
    now = [0.0]
    known = RecentFailures(lambda: now[0])
    known.add("a")
    now[0] = 300.0
    known.add("b")
    assert known.urls() == ["a", "b"]
    known.add("a")
    assert known.urls() == ["b", "a"]
    now[0] = 899.0
    assert known.urls() == ["b", "a"]
    now[0] = 900.0
    assert known.urls() == []


# --- one id, several registries --------------------------------------------------------------------


def put_first(home: Path, name: str, url: Path) -> None:
    """A registry of higher priority than those there are."""
    path = home / "config.toml"
    path.write_text(tomli_w.dumps({"registries": [{"name": name, "url": str(url)}]}))


def test_a_model_stays_with_its_registry(made: Site, tmp_path: Path) -> None:
    """Another registry, of higher priority and with a higher version, changes nothing for it."""
    home = tmp_path / "home"
    evil = tmp_path / "evil"
    source = made.source("1.1.0")
    Store.publish(source, f"{MODEL}@9.0.0", registry=evil)
    with opened(home) as store:
        store.add_registry("made", made.registry)
        store.checkout(f"{MODEL}@1.0.0")
    put_first(home, "evil", evil)
    notes: list[str] = []
    with opened(home, notes) as store:
        store.refresh_registries()
        assert store.update_model(MODEL).version == "1.1.0"
        with pytest.raises(NotFoundError):
            store.fetch(f"{MODEL}@9.0.0")
        store.set_network(registry="evil")
        assert store.fetch(f"{MODEL}@9.0.0").version == "9.0.0"


def test_a_new_model_that_two_registries_have_is_warned_of(made: Site, tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    shutil.copytree(made.registry, other)
    notes: list[str] = []
    with opened(home, notes) as store:
        store.add_registry("made", made.registry)
        store.add_registry("other", other)
        store.fetch(f"{MODEL}@1.0.0")
        assert sum("is in made and in other" in note for note in notes) == 1
        notes.clear()
        store.fetch(f"{MODEL}@1.1.0")
        assert not any("is in made and in other" in note for note in notes), "it is decided by now"
        store.remove_registry("made")
        store.fetch(f"{MODEL}@latest")
        assert any("came from made, which is no longer configured" in note for note in notes)


def test_a_registry_of_higher_priority_that_cannot_be_read_is_not_passed_over(
    made: Site, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    with opened(home) as store:
        store.add_registry("made", made.registry)
    put_first(home, "first", tmp_path / "unplugged")
    with opened(home) as store:
        with pytest.raises(BackendError) as caught:
            store.fetch(f"{MODEL}@1.0.0")
        assert "--registry made" in caught.value.hint
        store.set_network(registry="made")
        assert store.fetch(f"{MODEL}@1.0.0").version == "1.0.0"
