"""Views, the links that applications open, and the records of use.

A view is a folder of hard links to materialised files; it is created by a rename, completely or not at all.
Without hard links, a view has the only copy of its files (`store/held`).  No chunk is read here, so that
changing between views is fast.  docs/format/store.md governs `views/`, `models/` and `logs/used/`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterable

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.errors import FormatError, IntegrityError, NotFoundError, StorageError
from yarnstore.store import folders, fsio, fsread, growing, hashed, lock, trash
from yarnstore.store.filepath import Path
from yarnstore.store.kernel import try_lock, wait_lock
from yarnstore.store.layout import StoreLayout, file_mode, file_name
from yarnstore.store.opentree import OpenTree

# The fault of a link's path at which something else is, which only a repair moves away.
_NO_LINK = "is not a link"
# The permissions that a file system keeps: on Windows, only whether a file can be written.
_MODE = 0o222 if os.name == "nt" else 0o777


def has_view(layout: StoreLayout, manifest: Sha256) -> bool:
    """Whether a version's view exists; `view_files` says whether it is complete."""
    return fsread.is_folder(layout.view(manifest))


def view_folders(manifest: Manifest) -> set[str]:
    """Return the folders of a view, by their paths in it: those of its files, and the empty ones."""
    folders: set[str] = set()
    for path in (*(os.path.dirname(file.path) for file in manifest.files), *manifest.empty_folders):
        while path and path not in folders:
            folders.add(path)
            path = os.path.dirname(path)
    return folders


def view_files(layout: StoreLayout, manifest: Manifest) -> list[tuple[ManifestFile, os.stat_result]] | None:
    """Return the `lstat` of each file of a view, without following a link.

    Returns None if the view does not match its manifest: it, a folder or a file is missing, or has another
    type or size.
    """
    files = []
    try:
        with OpenTree(layout.view(manifest.digest)) as view:
            if any(view.stat_folder(folder) is None for folder in manifest.empty_folders):
                return None
            for file in manifest.files:
                found = view.stat_or_none(file.path)
                if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != file.size_bytes:
                    return None
                files.append((file, found))
    except (NotFoundError, StorageError):  # such as a link in place of a folder
        return None
    return files


def unknown_files(
    layout: StoreLayout,
    manifest: Manifest,
    files: list[tuple[ManifestFile, os.stat_result]] | None = None,
) -> list[ManifestFile] | None:
    """Return the files of a view that changed since they were hashed, and small ones that differ from the
    manifest; None if the view does not match.  `files` is a result of `view_files`, if there is one.
    """
    files = view_files(layout, manifest) if files is None else files
    if files is None:
        return None
    small = [file for file, _ in files if not hashed.has_record(file.size_bytes)]
    large = [(file, found) for file, found in files if hashed.has_record(file.size_bytes)]
    known = hashed.known_as_found(layout, [(file.sha256, found) for file, found in large])
    unknown = [file for (file, _), is_known in zip(large, known, strict=True) if not is_known]
    try:
        with OpenTree(layout.view(manifest.digest)) as view:
            changed = [file for file in small if not hashed.small_hashes_to(view, file.path, file.sha256)]
    except NotFoundError:  # it was just moved aside
        return None
    return changed + unknown


def hash_right(
    layout: StoreLayout,
    manifest: Manifest,
    files: Iterable[ManifestFile],
    on_bytes: Callable[[int], None] | None = None,
) -> bool:
    """Whether these files of a view hash to what its manifest says; `on_bytes` is as in `file_sha256`."""
    view = layout.view(manifest.digest)
    return all(hashed.hashes_to(layout, view / file.path, file.sha256, on_bytes) for file in files)


def seal_view(
    layout: StoreLayout, manifest: Manifest, files: Iterable[tuple[ManifestFile, os.stat_result]]
) -> None:
    """Make the folders and files of a matching view read-only, if they are not, and executable what the
    manifest has as such.

    Folders are writable after a crash, or if an earlier release made the view; programs change the modes of
    files.  `files` is a result of `view_files`; their content was verified since.  A read-only store is not
    an error.
    """
    path = layout.view(manifest.digest)
    with OpenTree(path) as view:
        stats = [view.stat_folder(folder) for folder in ("", *sorted(view_folders(manifest)))]
    modes = [item.st_mode for item in stats if item is not None]
    if any(fsread.sealed_mode(mode) != mode for mode in modes):
        with hashed.locked(layout), contextlib.suppress(StorageError, NotFoundError):
            fsio.set_writable(path, writable=False)
    wrong = [(file, found) for file, found in files if not _has_mode(file, found)]
    if wrong:
        with hashed.locked(layout):
            for file, found in wrong:
                with contextlib.suppress(StorageError, NotFoundError):
                    hashed.set_mode(layout, path / file.path, file_mode(file), file.sha256, found)


def _has_mode(file: ManifestFile, found: os.stat_result) -> bool:
    return not (found.st_mode ^ file_mode(file)) & _MODE


