"""A registry that answers with an older state of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import ScriptedServer, files
from yarnstore import Store
from yarnstore.errors import RolledBackError
from yarnstore.progress import Progress

NEW, OLD = "2024-03-01T00:00:00Z", "2024-02-01T00:00:00Z"


def registry(last_updated: str | None, *versions: str, **changes: Any) -> dict[str, bytes]:
    """A registry of `phi`, in the plain schema."""
    entries = {
        version: {"checksum": "0" * 64, "download_url": f"{version}.onnx", "size_bytes": 1}
        for version in versions
    }
    doc: dict[str, Any] = {"models": {"phi": {"current_version": versions[-1], "versions": entries}}}
    if last_updated is not None:
        doc["last_updated"] = last_updated
    return {"registry.json": json.dumps({**doc, **changes}).encode()}


class Place:
    """A registry that is rewritten, and a store that knows it."""

    def __init__(self, home: Path, server: ScriptedServer) -> None:
        self.home, self.server = home, server
        self.notes: list[str] = []

    def serve(self, tree: dict[str, bytes]) -> None:
        self.server.rescript(files(tree))

    def open(self) -> Store:
        def note(event: Progress) -> None:
            if event.phase == "note":
                self.notes.append(event.text)

        return Store.open(self.home, progress=note)

    def offered(self) -> list[str]:
        """The versions that a command finds which asks the registry anew."""
        return self.open().show("phi@*").versions


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ScriptedServer(files(registry(NEW, "1.0.0", "1.1.0"))) as server:
        made = Place(tmp_path / "home", server)
        made.open().add_registry("yarn", server.url)
        yield made


def test_it_is_refused_and_what_it_said_before_still_counts(place: Place) -> None:
    place.serve(registry(OLD, "1.0.0"))
    with pytest.raises(RolledBackError) as caught:
        place.open().refresh_registries()
    assert (caught.value.fields["before"], caught.value.fields["now"]) == (NEW, OLD)
    assert "ystore registry refresh yarn --accept-rollback" in caught.value.hint
    assert place.offered() == ["1.0.0", "1.1.0"]
    (said,) = place.notes
    assert NEW in said
    assert OLD in said
    assert "--accept-rollback" in said


def test_it_is_believed_where_its_user_says_so_and_from_then_on(place: Place) -> None:
    place.serve(registry(OLD, "1.0.0"))
    (info,) = place.open().refresh_registries("yarn", accept_rollback=True)
    assert info.last_updated == OLD
    place.open().refresh_registries()
    assert place.offered() == ["1.0.0"]
    place.serve(registry("2024-01-01T00:00:00Z", "1.0.0"))
    with pytest.raises(RolledBackError):
        place.open().refresh_registries()


@pytest.mark.parametrize("lost", ["registry.json", "fetched.json"])
def test_a_cache_that_is_lost_or_damaged_is_no_way_in(place: Place, lost: str) -> None:
    path = place.home / "registries" / "yarn" / lost
    place.serve(registry(OLD, "1.0.0"))
    for data in (b"{}", None):
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        with pytest.raises(RolledBackError):
            place.open().refresh_registries()
        with pytest.raises(RolledBackError):
            place.offered()


def test_repair_is_no_way_in(place: Place) -> None:
    (place.home / "registries" / "yarn" / "registry.json").write_bytes(b"{}")
    place.serve(registry(OLD, "1.0.0"))
    place.open().fsck(repair=True)
    with pytest.raises(RolledBackError):
        place.open().refresh_registries()


def test_a_store_that_kept_no_time_goes_by_its_cached_registry(place: Place) -> None:
    (place.home / "registries" / "yarn" / "newest.json").unlink()
    place.serve(registry(OLD, "1.0.0"))
    with pytest.raises(RolledBackError):
        place.open().refresh_registries()


def test_nothing_is_kept_of_an_answer_that_is_no_registry(place: Place) -> None:
    path = place.home / "registries" / "yarn" / "newest.json"
    before = path.read_bytes()
    broken = registry("2024-06-01T00:00:00Z", "1.0.0")["registry.json"].replace(b"1.0.0", b"one")
    place.serve({"registry.json": broken})
    assert place.offered() == ["1.0.0", "1.1.0"]
    assert path.read_bytes() == before
    place.serve(registry(NEW, "1.0.0", "1.1.0", "1.2.0"))
    assert place.offered() == ["1.0.0", "1.1.0", "1.2.0"], "the same time is not older"


def test_what_a_registry_without_a_time_says_is_believed(tmp_path: Path) -> None:
    """The plain schema as people write it by hand, where a version may go with good reason."""
    with ScriptedServer(files(registry(None, "1.0.0", "1.1.0"))) as server:
        place = Place(tmp_path / "home", server)
        place.open().add_registry("yarn", server.url)
        place.serve(registry(None, "1.0.0"))
        assert place.offered() == ["1.0.0"]
        place.serve(registry("last tuesday", "1.1.0"))
        assert place.offered() == ["1.1.0"]
        place.serve(registry(OLD, "1.0.0"))
        assert place.offered() == ["1.0.0"]
    assert place.notes == []


def test_a_time_that_goes_missing_is_told_of_and_not_forgotten(place: Place) -> None:
    place.serve(registry(None, "1.0.0", "1.2.0"))
    assert place.offered() == ["1.0.0", "1.2.0"]
    assert [NEW in note for note in place.notes] == [True]
    place.serve(registry(OLD, "1.0.0"))
    with pytest.raises(RolledBackError):
        place.open().refresh_registries()


def test_one_answer_from_the_future_does_not_have_all_others_refused(place: Place) -> None:
    place.serve(registry("9999-01-01T00:00:00Z", "1.0.0", "9.0.0"))
    assert place.offered() == ["1.0.0", "9.0.0"]
    later = "2024-04-01T00:00:00Z"
    place.serve(registry(later, "1.0.0", "1.2.0"))
    assert place.offered() == ["1.0.0", "1.2.0"]
    place.serve(registry(OLD, "1.0.0"))
    with pytest.raises(RolledBackError) as caught:
        place.open().refresh_registries()
    assert caught.value.fields["before"] == later
    (place.home / "registries" / "yarn" / "newest.json").unlink()
    place.serve(registry("9999-01-01T00:00:00Z", "1.0.0", "9.0.0"))
    place.open().refresh_registries()
    place.serve(registry(OLD, "1.0.0"))
    assert place.offered() == ["1.0.0"], "the cached registry of the far future counts as little"


def test_another_address_begins_anew(place: Place) -> None:
    with ScriptedServer(files(registry(OLD, "1.0.0"))) as other:
        store = place.open()
        store.remove_registry("yarn")
        store.add_registry("yarn", other.url)
        assert place.offered() == ["1.0.0"]


def test_offline_goes_by_the_cache_as_before(place: Place) -> None:
    place.serve(registry(OLD, "1.0.0"))
    store = place.open()
    store.set_network(offline=True)
    assert store.show("phi@1.1.0").versions == ["1.0.0", "1.1.0"]


def test_a_split_registry_is_told_by_its_registry_json(tmp_path: Path) -> None:
    model = json.loads(registry(None, "1.0.0", "1.1.0")["registry.json"])["models"]["phi"]

    def split(last_updated: str) -> dict[str, bytes]:
        top = {"last_updated": last_updated, "split": True, "models": {}}
        own = {"model_id": "phi", **model}
        return {"registry.json": json.dumps(top).encode(), "models/phi.json": json.dumps(own).encode()}

    with ScriptedServer(files(split(NEW))) as server:
        place = Place(tmp_path / "home", server)
        place.open().add_registry("yarn", server.url)
        assert place.offered() == ["1.0.0", "1.1.0"]
        place.serve(split(OLD))
        server.seen.clear()
        assert place.offered() == ["1.0.0", "1.1.0"]
        assert [seen.path for seen in server.seen] == ["/registry.json"], "nothing more is asked of it"
