"""Many small files, written by a loop that does little else."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable

from yarnstore.core.digest import Buffer
from yarnstore.store import folders, fsio, fsread, native
from yarnstore.store.filepath import Path
from yarnstore.store.fsread import translating
from yarnstore.store.kernel import try_lock

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | native.NOFOLLOW


def write_many(files: Iterable[tuple[str, Buffer, int]], folder: Path, *, tmp_dir: Path, suffix: str) -> None:
    """Write small files, each with its name and mode, as `NewFile` does into a folder that the caller syncs.

    The loop does little else, since code between system calls takes several times as long.
    """
    fsio.ensure_dir(tmp_dir)
    fsio.ensure_dir(folder)
    with folders.changing(tmp_dir / "_") as (tmp_fd, old), folders.changing(folder / "_") as (fd, new):
        before, place = old.removesuffix("_"), new.removesuffix("_")
        for name, data, mode in files:
            temporary = f"{before}{fsread.unique_name()}{suffix}"
            with translating(folder), contextlib.suppress(FileNotFoundError):
                if _write_one(temporary, tmp_fd, f"{place}{name}", fd, data, mode):
                    continue
            # Another process took that one for a dead one, or the folder is on another disk.
            with fsio.NewFile(tmp_dir, suffix) as file:
                file.write(data)
                file.publish(folder / name, mode=mode, sync_folder=False)


def _write_one(
    temporary: str, tmp_fd: int | None, name: str, folder_fd: int | None, data: Buffer, mode: int
) -> bool:
    fd = native.open_file(temporary, _NEW, fsio.FILE_MODE, dir_fd=tmp_fd)
    try:
        if not try_lock(fd, exclusive=True):
            return False
        fsio.pwrite_all(fd, data, 0)
        native.set_mode(fd, temporary, mode)
        native.sync(fd)
        native.replace(temporary, name, source_fd=tmp_fd, target_fd=folder_fd)
    except BaseException as error:
        with contextlib.suppress(OSError):
            native.unlink(temporary, dir_fd=tmp_fd)
        if isinstance(error, OSError) and error.errno == errno.EXDEV:
            return False
        raise
    finally:
        os.close(fd)
    return True
