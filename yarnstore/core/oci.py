"""The manifests and media types of OCI images, of those that have models: ModelPack, Docker, KitOps, Ollama.

Their sources: the OCI image specification, the CNCF's ModelPack, and the tools' own constants.  Pure.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from yarnstore.core.canonical import parse_json_object
from yarnstore.core.digest import Sha256
from yarnstore.core.imported import ImportedFrom
from yarnstore.core.limits import MIB
from yarnstore.errors import FormatError, UsageError

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
# The user of a login whose password is an identity token, as Docker's credential helpers write it.
IDENTITY_USER: Final = "<token>"
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

# Docker's models: version 0.1 has files of known kinds, 0.2 any file with its path.
DOCKER_MODEL_CONFIG: Final = "application/vnd.docker.ai.model.config.v0.1+json"
DOCKER_FILES_CONFIG: Final = "application/vnd.docker.ai.model.config.v0.2+json"
DOCKER_GGUF: Final = "application/vnd.docker.ai.gguf.v3"
DOCKER_SAFETENSORS: Final = "application/vnd.docker.ai.safetensors"
DOCKER_DDUF: Final = "application/vnd.docker.ai.dduf"
DOCKER_PROJECTOR: Final = "application/vnd.docker.ai.mmproj"
DOCKER_TEMPLATE: Final = "application/vnd.docker.ai.chat.template.jinja"
DOCKER_LICENSE: Final = "application/vnd.docker.ai.license"
DOCKER_FILE: Final = "application/vnd.docker.ai.model.file"

# What a client accepts as a manifest.
ACCEPTED: Final = ", ".join(
    (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, "application/vnd.docker.distribution.manifest.list.v2+json")
)

# The names of files whose layers have no path.
OLLAMA_SUFFIXES: Final = {
    **dict.fromkeys(("model", "projector", "adapter"), ".gguf"),
    **dict.fromkeys(("params", "messages"), ".json"),
    **dict.fromkeys(("template", "system", "license", "prompt"), ".txt"),
}
_DOCKER_NAMES: Final = {
    DOCKER_GGUF: ("model", ".gguf"),
    DOCKER_SAFETENSORS: ("model", ".safetensors"),
    DOCKER_DDUF: ("model", ".dduf"),
    DOCKER_PROJECTOR: ("mmproj", ".gguf"),
    DOCKER_TEMPLATE: ("template", ".jinja"),
    DOCKER_LICENSE: ("license", ".txt"),
}
_WEIGHTS: Final = (DOCKER_GGUF, DOCKER_SAFETENSORS)

_LAYERS_LIMIT: Final = 10_000
# A manifest or a configuration; registries accept no larger manifest.
MANIFEST_LIMIT_BYTES: Final = 4 * MIB


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


def listed_manifests(value: dict[str, Any], what: str) -> list[Layer] | None:
    """Return the manifests that an index lists; None if it is not an index.  Raises: FormatError."""
    if "manifests" not in value:
        return None
    listed = value["manifests"]
    if not isinstance(listed, list) or len(listed) > _LAYERS_LIMIT:
        raise FormatError(what, f"has no list of at most {_LAYERS_LIMIT} manifests")
    return [read_descriptor(item, what) for item in listed]


def is_archive(layer: Layer) -> bool:
    """Whether a layer is a tar archive of files, and not one file."""
    return ".tar" in layer.media_type


def layer_paths(image: ImageManifest) -> list[str]:
    """Return the path of each layer's file: that of its annotations, else a name by its media type.

    Of equal kinds, weights are numbered as parts of a model, others from 2 on.  The paths are not checked.
    """
    counts = Counter(layer.media_type for layer in image.layers)
    seen: Counter[str] = Counter()
    paths = []
    for layer in image.layers:
        stem, suffix = _name_of(layer.media_type)
        seen[layer.media_type] += 1
        number, count = seen[layer.media_type], counts[layer.media_type]
        if count > 1 and layer.media_type in _WEIGHTS:
            stem += f"-{number:05}-of-{count:05}"
        elif number > 1:
            stem += f"-{number}"
        annotated = layer.annotations.get(FILE_PATH) or layer.annotations.get(TITLE)
        paths.append(annotated or f"{stem}{suffix}")
    return paths


def _name_of(media_type: str) -> tuple[str, str]:
    if media_type.startswith(OLLAMA_LAYER):
        kind = media_type.removeprefix(OLLAMA_LAYER).partition(";")[0]
        return kind, OLLAMA_SUFFIXES.get(kind, ".bin")
    if media_type in _DOCKER_NAMES:
        return _DOCKER_NAMES[media_type]
    kind = media_type.partition("+")[0].rpartition(".vnd.")[2] or media_type
    return ("model", ".gguf") if "gguf" in kind else (kind.rpartition(".")[2].replace("/", "-"), ".txt")


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


def make_docker_model(contents: Sequence[tuple[str, Sha256, int]]) -> tuple[bytes, bytes]:
    """Return the manifest and configuration of a version as Docker's model runner reads it.

    `contents` are as in `make_modelpack`.  Raises: UsageError for a version without weights that it reads.
    """
    kinds = [docker_type(path) for path, _, _ in contents]
    formats = [kind for kind in (DOCKER_GGUF, DOCKER_SAFETENSORS, DOCKER_DDUF) if kind in kinds]
    if not formats:
        raise UsageError(
            "Docker's model runner reads GGUF, safetensors and DDUF files, and this version has none",
            hint="export it without `--flavour docker`, as ModelPack",
        )
    # Releases of 2025 read version 0.1 alone.
    plain = DOCKER_FILE not in kinds and not any("/" in path for path, _, _ in contents)
    config = msgspec.json.encode(
        {
            "config": {"format": formats[0].removeprefix("application/vnd.docker.ai.").partition(".")[0]},
            "descriptor": {},
            "rootfs": {"type": "rootfs", "diff_ids": [str(sha256) for _, sha256, _ in contents]},
        }
    )
    config_type = DOCKER_MODEL_CONFIG if plain else DOCKER_FILES_CONFIG
    image = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config_type, Sha256.of(config), len(config)),
        "layers": [
            descriptor(kind, sha256, size_bytes, {FILE_PATH: path})
            for kind, (path, sha256, size_bytes) in zip(kinds, contents, strict=True)
        ],
    }
    return msgspec.json.encode(image), config


def docker_type(path: str) -> str:
    """Return the media type of Docker's models for a file, by its name as Docker classifies it."""
    name = path.rpartition("/")[2].lower()
    if name.endswith(".gguf"):
        return DOCKER_PROJECTOR if "mmproj" in name else DOCKER_GGUF
    if name.endswith(".safetensors"):
        return DOCKER_SAFETENSORS
    if name.endswith(".dduf"):
        return DOCKER_DDUF
    if name.endswith(".jinja") or "chat_template" in name:
        return DOCKER_TEMPLATE
    documents = ("license", "licence", "copying", "notice")
    return DOCKER_LICENSE if any(word in name for word in documents) else DOCKER_FILE
