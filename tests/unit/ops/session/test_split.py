"""Split registries: 100 000 models of 10 versions, of which a client asks for those that it has."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.giant_registry import MINE, SMALL, VERSIONS, GiantRegistry, body, entry_of
from tests.support.servers import Reply, ScriptedServer, Seen
from yarnstore import Store
from yarnstore.errors import FormatError, NotFoundError
from yarnstore.store.registry_cache import FetchRecord


@pytest.fixture
def giant() -> GiantRegistry:
    return GiantRegistry()


@pytest.fixture
def server(giant: GiantRegistry) -> Iterator[ScriptedServer]:
    with ScriptedServer(giant) as server:
        yield server


@pytest.fixture
def store(server: ScriptedServer, tmp_path: Path) -> Iterator[Store]:
    """A store with three models installed, each at 1.0.0."""
    with Store.open(tmp_path / "home") as store:
        info = store.add_registry("giant", server.url)
        assert (info.split, info.models) == (True, 0)
        for model in MINE:
            store.checkout(f"{model}@1.0.0")
        server.seen.clear()
        yield store


def asked(server: ScriptedServer) -> list[str]:
    paths = [seen.path for seen in server.seen]
    server.seen.clear()
    return paths


def test_outdated_asks_for_what_is_installed_and_nothing_else(store: Store, server: ScriptedServer) -> None:
    for _ in range(3):
        server.seen.clear()
        with Store.open(store.home) as fresh:
            found = fresh.check_for_updates()
        assert [(item.model, item.installed, item.wanted) for item in found] == [
            (model, "1.0.0", "1.9.0") for model in MINE
        ]
        assert all("if-none-match" in seen.headers for seen in server.seen), "each is conditional"
        assert sorted(asked(server)) == [
            "/models/model-00007.json",
            "/models/model-54321.json",
            "/models/org~model-99999.json",
        ]


def test_versions_with_manifests_are_planned_once(tmp_path: Path) -> None:
    registry = tmp_path / "registry"

    def publish(model: str, version: str) -> None:
        source = tmp_path / "weights.bin"
        source.write_bytes(body(model, "all") * 9 + body(model, version))
        Store.publish(source, f"{model}@{version}", registry=registry, changelog="New", split=True)

    def served(seen: Seen) -> Reply:
        path = registry / seen.path.lstrip("/")
        return Reply(body=path.read_bytes()) if path.is_file() else Reply(status=404)

    for model in MINE:
        publish(model, "1.0.0")
        publish(model, "1.1.0")
    with ScriptedServer(served) as server, Store.open(tmp_path / "home") as store:
        store.add_registry("made", server.url)
        for model in MINE:
            store.checkout(f"{model}@1.0.0")
        planned = [item.download_bytes for item in Store.open(store.home).check_for_updates()]
        assert all(planned)
        server.seen.clear()
        again = Store.open(store.home).check_for_updates()
        assert [item.download_bytes for item in again] == planned
        assert len(asked(server)) == 3
        store.fetch(f"{MINE[0]}@1.1.0")
        here = Store.open(store.home).check_for_updates(MINE[0])[0]
        assert here.download_bytes == 0, "what the store holds is another than when it was planned"
        (store.home / "registries" / "made" / "plans.json").write_bytes(b"?")
        assert Store.open(store.home).check_for_updates(MINE[1])[0].download_bytes == planned[1]


def test_one_that_is_split_no_more_is_read_whole(
    store: Store, giant: GiantRegistry, server: ScriptedServer
) -> None:
    for model in MINE:
        giant.changed[f"models/{model.replace('/', '~')}.json"] = None
    whole = {**SMALL, "split": False, "models": {model: entry_of(model, 3) for model in MINE}}
    giant.changed["registry.json"] = json.dumps(whole).encode()
    assert [item.wanted for item in store.check_for_updates()] == ["1.2.0"] * 3


def test_the_age_of_what_is_gone_by_is_told(store: Store, server: ScriptedServer) -> None:
    path = store.home / "registries" / "giant" / "fetched.json"
    record = msgspec.json.decode(path.read_bytes(), type=FetchRecord)
    days_ago = record.fetched_ms - 3 * 86_400_000
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, fetched_ms=days_ago).sealed()))
    server.rescript(lambda seen: Reply(status=403))
    told: list[str] = []
    Store.open(store.home).check_for_updates(progress=lambda event: told.append(event.text))
    assert [text for text in told if "3 days ago" in text] == ["giant: using a cached copy from 3 days ago"]
    server.rescript(GiantRegistry())
    Store.open(store.home).check_for_updates(progress=lambda event: told.append(event.text))
    assert len([text for text in told if "days ago" in text]) == 1
    assert store.list_registries()[0].fetched_ms > record.fetched_ms, "it has answered since"


def test_a_mirror_that_is_behind_is_not_gone_by(store: Store, server: ScriptedServer) -> None:
    behind = GiantRegistry()
    behind.changed["registry.json"] = json.dumps({**SMALL, "last_updated": "2023-01-01T00:00:00Z"}).encode()
    behind.changed["models/model-00007.json"] = json.dumps(entry_of("model-00007", 3)).encode()
    with ScriptedServer(behind) as mirror:
        (store.home / "config.toml").write_text(
            f'[[registries]]\nname = "giant"\nurl = "{server.url}"\nmirrors = ["{mirror.url}"]\n'
        )
        assert [item.wanted for item in Store.open(store.home).check_for_updates()] == ["1.9.0"] * 3
        server.rescript(lambda seen: Reply(status=503))
        assert [item.wanted for item in Store.open(store.home).check_for_updates()] == ["1.9.0"] * 3


def test_what_changed_is_seen(store: Store, giant: GiantRegistry) -> None:
    giant.changed["models/model-00007.json"] = json.dumps(entry_of("model-00007", 11)).encode()
    assert [item.wanted for item in store.check_for_updates()] == ["1.10.0", "1.9.0", "1.9.0"]
    assert store.update_model("model-00007").version == "1.10.0"


def test_a_model_that_is_gone_is_said_to_be(store: Store, giant: GiantRegistry) -> None:
    giant.changed["models/model-00007.json"] = None
    gone = store.check_for_updates()[0]
    assert gone.kind is None
    assert 'no model "model-00007"' in (gone.note or "")
    kept = store.home / "registries" / "giant" / "models" / "model-00007.fetched"
    assert not kept.exists()


def test_a_registry_that_cannot_be_reached_is_the_cached_one(store: Store, server: ScriptedServer) -> None:
    server.rescript(lambda seen: Reply(status=403))
    found = store.check_for_updates()
    assert [item.wanted for item in found] == ["1.9.0"] * 3
    assert asked(server) == ["/models/model-00007.json"], "one refusal is enough"


def test_history_and_path_ask_nobody(store: Store, server: ScriptedServer) -> None:
    assert len(store.get_version_history("model-00007").versions) == VERSIONS
    assert Path(store.path("model-54321")).read_bytes() == body("model-54321", "1.0.0")
    assert len(store.list_installed_models()) == 3
    assert asked(server) == []


def test_a_damaged_cache_is_fetched_again(store: Store, server: ScriptedServer) -> None:
    path = store.home / "registries" / "giant" / "models" / "model-00007.fetched"
    for data in (b"", b"{}\n{}", path.read_bytes()[:-1], path.read_bytes().replace(b"1.9.0", b"1.8.0")):
        path.write_bytes(data)
        assert len(store.get_version_history("model-00007").versions) == VERSIONS
        assert asked(server) == ["/models/model-00007.json"]


def test_a_registry_at_another_address_is_asked_anew(store: Store, giant: GiantRegistry) -> None:
    other = GiantRegistry()
    other.changed["models/model-00007.json"] = json.dumps(entry_of("model-00007", 3)).encode()
    with ScriptedServer(other) as moved:
        store.remove_registry("giant")
        store.add_registry("giant", moved.url)
        assert len(store.get_version_history("model-00007").versions) == 3


def test_a_file_of_another_model_is_refused(store: Store, giant: GiantRegistry) -> None:
    giant.changed["models/model-00001.json"] = json.dumps(entry_of("model-00002")).encode()
    with pytest.raises(FormatError, match="model_id"):
        store.fetch("model-00001@1.0.0")


def test_an_unknown_model_costs_one_question(store: Store, server: ScriptedServer) -> None:
    with pytest.raises(NotFoundError, match='no model "unknown"'):
        store.fetch("unknown@1.0.0")
    assert asked(server).count("/models/unknown.json") <= 2


def test_search_finds_whole_ids_and_says_so(store: Store) -> None:
    told: list[str] = []
    with Store.open(store.home, progress=lambda event: told.append(event.text)) as fresh:
        assert [offer.model for offer in fresh.search("model-12345")] == ["model-12345"]
        assert fresh.search("language model") == []
    assert any("is split and has no list of models" in text for text in told)
    assert store.show("model-00007@1.2.0").changelog == "What is new in 1.2.0"


def test_fsck_repair_finds_its_way(store: Store, server: ScriptedServer) -> None:
    (store.home / "registries" / "giant" / "registry.json").write_bytes(b"{}")
    assert store.fsck(repair=True).remaining == []
    assert store.fsck().problems == []


def test_the_age_of_a_model_that_was_not_asked_for_is_told(store: Store) -> None:
    """Asking for one model makes `registry.json` fresh, and says nothing of the others."""
    start = time.time()
    told: list[str] = []

    def use(days: float, model: str, *, ask: bool) -> list[str]:
        told.clear()
        with store._session(lambda event: told.append(event.text)) as session:
            session.activity.clock = lambda: start + days * 86_400
            entry = session.registries.entry(session.registries.sources[0], model, fresh=ask)
            assert entry is not None
        return told

    one, other, _ = MINE
    assert use(0.9, one, ask=False) == []
    assert use(3, one, ask=True) == []
    assert use(3.1, one, ask=False) == []
    assert use(3.1, other, ask=False) == [f"giant: using a cached copy of {other} from 3 days ago"]
    assert use(3.1, other, ask=True) == []
    assert use(3.2, other, ask=False) == [], "that it is as it was is remembered, too"
