"""Versions that are one file at a `download_url`: what is wrong with their entry is named by its field."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from yarnstore import Store
from yarnstore.errors import YarnstoreError

DATA = bytes(range(256)) * 20
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


def make_store(root: Path, notes: list[str] | None = None, **fields: object) -> Store:
    """A store with one registry, of one version, whose entry has these fields."""
    registry = root / "registry"
    registry.mkdir(parents=True)
    (registry / "f.bin").write_bytes(DATA)
    entry = {"checksum": SHA256, "download_url": "f.bin", "size_bytes": len(DATA), **fields}
    document = {"models": {"m": {"versions": {"1.0.0": entry}}}}
    (registry / "registry.json").write_text(json.dumps(document))
    heard = notes if notes is not None else []
    store = Store.open(root / "home", progress=lambda event: heard.append(event.text))
    store.add_registry("here", registry)
    return store


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size_bytes", 0),
        ("size_bytes", len(DATA) - 1),
        ("size_bytes", len(DATA) + 1),
        ("checksum", "sha256:" + "0" * 64),
        ("download_url", ""),
        ("download_url", " "),
        ("download_url", " f.bin"),
        ("download_url", "f.bin\n"),
        ("download_url", "/f.bin"),
        ("download_url", "../f.bin"),
        ("download_url", "a//f.bin"),
        ("download_url", "ftp://models.example/f.bin"),
        ("download_url", "http://[models.example/f.bin"),
        ("download_url", "http:///f.bin"),
        ("download_url", "http://models.example:port/f.bin"),
    ],
)
def test_an_error_names_the_field_the_version_and_the_registry(
    field: str, value: object, tmp_path: Path
) -> None:
    with make_store(tmp_path, **{field: value}) as store, pytest.raises(YarnstoreError) as caught:
        store.checkout("m")
    assert caught.value.message.startswith("m 1.0.0 in here: ")
    assert field in caught.value.message
    assert caught.value.hint


def test_a_mirror_that_is_no_address_is_named_and_passed_over(tmp_path: Path) -> None:
    notes: list[str] = []
    with make_store(tmp_path, notes, download_url="", mirrors=["http://[", "f.bin"]) as store:
        assert store.checkout("m").version == "1.0.0"
    assert [note for note in notes if note.startswith("m 1.0.0 in here: ")] == [
        "m 1.0.0 in here: download_url is empty",
        "m 1.0.0 in here: mirrors[0] is not a URL: 'http://['",
    ]


@pytest.mark.parametrize("url", ["", "http://[", "ftp://models.example/", "file://[", "http://a:b/"])
def test_a_registry_whose_own_mirrors_are_no_addresses_still_serves(url: str, tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        path = tmp_path / "registry" / "registry.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "mirrors": [url]}))
        store.refresh_registries()
        assert store.checkout("m").version == "1.0.0"
        assert store.list_registries()[0].models == 1
