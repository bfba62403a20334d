"""`export` to an address: a version in the layout of another tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from yarnstore.ops.exchange import hf_cache, lm_studio, oci_layout, ollama
from yarnstore.ops.exchange.address import Address, ToolFolders
from yarnstore.ops.exchange.elsewhere import Target
from yarnstore.ops.fetching.eligibility import require_eligible
from yarnstore.ops.fetching.fetch import ensure_version
from yarnstore.ops.local.import_export import ExportResult
from yarnstore.ops.session.lookup import of_installed
from yarnstore.ops.session.session import Session
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


def export_to(
    session: Session, spec: Spec, address: Address, folders: ToolFolders, *, hardlink: bool = False
) -> ExportResult:
    """Write a version to another tool; with `hardlink`, files are links to the store's where possible.

    Raises: ConflictError, UsageError; as `fetch`.
    """
    layout = session.layout
    folder = folders.of(address.kind)
    with layout.shared(), ChunkStore(layout) as chunks:
        found = require_eligible(session, of_installed(session, spec), installing=False)
        _, manifest, _ = ensure_version(session, found, chunks)
        fsread.require_space(folder, manifest.size_bytes)
        meter = Meter(session.activity.report, "write", manifest.label, manifest.size_bytes)
        target = Target(layout, chunks, manifest, meter, hardlink=hardlink)
        path = _WRITERS[address.kind](target, folder, address)
    return ExportResult(manifest.model, manifest.version, str(path), manifest.size_bytes, target.how)
