"""`local-state.json` says what the refs say, keeps what others put there, and is mended when it does not."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.stores import MODEL, Site, make_site
from yarnstore import Store
from yarnstore.errors import FormatError
from yarnstore.store import state
from yarnstore.store.layout import StoreLayout
from yarnstore.store.refs import Refs
from yarnstore.store.state import parse_state, read_state, state_fault

OTHER = "org/whisper"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Two models, 1.0.0 of both installed, one of them used."""
    site = make_site(tmp_path_factory.mktemp("state"), models=(MODEL, OTHER), versions=("1.0.0", "1.1.0"))
    with site.store() as store:
        for model in site.models:
            store.checkout(f"{model}@1.0.0")
        store.path(MODEL)
        store.checkout(f"{MODEL}@1.0.0")  # changes nothing but what is told
    return site


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    return made.copy(tmp_path)


def told(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site.home / "local-state.json").read_text())
    return found


def fault(site: Site) -> str:
    layout = StoreLayout(site.home)
    with Refs(layout).moving():
        return state_fault(layout)


def test_the_established_schema(site: Site) -> None:
    with site.store() as store:
        store.checkout(f"{MODEL}@1.1.0")
        (row,) = [item for item in store.list_installed_models() if item.model == MODEL]
    found = told(site)
    assert list(found) == ["installed_models", "last_check", "auto_update_enabled"]
    assert sorted(found["installed_models"]) == [OTHER, MODEL]
    entry = found["installed_models"][MODEL]
    assert list(entry) == [
        "model_id", "version", "installed_at", "last_used", "file_path", "checksum", "size_bytes",
    ]  # fmt: skip
    assert (entry["model_id"], entry["version"], entry["size_bytes"]) == (MODEL, "1.1.0", row.size_bytes)
    assert entry["file_path"] == str(site.home / "models" / MODEL)
    assert row.path == str((site.home / "models" / MODEL).resolve())
    assert entry["checksum"] == row.checksum == row.manifest  # of several files
    assert time.strptime(entry["installed_at"], "%Y-%m-%dT%H:%M:%SZ")
    assert entry["last_used"] is None
    assert (found["last_check"], found["auto_update_enabled"]) == (None, False)


def test_each_change_is_told(site: Site) -> None:
    def versions() -> dict[str, str]:
        models = told(site)["installed_models"]
        return {model: entry["version"] for model, entry in models.items()}

    with site.store() as store:
        store.checkout(f"{MODEL}@1.1.0")
        assert versions() == {MODEL: "1.1.0", OTHER: "1.0.0"}
        store.rollback_model(MODEL)
        assert versions() == {MODEL: "1.0.0", OTHER: "1.0.0"}
        store.update_model(OTHER)
        assert versions() == {MODEL: "1.0.0", OTHER: "1.1.0"}
        store.path(OTHER)
        store.check_for_updates()
        assert told(site)["installed_models"][OTHER]["last_used"] is not None
        assert told(site)["last_check"] is not None
        store.remove(OTHER, whole_model=True)
        assert versions() == {MODEL: "1.0.0"}
        store.remove(MODEL, whole_model=True)
        assert versions() == {}
        assert store.fsck().problems == []


def test_what_others_put_there_stays(site: Site) -> None:
    path = site.home / "local-state.json"
    found = told(site)
    found["theme"] = {"dark": True}
    found["installed_models"][MODEL]["nickname"] = "phi"
    path.write_text(json.dumps(found))
    assert fault(site) == ""
    with site.store() as store:
        store.checkout(f"{MODEL}@1.1.0")
    found = told(site)
    assert found["theme"] == {"dark": True}
    assert found["installed_models"][MODEL]["nickname"] == "phi"
    assert found["installed_models"][MODEL]["version"] == "1.1.0"


def test_a_damaged_one_is_kept_aside_when_it_is_written_anew(site: Site) -> None:
    path = site.home / "local-state.json"
    path.write_bytes(b'{"theirs": 1, "installed_mo')
    with site.store() as store:
        store.checkout(f"{MODEL}@1.1.0")
        assert store.fsck().problems == []
    assert told(site)["installed_models"][MODEL]["version"] == "1.1.0"
    (kept,) = (site.home / "trash").glob("*-local-state.json")
    assert kept.read_bytes() == b'{"theirs": 1, "installed_mo'


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"installed_models": []}', b"\xff\xfe", b"x" * 99, None]
)
def test_a_damaged_or_missing_one_is_made_anew(made: Site, site: Site, data: bytes | None) -> None:
    path = site.home / "local-state.json"
    before = told(site)
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    assert (fault(site) == "") == (data is None)
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")  # which is installed already
    after = told(site)
    for entry in before["installed_models"].values():  # it was made at another place
        entry["file_path"] = entry["file_path"].replace(str(made.home), str(site.home))
    assert after == before
    assert fault(site) == ""


def _checked_values(site: Site) -> list[str]:
    found = told(site)
    values = [str(value) for entry in found["installed_models"].values() for value in entry.values() if value]
    return [json.dumps(value)[1:-1] for value in (*values, *found["installed_models"], "false")]


