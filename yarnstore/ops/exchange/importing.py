"""`import` of an address: versions of another tool as versions `0.0.N+<7 hex digits of the revision>`.

N rises with each new version of a model, in the order in which the tool got them.  A version whose revision
is stored with the same content is not imported again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from yarnstore.backends.urls import is_remote, shown
from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.errors import UsageError
from yarnstore.ops.exchange import hf_cache, lm_studio, oci_layout, ollama
from yarnstore.ops.exchange.address import Address, ToolFolders, parse_address
from yarnstore.ops.exchange.elsewhere import Found
from yarnstore.ops.exchange.images.found import FoundImage, listed
from yarnstore.ops.exchange.images.pulling import downloaded, find_image
from yarnstore.ops.local.import_export import (
    ImportResult,
    Listing,
    described,
    import_files,
    other_content,
)
from yarnstore.ops.session.session import Session
from yarnstore.registry.spec import Spec, exact_version
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path
from yarnstore.store.paths import absolute
from yarnstore.store.places import manifest_chunks
from yarnstore.store.refs import VersionName
from yarnstore.store.source_files import Sources, find_differing

_NUMBERED = r"0\.0\.(\d{1,9})(?:\+.*)?"
_SHORT_CHARS: Final = 7

_READERS: Final[Mapping[str, Callable[[Path, Address], list[Found]]]] = {
    "hf": hf_cache.read,
    "lmstudio": lm_studio.read,
    "ollama": ollama.read,
}


def import_from(
    session: Session, address: Address, folders: ToolFolders, spec: Spec | None = None
) -> list[ImportResult]:
    """Import what an address names: all its revisions, or one if the address or `spec` names one.

    `spec` gives another model id, variant or version.  Only an image in a registry is downloaded.

    Raises: NotFoundError, UsageError, IntegrityError, ConflictError, PolicyError, BackendError.
    """
    if address.kind == "docker":
        return [_import_image(session, find_image(session, address), spec, address)]
    if address.kind == "oci":
        images = oci_layout.read(address)
        _require_single(len(images), address, spec)
        return [_import_image(session, image, spec, address, contents) for image, contents in images]
    found = _READERS[address.kind](folders.of(address.kind), address)
    _require_single(len(found), address, spec)
    return [_import(session, each, spec, f"{address}") for each in found]


def _require_single(count: int, address: Address, spec: Spec | None) -> None:
    if spec is not None and spec.selector is not None and count != 1:
        raise UsageError(
            f"{address} has {count} revisions, which cannot all be {spec}",
            hint="name one of them in the address, or leave the version out",
        )


def _import_image(
    session: Session,
    image: FoundImage,
    spec: Spec | None,
    address: Address,
    contents: Mapping[Sha256, Path] | None = None,
) -> ImportResult:
    """Import an image; without `contents` its layers are downloaded, if no version has it."""
    model = spec.model if spec is not None else image.model
    variant = (spec.variant if spec is not None else None) or image.variant or DEFAULT_VARIANT
    session.refs.check_case(model)
    layout = session.layout
    with contextlib.ExitStack() as stack:
        stack.enter_context(layout.shared())
        chunks = stack.enter_context(ChunkStore(layout))
        there = _imported(session, image, VersionName(model, variant, ""), spec)
        if there is not None:
            if not len(chunks.missing(manifest_chunks([there])[0])):
                return replace(described(there, Listing(Sources([]), f"{address}")), present=True)
            spec = Spec.parse(f"{model}:{variant}@{there.version}")
        if contents is None:
            contents = stack.enter_context(downloaded(session, address, image, model, chunks))
        listing = stack.enter_context(listed(session, image, contents))
        found = Found(model, image.variant, image.sha256.hex, listing)
        return _import(session, found, spec, f"{address}", chunks)


def _imported(session: Session, image: FoundImage, name: VersionName, spec: Spec | None) -> Manifest | None:
    """Return the version of a model that was imported from an image; of a `spec` with a version, that one.

    Raises: ConflictError if that version is known to have other content.
    """
    wanted = exact_version(spec, "import") if spec is not None and spec.selector is not None else None
    for each in session.refs.versions(name.model):
        if each.variant != name.variant or (wanted is not None and each.version != wanted):
            continue
        manifest = session.refs.checked_version(each)
        if manifest is not None and image.is_in(manifest):
            return manifest
        if manifest is not None and wanted is not None and image.differs_from(manifest):
            raise other_content(each)
    return None


def resolve_source(source: str, folders: ToolFolders) -> tuple[Address, ToolFolders]:
    """Return the address that a user gave, or that of a tool's own folder of a model, and where to look.

    Raises: UsageError for any other path.
    """
    address = parse_address(source)
    if address is not None:
        return address, folders
    if is_remote(source):
        raise UsageError(
            f"a file from the web needs its SHA-256, {shown(source)[:120]} too",
            hint="give the SHA-256 that its publisher names, as in"
            " `ystore import URL MODEL@1.0.0 --sha256 HEX`",
        )
    path = absolute(source)
    if oci_layout.is_layout(path):
        return Address("oci", str(path)), folders
    name = hf_cache.name_of(path)
    if name is None:
        raise UsageError(
            f"{source} is not a model folder of another tool, so it needs a SPEC",
            hint="give a model and version, as in `ystore import PATH MODEL@1.0.0`",
        )
    return Address("hf", name), msgspec.structs.replace(folders, hf=path.parent)


def _import(
    session: Session, found: Found, spec: Spec | None, source: str, chunks: ChunkStore | None = None
) -> ImportResult:
    model = spec.model if spec is not None else found.model
    variant = (spec.variant if spec is not None else None) or found.variant or DEFAULT_VARIANT
    listing = replace(found.listing, place=source)
    if spec is not None and spec.selector is not None:
        name = VersionName(model, variant, exact_version(spec, "import"))
        return import_files(session, name, listing, chunks=chunks)
    build = f"+{found.revision[:_SHORT_CHARS]}" if found.revision else ""
    there = _stored(session, found, model, variant, build)
    if there is not None:
        return replace(described(there, listing), present=True)
    version = f"0.0.{_last_number(session, model) + 1}{build}"
    return import_files(session, VersionName(model, variant, version), listing, chunks=chunks)


def _stored(session: Session, found: Found, model: str, variant: str, build: str) -> Manifest | None:
    """Return the version of a revision that is stored with the same content.

    A revision may have more files than it had before, since tools download single files of it.
    """
    for name in session.refs.versions(model):
        if name.variant == variant and name.version.endswith(build) and re.fullmatch(_NUMBERED, name.version):
            manifest = session.refs.checked_version(name)
            report = session.activity.report
            if manifest and not find_differing(manifest, found.listing.sources, manifest.label, report):
                return manifest
    return None


def _last_number(session: Session, model: str) -> int:
    found = (re.fullmatch(_NUMBERED, name.version) for name in session.refs.versions(model))
    return max((int(match[1]) for match in found if match), default=0)
