"""`adopt`: copies of models on a disk, replaced by reflinks or hard links, and `adopt --undo`.

A file is replaced only after it and the file whose content it is to share were hashed, if both belong to the
same user, and if nothing has it open for writing.  Every replacement is in a log before it happens.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from yarnstore.core.digest import Sha256
from yarnstore.errors import FormatError, NotFoundError, StorageError, YarnstoreError
from yarnstore.ops.exchange.address import ToolFolders
from yarnstore.ops.exchange.copies import LEAST_BYTES, ReadFile, compare, find_files, group, read_files
from yarnstore.ops.exchange.identify import IdentifiedFile, describe_file
from yarnstore.ops.exchange.knowledge import Knowledge
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter
from yarnstore.store import fsio, fsread, held, replacing
from yarnstore.store.access import own_uid
from yarnstore.store.adopted import AdoptedFile, forget_adopted, log_adopted, read_adopted
from yarnstore.store.filepath import Path
from yarnstore.store.hashed import changing, file_sha256

#: Why a copy was not replaced by a reflink; a hard link may be possible.
NO_REFLINKS: Final = "the file system has no reflinks"


@dataclass(frozen=True)
class CopiedFile:
    """A content that several files have."""

    file: IdentifiedFile  #: What it is, by its first path.
    paths: list[str]  #: The files that have it; other names of one file are not repeated.
    extra_bytes: int  #: How many bytes are freed if they become one, or the store's file.
    stored: bool  #: Whether the store has it as a file on the same disk.


@dataclass(frozen=True)
class SimilarFile:
    """A file that has at least half of its bytes in common with another."""

    path: str  #: The path of the file.
    like: str  #: The other file.
    size_bytes: int  #: The size of the file, in bytes.
    shared_bytes: int  #: How many bytes are in the other file, too.


@dataclass(frozen=True)
class ReplacedFile:
    """What was done with one copy."""

    path: str  #: The path of the file.
    like: str  #: The file whose content it shares, or would.
    #: `reflink` or `hardlink`: what it is now; `restored`: a file of its own
    #: again; `skipped`: left as it was.
    how: Literal["reflink", "hardlink", "restored", "skipped"]
    why: str = ""  #: Why it was skipped.


@dataclass(frozen=True)
class AdoptResult:
    """The model files of some folders, and what was done with copies."""

    folders: list[str]  #: The folders that were searched.
    files: list[IdentifiedFile]  #: The model files, each content once, the largest first.
    paths: int  #: How many files were found.
    size_bytes: int  #: How many bytes these files have together.
    copies: list[CopiedFile]  #: The contents that several files have.
    similar: list[SimilarFile]  #: The files that are almost copies.
    copies_bytes: int  #: How many bytes the copies take, which replacing them frees.
    #: How many bytes one store would need for all contents, before compression.
    store_bytes: int
    #: What was done with each copy; empty if nothing was to be replaced.
    replaced: list[ReplacedFile] = field(default_factory=list)
    freed_bytes: int = 0  #: How many bytes were freed.
    #: Files that could not be read, each with the reason.
    unreadable: list[str] = field(default_factory=list)


def adopt(
    session: Session,
    folders: Sequence[Path],
    tools: ToolFolders,
    *,
    replace: Literal["reflink", "hardlink"] | None = None,
    least_bytes: int = LEAST_BYTES,
) -> AdoptResult:
    """Find the model files below folders, and with `replace` replace copies.

    Smaller files than `least_bytes` are left out.

    Raises: NotFoundError, UsageError; StorageError if the log cannot be written.
    """
    found = find_files(folders, least_bytes=least_bytes)
    read, failed = read_files(found, session.activity.report)
    groups = group(read)
    alike, distinct = compare([each[0] for each in groups])
    knowledge = Knowledge(session, tools)
    described = [describe_file(each[0].path, each[0].content, knowledge) for each in groups]
    copied = [
        (each, known)
        for each, known in zip([_Copies(session, files) for files in groups], described, strict=True)
        if each.others
    ]
    copies = [each.described(known) for each, known in copied]
    replaced: list[ReplacedFile] = []
    freed = 0
    if replace is not None and copies:
        with session.layout.shared():
            for each, _ in copied:
                for done, size in _Replacement(session, each, replace).run():
                    replaced.append(done)
                    freed += size
    return AdoptResult(
        folders=[str(folder) for folder in folders],
        files=described,
        paths=sum(len(item.paths) for item in found),
        size_bytes=sum(item.found.st_size for item in found),
        copies=copies,
        similar=[
            SimilarFile(str(one.path), str(other.path), one.content.size_bytes, shared)
            for one, other, shared in alike
        ],
        copies_bytes=sum(item.extra_bytes for item in copies),
        store_bytes=distinct,
        replaced=replaced,
        freed_bytes=freed,
        unreadable=failed,
    )


def _own_bytes(item: ReadFile) -> int:
    """Return what is freed if all found names of a file lead elsewhere."""
    return item.content.size_bytes if item.file.found.st_nlink == len(item.file.paths) else 0


class _Copies:
    """The files of one content: the one that stays, and the others."""

    def __init__(self, session: Session, files: Sequence[ReadFile]) -> None:
        self.files = files
        self.sha256 = Sha256.parse(files[0].content.sha256 or "")
        stored = held.find(session.layout, self.sha256.hex)
        self.is_stored = stored.found is not None and any(
            stored.found.st_dev == item.file.found.st_dev for item in files
        )
        self.like = stored.path if self.is_stored else files[0].path
        same = (stored.found.st_dev, stored.found.st_ino) if stored.found is not None else None
        rest = files if self.is_stored else files[1:]
        self.others = [item for item in rest if (item.file.found.st_dev, item.file.found.st_ino) != same]

    def described(self, known: IdentifiedFile) -> CopiedFile:
        """Return it as a part of the result."""
        paths = [str(item.path) for item in self.files]
        return CopiedFile(known, paths, sum(map(_own_bytes, self.others)), self.is_stored)


class _Skip(Exception):  # noqa: N818 - it ends the work on one file
    """A file is not replaced; the message says why."""


class _Replacement:
    """Replaces the copies of one content."""

    def __init__(self, session: Session, copies: _Copies, how: Literal["reflink", "hardlink"]) -> None:
        self._session = session
        self._how: Literal["reflink", "hardlink"] = how
        self._sha256 = copies.sha256
        self._is_stored = copies.is_stored
        self._like = copies.like
        self._others = copies.others
        self._like_state: tuple[int, ...] = ()

    def run(self) -> list[tuple[ReplacedFile, int]]:
        """Return what was done with each path, and how many bytes that freed."""
        done: list[tuple[ReplacedFile, int]] = []
        try:
            self._check_like()
        except (_Skip, YarnstoreError) as error:
            return [(self._skipped(path, error), 0) for item in self._others for path in item.file.paths]
        for item in self._others:
            last = item.file.paths[-1]
            for path in item.file.paths:
                try:
                    self._replace(path)
                except (_Skip, YarnstoreError) as error:
                    done.append((self._skipped(path, error), 0))
                else:
                    freed = _own_bytes(item) if path == last else 0
                    done.append((ReplacedFile(str(path), str(self._like), self._how), freed))
        return done

    def _skipped(self, path: Path, error: Exception) -> ReplacedFile:
        return ReplacedFile(str(path), str(self._like), "skipped", str(error))

    def _check_like(self) -> None:
        """Prepare the file that stays: as a hard link it must be read-only."""
        found = self._hashed(self._like)
        self._like_state = replacing.content_state(found)
        if self._is_stored:
            return
        _refuse_written(self._like)
        if self._how == "hardlink" and found.st_mode & 0o222:
            log_adopted(self._session.layout, [self._entry(self._like, found, "kept")])
            fsio.set_mode(self._like, stat.S_IMODE(found.st_mode) & ~0o222)

    def _hashed(self, path: Path) -> os.stat_result:
        """Return the `lstat` of a file that has the content now."""
        before = fsread.stat_or_none(path)
        if before is None or not stat.S_ISREG(before.st_mode):
            raise _Skip("it no longer exists")
        if before.st_uid != own_uid():
            raise _Skip("it belongs to another user")
        meter = Meter(self._session.activity.report, "check", path.name, before.st_size)
        if file_sha256(path, meter.add) != self._sha256:
            raise _Skip("it changed meanwhile")
        return before

    def _replace(self, path: Path) -> None:
        found, like = self._hashed(path), fsread.stat_or_none(self._like)
        if like is None or like.st_dev != found.st_dev:
            raise _Skip("it is on another disk")
        if os.path.samestat(found, like):
            raise _Skip("it is the same file already")
        if replacing.content_state(like) != self._like_state:
            raise _Skip(f"{self._like} changed meanwhile")
        _refuse_written(path)
        log_adopted(self._session.layout, [self._entry(path, found, self._how)])
        now = fsread.stat_or_none(path)
        if now is None or _state(now) != _state(found):
            raise _Skip("it changed meanwhile")
        if self._how == "reflink":
            done = replacing.replace_by_copy(
                self._like, path, replacing.Attributes.of(found), clone=True, state=self._like_state
            )
        else:
            stored = [self._like] if self._is_stored else []
            with changing(self._session.layout, stored) if stored else contextlib.nullcontext():
                done = replacing.replace_by_link(self._like, path)
        if not done:
            raise _Skip(NO_REFLINKS if self._how == "reflink" else "the file system has no hardlinks")

    def _entry(
        self, path: Path, found: os.stat_result, how: Literal["reflink", "hardlink", "kept"]
    ) -> AdoptedFile:
        return AdoptedFile(
            path=str(path),
            like=str(self._like),
            how=how,
            sha256=self._sha256.hex,
            mode=stat.S_IMODE(found.st_mode),
            mtime_ns=found.st_mtime_ns,
            time_ms=self._session.now_ms(),
        )


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _refuse_written(path: Path) -> None:
    written = replacing.is_written_now(path)
    if written is not False:
        raise _Skip(
            "a program has it open for writing" if written else "this system does not say who has it open"
        )


# --- undo --------------------------------------------------------------------------------------


def undo_adopt(session: Session) -> list[ReplacedFile]:
    """Make every file in the log a file of its own again, with its mode and modification time.

    A file that changed since, or no longer exists, is left as it is; its line leaves the log, too.  A file
    that could not be written stays in the log.  Raises: StorageError if the log cannot be read.
    """
    done, forgotten = [], []
    # Files that became read-only come last, when nothing is a link to them.
    for entry in sorted(read_adopted(session.layout), key=lambda item: item.how == "kept"):
        path = Path(entry.path)
        try:
            why = _restore(session, entry, path)
        except (StorageError, FormatError, NotFoundError) as error:
            done.append(ReplacedFile(entry.path, entry.like, "skipped", error.message))
            continue
        forgotten.append(entry)
        if why or entry.how != "kept":
            done.append(ReplacedFile(entry.path, entry.like, "skipped" if why else "restored", why))
    if forgotten:
        with session.layout.shared():
            forget_adopted(session.layout, forgotten)
    return done


def _restore(session: Session, entry: AdoptedFile, path: Path) -> str:
    """Restore one file; return why that is not possible, or nothing."""
    found = fsread.stat_or_none(path)
    if found is None or not stat.S_ISREG(found.st_mode):
        return "it no longer exists"
    if file_sha256(path).hex != entry.sha256:
        return "it was changed since"
    if entry.how == "kept":
        fsio.set_mode(path, entry.mode)
        return ""
    before = replacing.Attributes(entry.mode, found.st_atime_ns, entry.mtime_ns)
    replacing.replace_by_copy(path, path, before, clone=False)
    session.activity.check()
    return ""
