"""Files whose only copy is in a view, since the file system cannot link a view's files to `files/`.

Owns the records that say which view it is.  A record is no proof: what is read there is hashed, as ever.
docs/format/held.md governs them; docs/design.md (stores without hard links) says why nothing is lost.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import PATH_LIMIT_BYTES
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.names import parse_file_path
from yarnstore.errors import FormatError, IntegrityError, NotFoundError, StorageError
from yarnstore.store import fsio, fsread, hashed
from yarnstore.store.batches import write_many
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout, file_name

# How a record in `files/` ends, behind the name of the file.
HELD = ".view"
_LIMIT_BYTES = 256 + PATH_LIMIT_BYTES
# How the name of a view ends that is being made, in `tmp/`.
_UNFINISHED = ".view"
# A file that moves from `files/` to a view, or back, is in one of them if both are looked at again.
_TRIES = 4


class _Record(NamedTuple):
    """The view that has a file, and the file's path there."""

    view: Sha256
    path: str


class Place(NamedTuple):
    """Where a file is, and its `lstat`: None if it is nowhere, `path` is then where it would be."""

    path: Path
    found: os.stat_result | None


def names(layout: StoreLayout) -> set[str]:
    """Return the names of all materialised files, wherever they are."""
    return {name.removesuffix(HELD) for name in fsread.list_names(layout.files)}


def find(layout: StoreLayout, name: str) -> Place:
    """Locate a file by its name in `files/`: the file of that name, or that of the view which holds it.

    Raises: StorageError.
    """
    path = layout.files / name
    for _ in range(_TRIES):
        found = fsread.stat_or_none(path)
        record = _read(layout, name) if found is None else None
        if record is None:
            break
        for folder in (unfinished(layout, record.view), layout.view(record.view)):
            there = fsread.stat_or_none(folder / record.path)
            if there is not None:
                return Place(folder / record.path, there)
    return Place(path, found)


def sizes(layout: StoreLayout, wanted: Iterable[str]) -> dict[str, int]:
    """Return the sizes of files by their names in `files/`, in bytes; 0 for one that is nowhere."""
    places = {name: find(layout, name).found for name in wanted}
    return {name: found.st_size if found is not None else 0 for name, found in places.items()}


def unfinished(layout: StoreLayout, manifest: Sha256) -> Path:
    """Return where a view is made."""
    return layout.tmp / f"{manifest.hex}{_UNFINISHED}"


def _read(layout: StoreLayout, name: str) -> _Record | None:
    """Return what a record says; None without a readable one."""
    with contextlib.suppress(NotFoundError, FormatError, StorageError, UnicodeDecodeError):
        line = fsread.read_bytes(layout.files / f"{name}{HELD}", _LIMIT_BYTES).decode()
        manifest, slash, path = line.partition("/")
        if slash and path.endswith("\n"):
            return _Record(Sha256.parse(manifest), parse_file_path(path[:-1]))
    return None


def _records(layout: StoreLayout) -> Iterator[tuple[str, _Record | None]]:
    """Yield each name that has a record, and what it says."""
    for record in fsread.list_names(layout.files):
        if record.endswith(HELD):
            name = record.removesuffix(HELD)
            yield name, _read(layout, name)


def recorded(layout: StoreLayout) -> set[str]:
    """Return the names of the files that views hold."""
    return {name for name, record in _records(layout) if record is not None}


def misleading(layout: StoreLayout, manifests: Mapping[Sha256, Manifest]) -> set[str]:
    """Return the names whose records lead to other files, as these manifests of views say."""
    paths = {
        digest: {file.path: file_name(file) for file in manifest.files}
        for digest, manifest in manifests.items()
    }
    return {
        name
        for name, record in _records(layout)
        if record is not None and record.view in paths and paths[record.view].get(record.path) != name
    }


def holds(layout: StoreLayout, manifest: Sha256) -> bool:
    """Whether a record says that a view holds a file."""
    return any(record is not None and record.view == manifest for _, record in _records(layout))


def _write(layout: StoreLayout, manifest: Manifest, files: Collection[ManifestFile]) -> None:
    """Record durably that a view holds files."""
    lines = [
        (f"{file_name(file)}{HELD}", f"{manifest.digest.hex}/{file.path}\n".encode(), fsio.FILE_MODE)
        for file in files
    ]
    write_many(lines, layout.files, tmp_dir=layout.tmp, suffix=".tmp")
    fsio.sync_dir(layout.files)


def _remove_records(layout: StoreLayout, wanted: Iterable[str]) -> None:
    for name in wanted:
        fsio.remove(layout.files / f"{name}{HELD}", sync=False)
    fsio.sync_dir(layout.files)


def copied(layout: StoreLayout, manifest: Manifest) -> list[ManifestFile]:
    """Return the files of a view that `files/` has once more; each content once.

    Two processes that made a file at the same time leave this, and a file system without hard links.  Small
    ones, which take no more of the disk than a record, are left out.
    """
    view = layout.view(manifest.digest)
    found = {}
    for file in manifest.files:
        if not hashed.has_record(file.size_bytes) or file_name(file) in found:
            continue
        first, second = fsread.stat_or_none(layout.file(file)), fsread.stat_or_none(view / file.path)
        if first is None or second is None or os.path.samestat(first, second):
            continue
        if _fits(first, file) and _fits(second, file):
            found[file_name(file)] = file
    return list(found.values())


def _fits(found: os.stat_result, file: ManifestFile) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_size == file.size_bytes


