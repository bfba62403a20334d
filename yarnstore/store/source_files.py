"""Lists the files and empty folders of a source that become a version, and those that are ignored.

Decides which links are followed and which files are ignored, and opens sources.  `core/ignore` has the
patterns, `ops/publishing/broken` finds incomplete files, and `store/ingest` reads them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from yarnstore.core.digest import Sha256
from yarnstore.core.ignore import IGNORE_FILE, IGNORE_LIMIT_BYTES, IgnoreRules
from yarnstore.core.layouts.model import BytesSource, Source
from yarnstore.core.limits import KIB
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.names import check_file_paths, parse_file_path
from yarnstore.errors import FormatError, UsageError
from yarnstore.progress import Meter, OnProgress, Progress, format_size
from yarnstore.store import fsread, native
from yarnstore.store.filepath import Path
from yarnstore.store.layout import is_store
from yarnstore.store.native import AnyPath
from yarnstore.store.opentree import OpenTree
from yarnstore.store.paths import missing

# How many names a message lists; the others are counted.
_SHOWN = 5
# The limit of folders reached through links, since links to folders of links could multiply without end.
_LINKED_FOLDERS_LIMIT = 1000
# The number of small files read before they are examined, since code between system calls slows them down.
_AHEAD = 256
# A file up to this size is read completely.
_SMALL_BYTES = 64 * KIB


@dataclass(frozen=True)
class SourceFile:
    """A source file: its path within the version, and its path on the disk with links resolved."""

    path: str
    source: AnyPath
    size_bytes: int
    executable: bool = False


@dataclass(frozen=True)
class Sources:
    """The files of a source by their paths, its empty folders, and ignored paths.

    A path in `ignored` that ends in a slash is a whole folder.
    """

    files: list[SourceFile]
    empty_folders: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    rules: IgnoreRules = field(default_factory=IgnoreRules)

    @property
    def size_bytes(self) -> int:
        return sum(item.size_bytes for item in self.files)


class FileSource:
    """An open file of `size` bytes, as a `Source` for readers of formats."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        return native.pread(self._fd, length, offset)


Opener = Callable[[], AbstractContextManager[Source]]


def open_file(path: AnyPath) -> AbstractContextManager[Source]:
    """Open a source file.  Raises: StorageError, NotFoundError, also for reading in it."""
    return _Opened(fsread.open_source_fd(path), path)


def open_stored(folder: OpenTree, path: str) -> AbstractContextManager[Source]:
    """Do the same as `open_file` for a file in a store, without following a link."""
    return _Opened(folder.open_read(path), path)


class _Opened:
    """The context of `open_file`; a class for the same reason as that of `fsread.translating`."""

    __slots__ = ("_fd", "_translating")

    def __init__(self, fd: int, path: AnyPath) -> None:
        self._fd = fd
        self._translating = fsread.translating(path)

    def __enter__(self) -> Source:
        try:
            with self._translating:
                return read_small(FileSource(self._fd, os.fstat(self._fd).st_size))
        except BaseException:
            os.close(self._fd)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        os.close(self._fd)
        self._translating.__exit__(kind, error, trace)


def read_small(source: Source) -> Source:
    """Return the source, in memory if it is small, so that one system call reads it."""
    if source.size > _SMALL_BYTES:
        return source
    data = source.read(0, source.size)
    return BytesSource(data) if len(data) == source.size else source


def opened(source: Source) -> Opener:
    """Yield a source that is open already."""
    return lambda: contextlib.nullcontext(source)


class Look(Protocol):
    """A check that reads each file of a version."""

    def add(self, path: str, source: Source) -> None: ...


def look_into(files: Iterable[tuple[str, Opener]], *looks: Look) -> None:
    """Open each file once for several checks; small files are read in batches.

    Raises: the errors of opening and reading them.
    """
    ahead: list[tuple[str, Source]] = []

    def look_ahead() -> None:
        for path, source in ahead:
            for look in looks:
                look.add(path, source)
        ahead.clear()

    for path, open_ in files:
        with open_() as source:
            ahead.append((path, source))
            if not isinstance(source, BytesSource) or len(ahead) == _AHEAD:
                look_ahead()
    look_ahead()


def openers(sources: Sequence[SourceFile]) -> list[tuple[str, Opener]]:
    """Return the path of each file, and a function that opens it."""
    return [(item.path, partial(open_file, item.source)) for item in sources]


