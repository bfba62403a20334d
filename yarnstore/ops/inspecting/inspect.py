"""`inspect`: list the tensors of a model file, and how its chunks are stored.

Of a path, reads only headers; of a version, only the manifest and the indexes of packs.  `core/layouts` has
the file formats.
"""

from __future__ import annotations

import codecs
import contextlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from yarnstore.core.codec import Encoding
from yarnstore.core.encodings import guess_encoding
from yarnstore.core.index import Ids, Ints, find_ids
from yarnstore.core.layouts import Layout, parse_layout
from yarnstore.core.limits import KIB
from yarnstore.core.loadcode import LoadedCode
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.errors import FormatError, IntegrityError, NotFoundError
from yarnstore.ops.fetching.fetch import manifest_of
from yarnstore.ops.inspecting.readers import (
    Content,
    find_version,
    local_contents,
    parse_place,
    stored_contents,
    version_label,
)
from yarnstore.ops.session.loadcode import find_in
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import Stored
from yarnstore.registry.spec import Spec
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path
from yarnstore.store.files import has_file
from yarnstore.store.places import manifest_chunks
from yarnstore.store.source_files import opened

# The sample size for a file of unknown format.
_SAMPLE_BYTES = 96 * KIB
_NAMES = {encoding.value: encoding.name.lower().replace("_", "-") for encoding in Encoding}
_IN_FILE, _ABSENT = -1, -2


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file."""

    name: str  #: The name of the tensor.
    dtype: str
    shape: tuple[int, ...]
    offset: int  #: Where it begins in the file, in bytes.
    size_bytes: int  #: Its size in bytes.
    parameters: int


@dataclass(frozen=True)
class TypeInfo:
    """All tensors of one element type."""

    dtype: str
    tensors: int  #: How many tensors there are.
    parameters: int
    size_bytes: int  #: Their size in bytes.


@dataclass(frozen=True)
class StoredAs:
    """All chunks that are stored in one way."""

    #: `raw`, `zstd`, `planes`, `delta-planes`, `delta-zstd`; `file`: only in a materialised file; `absent`:
    #: not stored.
    encoding: str
    chunks: int  #: How many chunks there are.
    size_bytes: int  #: Their size in bytes, decoded.
    stored_bytes: int  #: Their size in packs, in bytes.


@dataclass(frozen=True)
class FileInfo:
    """One file of an inspected version, file or folder."""

    path: str  #: The path within the version or folder.
    size_bytes: int  #: The size of the file, in bytes.
    sha256: str | None
    format: str | None  #: The file format; None if it has no tensors or cannot be parsed.
    why: str | None  #: Why the file could not be parsed.
    looks: str | None  #: What a sample of the file looks like, if the format is unknown.
    parameters: int
    types: list[TypeInfo]  #: Its tensors by element type.
    other_bytes: int  #: The number of bytes outside of tensors.
    chunks: int | None  #: How many chunks the file has; None if it is not in the store.
    storage: list[StoredAs] | None  #: How its chunks are stored; None if it is not in the store.
    #: Whether the file exists in the store as a file; None if it is not in the store.
    materialised: bool | None
    tensors: list[TensorInfo]  #: Its tensors, in the order of the file.
    #: Parts that run code when the file is loaded, and pickles of plain data; empty if it is not downloaded.
    code: list[LoadedCode] = field(default_factory=list)


@dataclass(frozen=True)
class InspectResult:
    """The content of a version, a file or a folder."""

    label: str  #: The model and version, or the path.
    manifest: str | None
    path: str | None  #: The path that was inspected, if it was a path.
    in_store: bool  #: Whether the version is stored completely.
    size_bytes: int
    parameters: int
    types: list[TypeInfo]  #: All tensors by element type.
    chunks: int | None  #: How many distinct chunks there are; None if it is not in the store.
    #: How its chunks are stored, shared chunks counted once; None if it is not in the store.
    storage: list[StoredAs] | None
    files: list[FileInfo]  #: The files.


def inspect(session: Session, what: str) -> InspectResult:
    """Return what is known about a spec or a path.  If a version is not stored, its manifest is fetched.

    Raises: NotFoundError, SpecError, UsageError, BackendError, IntegrityError, StorageError.
    """
    place = parse_place(what)
    if isinstance(place, Path):
        local = local_contents(place)
        files = _with_code([_local_file(content) for content in local], local)
        return _sum_up(str(place), None, str(place), files, None, in_store=False)
    with session.layout.shared(), ChunkStore(session.layout) as store:
        manifest, here = _find(session, place)
        contents = stored_contents(manifest, store)
        pairs = zip(manifest.files, contents, strict=True)
        files = [_stored_file(session, file, content, store, here=here) for file, content in pairs]
        storage = None
        if here:
            files = _with_code(files, contents)
            ids, lengths = manifest_chunks([manifest])
            storage = _count(store, ids, lengths)
    return _sum_up(version_label(manifest), str(manifest.digest), None, files, storage, in_store=here)


def _find(session: Session, spec: Spec) -> tuple[Manifest, bool]:
    """Return the manifest of a version, and whether the version is stored."""
    found = find_version(session, spec)
    if isinstance(found, Stored):
        return found.manifest, True
    if found.build.entry.manifest is None:
        hint = f"`ystore fetch {found.name.model}@{found.name.version}`, then inspect it"
        raise NotFoundError("manifest", str(found.name), where="the registry", hint=hint)
    there = session.refs.version(found.name)
    return manifest_of(session, found), there is not None


def _with_code(files: list[FileInfo], contents: Sequence[Content]) -> list[FileInfo]:
    """Add to each file what runs code in it; a damaged file is left to `fsck`."""
    found: list[LoadedCode] = []
    with contextlib.suppress(IntegrityError):
        found = find_in((content.path, opened(_ContentSource(content))) for content in contents)
    return [replace(file, code=[item for item in found if item.path == file.path]) for file in files]


# --- files ------------------------------------------------------------------------------------


def _local_file(content: Content) -> FileInfo:
    return _file_info(content, None, None, None)


def _stored_file(
    session: Session, file: ManifestFile, content: Content, store: ChunkStore, *, here: bool
) -> FileInfo:
    if not here:
        return _file_info(content, None, None, None)
    ids, lengths = file.chunk_list()
    return _file_info(content, len(ids), _count(store, ids, lengths), has_file(session.layout, file))


def _file_info(
    content: Content, chunks: int | None, storage: list[StoredAs] | None, materialised: bool | None
) -> FileInfo:
    layout = content.layout
    tensors = [] if layout is None else _tensors(layout)
    why = looks = None
    readable = content.source is not None or storage is not None
    if layout is None and readable:
        # Damage is for `fsck` to report.
        with contextlib.suppress(IntegrityError):
            why, looks = _why(content), _looks(content)
    return FileInfo(
        path=content.path,
        size_bytes=content.size_bytes,
        sha256=content.sha256,
        format=None if layout is None else layout.format,
        why=why,
        looks=looks,
        parameters=sum(tensor.parameters for tensor in tensors),
        types=_types(tensors),
        other_bytes=content.size_bytes - sum(tensor.size_bytes for tensor in tensors),
        chunks=chunks,
        storage=storage,
        materialised=materialised,
        tensors=tensors,
    )


def _tensors(layout: Layout) -> list[TensorInfo]:
    return [
        TensorInfo(
            name=name,
            dtype=dtype.name,
            shape=shape,
            offset=offset,
            size_bytes=length,
            parameters=math.prod(shape),
        )
        for name, dtype, shape, offset, length in layout.tensors
    ]


def _types(tensors: Iterable[TensorInfo]) -> list[TypeInfo]:
    """Sum up tensors by element type, the type with the most bytes first."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for tensor in tensors:
        for n, count in enumerate((1, tensor.parameters, tensor.size_bytes)):
            sums[tensor.dtype][n] += count
    found = [TypeInfo(dtype, *counts) for dtype, counts in sums.items()]
    return sorted(found, key=lambda item: (-item.size_bytes, item.dtype))


