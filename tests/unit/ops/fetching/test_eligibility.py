"""A version that was seen under one content is refused with another, until the change is accepted."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from yarnstore import Store
from yarnstore.errors import ConflictError
from yarnstore.store.seen import Seen

Publish = Callable[[Path, str, bytes], None]


def publish_file(registry: Path, version: str, data: bytes) -> None:
    _publish(registry, version, {"m.bin": data})


def publish_folder(registry: Path, version: str, data: bytes) -> None:
    _publish(registry, version, {"a/m.bin": data, "config.json": b"{}"})


def publish_split(registry: Path, version: str, data: bytes) -> None:
    _publish(registry, version, {"m.bin": data}, split=True)


def publish_variant(registry: Path, version: str, data: bytes) -> None:
    _publish(registry, f"{version}:cpu-int4", {"m.bin": data})


def publish_plain(registry: Path, version: str, data: bytes) -> None:
    """The plain schema: a `download_url` with a checksum."""
    registry.mkdir(exist_ok=True)
    path = registry / "registry.json"
    document = json.loads(path.read_text()) if path.exists() else {"models": {"m": {"versions": {}}}}
    (registry / f"{version}.bin").write_bytes(data)
    checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
    entry = {"download_url": f"{version}.bin", "checksum": checksum, "size_bytes": len(data)}
    document["models"]["m"]["versions"][version] = entry
    path.write_text(json.dumps(document))


def _publish(registry: Path, version: str, files: dict[str, bytes], *, split: bool = False) -> None:
    source = registry.parent / "source"
    for path, data in files.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)
    number, _, variant = version.partition(":")
    spec = f"m:{variant}@{number}" if variant else f"m@{number}"
    Store.publish(source, spec, registry=registry, split=split)
    shutil.rmtree(source)


def serve(root: Path, publish: Publish, **versions: bytes) -> None:
    """Have the registry at one address hold these versions and no other."""
    shutil.rmtree(root / "registry", ignore_errors=True)
    for name, data in versions.items():
        publish(root / "registry", name.removeprefix("v").replace("_", "."), data)


def open_store(root: Path, name: str = "home", notes: list[str] | None = None) -> Store:
    heard = notes if notes is not None else []
    store = Store.open(root / name, progress=lambda event: heard.append(event.text))
    if not store.settings.registries:
        store.add_registry("made", root / "registry")
    return store


def forget(store: Store) -> None:
    """Remove the model whole, so that nothing but the memory is left, and ask the registry anew."""
    store.remove("m", whole_model=True)
    store.gc()
    shutil.rmtree(store.home / "registries", ignore_errors=True)


every_kind = pytest.mark.parametrize(
    "publish", [publish_file, publish_folder, publish_split, publish_variant, publish_plain]
)


@every_kind
def test_another_content_is_refused_after_the_version_was_removed(publish: Publish, tmp_path: Path) -> None:
    serve(tmp_path, publish, v1_0_0=b"one" * 999)
    store = open_store(tmp_path)
    first = store.fetch("m@1.0.0").manifest
    forget(store)
    serve(tmp_path, publish, v1_0_0=b"two" * 999)
    for take in (store.fetch, store.checkout, store.path):
        with pytest.raises(ConflictError, match="different content") as caught:
            take("m@1.0.0")
        assert "--accept-change" in caught.value.hint
    assert store.list_versions() == []
    second = store.checkout("m@1.0.0", accept_change=True)
    assert Path(second.path, "a/m.bin" if publish is publish_folder else "").read_bytes() == b"two" * 999
    assert second.changed
    assert store.fsck().problems == []
    forget(store)
    assert store.fetch("m@1.0.0").manifest != first
    forget(store)
    serve(tmp_path, publish, v1_0_0=b"one" * 999)
    with pytest.raises(ConflictError, match="different content"):
        store.fetch("m@1.0.0")


@every_kind
def test_a_change_is_accepted_of_what_is_installed(publish: Publish, tmp_path: Path) -> None:
    serve(tmp_path, publish, v1_0_0=b"one" * 999)
    store = open_store(tmp_path)
    store.checkout("m@1.0.0")
    serve(tmp_path, publish, v1_0_0=b"two" * 999)
    assert not store.checkout("m@1.0.0").changed
    done = store.update_model("m@1.0.0", accept_change=True)
    assert done.status == "updated"
    assert store.fsck().problems == []
    assert not store.checkout("m@1.0.0").changed
    forget(store)
    assert store.checkout("m@1.0.0").download_bytes > 0


@every_kind
def test_an_update_to_a_version_that_changed_is_refused(publish: Publish, tmp_path: Path) -> None:
    serve(tmp_path, publish, v1_0_0=b"old" * 999, v1_1_0=b"one" * 999)
    store = open_store(tmp_path)
    store.checkout("m@1.1.0")
    forget(store)
    store.checkout("m@1.0.0")
    serve(tmp_path, publish, v1_0_0=b"old" * 999, v1_1_0=b"two" * 999)
    with pytest.raises(ConflictError, match="different content"):
        store.update_model("m")
    (failed,) = store.update_models().results
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "conflict"
    assert store.update_models("m", accept_change=True).updated == 1


def test_accepting_a_change_that_is_none_downloads_nothing(tmp_path: Path) -> None:
    for publish in (publish_file, publish_plain):
        serve(tmp_path, publish, v1_0_0=b"one" * 999)
        store = open_store(tmp_path, publish.__name__)
        store.checkout("m@1.0.0")
        again = store.checkout("m@1.0.0", accept_change=True)
        assert (again.changed, again.download_bytes) == (False, 0)


def test_the_same_content_in_another_form_is_no_change(tmp_path: Path) -> None:
    serve(tmp_path, publish_plain, v1_0_0=b"one" * 999)
    store = open_store(tmp_path)
    store.fetch("m@1.0.0")
    forget(store)
    serve(tmp_path, publish_file, v1_0_0=b"one" * 999)
    store.fetch("m@1.0.0")


def test_each_registry_has_its_own_memory_and_imports_have_none(tmp_path: Path) -> None:
    serve(tmp_path, publish_file, v1_0_0=b"one" * 999)
    store = open_store(tmp_path)
    store.fetch("m@1.0.0")
    forget(store)
    (tmp_path / "m.bin").write_bytes(b"two" * 999)
    store.import_model(tmp_path / "m.bin", "m@1.0.0")
    forget(store)
    (tmp_path / "registry").rename(tmp_path / "kept")
    serve(tmp_path, publish_file, v1_0_0=b"three" * 999)
    (tmp_path / "registry").rename(tmp_path / "other")
    store.add_registry("other", tmp_path / "other")
    store.set_network(registry="other")
    store.fetch("m@1.0.0")


def test_a_locked_version_that_changed_is_refused(tmp_path: Path) -> None:
    serve(tmp_path, publish_file, v1_0_0=b"one" * 999)
    store, path = open_store(tmp_path), tmp_path / "ystore.lock"
    store.fetch("m@1.0.0")
    forget(store)
    serve(tmp_path, publish_file, v1_0_0=b"two" * 999)
    store.lock("m@1.0.0", file=path)
    for take in (store.fetch_locked, store.checkout_locked):
        with pytest.raises(ConflictError, match="different content"):
            take(path)
    assert store.fetch_locked(path, accept_change=True)[0].version == "1.0.0"
    assert store.checkout_locked(path)[0].version == "1.0.0"


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 40])
def test_a_damaged_record_is_reported_and_stops_nothing(damage: bytes, tmp_path: Path) -> None:
    serve(tmp_path, publish_file, v1_0_0=b"one" * 999)
    notes: list[str] = []
    store = open_store(tmp_path, notes=notes)
    store.fetch("m@1.0.0")
    (record,) = (store.home / "logs/seen").iterdir()
    record.write_bytes(damage)
    assert [problem.kind for problem in store.fsck().problems] == ["seen"]
    forget(store)
    store.fetch("m@1.0.0")
    assert any(note.startswith(f"logs/seen/{record.name}") for note in notes)
    assert store.fsck().problems == []
    assert any(path.name.endswith(record.name) for path in (store.home / "trash").iterdir())
    record.write_bytes(damage)
    assert store.fsck(repair=True).remaining == []
    assert not record.exists()
    store.fetch("m@1.0.0")


def test_the_record_of_another_model_is_none(tmp_path: Path) -> None:
    serve(tmp_path, publish_file, v1_0_0=b"one" * 999)
    store = open_store(tmp_path)
    store.fetch("m@1.0.0")
    (record,) = (store.home / "logs/seen").iterdir()
    record.rename(record.with_name("0" * 64))
    assert [problem.kind for problem in store.fsck().problems] == ["seen"]


def test_the_oldest_of_more_than_a_thousand_versions_are_forgotten(tmp_path: Path) -> None:
    serve(tmp_path, publish_file, v1_0_0=b"one" * 999, v1_1_0=b"two" * 999)
    notes: list[str] = []
    store = open_store(tmp_path, notes=notes)
    store.fetch("m@1.0.0")
    (path,) = (store.home / "logs/seen").iterdir()
    record = msgspec.json.decode(path.read_bytes(), type=Seen)
    more = {f"default/2.{n}.0": "0" * 64 for n in range(999)}
    contents = {**record.contents, **more}
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, contents=contents).sealed()))
    store.fetch("m@1.1.0")
    assert list(json.loads(path.read_bytes())["contents"]) == [*more, "default/1.1.0"]
    assert "m: the recorded content of default/1.0.0 was dropped; at most 1000 versions are recorded" in notes


def test_the_command_line_names_the_way_out(tmp_path: Path) -> None:
    serve(tmp_path, publish_file, v1_0_0=b"one" * 999)
    store = open_store(tmp_path)
    store.fetch("m@1.0.0")
    forget(store)
    serve(tmp_path, publish_file, v1_0_0=b"two" * 999)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "yarnstore", "--home", str(store.home), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for command in ("fetch", "checkout"):
        refused = run(command, "m@1.0.0")
        assert refused.returncode == 1
        assert "--accept-change" in refused.stderr
    assert run("checkout", "m@1.0.0", "--accept-change").returncode == 0


def test_the_memory_of_a_folder_holds_under_each_spelling_of_its_address(tmp_path: Path) -> None:
    serve(tmp_path, publish_file, v1_0_0=b"one")
    with Store.open(tmp_path / "home") as store:
        store.add_registry("a", str(tmp_path / "registry"))
        store.fetch("m@1.0.0")
        store.remove("m", whole_model=True)
        store.remove_registry("a")
        serve(tmp_path, publish_file, v1_0_0=b"two")
        store.add_registry("b", (tmp_path / "registry").as_uri() + "/")
        with pytest.raises(ConflictError, match="had different content"):
            store.fetch("m@1.0.0")