def list_sources(source: Path, *, registry: Path | None = None, all_files: bool = False) -> Sources:
    """Return the files and folders of a source that are published.

    Temporary files and those that a `.ystoreignore` names are ignored unless `all_files` is given; the
    `registry` that is published to and any store are always ignored.  Links are followed to files and folders
    inside of the folder, and to files of the Hugging Face cache whose snapshot the folder is.

    Raises: NotFoundError; UsageError for an empty folder, a link that leads out of the folder or to a folder
    above it, a special file, the registry or a store itself, a path that not every system supports, and an
    unreadable `.ystoreignore`.
    """
    if not source.exists():
        raise missing("file or folder", source)
    real = Path(os.path.realpath(source))
    _refuse_inside(real, source, registry)
    if not source.is_dir():
        found = Sources([_source_file(source.name, real, real.stat())])
        if not source.is_file():
            raise UsageError(f"{source} is not a file", hint="give a model file, or a folder of files")
    else:
        walk = _Walk(source, real, registry, all_files=all_files)
        with _naming(source):
            found = walk.run()
    if not found.files:
        left = (
            f" except {list_few(found.ignored)}, which {_is(found.ignored)} excluded" if found.ignored else ""
        )
        raise UsageError(f"{source} contains no files{left}", hint="give a model file, or a folder of files")
    with _naming(source):
        check_file_paths([*(item.path for item in found.files), *found.empty_folders])
    return found


@contextlib.contextmanager
def _naming(source: Path) -> Iterator[None]:
    """Raise UsageError with the refused paths of a source."""
    try:
        yield
    except FormatError as error:
        raise UsageError(
            f"{source}: {error.message}", hint="rename it: some file systems do not allow this name"
        ) from None


def _refuse_inside(real: Path, source: Path, registry: Path | None) -> None:
    """Refuse to publish a registry or a store into itself, or its own packs."""
    if is_store(real):
        raise UsageError(
            f"{source} is a store", hint="give the folder of a model; `ystore path MODEL` prints it"
        )
    if registry is None:
        return
    root = Path(os.path.realpath(registry))
    own = [root, *(root / name for name in ("packs", "deltas", "manifests", ".tmp"))]
    if real == root or any(real.is_relative_to(folder) for folder in own[1:]):
        raise UsageError(
            f"{source} is in the registry itself, and cannot be published into it",
            hint="give the folder of the model, or another --registry",
        )


def _source_file(path: str, source: AnyPath, found: os.stat_result) -> SourceFile:
    return SourceFile(path, source, found.st_size, bool(found.st_mode & stat.S_IXUSR))


class _Walk:
    """One pass over a folder, which collects all refused paths, so that one error names them."""

    def __init__(self, root: Path, real: Path, registry: Path | None, *, all_files: bool) -> None:
        self._root = root
        self._real = real
        self._registry = None if registry is None else os.path.realpath(registry)
        data = b""
        found = fsread.stat_or_none(real / IGNORE_FILE)
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise UsageError(
                f"{root / IGNORE_FILE} is not a regular file",
                hint="replace it with a text file, or remove it",
            )
        try:
            if found is not None:
                data = fsread.read_bytes(real / IGNORE_FILE, IGNORE_LIMIT_BYTES)
            self._rules = IgnoreRules(data, all_files=all_files)
        except FormatError as error:
            raise UsageError(
                f"{root / IGNORE_FILE} {error.fields['why']}",
                hint=f"it must be UTF-8 text of at most {format_size(IGNORE_LIMIT_BYTES)}, with one "
                "pattern a line",
            ) from None
        self._found = Sources([], rules=self._rules)
        self._links: list[str] = []
        self._odd: list[str] = []
        self._linked_folders = 0

    def run(self) -> Sources:
        self._folder("", (self._real,))
        if self._links:
            raise UsageError(
                f"{self._root} has links that are not followed: {list_few(self._links, '; ')}",
                hint="replace them with files, or remove them; only links within the folder are followed",
                links=self._links[:100],
            )
        if self._odd:
            raise UsageError(
                f"{self._root} contains special files: {list_few(self._odd)}",
                hint="remove them, or list them in .ystoreignore",
                paths=self._odd[:100],
            )
        self._found.files.sort(key=lambda item: item.path.encode())
        self._found.empty_folders.sort(key=str.encode)
        return self._found

    def _folder(self, prefix: str, folders: tuple[Path, ...]) -> None:
        """Walk the last of `folders`; the others are its parents, with links resolved."""
        folder = folders[-1]
        names = fsread.list_names(folder)
        if not names and prefix:
            self._found.empty_folders.append(prefix.rstrip("/"))
        places = [os.path.join(folder, name) for name in names]
        with fsread.translating(folder):
            stats = [os.lstat(place) for place in places]
        for name, place, found in zip(names, places, stats, strict=True):
            path = prefix + name
            is_link = stat.S_ISLNK(found.st_mode)
            is_folder = os.path.isdir(place) if is_link else stat.S_ISDIR(found.st_mode)
            if self._rules.leaves_out(path, is_folder=is_folder) or (is_folder and self._is_kept_out(place)):
                self._found.ignored.append(path + ("/" if is_folder else ""))
            elif is_link:
                self._link(path, Path(place), folders)
            elif is_folder:
                self._enter(path, (*folders, Path(place)))
            elif stat.S_ISREG(found.st_mode):
                self._found.files.append(_source_file(path, place, found))
            else:
                self._odd.append(path)

    def _enter(self, path: str, folders: tuple[Path, ...]) -> None:
        parse_file_path(path)  # the depth of a path is limited
        self._folder(path + "/", folders)

    def _is_kept_out(self, folder: str) -> bool:
        return os.path.realpath(folder) == self._registry or is_store(Path(folder))

    def _link(self, path: str, link: Path, folders: tuple[Path, ...]) -> None:
        target = Path(os.path.realpath(link))
        found = fsread.stat_or_none(target)
        if found is None or stat.S_ISLNK(found.st_mode):
            self._links.append(f"{path} → {os.readlink(link)}, which does not exist")
        elif not self._is_inside(target):
            self._links.append(f"{path} → {os.readlink(link)}, outside the folder")
        elif stat.S_ISDIR(found.st_mode):
            self._linked_folder(path, link, (*folders, target))
        elif stat.S_ISREG(found.st_mode):
            self._found.files.append(_source_file(path, target, found))
        else:
            self._odd.append(path)

    def _linked_folder(self, path: str, link: Path, folders: tuple[Path, ...]) -> None:
        target = folders[-1]
        if not target.is_relative_to(self._real):
            self._links.append(f"{path} → {os.readlink(link)}, a folder outside the folder")
        elif target in folders[:-1]:
            self._links.append(f"{path} → {os.readlink(link)}, a folder that contains it: a loop")
        elif self._linked_folders == _LINKED_FOLDERS_LIMIT:
            raise UsageError(
                f"{self._root} has more than {_LINKED_FOLDERS_LIMIT} folders through links; "
                f"one more is {path} → {os.readlink(link)}",
                hint="links to folders that contain links repeat their contents; remove some of them",
            )
        else:
            self._linked_folders += 1
            self._enter(path, folders)

    def _is_inside(self, target: Path) -> bool:
        if self._registry is not None and target.is_relative_to(self._registry):
            return False
        return target.is_relative_to(self._real) or target.parent in _cached_files(self._real)


