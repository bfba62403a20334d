"""`registry lint --deep`: check that the manifests and packs of a registry exist and agree.

Compares manifests, indexes and lengths, in a folder or at a URL; with `decode`, every byte in a folder.
`registry/lint` checks the entries.
"""

from __future__ import annotations

import contextlib
import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import zstandard

from yarnstore.backends import Backend
from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.index import Ids, PackIndex, find_ids, id_bytes, parse_index
from yarnstore.core.limits import INDEX_LIMIT_BYTES, MANIFEST_LIMIT_BYTES
from yarnstore.core.loadcode import LoadedCode
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.names import is_version
from yarnstore.errors import (
    BackendError,
    FormatError,
    IntegrityError,
    MissingKeyError,
    NotFoundError,
)
from yarnstore.ops.publishing.broken import find_broken
from yarnstore.ops.session.loadcode import find_in
from yarnstore.ops.session.model_files import model_key
from yarnstore.progress import Meter, OnProgress
from yarnstore.registry.check import format_key
from yarnstore.registry.entries import (
    TRANSPOSED,
    BasedDeltaEntry,
    ModelEntry,
    TransposedDeltaEntry,
    VersionEntry,
)
from yarnstore.registry.lint import Finding, Severity
from yarnstore.registry.lint.rules import iter_deltas
from yarnstore.registry.select import Build, builds_of
from yarnstore.store.chunks import PackReader, load_indexes
from yarnstore.store.filepath import Path
from yarnstore.store.layout import PackFolder
from yarnstore.store.packed import PackedDecoder
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.places import ChunkTable, manifest_chunks
from yarnstore.store.source_files import opened
from yarnstore.store.verify import hash_pack, iter_sound

_WINDOW: Final = 16


