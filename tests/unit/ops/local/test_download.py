"""Imports of single files from the web, by their SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.support.servers import ScriptedServer, files
from yarnstore import Store
from yarnstore.errors import BackendError, ConflictError, FormatError, IntegrityError, SpecError, UsageError

DATA = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
OTHER = "0" * 64


def test_a_file_is_imported_if_it_has_its_hash(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home")
    with ScriptedServer(files({"models/tiny.gguf": DATA})) as server:
        url = f"{server.url}models/tiny.gguf"
        done = store.import_url(f"{url}?key=secret", "tiny@1.0.0", sha256=SHA256)
        assert (done.size_bytes, done.present, done.source) == (len(DATA), False, url)
        asked = len(server.seen)
        # In upper case, as PowerShell's Get-FileHash prints it.
        assert store.import_url(url, "tiny@1.0.0", sha256=SHA256.upper()).present
        assert len(server.seen) == asked
        with pytest.raises(IntegrityError, match="does not match the given SHA-256") as told:
            store.import_url(url, "tiny@2.0.0", sha256=OTHER)
        assert (told.value.fields["expected"], told.value.fields["got"]) == (
            f"sha256:{OTHER}",
            f"sha256:{SHA256}",
        )
        with pytest.raises(ConflictError):
            store.import_url(url, "tiny@1.0.0", sha256=OTHER)
        with pytest.raises(BackendError):
            store.import_url(f"{server.url}none", "tiny@2.0.0", sha256=SHA256)
    exported = Path(store.export("tiny@1.0.0", tmp_path / "out").path)
    assert exported.read_bytes() == DATA
    assert [row.version for row in store.list_versions()] == ["1.0.0"]
    assert store.fsck().problems == []
    assert not list((store.home / "registries").glob("*/*"))


def test_what_is_malformed(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home")
    for url, spec, sha256, error in (
        ("file:///etc/hosts", "m@1.0.0", SHA256, UsageError),
        ("model.gguf", "m@1.0.0", SHA256, UsageError),
        ("http://127.0.0.1:9/x", "m", SHA256, SpecError),
        ("http://127.0.0.1:9/x", "m@1.0.0", "abc", FormatError),
    ):
        with pytest.raises(error):
            store.import_url(url, spec, sha256=sha256)
    for address in ("http://127.0.0.1:9/x?key=secret", "https://127.0.0.1:9/x?key=secret"):
        with pytest.raises(UsageError, match="needs its SHA-256") as told:
            store.import_from(address, "m@1.0.0")
        assert "secret" not in str(told.value)
