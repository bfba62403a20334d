"""The image of a version: the one that it was imported from, or a new one of a flavour."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from yarnstore.core.imported import imported_from
from yarnstore.core.manifest import Manifest
from yarnstore.core.oci import imported_image, make_docker_model, make_modelpack
from yarnstore.errors import UsageError

FLAVOURS: Final = ("modelpack", "docker")


def check_flavour(flavour: str | None) -> None:
    """Raise UsageError for an unknown flavour."""
    if flavour is not None and flavour not in FLAVOURS:
        raise UsageError(f"{flavour[:40]!r} is no flavour", hint=f"give one of {', '.join(FLAVOURS)}")


def image_of(manifest: Manifest, flavour: str | None, kinds: Collection[str]) -> tuple[bytes, bytes]:
    """Return the manifest and the configuration of a version's image.

    Without a flavour it is the image that the version was imported from, if that is of one of `kinds`
    (`oci`, `ollama`), else ModelPack's.  Raises: UsageError for a version without that flavour.
    """
    contents = [(file.path, file.sha256, file.size_bytes) for file in manifest.files]
    if flavour is None:
        origin = imported_from(manifest.extra)
        for kind in kinds:
            found = imported_image(origin, kind, [file.sha256 for file in manifest.files])
            if found is not None:
                return found
    if flavour == "docker":
        return make_docker_model(contents)
    return make_modelpack(manifest.model, manifest.version, contents)


def tag_of(manifest: Manifest) -> str:
    """Return the tag of a version, if none is given: no tag has a `+`, and no version a `_`."""
    return manifest.version.replace("+", "_")
