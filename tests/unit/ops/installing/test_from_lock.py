"""`lock` and `fetch --locked`: the very same versions again, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.stores import make_version
from yarnstore import Store
from yarnstore.errors import (
    ConflictError,
    FormatError,
    IncompatibleError,
    IntegrityError,
    NotFoundError,
    StorageError,
    UsageError,
)
from yarnstore.store.native import quoted


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """`registry` with phi 1.0.0, 1.1.0 and 2.0.0, and psi 1.0.0 in two variants."""
    for spec in ("phi@1.0.0", "phi@1.1.0", "phi@2.0.0", "psi:cpu@1.0.0", "psi:gpu@1.0.0"):
        source = make_version(tmp_path / "sources" / spec, spec) / "config.json"
        Store.publish(source, spec, registry=tmp_path / "registry")
    return tmp_path


def open_store(site: Path, name: str = "home") -> Store:
    store = Store.open(site / name)
    if not store.settings.registries:
        store.add_registry("made", site / "registry")
    return store


def locked(path: Path) -> dict[str, str]:
    return {item["requested"]: item["version"] for item in json.loads(path.read_text())["models"]}


def publish(site: Path, spec: str, text: str = "") -> None:
    source = make_version(site / "sources" / (spec + text), spec + text) / "config.json"
    Store.publish(source, spec, registry=site / "registry")


def rewrite(site: Path, model: str, **changes: Any) -> None:
    path = site / "registry" / "registry.json"
    raw = json.loads(path.read_text())
    raw["models"][model]["versions"]["1.1.0"].update(changes)
    path.write_text(json.dumps(raw))


def test_it_stays_until_it_is_updated(site: Path) -> None:
    store, path = open_store(site), site / "ystore.lock"
    first = store.lock("phi@^1.0", "psi", file=path)
    assert locked(path) == {"phi@^1.0": "1.1.0", "psi": "1.0.0"}
    assert [item.previous for item in first.builds] == [None, None]
    publish(site, "phi@1.2.0")
    assert store.lock("phi@^1.0", file=path).digest == first.digest
    assert store.lock(file=path).digest == first.digest
    data = path.read_bytes()
    assert not store.lock(file=path).changed
    moved = store.lock(file=path, update=True)
    assert moved.changed
    assert [(item.model, item.previous, item.version) for item in moved.builds] == [
        ("phi", "1.1.0", "1.2.0"),
        ("psi", "1.0.0", "1.0.0"),
    ]
    assert moved.digest != first.digest
    assert path.read_bytes() != data


def test_the_same_requests_make_the_same_bytes_anywhere(site: Path) -> None:
    open_store(site, "a").lock("psi:gpu", "phi@1.0.0", file=site / "a.lock")
    other = open_store(site, "b")
    other.lock("phi@1.0.0", file=site / "b.lock")
    other.lock("psi:gpu", file=site / "b.lock")
    assert (site / "a.lock").read_bytes() == (site / "b.lock").read_bytes()


def test_what_is_installed_here_has_no_say(site: Path) -> None:
    store = open_store(site)
    store.checkout("psi:gpu@1.0.0")
    (build,) = store.lock("psi", file=site / "ystore.lock").builds
    assert build.variant == "cpu", "the registry's first"


def test_a_request_takes_the_place_of_the_one_before(site: Path) -> None:
    store, path = open_store(site), site / "ystore.lock"
    store.lock("phi@^1.0", "psi:cpu", file=path)
    store.lock("phi@^2.0", "psi:gpu", file=path)
    assert locked(path) == {"phi@^2.0": "2.0.0", "psi:cpu": "1.0.0", "psi:gpu": "1.0.0"}
    with pytest.raises(UsageError):
        store.lock("phi@1.0.0", "phi@2.0.0", file=path)


def test_one_model_alone_is_updated(site: Path) -> None:
    store, path = open_store(site), site / "ystore.lock"
    store.lock("phi@*", "psi@*", file=path)
    publish(site, "phi@2.1.0")
    publish(site, "psi:cpu@1.1.0")
    store.lock("psi@*", file=path, update=True)
    assert locked(path) == {"phi@*": "2.0.0", "psi@*": "1.1.0"}


def test_fetching_brings_what_is_locked_and_nothing_else(site: Path) -> None:
    path = site / "ystore.lock"
    open_store(site).lock("phi@^1.0", "psi:gpu", file=path)
    publish(site, "phi@1.2.0")
    store = open_store(site, "elsewhere")
    done = store.fetch_locked(path)
    assert [(item.model, item.variant, item.version) for item in done] == [
        ("phi", "default", "1.1.0"),
        ("psi", "gpu", "1.0.0"),
    ]
    refs = store.home / "refs" / "versions"
    assert sorted(ref.relative_to(refs).as_posix() for ref in refs.rglob("*") if ref.is_file()) == [
        "phi/default/1.1.0",
        "psi/gpu/1.0.0",
    ]
    assert sum(item.download_bytes for item in store.fetch_locked(path)) == 0


def test_another_manifest_in_the_registry_is_refused_before_anything_is_fetched(site: Path) -> None:
    path = site / "ystore.lock"
    open_store(site).lock("phi@^1.0", "psi:gpu", file=path)
    rewrite(site, "phi", manifest="sha256:" + "ab" * 32)
    store = open_store(site, "elsewhere")
    with pytest.raises(IntegrityError, match="does not match the lock file"):
        store.fetch_locked(path)
    assert not list((store.home / "packs").glob("*"))


def test_another_content_in_the_store_is_refused(site: Path) -> None:
    path = site / "ystore.lock"
    open_store(site).lock("phi@^1.0", file=path)
    store = Store.open(site / "elsewhere")
    store.import_model(make_version(site / "other", "other") / "config.json", "phi@1.1.0")
    with pytest.raises(ConflictError, match="different content in the store than in the lock file"):
        store.fetch_locked(path)


def test_a_version_with_no_manifest_is_locked_by_its_checksum(site: Path) -> None:
    path, raw = site / "ystore.lock", site / "registry" / "registry.json"
    doc = json.loads(raw.read_text())
    (site / "registry" / "phi.json").write_bytes(
        (site / "sources" / "phi@1.1.0" / "config.json").read_bytes()
    )
    entry = doc["models"]["phi"]["versions"]["1.1.0"]
    for key in ("manifest", "packs", "deltas"):
        entry.pop(key, None)
    entry["download_url"] = "phi.json"
    raw.write_text(json.dumps(doc))
    (build,) = open_store(site).lock("phi@^1.0", file=path).builds
    assert (build.manifest, build.checksum) == (None, entry["checksum"])
    store = open_store(site, "elsewhere")
    assert store.fetch_locked(path)[0].version == "1.1.0"
    assert store.fetch_locked(path)[0].chunks_fetched == 0
    for name, content in (("one file", "config.json"), ("a folder", "")):
        other = open_store(site, name)
        other.import_model(make_version(site / "other" / name, "other") / content, "phi@1.1.0")
        for call in (other.fetch_locked, other.checkout_locked):
            with pytest.raises(ConflictError, match="different content in the store than in the lock file"):
                call(path)
        assert other.list_installed_models() == []
    assert store.checkout_locked(path)[0].version == "1.1.0"
    rewrite(site, "phi", checksum="sha256:" + "ab" * 32)
    with pytest.raises(IntegrityError, match="checksum"):
        open_store(site, "third").fetch_locked(path)


def test_what_was_yanked_since_still_comes_and_is_not_locked_anew(site: Path) -> None:
    path = site / "ystore.lock"
    store = open_store(site)
    store.lock("phi@1.1.0", file=path)
    Store.yank("phi@1.1.0", registry=site / "registry")
    told: list[str] = []
    other = open_store(site, "elsewhere")
    assert other.fetch_locked(path, progress=lambda event: told.append(event.text))[0].version == "1.1.0"
    assert any("1.1.0" in text and ("yanked" in text or "withdrawn" in text) for text in told)
    store.refresh_registries()
    with pytest.raises(IncompatibleError):
        store.lock("phi@1.1.0", file=path, update=True)


def test_no_lock_file_and_a_broken_one(site: Path) -> None:
    store = open_store(site)
    with pytest.raises(NotFoundError, match="no lock file"):
        store.fetch_locked(site / "ystore.lock")
    with pytest.raises(NotFoundError, match="no lock file"):
        store.lock(file=site / "ystore.lock", update=True)
    with pytest.raises(NotFoundError, match="no model"):
        store.lock("nothing", file=site / "ystore.lock")
    assert not (site / "ystore.lock").exists()
    (site / "ystore.lock").write_text("<<<<<<< HEAD\n")
    for call in (store.fetch_locked, lambda file: store.lock("phi", file=file)):
        with pytest.raises(FormatError, match=re.escape(str(site / "ystore.lock"))) as caught:
            call(site / "ystore.lock")
        assert "`ystore lock" in caught.value.hint


def test_a_lock_file_may_be_a_link_and_stays_one(site: Path) -> None:
    store, path, link = open_store(site), site / "real" / "ystore.lock", site / "ystore.lock"
    path.parent.mkdir()
    link.symlink_to(path)
    store.lock("phi@1.0.0", file=link)
    store.lock("psi:cpu", file=link)
    assert link.is_symlink()
    assert locked(path) == {"phi@1.0.0": "1.0.0", "psi:cpu": "1.0.0"}
    assert [result.version for result in store.fetch_locked(link)] == ["1.0.0", "1.0.0"]
    (site / "loop").symlink_to("loop")
    with pytest.raises(StorageError, match="is a link"):
        store.fetch_locked(site / "loop")


def test_a_check_compares_with_the_registry_and_writes_nothing(site: Path) -> None:
    store, path = open_store(site), site / "ystore.lock"
    done = store.lock("phi@~1.1", "psi:gpu", file=path)
    before = path.read_bytes()
    found = store.check_lock(path)
    assert (found.digest, found.changed) == (done.digest, False)
    assert [item.version for item in found.builds] == ["1.1.0", "1.0.0"]
    rewrite(site, "phi", manifest="0" * 64)
    with pytest.raises(IntegrityError, match="does not match the lock file"):
        store.check_lock(path)
    assert path.read_bytes() == before
    assert store.list_versions() == []


def test_a_check_names_a_locked_version_that_the_registry_no_longer_has(site: Path) -> None:
    store, path = open_store(site), site / "ystore.lock"
    store.lock("phi@~1.1", file=path)
    index = site / "registry" / "registry.json"
    raw = json.loads(index.read_text())
    del raw["models"]["phi"]["versions"]["1.1.0"]
    index.write_text(json.dumps(raw))
    with pytest.raises(NotFoundError, match=r"1\.1\.0"):
        store.check_lock(path)


def test_a_check_refuses_a_version_that_was_not_requested(site: Path) -> None:
    """As a merge leaves it, which takes the request of one side and the version of the other."""
    store, path = open_store(site), site / "ystore.lock"
    for spec, other in (("phi@^1.0", "phi@^2.0"), ("phi@1.1.0", "phi@1.0.0"), ("psi:gpu", "psi:gpu@^2")):
        path.unlink(missing_ok=True)
        store.lock(spec, file=path)
        path.write_text(path.read_text().replace(f'"requested": "{spec}"', f'"requested": "{other}"'))
        assert locked(path).keys() == {other}
        with pytest.raises(FormatError, match=rf"has \S+ for {re.escape(other)}") as told:
            store.check_lock(path)
        assert f"lock --update {quoted(other)}" in told.value.hint
        assert store.fetch_locked(path)  # which installs what is locked
    path.unlink()
    store.lock("phi@1", "phi:default@latest", file=path)
    assert store.check_lock(path).builds


def test_a_check_passes_a_yanked_version(site: Path) -> None:
    store, path = open_store(site), site / "ystore.lock"
    store.lock("phi@~1.1", file=path)
    rewrite(site, "phi", yanked=True)
    assert [item.version for item in store.check_lock(path).builds] == ["1.1.0"]
