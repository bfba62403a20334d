"""The manifests and media types of OCI images, of those that have models: ModelPack, Docker, KitOps, Ollama.

Their sources: the OCI image specification, the CNCF's ModelPack, and the tools' own constants.  Pure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from yarnstore.core.canonical import parse_json_object
from yarnstore.core.digest import Sha256
from yarnstore.core.imported import ImportedFrom
from yarnstore.errors import FormatError

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_TAR: Final = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"

MODELPACK_MANIFEST: Final = "application/vnd.cncf.model.manifest.v1+json"
MODELPACK_CONFIG: Final = "application/vnd.cncf.model.config.v1+json"
MODELPACK_WEIGHT: Final = "application/vnd.cncf.model.weight.v1.raw"
MODELPACK_WEIGHT_CONFIG: Final = "application/vnd.cncf.model.weight.config.v1.raw"
MODELPACK_DOC: Final = "application/vnd.cncf.model.doc.v1.raw"
# The annotation of a layer with the path of its file.
FILE_PATH: Final = "org.cncf.model.filepath"
TITLE: Final = "org.opencontainers.image.title"
REF_NAME: Final = "org.opencontainers.image.ref.name"

OLLAMA_LAYER: Final = "application/vnd.ollama.image."
OLLAMA_CONFIG: Final = "application/vnd.docker.container.image.v1+json"

DOCKER_MODEL_CONFIG: Final = "application/vnd.docker.ai.model.config.v0.1+json"
DOCKER_GGUF: Final = "application/vnd.docker.ai.gguf.v3"
DOCKER_LICENSE: Final = "application/vnd.docker.ai.license"

_LAYERS_LIMIT: Final = 10_000


class Layer(msgspec.Struct, frozen=True):
    """One content that a manifest refers to."""

    media_type: str
    sha256: Sha256
    size: int  # in bytes
    annotations: dict[str, str]


class ImageManifest(msgspec.Struct, frozen=True):
    """A manifest: its configuration and its layers, in order."""

    config: Layer
    layers: tuple[Layer, ...]
    kind: str | None = None  # the `artifactType`
    media_type: str = OCI_MANIFEST  # of the manifest itself


def read_image(data: bytes, what: str) -> ImageManifest:
    """Parse a manifest.  Raises: FormatError naming `what`."""
    value = parse_json_object(data, what)
    if value.get("schemaVersion") != 2:
        raise FormatError(what, "is not an image manifest of schema 2")
    layers = value.get("layers")
    if not isinstance(layers, list) or len(layers) > _LAYERS_LIMIT:
        raise FormatError(what, f"has no list of at most {_LAYERS_LIMIT} layers")
    kind, media_type = value.get("artifactType"), value.get("mediaType")
    return ImageManifest(
        read_descriptor(value.get("config"), what),
        tuple(read_descriptor(item, what) for item in layers),
        kind if isinstance(kind, str) else None,
        media_type if isinstance(media_type, str) else OCI_MANIFEST,
    )


def read_descriptor(value: object, what: str) -> Layer:
    """Parse a descriptor.  Raises: FormatError naming `what`."""
    match value:
        case {"mediaType": str(kind), "digest": str(digest), "size": int(size), **rest} if size >= 0:
            notes = rest.get("annotations") or {}
        case _:
            raise FormatError(what, "has a descriptor without a mediaType, a digest and a size")
    if not digest.startswith("sha256:"):
        raise FormatError(what, f"has the digest {digest[:80]!r}; only sha256 is supported")
    if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
        raise FormatError(what, "has annotations that are not strings")
    return Layer(kind, Sha256.parse(digest), size, notes)


def imported_image(
    origin: ImportedFrom | None, kind: str, files: Collection[Sha256]
) -> tuple[bytes, bytes] | None:
    """Return the manifest and configuration that a version had where it was imported from, by the kind of
    that place (`oci` or `ollama`).  None if it came from elsewhere, or if they do not name its `files`.
    """
    if origin is None or origin.kind != kind or not origin.manifest:
        return None
    data, config = origin.manifest.encode(), origin.config.encode()
    with contextlib.suppress(FormatError):
        image = read_image(data, "the imported manifest")
        if image.config.sha256 == Sha256.of(config) and {each.sha256 for each in image.layers} == set(files):
            return data, config
    return None


def descriptor(
    media_type: str, sha256: Sha256, size_bytes: int, annotations: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return a descriptor as it is in a manifest."""
    notes = {"annotations": annotations} if annotations else {}
    return {"mediaType": media_type, "digest": f"sha256:{sha256.hex}", "size": size_bytes, **notes}


# Files that describe a model, and files that a loader reads beside the weights, by the end of their names.
_DOCUMENTS: Final = (".md", ".txt", ".pdf", ".html", "license", "notice")
_CONFIGS: Final = (".json", ".jinja", ".yaml", ".yml", ".toml", ".py", ".model", ".tiktoken", ".proto")


def layer_type(path: str) -> str:
    """Return the media type of ModelPack for a file."""
    name = path.lower()
    if name.endswith(_CONFIGS):
        return MODELPACK_WEIGHT_CONFIG
    return MODELPACK_DOC if name.endswith(_DOCUMENTS) else MODELPACK_WEIGHT


def make_modelpack(
    model: str, version: str, contents: Sequence[tuple[str, Sha256, int]]
) -> tuple[bytes, bytes]:
    """Return the ModelPack manifest of a version, and its configuration: the same bytes each time.

    `contents` are the path, the SHA-256 and the size in bytes of each file, by path.
    """
    config = msgspec.json.encode(
        {
            "descriptor": {"name": model, "version": version},
            "modelfs": {"type": "layers", "diffIds": [f"sha256:{sha256.hex}" for _, sha256, _ in contents]},
            "config": {},
        }
    )
    image = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": MODELPACK_MANIFEST,
        "config": descriptor(MODELPACK_CONFIG, Sha256.of(config), len(config)),
        "layers": [
            descriptor(layer_type(path), sha256, size_bytes, {FILE_PATH: path})
            for path, sha256, size_bytes in contents
        ],
    }
    return msgspec.json.encode(image), config
