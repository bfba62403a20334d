"""An image that was found in a layout or a registry, as the files of a version."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from yarnstore.core.canonical import parse_json_object
from yarnstore.core.digest import Sha256
from yarnstore.core.imported import ImportedFrom, imported_from
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import check_file_paths, parse_model_id
from yarnstore.core.oci import OLLAMA_LAYER, ImageManifest, Layer, is_archive, layer_paths
from yarnstore.errors import FormatError, IntegrityError, InvalidNameError
from yarnstore.ops.exchange.images.archives import unpack
from yarnstore.ops.local.import_export import Listing
from yarnstore.ops.session.session import Session
from yarnstore.store import fsio
from yarnstore.store.filepath import Path
from yarnstore.store.hashed import file_sha256
from yarnstore.store.source_files import SourceFile, Sources


class FoundImage(NamedTuple):
    """An image: where it is, for errors; its name and tag there; its manifest and its configuration.

    `known_as` is the model's name if the configuration has none.
    """

    place: str
    name: str
    known_as: str
    tag: str
    data: bytes
    config: bytes
    image: ImageManifest

    @property
    def sha256(self) -> Sha256:
        """The digest of the manifest."""
        return Sha256.of(self.data)

    @property
    def kind(self) -> str:
        """The tool whose image it is: `ollama`, else `oci`."""
        ours = [layer.media_type.startswith(OLLAMA_LAYER) for layer in self.image.layers]
        return "ollama" if ours and all(ours) else "oci"

    @property
    def model(self) -> str:
        """The name in a ModelPack configuration, else that by which it was found."""
        with contextlib.suppress(FormatError, InvalidNameError):
            described = parse_json_object(self.config, "configuration").get("descriptor")
            if isinstance(described, dict) and isinstance(described.get("name"), str):
                return parse_model_id(described["name"])
        return self.known_as

    @property
    def variant(self) -> str | None:
        """The tag of an image of Ollama, which names a build there."""
        return self.tag if self.kind == "ollama" and self.tag not in ("", "latest") else None

    def origin(self) -> ImportedFrom:
        """Return what the manifest of a version keeps of the image."""
        return ImportedFrom(
            self.kind, self.name, self.sha256.hex, manifest=_text(self.data), config=_text(self.config)
        )

    def is_in(self, manifest: Manifest) -> bool:
        """Whether a version was imported from this image, whose digest names its content."""
        origin = imported_from(manifest.extra)
        return origin is not None and (origin.kind, origin.revision) == (self.kind, self.sha256.hex)

    def differs_from(self, manifest: Manifest) -> bool:
        """Whether the files of a version are known to be others: what is in archives is not known."""
        ours = {path: layer.sha256 for path, layer in files_of(self.image)}
        theirs = {file.path: file.sha256 for file in manifest.files}
        return ours != theirs and not any(map(is_archive, self.image.layers))


def _text(data: bytes) -> str:
    """Return what is kept of a manifest or configuration; one that is not UTF-8 is not kept."""
    with contextlib.suppress(UnicodeDecodeError):
        return data.decode()
    return ""


def files_of(image: ImageManifest) -> list[tuple[str, Layer]]:
    """Return the layers that are single files, with their paths.  Raises: FormatError for bad paths."""
    found = [
        (path, layer)
        for path, layer in zip(layer_paths(image), image.layers, strict=True)
        if not is_archive(layer)
    ]
    check_file_paths([path for path, _ in found])
    return found


@contextlib.contextmanager
def listed(session: Session, found: FoundImage, contents: Mapping[Sha256, Path]) -> Iterator[Listing]:
    """Yield the files of an image for an import; archives are unpacked, and removed afterwards.

    `contents` are the files of the layers.  Raises: FormatError, IntegrityError, DiskFullError.
    """
    layout = session.layout
    sources = [SourceFile(path, contents[layer.sha256], layer.size) for path, layer in files_of(found.image)]
    hashes = {path: layer.sha256 for path, layer in files_of(found.image)}
    made: list[Path] = []
    try:
        for layer in found.image.layers:
            if is_archive(layer):
                archive, what = contents[layer.sha256], f"{found.place}: {layer.sha256}"
                if file_sha256(archive) != layer.sha256:
                    raise IntegrityError(what, hint="the other tool's copy is damaged: copy it again")
                sources += unpack(archive, what, layout.tmp, layout.reserve, made.append)
        check_file_paths([item.path for item in sources])
        sources.sort(key=lambda item: item.path.encode())
        yield Listing(Sources(sources), found.place, found.origin(), hashes)
    finally:
        for path in made:
            fsio.remove(path, sync=False)
