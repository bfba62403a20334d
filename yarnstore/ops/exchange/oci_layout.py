"""OCI image layouts of models: the artifacts of ModelPack, Docker's model runner and KitOps in a folder.

`oci-layout` marks the folder, `index.json` lists its manifests by tag, and `blobs/sha256/<hex>` has these and
what they refer to.  A version is written as ModelPack, with a raw layer for each file.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

import msgspec

from yarnstore.core.canonical import parse_json_object
from yarnstore.core.digest import Sha256
from yarnstore.core.imported import ImportedFrom, imported_from
from yarnstore.core.limits import MIB
from yarnstore.core.names import check_file_paths, parse_model_id
from yarnstore.core.oci import (
    FILE_PATH,
    REF_NAME,
    TITLE,
    Layer,
    descriptor,
    imported_image,
    make_modelpack,
    read_descriptor,
    read_image,
)
from yarnstore.core.suggestions import close_names
from yarnstore.errors import FormatError, InvalidNameError, NotFoundError, UsageError
from yarnstore.ops.exchange.address import Address
from yarnstore.ops.exchange.elsewhere import Found, Target
from yarnstore.ops.local.import_export import Listing
from yarnstore.store import fsread
from yarnstore.store.filepath import Path
from yarnstore.store.paths import absolute
from yarnstore.store.source_files import SourceFile, Sources

_MARK: Final = "oci-layout"
_INDEX: Final = "index.json"
_VERSION: Final = b'{"imageLayoutVersion":"1.0.0"}'
_MANIFESTS_LIMIT: Final = 10_000


def is_layout(folder: Path) -> bool:
    """Whether a folder is an image layout."""
    return fsread.is_file(folder / _MARK) and fsread.is_file(folder / _INDEX)


def read(_: Path, address: Address) -> list[Found]:
    """Return the artifacts of a layout in order, or the one with the tag of the address.

    Raises: NotFoundError, FormatError; UsageError for layers that are not single files.
    """
    folder = absolute(address.name)
    if not is_layout(folder):
        raise NotFoundError("OCI image layout", address.name, hint="its folder has oci-layout and index.json")
    entries = _entries(folder)
    if address.revision:
        tags = [tag for tag, _ in entries]
        entries = [each for each in entries if each[0] == address.revision]
        if not entries:
            near = close_names(address.revision, tags)
            raise NotFoundError("tag", address.revision, where=str(folder), near=near)
    return [_found(folder, tag, entry) for tag, entry in entries]


def _entries(folder: Path) -> list[tuple[str, Layer]]:
    """Return the manifests that the index lists, with their tags."""
    what = str(folder / _INDEX)
    listed = _read_index(folder).get("manifests")
    if not isinstance(listed, list) or len(listed) > _MANIFESTS_LIMIT:
        raise FormatError(what, f"has no list of at most {_MANIFESTS_LIMIT} manifests")
    entries = [read_descriptor(item, what) for item in listed]
    return [(entry.annotations.get(REF_NAME, ""), entry) for entry in entries]


def _read_index(folder: Path) -> dict[str, Any]:
    return parse_json_object(fsread.read_bytes(folder / _INDEX, 16 * MIB), str(folder / _INDEX))


def _content(folder: Path, sha256: Sha256) -> Path:
    return folder / "blobs" / "sha256" / sha256.hex


def _found(folder: Path, tag: str, entry: Layer) -> Found:
    path = _content(folder, entry.sha256)
    data = fsread.read_bytes(path, 4 * MIB)
    if Sha256.of(data) != entry.sha256:
        raise FormatError(str(path), "does not match its digest")
    image = read_image(data, str(path))
    config = fsread.read_bytes(_content(folder, image.config.sha256), 4 * MIB)
    sources, hashes = [], {}
    for layer in image.layers:
        name = _file_path(layer)
        content = _content(folder, layer.sha256)
        if not fsread.is_file(content):
            raise NotFoundError("file", str(content), hint="the layout is not complete: copy it again")
        sources.append(SourceFile(name, content, layer.size))
        hashes[name] = layer.sha256
    check_file_paths(hashes)
    sources.sort(key=lambda item: item.path.encode())
    origin = ImportedFrom(
        "oci",
        tag or folder.name,
        entry.sha256.hex,
        manifest=_text(data),
        config=_text(config),
    )
    return Found(
        _model(config, folder), None, entry.sha256.hex, Listing(Sources(sources), str(folder), origin, hashes)
    )


def _file_path(layer: Layer) -> str:
    """Return the path of a layer's file.  Raises: UsageError for an archive."""
    if ".tar" in layer.media_type:
        raise UsageError(
            f"a layer is an archive ({layer.media_type})",
            hint="unpack it, for example with `kit unpack`, then import the folder",
        )
    path = layer.annotations.get(FILE_PATH) or layer.annotations.get(TITLE)
    if path:
        return path
    kind = layer.media_type.partition("+")[0].rpartition(".vnd.")[2] or layer.media_type
    return "model.gguf" if "gguf" in kind else f"{kind.rpartition('.')[2].replace('/', '-')}.txt"


