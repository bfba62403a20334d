"""Versions of the plain schema: one file at a `download_url`, with a `checksum` and no manifest.

The file is downloaded with resume, hashed as a whole, chunked on arrival, and gets a manifest of
its own.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from yarnstore.backends import SourceSet
from yarnstore.backends.base import check_key
from yarnstore.backends.mirrors import TRIES_PER_MIRROR, Kind, combined_error
from yarnstore.backends.pages import HEAD_BYTES, looks_like_page, page_error
from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import model_dirname, parse_file_path
from yarnstore.errors import (
    BackendError,
    FormatError,
    IntegrityError,
    InvalidNameError,
    LockTimeoutError,
    NotFoundError,
    StorageError,
    TransientError,
    UsageError,
)
from yarnstore.ops.fetching.transfer import TransferStats
from yarnstore.ops.session.connections import shown_address
from yarnstore.ops.session.lookup import Offered, stored_as
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.progress import Meter
from yarnstore.registry.entries import VersionEntry
from yarnstore.store import fsio, fsread
from yarnstore.store.chunks import ChunkStore, manifest_chunks
from yarnstore.store.hashed import file_sha256
from yarnstore.store.ingest import ingest
from yarnstore.store.refs import VersionName
from yarnstore.store.source_files import SourceFile

_POLL_S = 0.05
_PUBLISHER = "the publisher must correct the registry"


def fetch_plain(session: Session, offer: Offered, chunks: ChunkStore) -> tuple[Manifest, TransferStats]:
    """Download, hash and chunk the one file of a version, and set the version's ref.

    Raises: BackendError, IntegrityError with both hashes, DiskFullError.
    """
    layout = session.layout
    name, source, entry = offer.name, offer.source, offer.build.entry
    place = f"{name.model} {name.version} in {source.name}"
    if entry.download_url is None or entry.checksum is None:
        raise FormatError(place, "has neither a manifest nor a download_url with a checksum", hint=_PUBLISHER)
    expected = Sha256.parse(entry.checksum)
    if entry.size_bytes == 0 and expected != Sha256.of(b""):
        raise FormatError(
            f"{place}: size_bytes", "is 0, but the checksum is not that of an empty file", hint=_PUBLISHER
        )
    fsread.require_space(layout.root, 2 * (entry.size_bytes or 0))
    # By its content: an address may change between two runs, as signed ones do.
    path = layout.tmp / f"{Sha256.of(f'download {expected}'.encode()).hex}.download"
    with _claim(session, path) as part:
        there = _here(session, name, expected, chunks)
        if there is not None:
            part.remove()
            return there, TransferStats()
        meter = Meter(session.on_progress, "download", f"{name.model} {name.version}", entry.size_bytes or 0)
        urls = _addresses(session, entry, place)
        _download(session, source, place, urls, part, expected, entry.size_bytes, meter)
        item = SourceFile(_file_name(entry.download_url, name), path, part.size_bytes)
        with chunks.writing() as writer:
            files = ingest(
                [item], chunks, writer, Meter(session.on_progress, "read", item.path, part.size_bytes)
            )
        if files[0].sha256 != expected:
            raise IntegrityError(item.path, expected=str(expected), got=str(files[0].sha256))
        manifest = Manifest.make(name.model, name.version, name.variant, files)
        layout.write_manifest(manifest)
        chunks.know(manifest)
        session.refs.set_version(name, manifest.digest)
        part.remove()
    return manifest, TransferStats(meter.done, writer.chunks)


def _addresses(session: Session, entry: VersionEntry, place: str) -> tuple[str, ...]:
    """The download addresses that can be used, in the order to be asked; the others are noted.

    Raises: FormatError, which names the field, where none can.
    """
    named = [("download_url", entry.download_url or "")]
    named += [(f"mirrors[{n}]", url) for n, url in enumerate(entry.mirrors)]
    faults = {field: why for field, url in named if (why := _address_fault(url))}
    good = [url for field, url in named if field not in faults]
    errors = [FormatError(f"{place}: {field}", why, hint=_PUBLISHER) for field, why in faults.items()]
    if not good:
        raise errors[0]
    for error in errors:
        session.note(error.message)
    return session.links.in_order(good)


def _address_fault(url: str) -> str | None:
    """Why a download address cannot be used; None where it can be tried."""
    if not url.strip():
        return "is empty"
    if url != url.strip():
        return f"begins or ends with white space: {url[:120]!r}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"is not a URL: {url[:120]!r}"
    if parts.scheme in ("http", "https"):
        return None if host else f"has no host: {url[:120]!r}"
    if parts.scheme:
        return None if parts.scheme == "file" else f"has an unknown scheme, {parts.scheme[:40]!r}"
    if url.startswith("/"):
        return f"begins with '/': {url[:120]!r}; write it relative to the registry, or as a complete URL"
    try:
        check_key(url)
    except InvalidNameError as error:
        return f"{error.fields['why']}: {url[:120]!r}"
    return None


def _file_name(url: str, name: VersionName) -> str:
    """The name that the file has in the version: the last part of the URL, if it can be one."""
    try:
        return parse_file_path(unquote(urlsplit(url).path).rpartition("/")[2])
    except FormatError:
        return f"{model_dirname(name.model)}.bin"


def _claim(session: Session, path: Path) -> fsio.PartialFile:
    """The partial download, when no other process is writing it."""
    deadline = time.monotonic() + session.layout.lock_timeout_s
    while True:
        part = fsio.PartialFile(path)
        if part.locked and part.is_there():
            return part
        part.__exit__()
        if time.monotonic() > deadline:
            raise LockTimeoutError(str(path), session.layout.lock_timeout_s, [])
        time.sleep(_POLL_S)


def _here(session: Session, name: VersionName, expected: Sha256, chunks: ChunkStore) -> Manifest | None:
    """The version, where the store has it, as another process may have brought it meanwhile."""
    stored = stored_as(session, name)
    if stored is None:
        return None
    with contextlib.suppress(NotFoundError, IntegrityError):
        manifest = stored.manifest
        chunks.reload()  # another process brought it while this one waited
        missing = chunks.missing(manifest_chunks([manifest])[0])
        if [file.sha256 for file in manifest.files] == [expected] and not len(missing):
            return manifest
    return None


def _download(
    session: Session,
    source: RegistrySource,
    place: str,
    urls: Sequence[str],
    part: fsio.PartialFile,
    expected: Sha256,
    size: int | None,
    meter: Meter,
) -> None:
    """Fill the partial file until its SHA-256 is the expected one, from the first URL that gives it."""
    wrong: dict[str, Sha256] = {}
    failures: list[BackendError] = []
    fault: IntegrityError | None = None
    for url in urls:
        shown = shown_address(url, folder=False)
        try:
            got = _try_url(session, source, place, url, part, expected, size, meter, alone=len(urls) == 1)
        except IntegrityError as error:  # of another size: not worth a second try
            fault = fault or error
            part.truncate()
            session.links.report(source, url, "lied", error.message)
        except (BackendError, UsageError) as error:
            failure = error if isinstance(error, BackendError) else BackendError(shown, error.message)
            failures.append(failure)
            if isinstance(error, TransientError):
                kind: Kind = "stalled" if error.reason == "stalled" else "unreachable"
                session.links.report(source, url, kind, str(error.fields["why"]))
        else:
            if got is None:
                return
            wrong[shown] = got
            session.links.report(source, url, "lied", f"sent {got}, not {expected}")
        if url != urls[-1]:
            session.note(f"{shown} did not give {_last_part(url)}; trying the next mirror")
    if wrong:
        raise IntegrityError(
            f"{place}: {_last_part(urls[0])}",
            why="does not match the checksum in the registry",
            expected=str(expected),
            got=str(next(iter(wrong.values()))),
            source=", ".join(f"{shown} (twice)" for shown in wrong),
            hint=f"nothing was installed; {_PUBLISHER}",
        )
    raise fault or combined_error(failures)


def _last_part(url: str) -> str:
    """The last part of a URL, without its query."""
    return urlsplit(url).path.rpartition("/")[2] or url


def _try_url(
    session: Session,
    source: RegistrySource,
    place: str,
    url: str,
    part: fsio.PartialFile,
    expected: Sha256,
    size: int | None,
    meter: Meter,
    *,
    alone: bool,
) -> Sha256 | None:
    """Two tries at one URL.  None if the file is right now, else what its hash was.

    What another URL or an earlier run has left in the partial file is gone on from, and is no try.
    """
    backend, key = session.links.for_file(source, url)
    attempts = None if alone else TRIES_PER_MIRROR
    got: Sha256 | None = None
    for _ in range(TRIES_PER_MIRROR + (part.size_bytes > 0)):
        _fill(backend, key, place, part, size, meter, attempts)
        got = file_sha256(part.path)
        if got == expected:
            return None
        page = looks_like_page(fsread.read_start(part.path, HEAD_BYTES))
        part.truncate()
        if page:
            raise page_error(shown_address(url, folder=False), _last_part(url))
    return got


def _fill(
    backend: SourceSet,
    key: str,
    place: str,
    part: fsio.PartialFile,
    size: int | None,
    meter: Meter,
    attempts: int | None,
) -> None:
    """Append what is missing of the file.  Where a server ignores ranges, what is there already is skipped,
    so that an answer that breaks off earlier loses nothing."""
    what = f"{place}: {_last_part(key)}"
    tries = backend.tries(attempts=attempts)
    while size is None or part.size_bytes < size:
        before = part.size_bytes
        try:
            with backend.open(key, start=before, tries=tries) as body:
                blocks = iter(body)
                first = next(blocks, b"") if body.start == 0 else b""
                other = size is not None and body.total not in (None, size)
                if (other or before) and looks_like_page(first[:HEAD_BYTES]) and not _is_page(part):
                    raise page_error(backend.url, _last_part(key))
                if other:
                    raise IntegrityError(
                        what,
                        why="does not match the size_bytes in the registry",
                        expected=f"{size} bytes",
                        got=f"{body.total} bytes",
                        source=backend.url,
                        hint=_PUBLISHER,
                    )
                at = body.start
                for block in itertools.chain((first,), blocks):
                    fresh = block[max(0, part.size_bytes - at) :]
                    at += len(block)
                    if fresh:
                        _write(part, fresh, size, what)
                        meter.add(len(fresh))
        except TransientError as error:
            backend.resume(tries, error, part.size_bytes - before)
        else:
            return


def _is_page(part: fsio.PartialFile) -> bool:
    """Whether what has come already is a web page, as the file may be."""
    return part.size_bytes > 0 and looks_like_page(fsread.read_start(part.path, HEAD_BYTES))


def _write(part: fsio.PartialFile, block: bytes, size: int | None, what: str) -> None:
    if size is not None and part.size_bytes + len(block) > size:
        raise IntegrityError(
            what, why=f"is larger than the size_bytes in the registry, {size}", hint=_PUBLISHER
        )
    if size is None:
        fsread.require_space(part.path.parent, len(block))
    try:
        part.write(block)
    except StorageError:
        part.truncate()  # gives the space back
        raise