def test_a_flipped_bit_in_what_counts_is_found_and_mended(made: Site, site: Site) -> None:
    path = site.home / "local-state.json"
    sound = path.read_bytes()
    counts = set()
    for value in _checked_values(site):
        start = sound.index(value.encode())
        counts |= set(range(start, start + len(value)))
    for match in ('"installed_models"', '"checksum"', '"version"', '"size_bytes"', '"file_path"'):
        start = sound.index(match.encode())
        counts |= set(range(start, start + len(match)))
    random_ = random.Random(4)
    entry = told(site)["installed_models"][MODEL]
    # The last use is told, not checked: the marks change without this file.
    loose = sound.index(entry["last_used"].encode())
    loose_places = set(range(loose, loose + len(entry["last_used"])))
    # A store that was moved is sound: what comes before its own part of a path is told, not checked.
    for each in told(site)["installed_models"].values():
        start = sound.index(json.dumps(each["file_path"])[1:-1].encode())
        loose_places |= set(range(start, start + len(json.dumps(str(made.home))) - 2))
    for offset in random_.sample(sorted(counts - loose_places), 60):
        data = bytearray(sound)
        data[offset] ^= 1 << random_.randrange(8)
        path.write_bytes(data)
        assert fault(site), f"byte {offset}: {bytes(data[max(0, offset - 20) : offset + 20])!r}"
    with site.store() as store:
        problems = store.fsck(quick=True).problems
        assert [(item.kind, item.where) for item in problems] == [("state", "local-state.json")]
        done = store.fsck(repair=True)
        assert done.remaining == []
        assert done.repaired == ["local-state.json: rewritten from the refs"]
    assert fault(site) == ""
    assert told(site)["installed_models"][OTHER] == {
        **json.loads(sound)["installed_models"][OTHER],
        "file_path": str(site.home / "models" / "org~whisper"),
    }
    assert list((site.home / "trash").glob("bad-*local-state.json")), "a repair loses nothing"


@pytest.mark.parametrize(
    ("key", "value"),
    [("version", "1.1.0"), ("size_bytes", 3), ("checksum", None), ("installed_at", "2020-01-01T00:00:00Z"),
     ("model_id", "x"), ("file_path", "/elsewhere"), ("last_used", "yesterday"), ("last_used", 3)],
)  # fmt: skip
def test_what_is_said_otherwise_is_named(site: Site, key: str, value: object) -> None:
    found = told(site)
    found["installed_models"][MODEL][key] = value
    (site.home / "local-state.json").write_text(json.dumps(found))
    assert fault(site) == f"has wrong values for {MODEL}: {key}"


def test_too_many_too_few_and_odd_settings(site: Site) -> None:
    path = site.home / "local-state.json"
    found = told(site)
    for change, says in (
        ({"installed_models": {}}, "does not list"),
        (
            {"installed_models": {**found["installed_models"], "gone": {}}},
            "lists gone, which is not installed",
        ),
        ({"last_check": "soon"}, "last_check"),
        ({"auto_update_enabled": "yes"}, "auto_update_enabled"),
    ):
        path.write_text(json.dumps({**found, **change}))
        assert says in fault(site)
        with Store.open(site.home) as store:
            assert store.fsck(repair=True).remaining == []


def test_a_model_whose_ref_is_damaged_is_no_fault_of_the_file(site: Site) -> None:
    (site.home / "refs" / "installed" / MODEL).write_bytes(b"sha256:bad\n")
    assert fault(site) == ""
    with site.store() as store:
        done = store.fsck(repair=True)
        assert done.remaining == []
        assert {item.kind for item in done.problems} == {"ref"}
    assert fault(site) == ""


def test_a_store_of_an_earlier_release_has_none(site: Site) -> None:
    (site.home / "local-state.json").unlink()
    with site.store() as store:
        assert store.fsck().problems == []
        store.checkout(f"{MODEL}@1.1.0")
    assert sorted(told(site)["installed_models"]) == [OTHER, MODEL]


def test_many_at_once_lose_none(tmp_path: Path) -> None:
    models = tuple(f"m{n}" for n in range(6))
    site = make_site(tmp_path, models=models, versions=("1.0.0", "1.1.0"))
    with site.store() as store:
        for model in models:
            store.checkout(f"{model}@1.0.0")

    def work(model: str) -> None:
        with site.store() as store:
            store.checkout(f"{model}@1.1.0")

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry["version"] for entry in told(site)["installed_models"].values()} == {"1.1.0"}
    assert fault(site) == ""


def test_it_cannot_be_written_and_nothing_else_is_hurt(site: Site) -> None:
    path = site.home / "local-state.json"
    path.unlink()
    path.mkdir()
    notes: list[str] = []
    with Store.open(site.home, progress=lambda event: notes.append(event.text)) as store:
        assert store.checkout(f"{MODEL}@1.1.0").version == "1.1.0"
    assert any("local-state.json could not be written" in note for note in notes)


def test_telling_costs_a_rollback_little(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the processor's time and by syncs, which a busy machine does not change."""
    spent: list[float] = []
    syncs: list[int] = []
    real_write, real_sync = state.write_state, os.fsync

    def timed(*args: Any, **more: Any) -> bool:
        started, before = time.thread_time(), len(syncs)
        try:
            return real_write(*args, **more)
        finally:
            spent.append(time.thread_time() - started)
            assert len(syncs) - before <= 2

    def counted(fd: int) -> None:
        syncs.append(fd)
        real_sync(fd)

    with site.store() as store:
        store.checkout(f"{MODEL}@1.1.0")
        monkeypatch.setattr("yarnstore.ops.installing.activate.write_state", timed)
        monkeypatch.setattr(os, "fsync", counted)
        for _ in range(5):
            store.rollback_model(MODEL, "1.0.0")
            store.rollback_model(MODEL, "1.1.0")
    assert len(spent) == 10
    assert sorted(spent)[5] < 0.005


@pytest.mark.parametrize("data", [b"{}", b'{"installed_models": {"a": 3}}', b"null", b"[" * 100_000])
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_state(data)


def test_none_is_none(tmp_path: Path) -> None:
    assert read_state(StoreLayout(tmp_path)) is None