def _text(data: bytes) -> str:
    """Return what is kept of a manifest or configuration; one that is not UTF-8 is not kept."""
    with contextlib.suppress(UnicodeDecodeError):
        return data.decode()
    return ""


def _model(config: bytes, folder: Path) -> str:
    """Return the name in a ModelPack configuration, else the name of the folder."""
    with contextlib.suppress(FormatError, InvalidNameError):
        described = parse_json_object(config, "configuration").get("descriptor")
        if isinstance(described, dict) and isinstance(described.get("name"), str):
            return parse_model_id(described["name"])
    return folder.name


# --- exports -----------------------------------------------------------------------------------


def write(target: Target, _: Path, address: Address) -> Path:
    """Write a version into a layout, which is made if it does not exist, under a tag; returns its folder.

    The tag is that of the address, else the version, with `_` for `+`.  Raises: UsageError for a folder that
    is something else.
    """
    manifest = target.manifest
    folder = absolute(address.name)
    if not is_layout(folder) and fsread.list_names(folder):
        raise UsageError(f"{folder} is not an OCI image layout, and not empty", hint="give another folder")
    tag = address.revision or manifest.version.replace("+", "_")
    contents = [(file.path, file.sha256, file.size_bytes) for file in manifest.files]
    made = make_modelpack(manifest.model, manifest.version, contents)
    hashes = [file.sha256 for file in manifest.files]
    data, config = imported_image(imported_from(manifest.extra), "oci", hashes) or made
    for file in manifest.files:
        target.put(file, _content(folder, file.sha256))
    for each in (config, data):
        target.put_bytes(each, _content(folder, Sha256.of(each)))
    target.flush()
    target.put_bytes(_VERSION, folder / _MARK)
    _tag(target, folder, tag, data)
    return folder


def _tag(target: Target, folder: Path, tag: str, data: bytes) -> None:
    """Let a tag of the index name a manifest; other tags stay."""
    index: dict[str, Any] = {"schemaVersion": 2, "manifests": []}
    if fsread.is_file(folder / _INDEX):
        index = _read_index(folder)
    image = read_image(data, "manifest")
    entry = descriptor(image.media_type, Sha256.of(data), len(data), {REF_NAME: tag})
    if image.kind:
        entry["artifactType"] = image.kind
    listed = index.get("manifests", [])
    if [item for item in listed if _tag_of(item) == tag] == [entry]:
        return
    index["manifests"] = [*(item for item in listed if _tag_of(item) != tag), entry]
    target.put_bytes(msgspec.json.encode(index), folder / _INDEX)


def _tag_of(entry: object) -> object:
    notes = entry.get("annotations") if isinstance(entry, dict) else None
    return notes.get(REF_NAME) if isinstance(notes, dict) else None
