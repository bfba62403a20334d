"""Versions of the plain schema: one file at a `download_url`, with a `checksum` and no manifest.

The file is downloaded from its sources until its hash is right, then cut into chunks, and gets a manifest
made here.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from urllib.parse import unquote, urlsplit

from yarnstore.backends import Body, SourceSet
from yarnstore.backends.base import check_key
from yarnstore.backends.pages import HEAD_BYTES, looks_like_page, page_error
from yarnstore.backends.sources import EARLIER, BadPart
from yarnstore.backends.urls import shown
from yarnstore.core.digest import Buffer, Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import model_dirname, parse_file_path
from yarnstore.core.sizes import Reserve
from yarnstore.errors import (
    FormatError,
    IntegrityError,
    InvalidNameError,
    LockTimeoutError,
    NotFoundError,
    StorageError,
)
from yarnstore.ops.fetching.alternates import take_file
from yarnstore.ops.fetching.transfer import TransferStats
from yarnstore.ops.session import counting
from yarnstore.ops.session.lookup import Offered
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.ops.session.stored import stored_as
from yarnstore.progress import Meter
from yarnstore.registry.entries import VersionEntry
from yarnstore.store import fsread, growing
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path
from yarnstore.store.hashed import file_sha256
from yarnstore.store.ingest import ingest
from yarnstore.store.places import manifest_chunks
from yarnstore.store.refs import VersionName
from yarnstore.store.source_files import SourceFile

_POLL_S = 0.05
_PUBLISHER = "the publisher must fix the registry"


def fetch_plain(session: Session, offer: Offered, chunks: ChunkStore) -> tuple[Manifest, TransferStats]:
    """Download the one file of a version, hash it, cut it into chunks, and set the version's ref.

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
    fsread.require_space(layout.root, 2 * (entry.size_bytes or 0), layout.reserve)
    # Named by its content, since an address may change between two runs, as signed ones do.
    path = layout.tmp / f"{Sha256.of(f'download {expected}'.encode()).hex}.download"
    with claim(session, path) as part:
        there = _here(session, name, expected, chunks)
        if there is not None:
            part.remove()
            return there, TransferStats()
        meter = Meter(
            session.activity.report, "download", f"{name.model} {name.version}", entry.size_bytes or 0
        )
        file_name = _file_name(entry.download_url, name)
        copied = take_file(session, expected, part)
        if not copied:
            urls = _addresses(session, entry, place)
            last = _last_part(urls[0])
            wanted = WantedFile(last, place, part, expected, entry.size_bytes, meter, layout.reserve)
            with counting.download(meter):
                _sources(session, source, urls).stream(file_name, wanted)
        item = SourceFile(file_name, path, part.size_bytes)
        with chunks.writing() as writer:
            files = ingest(
                [item], chunks, writer, Meter(session.activity.report, "read", item.path, part.size_bytes)
            )
        if files[0].sha256 != expected:
            raise IntegrityError(item.path, expected=str(expected), got=str(files[0].sha256))
        manifest = Manifest.make(name.model, name.version, name.variant, files)
        layout.write_manifest(manifest)
        chunks.know(manifest)
        session.refs.set_version(name, manifest.digest)
        part.remove()
    return manifest, TransferStats(
        meter.done,
        0 if copied else writer.chunks,
        alternate_bytes=manifest.size_bytes if copied else 0,
    )


def _addresses(session: Session, entry: VersionEntry, place: str) -> tuple[str, ...]:
    """Return the usable download addresses; the others are reported in notes.

    Raises: FormatError naming the field, if none is usable.
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
    return tuple(dict.fromkeys(good))


def _address_fault(url: str) -> str | None:
    """Return why a download address cannot be used; None if it can."""
    text = shown(url)[:120]
    if not url.strip():
        return "is empty"
    if url != url.strip():
        return f"begins or ends with white space: {text!r}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"is not a URL: {text!r}"
    if parts.scheme in ("http", "https"):
        return None if host else f"has no host: {text!r}"
    if parts.scheme:
        return None if parts.scheme == "file" else f"has an unknown scheme, {parts.scheme[:40]!r}"
    if url.startswith("/"):
        return f"begins with '/': {text!r}; write it relative to the registry, or as a complete URL"
    try:
        check_key(url)
    except InvalidNameError as error:
        return f"{error.fields['why']}: {text!r}"
    return None


def _file_name(url: str, name: VersionName) -> str:
    """Return the file's name in the version: the last part of the URL, if that is a valid name."""
    try:
        return parse_file_path(unquote(urlsplit(url).path).rpartition("/")[2])
    except (ValueError, FormatError):  # an invalid URL is reported when it would be used
        return f"{model_dirname(name.model)}.bin"


def claim(session: Session, path: Path) -> growing.PartialFile:
    """Return the partial download, once no other process writes it."""
    deadline = time.monotonic() + session.layout.lock_timeout_s
    while True:
        part = growing.PartialFile(path)
        if part.locked and part.is_there():
            return part
        part.__exit__()
        if time.monotonic() > deadline:
            raise LockTimeoutError(str(path), session.layout.lock_timeout_s, [])
        time.sleep(_POLL_S)


