"""OCI image layouts of models: the artifacts of ModelPack, Docker's model runner and KitOps in a folder.

`oci-layout` marks the folder, `index.json` lists its manifests by tag, and `blobs/sha256/<hex>` has these and
what they refer to.  A version is written with a raw layer for each file.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from yarnstore.core.canonical import parse_json_object
from yarnstore.core.digest import Sha256
from yarnstore.core.limits import MIB
from yarnstore.core.oci import MANIFEST_LIMIT_BYTES, REF_NAME, Layer, descriptor, listed_manifests, read_image
from yarnstore.core.suggestions import close_names
from yarnstore.errors import FormatError, NotFoundError, UsageError
from yarnstore.ops.exchange.address import Address
from yarnstore.ops.exchange.elsewhere import Target
from yarnstore.ops.exchange.images.found import FoundImage
from yarnstore.ops.exchange.images.making import image_of, tag_of
from yarnstore.store import fsread
from yarnstore.store.filepath import Path
from yarnstore.store.paths import absolute

_MARK: Final = "oci-layout"
_INDEX: Final = "index.json"
_VERSION: Final = b'{"imageLayoutVersion":"1.0.0"}'


def is_layout(folder: Path) -> bool:
    """Whether a folder is an image layout."""
    return fsread.is_file(folder / _MARK) and fsread.is_file(folder / _INDEX)


def read(address: Address) -> list[tuple[FoundImage, dict[Sha256, Path]]]:
    """Return the images of a layout in order, or the one with the tag of the address, and their layers.

    Raises: NotFoundError, FormatError.
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
    entries = listed_manifests(_read_index(folder), str(folder / _INDEX)) or []
    return [(entry.annotations.get(REF_NAME, ""), entry) for entry in entries]


def _read_index(folder: Path) -> dict[str, Any]:
    return parse_json_object(fsread.read_bytes(folder / _INDEX, 16 * MIB), str(folder / _INDEX))


def _content(folder: Path, sha256: Sha256) -> Path:
    return folder / "blobs" / "sha256" / sha256.hex


def _found(folder: Path, tag: str, entry: Layer) -> tuple[FoundImage, dict[Sha256, Path]]:
    path = _content(folder, entry.sha256)
    data = fsread.read_bytes(path, MANIFEST_LIMIT_BYTES)
    if Sha256.of(data) != entry.sha256:
        raise FormatError(str(path), "does not match its digest")
    image = read_image(data, str(path))
    config = fsread.read_bytes(_content(folder, image.config.sha256), MANIFEST_LIMIT_BYTES)
    contents = {layer.sha256: _content(folder, layer.sha256) for layer in image.layers}
    for content in contents.values():
        if not fsread.is_file(content):
            raise NotFoundError("file", str(content), hint="the layout is not complete: copy it again")
    found = FoundImage(
        place=str(folder),
        name=tag or folder.name,
        known_as=folder.name,
        tag=tag,
        data=data,
        config=config,
        image=image,
    )
    return found, contents


# --- exports -----------------------------------------------------------------------------------


def write(target: Target, _: Path, address: Address) -> Path:
    """Write a version into a layout, which is made if it does not exist, under a tag; returns its folder.

    The tag is that of the address, else the version, with `_` for `+`.  Raises: UsageError for a folder that
    is something else.
    """
    manifest = target.manifest
    folder = absolute(address.name)
    if not fsread.is_file(folder / _MARK) and fsread.list_names(folder):
        raise UsageError(f"{folder} is not an OCI image layout, and not empty", hint="give another folder")
    tag = address.revision or tag_of(manifest)
    data, config = image_of(manifest, target.flavour, ("oci",))
    target.put_bytes(_VERSION, folder / _MARK)  # first, so that an export that was cut off can be repeated
    for file in manifest.files:
        target.put(file, _content(folder, file.sha256))
    for each in (config, data):
        target.put_bytes(each, _content(folder, Sha256.of(each)))
    target.flush()
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
