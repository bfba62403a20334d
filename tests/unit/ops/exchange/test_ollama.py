"""Ollama's store: imports of its tags, and exports that it finds."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.support.tools import add_tag, gguf, tree
from yarnstore import Store
from yarnstore.errors import FormatError, IntegrityError, NotFoundError, UsageError

MODEL = gguf("Tiny", random.Random(6).randbytes(100_000))
LAYERS = {
    "model": MODEL,
    "template": b"{{ .Prompt }}",
    "params": b'{"stop":["<|end|>"]}',
    "license": b"MIT",
    "adapter": gguf("Adapter", bytes(2000)),
}
TAG = "registry.ollama.ai/library/tiny/1b"


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ollama's store, with one model."""
    add_tag(tmp_path / "ollama", TAG, LAYERS)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    return tmp_path / "ollama"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


def test_a_tag_becomes_a_variant_and_comes_back_byte_for_byte(
    store: Store, ollama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (done,) = store.import_from("ollama://tiny")
    assert (done.model, done.variant) == ("tiny", "1b")
    assert done.version == f"0.0.1+{(done.revision or '')[:7]}"
    assert store.import_from("ollama://tiny:1b")[0].present
    folder = Path(store.export(f"tiny:1b@{done.version}", tmp_path / "plain").path)
    assert (folder / "model.gguf").read_bytes() == MODEL
    assert {path.name for path in folder.iterdir()} == {
        *("model.gguf", "template.txt", "params.json", "license.txt", "adapter.gguf"),
    }
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "other"))
    written = store.export(f"tiny:1b@{done.version}", "ollama://tiny")
    assert Path(written.path) == tmp_path / "other/manifests" / TAG
    assert tree(tmp_path / "other") == tree(ollama)
    # The manifest does not depend on the name, and what exists is not written again.
    assert store.export(f"tiny:1b@{done.version}", "ollama://me/copy:x").how == "present"
    assert (tmp_path / "other/manifests/registry.ollama.ai/me/copy/x").is_file()


def test_a_model_of_another_source_gets_a_manifest(store: Store, ollama: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "Tiny-Q8.gguf").write_bytes(MODEL)
    (source / "mmproj-tiny.gguf").write_bytes(LAYERS["adapter"])
    (source / "template.txt").write_bytes(LAYERS["template"])
    (source / "README.md").write_bytes(b"# Tiny")
    store.import_model(source, "own@1.0.0")
    path = Path(store.export("own@1.0.0", "ollama://own").path)
    assert path == ollama / "manifests/registry.ollama.ai/library/own/latest"
    manifest = json.loads(path.read_bytes())
    kinds = [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]]
    assert kinds == ["model", "projector", "template"]
    config = json.loads((ollama / "blobs" / manifest["config"]["digest"].replace(":", "-")).read_bytes())
    assert config["model_family"] == "llama"
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    (again,) = store.import_from("ollama://own", "own@2.0.0")
    assert Path(store.export("own@2.0.0", tmp_path / "out").path, "model.gguf").read_bytes() == MODEL
    assert again.variant == "default"


def test_what_is_not_there_or_not_right(store: Store, ollama: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="Did you mean tiny"):
        store.import_from("ollama://tinny")
    with pytest.raises(NotFoundError, match='no tag "2b"'):
        store.import_from("ollama://tiny:2b")
    (tmp_path / "two").mkdir()
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "two" / name).write_bytes(MODEL)
    store.import_model(tmp_path / "two", "two@1.0.0")
    with pytest.raises(UsageError, match="2 GGUF models"):
        store.export("two@1.0.0", "ollama://two")
    (content,) = (path for path in (ollama / "blobs").iterdir() if path.read_bytes() == MODEL)
    content.write_bytes(bytes(len(MODEL)))
    with pytest.raises(IntegrityError, match=r"model\.gguf"):
        store.import_from("ollama://tiny")
    content.unlink()
    with pytest.raises(NotFoundError, match="sha256-"):
        store.import_from("ollama://tiny")
    (ollama / "manifests" / TAG).write_bytes(b"{}")
    with pytest.raises(FormatError, match="1b"):
        store.import_from("ollama://tiny")