def _cached_files(real: Path) -> list[Path]:
    """Return the folder with the files of `snapshots/<commit>/` in a Hugging Face cache."""
    return [
        above.parent.parent / "blobs" for above in (real, *real.parents) if above.parent.name == "snapshots"
    ]


def hash_source(item: SourceFile, meter: Meter) -> Sha256:
    """Return the SHA-256 of a source file.  Raises: StorageError."""
    digest = hashlib.sha256()
    with fsread.translating(item.source), fsread.open_source(item.source) as file:
        while block := file.read(4 << 20):
            digest.update(block)
            meter.add(len(block))
    return Sha256(digest.digest())


# --- comparison with an existing version ---------------------------------------------------------------


def comparable(known: Manifest, sources: Sources) -> dict[str, ManifestFile]:
    """Return the files of a version by their paths, except those that are ignored in sources now."""
    ours = {item.path for item in sources.files}
    return {
        file.path: file
        for file in known.files
        if file.path in ours or not sources.rules.leaves_out_file(file.path)
    }


def find_differing(known: Manifest, sources: Sources, what: str, on_progress: OnProgress) -> list[str]:
    """Return the paths at which sources differ from a version, the cheapest comparisons first."""
    theirs = comparable(known, sources)
    ours = {item.path: item for item in sources.files}
    differing = sorted(theirs.keys() ^ ours.keys())
    both = [ours[path] for path in theirs.keys() & ours.keys()]
    differing += sorted(item.path for item in both if item.size_bytes != theirs[item.path].size_bytes)
    if not differing:
        meter = Meter(on_progress, "check", what, sources.size_bytes)
        differing = [item.path for item in both if hash_source(item, meter) != theirs[item.path].sha256]
    return differing


def unpublished_changes(known: Manifest, sources: Sources) -> list[str]:
    """Return messages about differences from a version of the same content, which is not changed."""
    ours = {item.path: item for item in sources.files}
    found = []
    for file in known.files:
        item = ours.get(file.path)
        if item is None:
            found.append(f"{file.path} is now excluded")
        elif item.executable != file.executable:
            found.append(f"{file.path} is {'now' if item.executable else 'no longer'} executable")
    before, after = set(known.empty_folders), set(sources.empty_folders)
    found += [f"the empty folder {path} is new" for path in sorted(after - before)]
    found += [f"the empty folder {path} was removed" for path in sorted(before - after)]
    return found


# --- messages --------------------------------------------------------------------------------------


def note_ignored(sources: Sources, on_progress: OnProgress) -> None:
    """Report ignored files, if any."""
    if sources.ignored:
        text = f"excluded: {list_few(sources.ignored)}   (--all-files includes temporary files)"
        on_progress(Progress("note", "", text=text))


def note_changes(changes: Sequence[str], label: str, on_progress: OnProgress) -> None:
    """Report differences from a version that is not changed."""
    if changes:
        text = f"{label} is unchanged in the registry, although {list_few(changes, '; ')}"
        on_progress(Progress("note", "", text=text))


def list_few(items: Sequence[str], separator: str = ", ") -> str:
    """Return the first few names, and the number of others."""
    more = len(items) - _SHOWN
    shown = separator.join(items[:_SHOWN])
    return f"{shown}{separator}and {more} more" if more > 0 else shown


def _is(items: Sequence[str]) -> str:
    return "is" if len(items) == 1 else "are"