@dataclass
class DeepLint:
    """One check of the files that the entries name.

    `folder` is where packs are, None for a URL; with `decode` every byte of them is read.
    """

    backend: Backend
    folder: Path | None
    on_progress: OnProgress
    decode: bool

    def __post_init__(self) -> None:
        self._manifests: dict[Sha256, Manifest | None] = {}
        self._indexes: dict[tuple[str, PackId], PackIndex | None] = {}
        self.found: list[Finding] = []

    def check(self, models: Mapping[str, ModelEntry], *, split: bool) -> list[Finding]:
        """Return the problems of these files.  Raises: BackendError if the registry cannot be reached."""
        for model, entry in models.items():
            root = f"{model_key(model)}$" if split else f"$.models{format_key(model)}"
            for version in filter(is_version, entry.versions):
                for build in builds_of(entry, version):
                    self._build(build, f"{root}{_place(entry, build)}")
        if self.folder is not None:
            self._read_packs(self.folder)
        return self.found

    def _add(self, path: str, message: str, severity: Severity = "error") -> None:
        finding = Finding(severity, path, message)
        if finding not in self.found:
            self.found.append(finding)

    # --- one build -----------------------------------------------------------------------------

    def _build(self, build: Build, path: str) -> None:
        entry = build.entry
        digest = _sha256(entry.manifest)
        if digest is None:
            return
        manifest = self._manifest(digest, f"{path}.manifest")
        if manifest is None:
            return
        names = (manifest.model, manifest.version, manifest.variant)
        if names != (build.model, build.version, build.variant):
            why = f"belongs to {manifest.model} {manifest.version} ({manifest.variant})"
            self._add(f"{path}.manifest", why)
        promised = manifest.files[0].sha256 if len(manifest.files) == 1 else digest
        checksum = _sha256(entry.checksum)
        if checksum is not None and checksum != promised:
            what = "the file's hash in the manifest" if len(manifest.files) == 1 else "the manifest's digest"
            self._add(f"{path}.checksum", f"does not match {what}, {promised}")
        if entry.size_bytes is not None and entry.size_bytes != manifest.size_bytes:
            why = f"is {entry.size_bytes}, but the manifest's files have {manifest.size_bytes} bytes"
            self._add(f"{path}.size_bytes", why)
        if entry.files:
            listed = {(file.path, file.size_bytes, _sha256(file.sha256)) for file in entry.files}
            if listed != {(file.path, file.size_bytes, file.sha256) for file in manifest.files}:
                self._add(f"{path}.files", "differ from the manifest")
        self._packs(entry, manifest, path)
        self._deltas(entry, manifest, path)

    def _manifest(self, digest: Sha256, path: str) -> Manifest | None:
        if digest not in self._manifests:
            self._manifests[digest] = self._read_manifest(digest, path)
        elif self._manifests[digest] is None:
            self._add(path, "cannot be used; see above")
        return self._manifests[digest]

    def _read_manifest(self, digest: Sha256, path: str) -> Manifest | None:
        key = f"manifests/{digest.hex}.json"
        data = self._get(key, MANIFEST_LIMIT_BYTES)
        if data is None:
            self._add(path, f"{key} is missing")
            return None
        try:
            manifest = Manifest.parse(data, expected=digest)
            manifest_chunks([manifest])
        except IntegrityError as error:
            self._add(path, f"{key} {error.fields['why'] or 'does not match the hash in its name'}")
            return None
        packed = self._get(f"{key}.zst", MANIFEST_LIMIT_BYTES)
        if packed is not None and _unpacked(packed) != data:
            self._add(path, f"{key}.zst is not the compressed form of {key}")
        return manifest

    # --- packs ---------------------------------------------------------------------------------

    def _packs(self, entry: VersionEntry, manifest: Manifest, path: str) -> None:
        indexes = [
            index
            for n, text in enumerate(entry.packs)
            if (index := self._index("packs", text, f"{path}.packs[{n}]")) is not None
        ]
        ids, lengths = manifest_chunks([manifest])
        plain = np.full(len(ids), -1, np.int64)
        for index in indexes:
            rows = find_ids(index.ids, ids)
            whole = (rows >= 0) & (index.bases[rows] == b"") if len(index) else rows >= 0
            plain[whole] = index.plain[rows[whole]]
        absent = int((plain < 0).sum())
        if absent:
            first = id_bytes(ids[plain < 0], 0).hex()[:12]
            self._add(f"{path}.packs", f"lack {absent} of the version's {len(ids)} chunks ({first}…)")
        wrong = int(((plain >= 0) & (plain != lengths)).sum())
        if wrong:
            self._add(f"{path}.packs", f"have {wrong} chunks whose length differs from the manifest")

    def _deltas(self, entry: VersionEntry, manifest: Manifest, path: str) -> None:
        ids, _ = manifest_chunks([manifest])
        for here, delta in iter_deltas(entry, path):
            index = self._index("deltas", delta.pack, f"{here}.pack")
            base = _sha256(delta.base_manifest)
            before = self._manifest(base, f"{here}.base_manifest") if base is not None else None
            model = delta.base_model if isinstance(delta, BasedDeltaEntry) else manifest.model
            if before is not None and (before.model, before.version) != (model, delta.base):
                self._add(f"{here}.base_manifest", f"belongs to {before.label}, not to {delta.label}")
            if index is None:
                continue
            if index.pack_bytes != delta.size_bytes:
                self._add(f"{here}.size_bytes", f"is {delta.size_bytes}, but the pack has {index.pack_bytes}")
            transposes = isinstance(delta, TransposedDeltaEntry) and delta.transposes
            if not transposes and not (find_ids(index.ids, ids) >= 0).any():
                self._add(f"{here}.pack", "contains none of the version's chunks")
            if before is not None:
                known = manifest_chunks([before])[0]
                if isinstance(delta, TransposedDeltaEntry) and not transposes:
                    known = np.unique(np.concatenate([known, *self._parts(entry, delta, path)]))
                self._bases(index, known, ids, f"{here}.pack", delta.label)

    def _parts(self, entry: VersionEntry, delta: TransposedDeltaEntry, path: str) -> Iterator[Ids]:
        """Yield the chunks of packs with parts of transposed tensors that a delta may be against."""
        for n, other in enumerate(entry.transposed_deltas):
            if other.transposes and other.base_manifest == delta.base_manifest:
                index = self._index("deltas", other.pack, f"{path}.{TRANSPOSED}[{n}].pack")
                if index is not None:
                    yield index.ids

    def _bases(self, index: PackIndex, before: Ids, own: Ids, path: str, base: str) -> None:
        """Check that every delta has its base in the version that it leads from, or in its own."""
        bases = index.bases[index.bases != b""]
        unknown = int(((find_ids(before, bases) < 0) & (find_ids(own, bases) < 0)).sum())
        if unknown:
            self._add(path, f"has {unknown} deltas against chunks that are not in {base}")

    def _index(self, folder: str, text: str, path: str) -> PackIndex | None:
        try:
            pack = PackId.parse(text)
        except FormatError:
            return None  # reported by registry/lint
        place = (folder, pack)
        if place not in self._indexes:
            self._indexes[place] = self._read_index(folder, pack, path)
        elif self._indexes[place] is None:
            self._add(path, "cannot be used; see above")
        return self._indexes[place]

    def _read_index(self, folder: str, pack: PackId, path: str) -> PackIndex | None:
        key = f"{folder}/{pack.hex}"
        data = self._get(f"{key}.idx", INDEX_LIMIT_BYTES)
        if data is None:
            self._add(path, f"{key}.idx is missing")
            return None
        try:
            index = parse_index(data, pack=pack)
        except FormatError as error:
            self._add(path, f"{key}.idx {error.fields['why']}")
            return None
        try:
            with self.backend.open(f"{key}.pack", length=1) as body:
                next(iter(body), b"")
                size_bytes = body.total
        except MissingKeyError:
            self._add(path, f"{key}.pack is missing")
            return None
        except BackendError as error:
            self._add(path, f"{key}.pack cannot be read: {error.fields['why']}")
            return None
        if size_bytes is not None and size_bytes != index.pack_bytes:
            self._add(path, f"{key}.pack has {size_bytes} bytes, but its index says {index.pack_bytes}")
        return index

    def _get(self, key: str, limit_bytes: int) -> bytes | None:
        try:
            answer = self.backend.get(key, limit_bytes=limit_bytes)
        except MissingKeyError:
            return None
        return answer.data if answer is not None else None

    # --- every byte ----------------------------------------------------------------------------

    def _read_packs(self, root: Path) -> None:
        """Search all versions for code; with `decode` read every pack that is named, and hash every file."""
        full = PackFolder(root / "packs", root / ".tmp")
        table = ChunkTable(load_indexes(full, rebuild=False).indexes)
        with PackReader(full, table) as reader:
            if self.decode:
                self._decode_packs(reader, root)
            for manifest in self._manifests.values():
                if manifest is not None:
                    self._find_code(reader, manifest)
                    if self.decode:
                        self._find_broken(reader, manifest)
                        self._hash_files(reader, manifest)

    def _find_code(self, reader: PackReader, manifest: Manifest) -> None:
        """Warn of files that run code when they are loaded; damage is reported elsewhere."""
        found: list[LoadedCode] = []
        with contextlib.suppress(IntegrityError, NotFoundError):
            found = find_in((file.path, opened(_PackedFile(reader, file))) for file in manifest.files)
        for item in found:
            if item.suspect:
                self._add(f"manifests/{manifest.digest.hex}.json", str(item), "warning")

    def _find_broken(self, reader: PackReader, manifest: Manifest) -> None:
        """Warn of incomplete files; damage is reported elsewhere."""
        with contextlib.suppress(IntegrityError, NotFoundError):
            for fault in find_broken([(f.path, opened(_PackedFile(reader, f))) for f in manifest.files]):
                self._add(f"manifests/{manifest.digest.hex}.json", fault, "warning")

    def _decode_packs(self, reader: PackReader, root: Path) -> None:
        deltas = PackFolder(root / "deltas", root / ".tmp")
        there = [index for (folder, _), index in self._indexes.items() if folder == "deltas" and index]
        with PackedDecoder(reader, deltas, there, self._known_manifest) as decoder:
            for (folder, pack), index in self._indexes.items():
                if index is not None:
                    self._decode_pack(decoder, root / folder / f"{pack.hex}.pack", folder, index)

    def _known_manifest(self, digest: Sha256) -> Manifest:
        manifest = self._manifests.get(digest)
        if manifest is None:
            raise NotFoundError("manifest", digest.hex)
        return manifest

    def _decode_pack(self, decoder: PackedDecoder, path: Path, folder: str, index: PackIndex) -> None:
        key = f"{folder}/{path.name}"
        meter = Meter(self.on_progress, "check", key, index.pack_bytes)
        try:
            if hash_pack(path, meter.add) != index.pack.raw:
                self._add(key, "does not match the hash in its name")
                return
            sound = {entry.chunk_id for entry in iter_sound(path, index, decoder.decode)}
        except NotFoundError:
            return  # already reported
        wrong = len(index) - len(sound)
        if wrong > 0:
            self._add(key, f"has {wrong} chunks that do not decode to their digest")

    def _hash_files(self, reader: PackReader, manifest: Manifest) -> None:
        meter = Meter(self.on_progress, "check", manifest.label, manifest.size_bytes)
        for file in manifest.files:
            path = f"manifests/{manifest.digest.hex}.json"
            ids, lengths = file.chunk_list()
            found: list[int] = []
            sha256 = hashlib.sha256()
            try:
                rows = _rows(reader, ids)
                for data in ordered_map(reader.read_row, rows, window=_WINDOW):
                    sha256.update(data)
                    found.append(len(data))
                    meter.add(len(data))
            except (IntegrityError, NotFoundError) as error:
                self._add(path, f"{file.path} cannot be assembled: {error.message}")
                continue
            if sha256.digest() != file.sha256.raw:
                self._add(path, f"{file.path} does not match its hash in the manifest")
            elif found != lengths.tolist():
                self._add(path, f"{file.path} has chunks whose lengths differ from the manifest")


