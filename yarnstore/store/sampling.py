"""Reads a random share of the packs and files, and returns the damaged ones, for `fsck --sample`.

A pack is read by its index and a file by the chunks of its manifest, so that parts can be checked separately.
The checks of `fsck` then read the suspects completely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from yarnstore.core.codec import verified
from yarnstore.core.digest import PackId
from yarnstore.core.index import Ints, PackIndex, find_ids, id_bytes
from yarnstore.core.limits import MIB
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import parse_entry
from yarnstore.errors import IntegrityError, NotFoundError, UsageError
from yarnstore.store import fsread, held
from yarnstore.store.filepath import Path
from yarnstore.store.hashed import digest_of, file_sha256
from yarnstore.store.layout import StoreLayout, file_name
from yarnstore.store.open_files import pread_exact
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.verify import Decode

# The size of a part that is read at once.
_PART_BYTES = 4 * MIB
_WINDOW = 8

Packs = Mapping[PackId, PackIndex | None]


@dataclass
class Suspects:
    """The packs and files that `fsck` reads completely."""

    packs: set[PackId] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    checked_bytes: int = 0  # bytes read to find them


@dataclass(frozen=True)
class _Part:
    """A part of a pack or file; `read` raises an error if it is damaged."""

    size_bytes: int
    read: Callable[[], object]
    pack: PackId | None = None
    file: str = ""


def check_share(share: float) -> None:
    """Raise UsageError unless the share is above 0 and at most 1."""
    if not 0 < share <= 1:
        raise UsageError(f"the sample is {share:g}, not more than 0 and at most 1", hint="0.05 is 5 %")


def drawn(share: float) -> bool:
    """Whether an item that is checked as a whole is in the sample."""
    return bool(np.random.default_rng().random() < share)


def draw(
    layout: StoreLayout,
    packs: Packs,
    manifests: Iterable[Manifest],
    share: float,
    decode: Decode,
    on_bytes: Callable[[int], None],
) -> Suspects:
    """Read a random `share` of the bytes of all packs and files, at least one part of 4 MiB.

    The suspects are damaged packs and files, those with the base of a damaged delta, and packs without an
    index.  Raises: StorageError.
    """
    parts = [*_pack_parts(layout, packs, decode), *_file_parts(layout, manifests)]
    wanted_bytes = share * sum(part.size_bytes for part in parts)
    chosen: list[int] = []
    chosen_bytes = 0
    for number in np.random.default_rng().permutation(len(parts)).tolist():
        if chosen_bytes >= wanted_bytes:
            break
        chosen.append(number)
        chosen_bytes += parts[number].size_bytes
    found = Suspects({pack for pack, index in packs.items() if index is None}, checked_bytes=chosen_bytes)
    drawn = (parts[number] for number in sorted(chosen))  # encoded sizes
    for part, good in ordered_map(_try, drawn, window=_WINDOW):
        on_bytes(part.size_bytes)
        if good:
            continue
        if part.pack is None:
            found.files.add(part.file)
        else:
            found.packs |= _with_bases(part.pack, packs)
    return found


def _try(part: _Part) -> tuple[_Part, bool]:
    try:
        part.read()
    except (IntegrityError, NotFoundError):
        return part, False
    return part, True


def _runs(lengths: Ints) -> Iterator[tuple[int, int, int]]:
    """Cut a column of lengths into runs of about 4 MiB: first row, end, bytes."""
    ends = np.cumsum(lengths)
    first, done = 0, 0
    while first < len(lengths):
        end = max(first + 1, int(np.searchsorted(ends, done + _PART_BYTES, "right")))
        yield first, end, int(ends[end - 1]) - done
        first, done = end, int(ends[end - 1])


def _pack_parts(layout: StoreLayout, packs: Packs, decode: Decode) -> Iterator[_Part]:
    for pack, index in packs.items():
        if index is None:
            continue
        path = layout.pack_folder.pack(pack)
        rows = np.argsort(index.offsets)
        for first, end, size in _runs(index.stored[rows]):
            yield _Part(size, partial(_read_rows, path, index, rows[first:end], decode), pack=pack)


def _read_rows(path: Path, index: PackIndex, rows: Ints, decode: Decode) -> None:
    fd = fsread.open_read(path)
    with open(fd, "rb"):
        for row in rows.tolist():
            entry = parse_entry(pread_exact(fd, path, int(index.offsets[row]), int(index.stored[row])))
            named = id_bytes(index.ids, row), int(index.plain[row]), int(index.encodings[row])
            if (entry.chunk_id, entry.plain_bytes, entry.encoding) != named:
                raise IntegrityError(str(path), why="does not match its index")
            decode(entry)


def _file_parts(layout: StoreLayout, manifests: Iterable[Manifest]) -> Iterator[_Part]:
    listed = {file_name(file): file for manifest in manifests for file in manifest.files}
    for name, size in held.sizes(layout, sorted(held.names(layout))).items():
        path = held.find(layout, name).path
        file = listed.get(name)
        if file is None or size != file.size_bytes:
            yield _Part(size, partial(_read_file, path, name), file=name)
            continue
        ids, lengths = file.chunk_list()
        offsets = np.cumsum(lengths) - lengths
        for first, end, part_bytes in _runs(lengths):
            rows = [(id_bytes(ids, n), int(offsets[n]), int(lengths[n])) for n in range(first, end)]
            yield _Part(part_bytes, partial(_read_ranges, path, rows), file=name)


def _read_file(path: Path, name: str) -> None:
    if file_sha256(path) != digest_of(name):
        raise IntegrityError(str(path), why="is corrupt")


def _read_ranges(path: Path, rows: list[tuple[bytes, int, int]]) -> None:
    fd = fsread.open_read(path)
    with open(fd, "rb"):
        for chunk_id, offset, length in rows:
            verified(chunk_id, pread_exact(fd, path, offset, length))


def _with_bases(pack: PackId, packs: Packs) -> set[PackId]:
    """Return a pack and the packs with the bases of its deltas, also indirect ones."""
    found = {pack}
    waiting = [pack]
    while waiting:
        index = packs[waiting.pop()]
        if index is None:
            continue
        bases = index.bases[index.bases != b""]
        for other, beside in packs.items():
            if other not in found and beside is not None and (find_ids(beside.ids, bases) >= 0).any():
                found.add(other)
                waiting.append(other)
    return found
