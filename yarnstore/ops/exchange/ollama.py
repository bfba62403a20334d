"""Ollama's store: a tag of a model as a version, and a version as a tag.

`manifests/HOST/NAMESPACE/MODEL/TAG` lists the layers of a tag, and `blobs/sha256-<hex>` has their
contents and the configuration.  A version has a file for each layer, named by its kind: `model.gguf`,
`template.txt`.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.imported import ImportedFrom, imported_from
from yarnstore.core.layouts.gguf import read_texts
from yarnstore.core.limits import MIB
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.core.oci import (
    DOCKER_MANIFEST,
    OLLAMA_CONFIG,
    OLLAMA_LAYER,
    OLLAMA_SUFFIXES,
    descriptor,
    imported_image,
    layer_paths,
    read_image,
)
from yarnstore.core.suggestions import close_names
from yarnstore.errors import FormatError, NotFoundError, UsageError
from yarnstore.ops.exchange.address import Address
from yarnstore.ops.exchange.elsewhere import Found, Target
from yarnstore.ops.local.import_export import Listing
from yarnstore.store import fsread
from yarnstore.store.filepath import Path
from yarnstore.store.source_files import SourceFile, Sources, open_file

_HOST: Final = "registry.ollama.ai"
_NAMESPACE: Final = "library"
_LATEST: Final = "latest"
_CONTENTS: Final = "blobs"
# The files of a version that are layers, in the order of the layers in Ollama's own manifests.
_ORDER: Final = ("model", "projector", "adapter", "license", "template", "system", "params", "messages")
_ARCHITECTURE: Final = "general.architecture"


def folder_of(store: Path, name: str) -> Path:
    """Return the folder with the manifests of a model.  Raises: UsageError for more than three parts."""
    parts = name.split("/")
    if len(parts) > 3:
        raise UsageError(f"{name!r} has too many parts", hint="give [HOST/][NAMESPACE/]MODEL")
    before = [_HOST, _NAMESPACE][: 3 - len(parts)]
    return store / "/".join(["manifests", *before, *parts])


def read(store: Path, address: Address) -> list[Found]:
    """Return the tags of a model, the oldest first, or the one that the address names.

    Raises: NotFoundError; FormatError for a manifest that is not Ollama's.
    """
    folder = folder_of(store, address.name)
    tags = [tag for tag in fsread.list_names(folder) if fsread.is_file(folder / tag)]
    if not tags:
        near = close_names(address.name, fsread.list_names(folder.parent))
        raise NotFoundError("model", address.name, where=str(store), near=near)
    if address.revision:
        if address.revision not in tags:
            near = close_names(address.revision, tags)
            raise NotFoundError("tag", address.revision, where=str(folder), near=near)
        tags = [address.revision]
    times = {tag: found.st_mtime for tag in tags if (found := fsread.stat_or_none(folder / tag))}
    return [
        _found(store, address.name, folder / tag) for tag in sorted(times, key=lambda tag: (times[tag], tag))
    ]


def _found(store: Path, name: str, path: Path) -> Found:
    data = fsread.read_bytes(path, MIB)
    image = read_image(data, str(path))
    sources, hashes = [], {}
    for file_path, layer in zip(layer_paths(image), image.layers, strict=True):
        content = _content(store / _CONTENTS, layer.sha256)
        if not fsread.is_file(content):
            raise NotFoundError("file", str(content), hint=f"`ollama pull {name}:{path.name}` downloads it")
        sources.append(SourceFile(file_path, content, layer.size))
        hashes[file_path] = layer.sha256
    sources.sort(key=lambda item: item.path.encode())
    config = fsread.read_bytes(_content(store / _CONTENTS, image.config.sha256), MIB)
    origin = ImportedFrom(
        "ollama", name, Sha256.of(data).hex, manifest=_text(data, path), config=_text(config, path)
    )
    model = name.removeprefix(f"{_HOST}/").removeprefix(f"{_NAMESPACE}/")
    return Found(
        "/".join(model.split("/")[-2:]),
        None if path.name == _LATEST else path.name,
        origin.revision,
        Listing(Sources(sources), str(path), origin, hashes),
    )


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise FormatError(str(path), "is not UTF-8") from None


# --- exports -----------------------------------------------------------------------------------


def write(target: Target, store: Path, address: Address) -> Path:
    """Write a version as a tag: its contents first, then the manifest, which Ollama needs to keep them.

    Returns the path of the manifest.  Raises: UsageError for a version without one GGUF model.
    """
    manifest = target.manifest
    tag = address.revision or (_LATEST if manifest.variant == DEFAULT_VARIANT else manifest.variant)
    path = folder_of(store, address.name) / tag
    folder = store / _CONTENTS
    hashes = [file.sha256 for file in manifest.files]
    texts = imported_image(imported_from(manifest.extra), "ollama", hashes)
    kinds = _kinds(manifest) if texts is None else []
    for file in manifest.files if texts is not None else [file for _, file in kinds]:
        target.put(file, _content(folder, file.sha256))
    image, config = texts or _made(kinds, folder)
    target.put_bytes(config, _content(folder, Sha256.of(config)))
    target.flush()
    target.put_bytes(image, path)
    return path


def _content(folder: Path, sha256: Sha256) -> Path:
    return folder / f"sha256-{sha256.hex}"


def _made(kinds: list[tuple[str, ManifestFile]], folder: Path) -> tuple[bytes, bytes]:
    """Return a new manifest and configuration for a version that did not come from Ollama."""
    model = next(file for kind, file in kinds if kind == "model")
    config = _config(_content(folder, model.sha256), [file for _, file in kinds])
    image: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor(OLLAMA_CONFIG, Sha256.of(config), len(config)),
        "layers": [descriptor(OLLAMA_LAYER + kind, file.sha256, file.size_bytes) for kind, file in kinds],
    }
    return msgspec.json.encode(image), config


def _kinds(manifest: Manifest) -> list[tuple[str, ManifestFile]]:
    """Return the files of a version that are layers, with their kinds.  Raises: UsageError."""
    found: list[tuple[str, ManifestFile]] = []
    for file in manifest.files:
        stem, dot, suffix = file.path.rpartition("/")[2].lower().rpartition(".")
        kind = stem.partition("-")[0] if stem.partition("-")[2].isdigit() else stem
        if kind in _ORDER and f"{dot}{suffix}" == OLLAMA_SUFFIXES[kind]:
            found.append((kind, file))
        elif suffix == "gguf":
            found.append(
                ("projector" if "mmproj" in stem else "adapter" if "lora" in stem else "model", file)
            )
    models = [file.path for kind, file in found if kind == "model"]
    if len(models) != 1:
        what = "no GGUF model" if not models else f"{len(models)} GGUF models: {', '.join(models[:5])}"
        raise UsageError(
            f"{manifest.label} has {what}; Ollama needs one",
            hint="`ystore export` writes it to a plain folder; a split model must be merged first",
        )
    return sorted(found, key=lambda item: _ORDER.index(item[0]))


def _config(model: Path, layers: list[ManifestFile]) -> bytes:
    """Return Ollama's configuration of a model, as `ollama create` writes it."""
    family = ""
    with contextlib.suppress(FormatError), open_file(model) as source:
        family = read_texts(source, frozenset([_ARCHITECTURE])).get(_ARCHITECTURE, "")
    config = {
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family] if family else None,
        "model_type": "",
        "file_type": "",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{file.sha256.hex}" for file in layers]},
    }
    return msgspec.json.encode(config)