class _ContentSource:
    """A file as readers of layouts need it."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self.size = content.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        return bytes(self._content.read(offset, length)) if length else b""


def _why(content: Content) -> str:
    """Return why a file has no layout, in the words of the layout reader."""
    try:
        parse_layout(_ContentSource(content), name=content.path)
    except FormatError as error:
        what = "it" if error.fields["what"] == "layout" else error.fields["what"]
        return f"{what} {error.fields['why']}"
    return "it has no tensors"


def _looks(content: Content) -> str | None:
    """Return what a sample from the middle of a file looks like."""
    size = min(content.size_bytes, _SAMPLE_BYTES)
    if not size:
        return "empty"
    # A multiple of 8, so that the phase of the elements is known.
    sample = bytes(content.read((content.size_bytes - size) // 16 * 8, size))
    if _is_text(sample):
        return "text"
    guess = guess_encoding(sample)
    if guess.kind == "planes":
        return f"numbers of {guess.width} bytes"
    return "noise: compressed or encrypted" if guess.kind == "raw" else "bytes that compress"


def _is_text(sample: bytes) -> bool:
    # The sample may begin or end within a character.
    start = next((n for n, byte in enumerate(sample[:4]) if byte & 0xC0 != 0x80), 0)
    try:
        text, _ = codecs.utf_8_decode(sample[start:], "strict", False)
    except UnicodeDecodeError:
        return False
    return "\0" not in text


# --- how it is stored -------------------------------------------------------------------------


def _count(store: ChunkStore, ids: Ids, lengths: Ints) -> list[StoredAs]:
    """Count chunks by how each would be read from the store, the encoding with the most bytes first.

    `ids` has shape (n,), and each counts.
    """
    table = store.table
    rows = table.find(ids)
    here = rows >= 0
    kinds = np.full(len(ids), _ABSENT)
    kinds[find_ids(store.files.ids, ids) >= 0] = _IN_FILE
    kinds[here] = table.encodings[rows[here]]
    stored = np.zeros(len(ids), np.int64)
    stored[here] = table.stored[rows[here]]
    found = []
    for kind in np.unique(kinds).tolist():
        chosen = kinds == kind
        name = {_IN_FILE: "file", _ABSENT: "absent"}.get(kind) or _NAMES.get(kind, str(kind))
        sums = int(lengths[chosen].sum()), int(stored[chosen].sum())
        found.append(StoredAs(name, int(chosen.sum()), *sums))
    return sorted(found, key=lambda item: (-item.size_bytes, item.encoding))


def _sum_up(
    label: str,
    manifest: str | None,
    path: str | None,
    files: list[FileInfo],
    storage: list[StoredAs] | None,
    *,
    in_store: bool,
) -> InspectResult:
    return InspectResult(
        label=label,
        manifest=manifest,
        path=path,
        in_store=in_store,
        size_bytes=sum(file.size_bytes for file in files),
        parameters=sum(file.parameters for file in files),
        types=_types(tensor for file in files for tensor in file.tensors),
        chunks=None if storage is None else sum(item.chunks for item in storage),
        storage=storage,
        files=files,
    )