def hold(layout: StoreLayout, manifest: Manifest, sound: Collection[str]) -> None:
    """Leave copies in a view, which was synced, as the only ones: of the files `sound`, by their names in
    `files/`, which the caller has just hashed there, and which are as they were then.

    An older record of a hash is not enough, since the copy may be damaged since.  The new records are durable
    before `files/` loses anything.  Must be called within `hashed.changing`.

    Raises: StorageError.
    """
    view = layout.view(manifest.digest)
    files = [file for file in copied(layout, manifest) if file_name(file) in sound]
    files = [file for file in files if fsread.lstat(layout.file(file)).st_nlink == 1]
    found = [(file.sha256, fsread.lstat(view / file.path)) for file in files]
    known = hashed.known_as_found(layout, found)
    files = [file for file, is_known in zip(files, known, strict=True) if is_known]
    if files:
        layout.rely_on_files()
        _write(layout, manifest, files)
        for file in files:
            fsio.remove(layout.file(file), sync=False)
        fsio.sync_dir(layout.files)


def link_anew(layout: StoreLayout, manifest: Manifest, file: ManifestFile) -> bool | None:
    """Replace a view's copy of a file by a link to the one in `files/`, if that is sound now.

    Returns whether it is; None if the file system has no hard links.  Raises: StorageError.
    """
    source = layout.file(file)
    link = layout.tmp / f"{fsread.unique_name()}.link"
    fsio.ensure_dir(layout.tmp)
    if not fsio.try_link(source, link):
        return None
    try:
        if not hashed.hashes_to(layout, link, file.sha256):
            return False
        with hashed.changing(layout, [source]):
            place = layout.view(manifest.digest) / file.path
            fsio.set_writable(place.parent, writable=True)
            fsio.rename(link, place)
            fsio.set_writable(place.parent, writable=False)
        return True
    finally:
        fsio.remove(link, sync=False)


def take(layout: StoreLayout, manifest: Manifest, files: Iterable[ManifestFile]) -> list[ManifestFile]:
    """Move those of a view's files, which is being made, that are in `files/` alone; returns the others.

    Each is in one of the two places at any time, and the records, durable before, lead to both.  Must be
    called within `hashed.changing`.  Raises: StorageError.
    """
    place = unfinished(layout, manifest.digest)
    mine: dict[str, ManifestFile] = {}
    others = []
    device = fsread.lstat(place).st_dev
    for file in files:
        found = fsread.stat_or_none(layout.file(file))
        alone = found is not None and found.st_nlink == 1 and found.st_dev == device and _fits(found, file)
        if alone and hashed.has_record(file.size_bytes) and file_name(file) not in mine:
            mine[file_name(file)] = file
        else:
            others.append(file)
    if mine:
        layout.rely_on_files()
        _write(layout, manifest, mine.values())
        for name, file in mine.items():
            _rename(layout, name, layout.files / name, place / file.path)
        fsio.sync_dir(layout.files)
    return others


def release(layout: StoreLayout, manifest: Sha256, keep: Collection[str] | None = None) -> None:
    """Move the files that a view holds back to `files/`, before the view goes; with `keep`, only those.

    Must be called within `hashed.changing`.  Raises: StorageError.
    """
    mine = {
        name: record for name, record in _records(layout) if record is not None and record.view == manifest
    }
    if not mine:
        return
    for folder in (unfinished(layout, manifest), layout.view(manifest)):
        fsio.set_writable(folder, writable=True)
        for name, record in mine.items():
            found = fsread.stat_or_none(folder / record.path)
            if found is None or not stat.S_ISREG(found.st_mode):
                continue
            if (keep is None or name in keep) and fsread.stat_or_none(layout.files / name) is None:
                _rename(layout, name, folder / record.path, layout.files / name)
    fsio.sync_dir(layout.files)
    _remove_records(layout, mine)


def _rename(layout: StoreLayout, name: str, source: Path, target: Path) -> None:
    """Rename a file, and keep its record of being hashed valid."""
    before = fsread.lstat(source)
    digest = hashed.digest_of(name)
    known = digest is not None and hashed.known_as_found(layout, [(digest, before)])[0]
    fsio.rename(source, target)
    after = fsread.stat_or_none(target)
    if known and digest is not None and after is not None and hashed.is_same(before, after):
        hashed.note_hashed(layout, digest, after)


def reindex(
    layout: StoreLayout, *, is_sound: Callable[[Path, ManifestFile], bool] | None = None
) -> list[str]:
    """Make the records true again: drop those that lead nowhere or to other files, and record what only views
    have.

    With `is_sound`, only what it accepts.  Returns the names of the files that were found.  Needs the
    exclusive lock.  Raises: StorageError.
    """
    for name in fsread.list_names(layout.tmp):
        digest = hashed.digest_of(name.removesuffix(_UNFINISHED))
        if digest is not None and unfinished(layout, digest).name == name:
            release(layout, digest)  # which a killed process was making
    manifests = {manifest.digest: manifest for manifest in _of_views(layout)}
    stale = {name for name, _ in _records(layout) if find(layout, name).path == layout.files / name}
    stale |= misleading(layout, manifests)
    if stale:
        _remove_records(layout, stale)
    found: list[str] = []
    there = names(layout)
    for manifest in manifests.values():
        view = layout.view(manifest.digest)
        lost = {file_name(file): file for file in manifest.files if file_name(file) not in there}
        lost = {
            name: file
            for name, file in lost.items()
            if (found_now := fsread.stat_or_none(view / file.path)) is not None
            and _fits(found_now, file)
            and (is_sound is None or is_sound(view / file.path, file))
        }
        if lost:
            layout.rely_on_files()
            _write(layout, manifest, lost.values())
            there.update(lost)
            found += lost
    return found


def _of_views(layout: StoreLayout) -> Iterator[Manifest]:
    for name in fsread.list_names(layout.views):
        with contextlib.suppress(IntegrityError, NotFoundError, StorageError):
            yield layout.read_manifest(Sha256.parse(name))
