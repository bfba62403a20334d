"""`export` to an address: a version in the layout of another tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from yarnstore.errors import UsageError
from yarnstore.ops.exchange import hf_cache, lm_studio, oci_layout, ollama
from yarnstore.ops.exchange.address import Address, ToolFolders
from yarnstore.ops.exchange.elsewhere import Target
from yarnstore.ops.exchange.images.making import check_flavour
from yarnstore.ops.exchange.images.pushing import is_pushed, push, with_tag
from yarnstore.ops.fetching.eligibility import require_eligible
from yarnstore.ops.fetching.fetch import ensure_version
from yarnstore.ops.fetching.mending import mended
from yarnstore.ops.local.import_export import ExportResult, is_single, own_name
from yarnstore.ops.session.lookup import lookup, of_installed
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import Stored, not_in_store
from yarnstore.progress import Meter
from yarnstore.registry.spec import Spec
from yarnstore.store import fsread
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path

_WRITERS: Final[Mapping[str, Callable[[Target, Path, Address], Path]]] = {
    "hf": hf_cache.write,
    "lmstudio": lm_studio.write,
    "oci": oci_layout.write,
    "ollama": ollama.write,
}


# What has flavours: images, in a folder or in a registry.
_IMAGES: Final = ("docker", "oci")


def require_flavour(destination: Address | Path, flavour: str | None) -> None:
    """Raise UsageError for an unknown flavour, and for a destination that has none."""
    check_flavour(flavour)
    if flavour is not None and not (isinstance(destination, Address) and destination.kind in _IMAGES):
        raise UsageError(
            f"{destination} has no flavour", hint="only docker:// and oci: destinations have one"
        )


def check_export(
    session: Session,
    spec: Spec,
    destination: Address | Path,
    folders: ToolFolders,
    *,
    flavour: str | None = None,
) -> ExportResult:
    """Compare an export with the version that `spec` means now; nothing is written.

    `flavour` is as in `export_to`.  Raises: NotFoundError if the version is not stored; BackendError.
    """
    require_flavour(destination, flavour)
    layout = session.layout
    with layout.shared(), ChunkStore(layout) as chunks:
        found = lookup(session, of_installed(session, spec))
        if not isinstance(found, Stored):
            raise not_in_store(session, spec)
        manifest = found.manifest
        meter = Meter(session.activity.report, "check", manifest.label, manifest.size_bytes)
        target = Target(layout, chunks, manifest, meter, check=True, flavour=flavour)
        path: Address | Path
        if isinstance(destination, Address) and destination.kind == "docker":
            path = with_tag(destination, manifest)
            if not is_pushed(session, manifest, path, flavour):
                target.behind.append(str(path))
        elif isinstance(destination, Address):
            path = _WRITERS[destination.kind](target, folders.of(destination.kind), destination)
        else:
            single, inner = is_single(manifest), destination / own_name(manifest)
            path = inner if (destination if single else inner).is_dir() else destination
            for file in manifest.files:
                target.put(file, path if single else path / file.path)
    return ExportResult(
        model=manifest.model,
        version=manifest.version,
        path=str(path),
        size_bytes=manifest.size_bytes,
        how="behind" if target.behind else "present",
        behind=target.behind,
    )


def export_to(
    session: Session,
    spec: Spec,
    address: Address,
    folders: ToolFolders,
    *,
    hardlink: bool = False,
    flavour: str | None = None,
) -> ExportResult:
    """Write a version to another tool; with `hardlink`, files are links to the store's where possible.

    `flavour` is that of an image: `modelpack` or `docker`; None means the image that the version was imported
    from, else ModelPack's.

    Raises: ConflictError, UsageError, BackendError; as `fetch`.
    """
    require_flavour(address, flavour)
    layout = session.layout
    folder = folders.of(address.kind)
    with layout.shared(), ChunkStore(layout) as chunks:
        found = require_eligible(session, of_installed(session, spec), installing=False)
        found, manifest, _ = ensure_version(session, found, chunks)

        def write() -> tuple[Address | Path, str]:
            if address.kind == "docker":
                place = with_tag(address, manifest)
                return place, push(session, manifest, chunks, place, flavour)
            meter = Meter(session.activity.report, "write", manifest.label, manifest.size_bytes)
            target = Target(layout, chunks, manifest, meter, hardlink=hardlink, flavour=flavour)
            return _WRITERS[address.kind](target, folder, address), target.how

        if address.kind != "docker":
            fsread.require_space(folder, manifest.size_bytes)
        path, how = mended(session, manifest, found, chunks, write)
    return ExportResult(manifest.model, manifest.version, str(path), manifest.size_bytes, how)