def surplus(layout: StoreLayout, manifest: Manifest) -> list[Path]:
    """Return the paths in a view that its manifest does not have: the outermost ones, sorted."""
    view = layout.view(manifest.digest)
    folders = {"", *view_folders(manifest)}
    listed = folders.union(file.path for file in manifest.files)
    paths = (
        f"{folder}/{name}" if folder else name
        for folder in folders
        for name in fsread.list_names(view / folder)
    )
    return sorted(view / path for path in paths if path not in listed)


def make_view(layout: StoreLayout, manifest: Manifest) -> None:
    """Link a manifest's files, all materialised, into its view; an old view that does not match is moved
    aside, but none that another process made meanwhile and that programs may have open.

    Raises: IntegrityError if a file that cannot be linked has other content after it was copied.
    """
    with folders.keeping_open(), hashed.changing(layout, _recorded(layout, manifest)):
        unknown = unknown_files(layout, manifest)
        if unknown is None or not hash_right(layout, manifest, unknown):
            _make_view(layout, manifest)


def _recorded(layout: StoreLayout, manifest: Manifest) -> list[Path]:
    return [layout.file(file) for file in manifest.files if hashed.has_record(file.size_bytes)]


def replace_view(layout: StoreLayout, manifest: Manifest) -> None:
    """Make a damaged view again."""
    with folders.keeping_open(), hashed.changing(layout, _recorded(layout, manifest)):
        _make_view(layout, manifest)


def _make_view(layout: StoreLayout, manifest: Manifest) -> None:
    from yarnstore.store.held import find, hold, release, take, unfinished

    view, temporary = layout.view(manifest.digest), unfinished(layout, manifest.digest)
    folders = [temporary / folder for folder in ("", *sorted(view_folders(manifest)))]
    try:
        release(layout, manifest.digest)  # also from what a killed process left
        fsio.remove_tree(temporary)
        for folder in folders:
            fsio.ensure_dir(folder)
        files = manifest.files
        links = [fsio.try_link(find(layout, file_name(f)).path, f"{temporary}/{f.path}") for f in files]
        unlinked = [file for file, linked in zip(files, links, strict=True) if not linked]
        copies = take(layout, manifest, unlinked)
        for file in copies:
            _copy(layout, manifest, file, temporary / file.path)
        for folder in folders:
            fsio.sync_dir(folder)
        fsio.ensure_dir(view.parent)
        trash.move_aside(view, layout.trash)
        fsio.rename(temporary, view)
        if copies:
            hold(layout, manifest, {file_name(file) for file in copies})
        fsio.set_writable(view, writable=False)
    finally:
        if fsread.is_folder(temporary):  # it has no name yet
            release(layout, manifest.digest)
            fsio.remove_tree(temporary)


def _copy(layout: StoreLayout, manifest: Manifest, file: ManifestFile, target: Path) -> None:
    from yarnstore.store.held import find

    linked = fsio.hard_link(find(layout, file_name(file)).path, target)
    if not linked and not hashed.hashes_to(layout, target, file.sha256):
        raise IntegrityError(f"{manifest.label}: {file.path}", why="changed while it was copied")


def set_aside(layout: StoreLayout, path: Path) -> None:
    """Move one file or folder of a view into the trash for a day."""
    with hashed.changing(layout, []):
        fsio.set_writable(path.parent, writable=True)
        trash.move_aside(path, layout.trash)
        fsio.set_writable(path.parent, writable=False)


def link_model(layout: StoreLayout, model: str, manifest: Sha256) -> None:
    """Point `models/<model>` at a view; without symlinks on the file system, do nothing."""
    link = layout.model_link(model)
    if fsread.read_link(link) != _target(manifest):
        fsio.swap_link(link, _target(manifest), tmp_dir=layout.tmp)


def link_fault(layout: StoreLayout, model: str, manifest: Sha256) -> str:
    """Return what is wrong with the link of an installed model; it may be missing without symlinks on the
    file system, and in a read-only store.
    """
    link = layout.model_link(model)
    target = fsread.read_link(link)
    if target is not None:
        return "" if target == _target(manifest) else "does not point to the installed version"
    if fsread.stat_or_none(link) is not None:
        return _NO_LINK
    return "is missing" if _has_symlinks(layout) else ""


def is_left_behind(layout: StoreLayout, model: str, manifest: Sha256) -> bool:
    """Whether the link of an installed model is missing or leads elsewhere, as after a kill; False if that
    cannot be read.
    """
    try:
        return link_fault(layout, model, manifest) not in ("", _NO_LINK)
    except StorageError:  # such as a link in place of `models/`, which commands that write refuse
        return False


def _has_symlinks(layout: StoreLayout) -> bool:
    """Whether the file system has symlinks, by making one; False also if nothing can be written."""
    trial = layout.tmp / f"{fsread.unique_name()}.link"
    try:
        made = fsio.swap_link(trial, "trial", tmp_dir=layout.tmp)
        if made:
            fsio.remove(trial, sync=False)
    except StorageError:
        return False
    return made


def _target(manifest: Sha256) -> str:
    return os.path.join("..", "views", manifest.hex)


