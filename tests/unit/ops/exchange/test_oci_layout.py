"""OCI image layouts: what is exported as ModelPack, and what others wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.support.tools import gguf, tree
from yarnstore import Store
from yarnstore.core.manifest import ManifestFile
from yarnstore.errors import FormatError, IntegrityError, NotFoundError, UsageError
from yarnstore.ops.exchange.address import Address, parse_address
from yarnstore.ops.exchange.elsewhere import Target
from yarnstore.store.filepath import Path as StorePath

MODEL = gguf("Tiny", bytes(range(256)) * 300)
FILES = {"config.json": b"{}", "deep/model.gguf": MODEL, "README.md": b"# Tiny\n"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a version of several files."""
    source = tmp_path / "source"
    for path, data in FILES.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)
    store = Store.open(tmp_path / "home")
    store.import_model(source, "me/tiny@1.0.0+cpu")
    return store


def content(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def test_a_version_is_modelpack_and_comes_back_byte_for_byte(store: Store, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    assert Path(store.export("me/tiny@1.0.0+cpu", f"oci:{layout}").path) == layout
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "1.0.0_cpu"}
    manifest = json.loads(content(layout, entry["digest"]).read_bytes())
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    layers = {each["annotations"]["org.cncf.model.filepath"]: each for each in manifest["layers"]}
    assert {path: content(layout, each["digest"]).read_bytes() for path, each in layers.items()} == FILES
    assert [layers[path]["mediaType"].rpartition("model.")[2] for path in FILES] == [
        "weight.config.v1.raw", "weight.v1.raw", "doc.v1.raw",
    ]  # fmt: skip
    # Into another store, and out of it again.
    other = Store.open(tmp_path / "other")
    (done,) = other.import_from(f"oci:{layout}:1.0.0_cpu")
    assert (done.model, done.version) == ("me/tiny", f"0.0.1+{entry['digest'][7:14]}")
    assert other.import_from(str(layout))[0].present
    other.export(f"me/tiny@{done.version}", f"oci:{tmp_path / 'again'}:1.0.0_cpu")
    assert tree(tmp_path / "again") == tree(layout)


def test_several_tags_share_a_layout(store: Store, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    for tag in ("a", "b", "a"):
        store.export("me/tiny@1.0.0+cpu", f"oci:{layout}:{tag}")
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert [each["annotations"]["org.opencontainers.image.ref.name"] for each in entries] == ["a", "b"]
    with pytest.raises(NotFoundError, match='no tag "c"'):
        store.import_from(f"oci:{layout}:c")
    with pytest.raises(UsageError, match="not an OCI image layout"):
        store.export("me/tiny@1.0.0+cpu", f"oci:{tmp_path / 'source'}")


def test_layouts_of_other_tools(store: Store, tmp_path: Path) -> None:
    layout = tmp_path / "docker"

    def put(kind: str, data: bytes, **notes: str) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        content(layout, digest).parent.mkdir(parents=True, exist_ok=True)
        content(layout, digest).write_bytes(data)
        return {"mediaType": kind, "digest": digest, "size": len(data)} | (
            {"annotations": notes} if notes else {}
        )

    def write(*layers: dict[str, object]) -> None:
        config = put("application/vnd.docker.ai.model.config.v0.1+json", b'{"config":{"format":"gguf"}}')
        image = {"schemaVersion": 2, "config": config, "layers": layers}
        entry = put("application/vnd.oci.image.manifest.v1+json", json.dumps(image).encode())
        (layout / "oci-layout").write_bytes(b'{"imageLayoutVersion": "1.0.0"}')
        (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))

    kinds = ("gguf.v3", "gguf.v3", "mmproj", "chat.template.jinja", "license", "license")
    write(*(put(f"application/vnd.docker.ai.{kind}", b"%d" % n) for n, kind in enumerate(kinds)))
    (done,) = store.import_from(f"oci:{layout}", "named")
    out = Path(store.export(f"named@{done.version}", tmp_path / "named").path)
    names = ("model-00001-of-00002.gguf", "model-00002-of-00002.gguf", "mmproj.gguf", "template.jinja")
    assert {path.name for path in out.iterdir()} == {*names, "license.txt", "license-2.txt"}
    write(put("application/vnd.docker.ai.gguf.v3", MODEL), put("application/vnd.docker.ai.license", b"MIT"))
    (done,) = store.import_from(f"oci:{layout}")
    out = Path(store.export(f"docker@{done.version}", tmp_path / "out").path)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        "model.gguf": MODEL,
        "license.txt": b"MIT",
    }

    write(put("application/vnd.kitops.modelkit.model.v1.tar", b"tar"))
    with pytest.raises(FormatError, match="not a readable archive"):
        store.import_from(f"oci:{layout}")
    write(put("x/raw", b"x", **{"org.cncf.model.filepath": "../escape"}))
    with pytest.raises(FormatError, match=r"\.\."):
        store.import_from(f"oci:{layout}")
    weights = put("x/raw", MODEL, **{"org.cncf.model.filepath": "m.bin"})
    write(weights)
    content(layout, str(weights["digest"])).write_bytes(bytes(len(MODEL)))
    with pytest.raises(IntegrityError, match=r"m\.bin"):
        store.import_from(f"oci:{layout}")


def test_the_drive_of_windows_is_part_of_the_folder() -> None:
    for text, name, tag in (
        ("C:\\models\\layout", "C:\\models\\layout", ""),
        ("C:/models/layout", "C:/models/layout", ""),
        ("C:\\models\\layout:v1", "C:\\models\\layout", "v1"),
        ("layout:v1_cpu", "layout", "v1_cpu"),
        ("./a:b/layout", "./a:b/layout", ""),
    ):
        assert parse_address(f"oci:{text}") == Address("oci", name, tag)


def test_an_export_that_was_cut_off_is_repeated(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = tmp_path / "layout"
    put = Target.put

    def put_one(target: Target, file: ManifestFile, path: StorePath) -> None:
        if (tmp_path / "layout" / "blobs").exists():
            raise KeyboardInterrupt
        put(target, file, path)

    with monkeypatch.context() as patch:
        patch.setattr(Target, "put", put_one)
        with pytest.raises(KeyboardInterrupt):
            store.export("me/tiny@1.0.0+cpu", f"oci:{layout}")
    assert any((layout / "blobs").rglob("*"))
    store.export("me/tiny@1.0.0+cpu", f"oci:{layout}")
    store.export("me/tiny@1.0.0+cpu", f"oci:{tmp_path / 'whole'}")
    assert tree(layout) == tree(tmp_path / "whole")
