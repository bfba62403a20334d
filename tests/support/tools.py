"""Folders of models as other tools make them: the Hugging Face cache, Ollama's store."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path


def gguf(name: str, data: bytes) -> bytes:
    """A GGUF file with one row of bytes as its tensor."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    keys = {"general.architecture": "llama", "general.name": name}
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys))
    head += b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in keys.items())
    head += text("weight") + struct.pack("<IQIQ", 1, len(data), 24, 0)
    return head + bytes(-len(head) % 32) + data


def git_hash(data: bytes) -> str:
    """The name of a content in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def add_snapshot(
    cache: Path, name: str, commit: str, files: Mapping[str, bytes], *, when_s: int, large_bytes: int = 1000
) -> Path:
    """A commit of a model in the Hugging Face cache, as `main`; it names large files by their SHA-256.

    On Windows a snapshot has the files themselves, as huggingface_hub writes them without symlinks.
    """
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for path, data in files.items():
        large = len(data) >= large_bytes
        content = folder / "blobs" / (hashlib.sha256(data).hexdigest() if large else git_hash(data))
        link = snapshot / path
        link.parent.mkdir(parents=True, exist_ok=True)
        if os.name == "nt":
            link.write_bytes(data)
            os.utime(link, (when_s, when_s))
        else:
            content.write_bytes(data)
            link.symlink_to(os.path.relpath(content, link.parent))
            os.utime(link, (when_s, when_s), follow_symlinks=False)
        os.utime(link.parent, (when_s, when_s))
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return snapshot


def add_tag(store: Path, name: str, layers: Mapping[str, bytes]) -> Path:
    """A tag in Ollama's store, `HOST/NAMESPACE/MODEL/TAG`, with layers by kind.  Returns its manifest."""

    def put(kind: str, data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (store / "blobs").mkdir(parents=True, exist_ok=True)
        (store / "blobs" / f"sha256-{digest}").write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    config = json.dumps({"model_format": "gguf", "model_family": "llama", "note": "é"}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": put("application/vnd.docker.container.image.v1+json", config),
        "layers": [put(f"application/vnd.ollama.image.{kind}", data) for kind, data in layers.items()],
    }
    path = store / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))
    return path


def tree(folder: Path) -> dict[str, str]:
    """What is below a folder: the SHA-256 of each file, and where each link leads."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path)
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