def _here(session: Session, name: VersionName, expected: Sha256, chunks: ChunkStore) -> Manifest | None:
    """Return the version if the store has it, since another process may have stored it meanwhile."""
    stored = stored_as(session, name)
    if stored is None:
        return None
    with contextlib.suppress(NotFoundError, IntegrityError):
        manifest = stored.manifest
        chunks.reload()  # another process stored it while this one waited
        missing = chunks.missing(manifest_chunks([manifest])[0])
        if [file.sha256 for file in manifest.files] == [expected] and not len(missing):
            return manifest
    return None


def _sources(session: Session, source: RegistrySource, urls: Sequence[str]) -> SourceSet:
    """Return the sources of the file.  A source that fails is reported in a note."""
    name = _last_part(urls[0])
    return session.registries.links.for_file(
        source,
        urls,
        lambda url: session.note(f"could not download {name} from {url}; trying the next mirror"),
    )


def _last_part(url: str) -> str:
    """Return the last part of a URL's path, without the query."""
    return urlsplit(url).path.rpartition("/")[2] or url


class WantedFile:
    """A file with a known SHA-256, as a `Wanted`; `part` may have bytes of an earlier run.

    `promised` name the size and the hash for errors, `hint` says what to do about wrong ones.
    """

    def __init__(
        self,
        name: str,
        place: str,
        part: growing.PartialFile,
        expected: Sha256,
        size_bytes: int | None,
        meter: Meter,
        reserve: Reserve,
        *,
        promised: tuple[str, str] = ("size_bytes in the registry", "checksum in the registry"),
        hint: str = _PUBLISHER,
    ) -> None:
        self._size_of, self._hash_of = promised
        self._hint = hint
        self._name = name
        self._reserve = reserve
        self._what = f"{place}: {name}"
        self._part = part
        self._expected = expected
        self._size_bytes = size_bytes
        self._meter = meter
        self._is_right = False
        self._sources = {EARLIER} if part.size_bytes else set()

    @property
    def came_bytes(self) -> int:
        """See `Wanted`."""
        return self._part.size_bytes

    def next_range(self) -> tuple[int, int | None] | None:
        """See `Wanted`."""
        if not self._is_right and self._size_bytes is not None and self._part.size_bytes >= self._size_bytes:
            self._verify()  # an earlier run downloaded all of it
        return None if self._is_right else (self._part.size_bytes, None)

    def receive(self, body: Body) -> Iterator[BadPart]:
        """See `Wanted`.

        If the server ignores ranges, bytes that exist are skipped, and kept if this is interrupted.
        """
        blocks = iter(body)
        first = next(blocks, b"") if body.start == 0 else b""
        size, part = self._size_bytes, self._part
        other = size is not None and body.total not in (None, size)
        if (other or part.size_bytes) and looks_like_page(first[:HEAD_BYTES]) and not self._is_page():
            raise page_error(body.source, self._name)
        self._sources.add(body.source)
        if other:
            self.restart()
            error = IntegrityError(
                self._what,
                why=f"does not match the {self._size_of}",
                expected=f"{size} bytes",
                got=f"{body.total} bytes",
                hint=self._hint,
            )
            yield BadPart(error, is_final=True)
            return
        at = body.start
        for block in itertools.chain((first,), blocks):
            fresh = block[max(0, part.size_bytes - at) :]
            at += len(block)
            if size is not None and part.size_bytes + len(fresh) > size:
                sources = frozenset(self._sources)
                self.restart()
                why = f"is larger than the {self._size_of}, {size}"
                error = IntegrityError(self._what, why=why, hint=self._hint)
                yield BadPart(error, sources=sources, is_final=True)
                return
            if fresh:
                self._write(fresh)
        sources, was_page = frozenset(self._sources), self._is_page()
        got = self._verify()
        if not self._is_right:
            if was_page:
                raise page_error(body.source, self._name)
            error = IntegrityError(
                self._what,
                why=f"does not match the {self._hash_of}",
                expected=str(self._expected),
                got=str(got),
                hint=f"nothing was installed; {self._hint}",
            )
            yield BadPart(error, sources=sources)

    def restart(self) -> bool:
        """See `Wanted`."""
        had = self._part.size_bytes > 0
        self._part.truncate()
        self._sources.clear()
        return had

    def _verify(self) -> Sha256:
        """Hash the file, and delete it if the hash is wrong."""
        got = file_sha256(self._part.path)
        self._is_right = got == self._expected
        if not self._is_right:
            self.restart()
        return got

    def _is_page(self) -> bool:
        """Whether the downloaded bytes are a web page."""
        return self._part.size_bytes > 0 and looks_like_page(fsread.read_start(self._part.path, HEAD_BYTES))

    def _write(self, block: Buffer) -> None:
        if self._size_bytes is None:
            fsread.require_space(self._part.path.parent, len(block), self._reserve)
        try:
            self._part.write(block)
        except StorageError:
            self._part.truncate()  # frees the disk space
            raise
        self._meter.add(len(block))
