"""A session never changes; what it learns of registries is shared by its threads, and asked for once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.registries import publish
from tests.support.servers import Reply, ScriptedServer, Seen
from yarnstore import Store
from yarnstore.ops.session.session import Session
from yarnstore.store.layout import StoreLayout

THREADS = 8


def test_a_session_does_not_change(tmp_path: Path) -> None:
    session = Session.without_registries(StoreLayout(tmp_path))
    for name in Session.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(session, name, None)


def test_a_session_beside_another_shares_nothing_that_was_learned(tmp_path: Path) -> None:
    publish(tmp_path / "registry", "m@1.0.0")
    with Store.open(tmp_path / "home") as store:
        store.add_registry("made", tmp_path / "registry")
        with store._session() as session:
            source = session.registries.source("made")
            known = session.registries.refresh(source)
            other = session.again(only="made")
            same = {name for name in Session.__struct_fields__ if name != "registries"}
            assert all(getattr(other, name) is getattr(session, name) for name in same)
            assert other.registries.only == "made"
            assert other.registries.refresh(source) is not known
            assert session.registries.refresh(source) is known
            other.close()


@pytest.mark.parametrize("split", [False, True])
def test_threads_ask_a_registry_once(tmp_path: Path, split: bool) -> None:
    registry = tmp_path / "registry"
    for n in range(3):
        source = tmp_path / f"{n}.bin"
        source.write_bytes(b"weights" * (n + 1))
        Store.publish(source, f"m{n}@1.0.0", registry=registry, changelog="New", split=split)

    def served(seen: Seen) -> Reply:
        path = registry / seen.path.lstrip("/")
        return Reply(body=path.read_bytes()) if path.is_file() else Reply(status=404)

    with ScriptedServer(served) as server, Store.open(tmp_path / "home") as store:
        store.add_registry("made", server.url)
        server.seen.clear()
        with store._session() as session, ThreadPoolExecutor(THREADS) as pool:
            source = session.registries.source("made")
            ask = [f"m{n % 3}" for n in range(THREADS * 3)]
            found = list(pool.map(lambda model: session.registries.entry(source, model, fresh=True), ask))
        assert [entry.model_id for entry in found if entry is not None] == ask
        asked = sorted(seen.path for seen in server.seen)
        models = [f"/models/m{n}.json" for n in range(3)] if split else []
        assert asked == [*models, "/registry.json"]