class _PackedFile:
    """A file in packs, as the readers of formats need it; the chunk that was read last is kept."""

    def __init__(self, reader: PackReader, file: ManifestFile) -> None:
        self.size = file.size_bytes
        ids, lengths = file.chunk_list()
        self._reader = reader
        self._rows = list(_rows(reader, ids))
        self._starts: list[int] = (np.cumsum(lengths) - lengths).tolist()
        self._kept = -1, b""

    def read(self, offset: int, length: int) -> bytes:
        parts = []
        end = min(offset + length, self.size)
        n = bisect_right(self._starts, offset) - 1
        while offset < end:
            if self._kept[0] != n:
                self._kept = n, bytes(self._reader.read_row(self._rows[n]))
            part = self._kept[1][offset - self._starts[n] :][: end - offset]
            if not part:
                raise IntegrityError("chunk", why="is shorter than the manifest says")
            parts.append(part)
            offset += len(part)
            n += 1
        return b"".join(parts)


def _rows(reader: PackReader, ids: Ids) -> Iterable[int]:
    rows = reader.table.find(ids).tolist()
    if rows and min(rows) < 0:
        raise NotFoundError("chunk", id_bytes(ids, rows.index(-1)).hex()[:12])
    found: list[int] = rows
    return found


def _place(model: ModelEntry, build: Build) -> str:
    """Return the JSON path of a build, below its model."""
    version = f".versions{format_key(build.version)}"
    further = build.variant in model.versions[build.version].variants
    return f"{version}.variants{format_key(build.variant)}" if further else version


def _sha256(text: str | None) -> Sha256 | None:
    try:
        return None if text is None else Sha256.parse(text)
    except FormatError:
        return None  # reported by registry/lint


def _unpacked(frame: bytes) -> bytes | None:
    try:
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=MANIFEST_LIMIT_BYTES)
    except zstandard.ZstdError:
        return None
