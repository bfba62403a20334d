"""The images of a version: ModelPack's, and the one that Ollama reads.

A layer is one file as it is, so its digest is the SHA-256 of the file; `volumes` has those with tar layers.
The bytes of a manifest depend only on the version; `core/oci` has the formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.oci import (
    DOCKER_MANIFEST,
    OCI_MANIFEST,
    OLLAMA_CONFIG,
    OLLAMA_LAYER,
    descriptor,
    imported_image,
    make_modelpack,
    read_image,
)
from yarnstore.results import VersionFile, VersionFiles
from yarnstore.web.faces.joined import Part, size_of

# Ollama's layers in the order of its manifests; those after the adapter are named by the files' names.
_ORDER = ("model", "projector", "adapter", "license", "template", "system", "params", "messages")


@dataclass(frozen=True)
class ImageLayer:
    """One layer: its digest, and the parts that it consists of."""

    digest: str
    parts: Sequence[Part]

    @property
    def size_bytes(self) -> int:
        """How many bytes it has."""
        return size_of(self.parts)


@dataclass(frozen=True)
class Image:
    """One image of a version, with its layers in the order of the manifest; an index of images has none."""

    files: VersionFiles
    manifest: bytes
    media_type: str
    config: bytes
    layers: Sequence[ImageLayer]

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return str(Sha256.of(self.manifest))


def modelpack(found: VersionFiles) -> Image:
    """Return a version as ModelPack describes it, or as it was imported: the image that `export` writes."""
    own = _imported(found, "oci")
    if own is not None:
        return own
    contents = [(file.path, Sha256.parse(file.sha256), file.size_bytes) for file in found.files]
    manifest, config = make_modelpack(found.model, found.version, contents)
    return Image(found, manifest, OCI_MANIFEST, config, _raw(found.files))


def ollama(found: VersionFiles) -> Image | None:
    """Return a version as Ollama describes it, or as it was imported; None unless it has one GGUF model."""
    own = _imported(found, "ollama")
    if own is not None:
        return own
    layers = [(kind, file) for file in found.files if (kind := _kind(file.path))]
    if sum(kind == "model" for kind, _ in layers) != 1:
        return None
    layers.sort(key=lambda item: _ORDER.index(item[0]))
    config = msgspec.json.encode(
        {
            "model_format": "gguf",
            "model_family": "",
            "model_families": None,
            "model_type": "",
            "file_type": "",
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{file.sha256}" for _, file in layers]},
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor(OLLAMA_CONFIG, Sha256.of(config), len(config)),
        "layers": [
            descriptor(OLLAMA_LAYER + kind, Sha256.parse(file.sha256), file.size_bytes)
            for kind, file in layers
        ],
    }
    encoded = msgspec.json.encode(manifest)
    return Image(found, encoded, DOCKER_MANIFEST, config, _raw(file for _, file in layers))


def _imported(found: VersionFiles, kind: str) -> Image | None:
    """Return the image that a version had where it was imported from."""
    files = {Sha256.parse(file.sha256): file for file in found.files}
    texts = imported_image(found.imported_from, kind, files)
    if texts is None:
        return None
    image = read_image(texts[0], "the imported manifest")
    layers = _raw(files[each.sha256] for each in image.layers)
    return Image(found, texts[0], image.media_type, texts[1], layers)


def _raw(files: Iterable[VersionFile]) -> list[ImageLayer]:
    return [ImageLayer(f"sha256:{file.sha256}", (file,)) for file in files]


def _kind(path: str) -> str | None:
    """Return which of Ollama's layers a file is; None for a file that Ollama has no use for."""
    stem, _, suffix = path.rpartition("/")[2].lower().rpartition(".")
    if suffix == "gguf":
        return (
            "projector" if "mmproj" in stem else "adapter" if "lora" in stem or stem == "adapter" else "model"
        )
    kind = stem or suffix  # `license` has no suffix
    return kind if kind in _ORDER[3:] else None
