"""`import` of an address on the web: one file with a known SHA-256, without a registry."""

from __future__ import annotations

import time
from dataclasses import replace

from yarnstore.backends.urls import is_remote, shown
from yarnstore.core.digest import Sha256
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.errors import IntegrityError, UsageError
from yarnstore.ops.fetching.single_file import fetch_plain
from yarnstore.ops.local.import_export import ImportResult, Listing, described, other_content
from yarnstore.ops.session.lookup import Offered
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.ops.session.stored import stored_as
from yarnstore.registry.entries import ModelEntry, VersionEntry
from yarnstore.registry.select import Build
from yarnstore.registry.spec import Spec, exact_version
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.refs import VersionName
from yarnstore.store.source_files import Sources


def import_url(session: Session, url: str, spec: Spec, sha256: Sha256) -> ImportResult:
    """Download a file, and store it as the exact version that `spec` names if it has this SHA-256.

    An interrupted download continues when it is repeated.

    Raises: SpecError, UsageError, BackendError, DiskFullError; IntegrityError for another content;
    ConflictError if that version is stored with other content.
    """
    started = time.perf_counter()
    if not is_remote(url):
        raise UsageError(f"{shown(url)[:120]!r} is not an http:// or https:// address", hint="give one")
    version = exact_version(spec, "import")
    name = VersionName(spec.model, spec.variant or DEFAULT_VARIANT, version)
    listing = Listing(Sources([]), shown(url))
    with session.layout.shared(), ChunkStore(session.layout) as chunks:
        there = stored_as(session, name)
        if there is not None:
            if [file.sha256 for file in there.manifest.files] != [sha256]:
                raise other_content(name)
            return replace(described(there.manifest, listing), present=True)
        session.refs.check_case(name.model)
        entry = VersionEntry(checksum=str(sha256), download_url=url)
        build = Build(name.model, name.version, name.variant, entry)
        # No registry is asked, and no credentials are sent.
        source = RegistrySource("url", ".")
        offer = Offered(name, build, source, ModelEntry(model_id=name.model, versions={version: entry}))
        try:
            manifest, brought = fetch_plain(session, offer, chunks)
        except IntegrityError as error:
            raise IntegrityError(
                shown(url),
                why="does not match the given SHA-256",
                expected=str(sha256),
                got=str(error.fields.get("got", "")),
                hint="nothing was imported; check the address and the SHA-256",
            ) from error
    return replace(
        described(manifest, listing),
        chunks_new=brought.chunks,
        stored_bytes=manifest.size_bytes if brought.chunks else 0,
        seconds=round(time.perf_counter() - started, 3),
    )