def check_link_place(layout: StoreLayout, model: str) -> None:
    """Refuse to install or remove a model if its link's path is something else.

    Raises: StorageError.
    """
    link = layout.model_link(model)
    found = fsread.stat_or_none(link)
    if found is not None and not stat.S_ISLNK(found.st_mode):
        raise StorageError(
            f"{link} exists and is not a link",
            hint="nothing was changed; move it elsewhere, then run this again",
            path=str(link),
        )


def unlink_model(layout: StoreLayout, model: str) -> None:
    """Remove the link of a model that is no longer installed."""
    fsio.remove(layout.model_link(model))


def version_path(folder: Path, manifest: Manifest) -> Path:
    """Return the path to open: the file if the version has only one, else the folder."""
    return folder / manifest.files[0].path if len(manifest.files) == 1 else folder


def view_path(layout: StoreLayout, manifest: Manifest) -> Path:
    """Return the path of a version, which stays the same when other versions are installed."""
    return version_path(layout.view(manifest.digest), manifest)


def linked_path(layout: StoreLayout, manifest: Manifest) -> Path:
    """Return the path of an installed model through `models/`, which changes with the installed version."""
    link = layout.model_link(manifest.model)
    if fsread.read_link(link) == _target(manifest.digest):
        return version_path(link, manifest)
    return view_path(layout, manifest)


# --- use of versions -----------------------------------------------------------------------------


def note_use(layout: StoreLayout, manifest: Sha256) -> None:
    """Record the use of a version: the file's size counts uses, its mtime is the last.

    No lock and no sync, so that it takes microseconds; in a read-only store it does nothing.
    """
    mark = layout.uses / manifest.hex
    with contextlib.suppress(StorageError, NotFoundError, FormatError):
        growing.append_mark(mark, b".")


def last_use(layout: StoreLayout, manifest: Sha256) -> tuple[int, float]:
    """Return how often a version was used, and when last, in seconds since 1970."""
    found = fsread.stat_or_none(layout.uses / manifest.hex)
    return (found.st_size, found.st_mtime) if found else (0, 0.0)


def lease(layout: StoreLayout, manifest: Sha256) -> int | None:
    """Keep `gc` from a view while the descriptor is open; None if the view does not exist."""
    try:
        fd = lock.open_folder(layout.view(manifest))
    except (NotFoundError, StorageError):
        return None
    wait_lock(fd, exclusive=False)
    if lock.leads_to(layout.view(manifest), fd):
        return fd
    os.close(fd)  # gc deleted it meanwhile
    return None


def hold_version(layout: StoreLayout, manifest: Sha256) -> int | None:
    """Keep `gc` from deleting a version while the descriptor is open; None in a read-only store.

    Called with the store's shared lock, so that `gc` has deleted the version before, or sees that it is held.
    """
    with contextlib.suppress(StorageError, NotFoundError, FormatError):
        fd = lock.open_lock(layout.uses / manifest.hex)
        try:
            wait_lock(fd, exclusive=False)
        except BaseException:
            os.close(fd)
            raise
        return fd
    return None


def version_in_use(layout: StoreLayout, manifest: Sha256) -> bool:
    """Whether a live process has a version's view open, or holds the version."""
    if view_in_use(layout, manifest):
        return True
    try:
        fd = fsio.open_file(layout.uses / manifest.hex, os.O_RDONLY)
    except (OSError, FormatError, StorageError):
        return False
    try:
        return not try_lock(fd, exclusive=True)
    finally:
        os.close(fd)


def view_in_use(layout: StoreLayout, manifest: Sha256) -> bool:
    """Whether a live process has a view open."""
    try:
        fd = lock.open_folder(layout.view(manifest))
    except NotFoundError:
        return False
    try:
        return not try_lock(fd, exclusive=True)
    finally:
        os.close(fd)


def discard_view(
    layout: StoreLayout, manifest: Sha256, mark: tuple[int, float], keep: Collection[str] = ()
) -> bool:
    """Move a view into the trash, without the files of which it has the only copy and whose names are in
    `keep`.  Must be called within `hashed.changing`.

    Returns False if a process has it open (on Windows also a file in it), or used it since `mark`, its
    earlier `last_use`.  A process records the use of a view before it waits for the view's lock, so either
    this function sees the record, or that process sees that the view no longer exists.
    """
    from yarnstore.store.held import holds, release, unfinished

    try:
        fd = lock.open_folder(layout.view(manifest))
    except NotFoundError:
        return True
    try:
        if not try_lock(fd, exclusive=True) or last_use(layout, manifest) != mark:
            return False
        going = layout.view(manifest)
        if holds(layout, manifest):
            going = unfinished(layout, manifest)  # so that it is complete, or does not exist
            fsio.remove_tree(going)
            fsio.set_writable(layout.view(manifest), writable=True)
            fsio.rename(layout.view(manifest), going)
            fsio.sync_dir(layout.views)
        release(layout, manifest, keep)
        return trash.discard(going, layout.trash)
    except StorageError as error:
        if not fsread.is_in_use(error):
            raise
        return False  # on Windows a folder with an open file in it cannot be renamed
    finally:
        os.close(fd)
