"""Views, the links that applications open, and who uses what.

A view is a folder of hardlinks to materialised files and appears by rename, whole or not at all.
Nothing here reads a chunk, so that moving between views starts fast.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.errors import NotFoundError, StorageError
from yarnstore.store import fsio, fsread, trash
from yarnstore.store.layout import StoreLayout


def has_view(layout: StoreLayout, manifest: Sha256) -> bool:
    """Whether a version's view is there; a view is never there in part."""
    return fsread.is_folder(layout.view(manifest))


def make_view(layout: StoreLayout, manifest: Manifest) -> None:
    """Link a manifest's files, all materialised, into its view."""
    view = layout.view(manifest.digest)
    temporary = layout.tmp / f"{secrets.token_hex(12)}.view"
    folders = {temporary}
    try:
        for file in manifest.files:
            link = temporary / file.path
            fsio.ensure_dir(link.parent)
            folders.add(link.parent)
            fsio.hard_link(layout.file(file), link)
        for path in manifest.empty_folders:
            fsio.ensure_dir(temporary / path)
        for folder in folders:
            fsio.sync_dir(folder)
        fsio.ensure_dir(view.parent)
        try:
            fsio.rename(temporary, view)
        except StorageError:
            # Another process made the same view first.
            if not has_view(layout, manifest.digest):
                raise
    finally:
        fsio.remove_tree(temporary)


def replace_view(layout: StoreLayout, manifest: Manifest) -> None:
    """Make a damaged view anew."""
    view = layout.view(manifest.digest)
    trash.move_aside(view, layout.trash)
    make_view(layout, manifest)


def link_model(layout: StoreLayout, model: str, manifest: Sha256) -> None:
    """Point `models/<model>` at a view; where there are no symlinks, nothing is lost."""
    target = os.path.join("..", "views", manifest.hex)
    link = layout.model_link(model)
    if fsread.read_link(link) != target:
        fsio.swap_link(link, target, tmp_dir=layout.tmp)


def unlink_model(layout: StoreLayout, model: str) -> None:
    """Take away the link of a model that is no longer installed."""
    fsio.remove(layout.model_link(model))


def version_path(folder: Path, manifest: Manifest) -> Path:
    """What an application opens: the file, where the version has one, else the folder."""
    return folder / manifest.files[0].path if len(manifest.files) == 1 else folder


def installed_path(layout: StoreLayout, manifest: Manifest) -> Path:
    """The path of an installed version: through `models/`, so that it stays as versions change."""
    link = layout.model_link(manifest.model)
    if fsread.read_link(link) == os.path.join("..", "views", manifest.digest.hex):
        return version_path(link, manifest)
    return version_path(layout.view(manifest.digest), manifest)


# --- who uses what -----------------------------------------------------------------------------


def note_use(layout: StoreLayout, manifest: Sha256) -> None:
    """Note that a version was asked for: one byte more, and the time the file changed.

    No lock and no sync, so that it costs microseconds; a store that cannot be written is no
    reason not to read it.
    """
    mark = layout.uses / manifest.hex
    with contextlib.suppress(StorageError, NotFoundError):
        try:
            fsio.append_mark(mark, b".")
        except NotFoundError:
            fsio.ensure_dir(mark.parent)
            fsio.append_mark(mark, b".")


def last_use(layout: StoreLayout, manifest: Sha256) -> tuple[int, float]:
    """How often a version was asked for, and when last, in seconds since 1970."""
    found = fsread.stat_or_none(layout.uses / manifest.hex)
    return (found.st_size, found.st_mtime) if found else (0, 0.0)


def hold_view(layout: StoreLayout, manifest: Sha256) -> int | None:
    """Keep `gc` from a view while the descriptor is open; None where it is gone."""
    try:
        fd = fsread.open_folder(layout.view(manifest))
    except (NotFoundError, StorageError):
        return None
    fsio.wait_lock(fd, exclusive=False)
    found = fsread.stat_or_none(layout.view(manifest))
    if found is not None and os.path.samestat(found, os.fstat(fd)):
        return fd
    os.close(fd)  # gc was faster
    return None


def view_in_use(layout: StoreLayout, manifest: Sha256) -> bool:
    """Whether a live process holds a view."""
    try:
        fd = fsread.open_folder(layout.view(manifest))
    except NotFoundError:
        return False
    try:
        return not fsio.try_lock(fd, exclusive=True)
    finally:
        os.close(fd)


def discard_view(layout: StoreLayout, manifest: Sha256, mark: tuple[int, float]) -> bool:
    """Move a view into the trash; False where a process has it open, or asked for it since `mark`, its
    `last_use` of before.

    A process notes the use of a view before it waits for the view's lock: so either this sees the mark, or
    that process sees that the view is gone.
    """
    try:
        fd = fsread.open_folder(layout.view(manifest))
    except NotFoundError:
        return True
    try:
        if not fsio.try_lock(fd, exclusive=True) or last_use(layout, manifest) != mark:
            return False
        trash.discard(layout.view(manifest), layout.trash)
        return True
    finally:
        os.close(fd)
