"""The paths in a store, and its format version.

docs/format/store.md governs it.  The other modules of this package own the content of the files.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.limits import MANIFEST_LIMIT_BYTES
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.names import model_dirname, parse_registry_name
from yarnstore.core.sizes import DEFAULT_RESERVE, Reserve
from yarnstore.errors import (
    FormatError,
    IncompatibleError,
    IntegrityError,
    NotFoundError,
    StorageError,
    YarnstoreError,
)
from yarnstore.store import folders, fsio, fsread, lock
from yarnstore.store.filepath import Path
from yarnstore.store.moved import check_not_moved

if TYPE_CHECKING:
    from yarnstore.store.memory import Memory

STORE_FORMAT = b"yarnstore-store/1\n"
# The format of a store with chunks that are only in a materialised file.
FILES_FORMAT = b"yarnstore-store/2\n"
# The format of a store that may have such chunks, and entries of encoding 5 in its packs.  3 is that of a
# moved store's old folder (`store/moved`).
MAPPED_FORMAT = b"yarnstore-store/4\n"
STORE_FORMATS = (STORE_FORMAT, FILES_FORMAT, MAPPED_FORMAT)
DEFAULT_LOCK_TIMEOUT_S = 60.0
_FOLDERS = (
    *("packs", "manifests", "files", "views", "models", "registries", "tmp", "trash"),
    *("refs", "refs/versions", "refs/installed", "refs/pins", "refs/holds", "refs/partial"),
    *("logs", "logs/installed", "logs/used", "logs/origins", "logs/seen"),
)


# The suffix of an executable file: content published with and without the executable bit is two files, since
# all hard links of a file have the same mode.
EXECUTABLE = ".x"


def file_name(file: ManifestFile) -> str:
    """Return the name of a materialised file in `files/`."""
    return file.sha256.hex + (EXECUTABLE if file.executable else "")


def file_mode(file: ManifestFile) -> int:
    """Return the mode of a materialised file."""
    return fsio.EXECUTABLE_MODE if file.executable else fsio.READ_ONLY_MODE


class PackFolder(msgspec.Struct, frozen=True):
    """A folder of packs with their indexes, of a store or of a published registry."""

    packs: Path
    tmp: Path
    memory: Memory | None = None  # of an operation that reads the indexes several times
    before_mapped: Callable[[], None] | None = None  # called before a pack with encoding 5 is published

    def pack(self, pack: PackId) -> Path:
        return self.packs / f"{pack.hex}.pack"

    def index(self, pack: PackId) -> Path:
        return self.packs / f"{pack.hex}.idx"

    def pack_ids(self, suffix: str = ".idx") -> list[PackId]:
        """Return the packs that have an index (or, with `.pack`, a pack file) in the folder."""
        found = []
        for name in fsread.list_names(self.packs):
            if name.endswith(suffix):
                with contextlib.suppress(FormatError):
                    found.append(PackId.parse(name.removesuffix(suffix)))
        return found


@lru_cache(typed=True)
def _folder(root: Path, name: str) -> Path:
    return root / name  # computed once: it is used about thirty times per file


@lru_cache(maxsize=16_384, typed=True)
def _file(files: Path, name: str) -> Path:
    return files / name  # computed once: making a path takes longer than checking a file


def is_store(folder: Path) -> bool:
    """Whether a folder is a store, of any format."""
    try:
        return fsread.read_bytes(folder / "format", 256).startswith(STORE_FORMAT.partition(b"/")[0] + b"/")
    except (NotFoundError, StorageError, FormatError):
        return False


class StoreLayout(msgspec.Struct, frozen=True):
    """The paths of one store, and its lock.  Nothing is created before the first write."""

    root: Path
    lock_timeout_s: float = DEFAULT_LOCK_TIMEOUT_S
    on_wait: lock.OnWait | None = None
    reserve: Reserve = DEFAULT_RESERVE  # disk space that downloads leave free
    memory: Memory | None = None  # of an operation that reads the manifests several times

    def __post_init__(self) -> None:
        folders.add_root(self.root)

    @property
    def pack_folder(self) -> PackFolder:
        return PackFolder(self.root / "packs", self.tmp, self.memory, self.allow_mapped)

    @property
    def tmp(self) -> Path:
        return _folder(self.root, "tmp")

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    @property
    def lock_path(self) -> Path:
        return self.root / "lock"

    @property
    def manifests(self) -> Path:
        return self.root / "manifests"

    @property
    def files(self) -> Path:
        return _folder(self.root, "files")

    @property
    def views(self) -> Path:
        return self.root / "views"

    @property
    def refs(self) -> Path:
        return self.root / "refs"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def registries(self) -> Path:
        return self.root / "registries"

    @property
    def trials(self) -> Path:
        return self.root / "logs" / "trying"

    @property
    def uses(self) -> Path:
        return self.logs / "used"

    @property
    def seen(self) -> Path:
        return self.logs / "seen"

    @property
    def statistics(self) -> Path:
        return self.logs / "statistics"

    @property
    def adopted(self) -> Path:
        return self.logs / "adopted"

    @property
    def origins(self) -> Path:
        return self.logs / "origins"

    @property
    def hashed(self) -> Path:
        return _folder(self.root, "logs/hashed")

    def manifest(self, digest: Sha256) -> Path:
        return self.manifests / f"{digest.hex}.json"

    def file(self, file: ManifestFile) -> Path:
        """Return the path of a materialised file."""
        return _file(self.files, file_name(file))

    def view(self, manifest: Sha256) -> Path:
        return self.views / manifest.hex

    def model_link(self, model: str) -> Path:
        return self.root / "models" / model_dirname(model)

    def registry(self, name: str) -> Path:
        return self.registries / parse_registry_name(name)

    # --- the store as a whole ------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether a store exists at this path.

        Raises: IncompatibleError, FormatError if this release cannot use it; ConflictError if it was moved.
        """
        path = self.root / "format"
        try:
            found = fsread.read_bytes(path, 256)
        except NotFoundError:
            return False
        if found in STORE_FORMATS:
            return True
        check_not_moved(self.root)
        self._refuse_newer()
        raise FormatError(
            f"{path}",
            "is not the format file of a store",
            hint="if this folder is a store, `ystore fsck --repair` writes it again",
        )

    def _refuse_newer(self) -> None:
        """Raises: IncompatibleError if the format is one of a later release, which nothing may change."""
        name, _, major = self.format.decode("ascii", "replace").strip().partition("/")
        if name == "yarnstore-store" and re.fullmatch("[0-9]{1,4}", major) and int(major) > 4:
            raise IncompatibleError(
                f"the store at {self.root} is in format {major}; this release uses formats up to 4",
                hint="update yarnstore to read it, or use another store (YSTORE_HOME)",
            )

    def ensure(self) -> None:
        """Create the store if it does not exist.  Raises: StorageError."""
        if not self.exists():
            fsio.ensure_dir(self.root)
            fsio.write_atomic(self.root / "format", STORE_FORMAT, tmp_dir=self.tmp)

    @property
    def relies_on_files(self) -> bool:
        """Whether chunks may be only in a materialised file: the store has format 2 or a later one."""
        return self.format in (FILES_FORMAT, MAPPED_FORMAT)

    @property
    def format(self) -> bytes:
        """The content of `format`; empty if it cannot be read."""
        try:
            return fsread.read_bytes(self.root / "format", 256)
        except (NotFoundError, StorageError, FormatError):
            return b""

    def rely_on_files(self) -> None:
        """Set format 2, before a chunk is only in a materialised file.  Raises: StorageError."""
        self._raise_format(FILES_FORMAT)

    def allow_mapped(self) -> None:
        """Set format 4, before a pack has an entry of encoding 5.  Raises: StorageError."""
        self._raise_format(MAPPED_FORMAT)

    def _raise_format(self, wanted: bytes) -> None:
        """Set a format unless the store has it or a later one.  Raises: IncompatibleError, StorageError."""
        enough = STORE_FORMATS[STORE_FORMATS.index(wanted) :]
        if self.format in enough:
            return
        with lock.hold_folder(self.root / "packs"):  # another process may set a later one
            if self.format not in enough:
                self._refuse_newer()
                fsio.write_atomic(self.root / "format", wanted, tmp_dir=self.tmp)

    @contextlib.contextmanager
    def shared(self, *, damaged: bool = False) -> Iterator[None]:
        """Hold the shared lock, which locks out `gc`; `damaged` accepts a store without a valid format.

        Raises: IncompatibleError, LockTimeoutError.
        """
        with self._locked(exclusive=False, damaged=damaged):
            yield

    @contextlib.contextmanager
    def exclusive(self, *, damaged: bool = False) -> Iterator[None]:
        """Hold the exclusive lock; `damaged` accepts a store without a valid format.

        Raises: IncompatibleError, LockTimeoutError.
        """
        with self._locked(exclusive=True, damaged=damaged):
            yield

    @contextlib.contextmanager
    def _locked(self, *, exclusive: bool, damaged: bool) -> Iterator[None]:
        self._prepare(damaged=damaged)
        with lock.acquire(
            self.lock_path,
            exclusive=exclusive,
            timeout_s=self.lock_timeout_s,
            on_wait=self.on_wait,
            gate=self.root / "lock.gate",
        ):
            self._refuse_newer()  # a newer release may have used the store while this one waited
            yield

    def any_trial(self) -> bool:
        """Whether `trials` has any record; False if that cannot be read."""
        with contextlib.suppress(YarnstoreError):
            return bool(fsread.list_names(self.trials))
        return False

    def _prepare(self, *, damaged: bool) -> None:
        """Refuse a link in place of a folder before an operation begins that could not be completed."""
        for folder in self.folders():
            if os.path.islink(folder):  # outer folders first, so that no link is followed
                folders.refuse_link(folder)
        if damaged:
            self._refuse_newer()
        else:
            self.ensure()

    def folders(self) -> list[Path]:
        """Return the folders that every used store has, outer ones first."""
        return [self.root / name for name in _FOLDERS]

    # --- manifests -----------------------------------------------------------------------------

    def read_manifest(self, digest: Sha256) -> Manifest:
        """Return a stored manifest.  Raises: NotFoundError, IntegrityError (FormatError) if it is damaged."""
        path = self.manifest(digest)

        def read() -> Manifest:
            return Manifest.parse(fsread.read_bytes(path, MANIFEST_LIMIT_BYTES), expected=digest)

        return self.memory.recall(path, read) if self.memory else read()

    def readable_manifests(self, known: Mapping[Sha256, Manifest]) -> Iterator[Manifest]:
        """Yield the readable manifests; `known` ones are not read again."""
        for digest in self.manifest_ids():
            with contextlib.suppress(IntegrityError, NotFoundError, StorageError):
                yield known.get(digest) or self.read_manifest(digest)

    def write_manifest(self, manifest: Manifest) -> None:
        try:
            self.read_manifest(manifest.digest)
        except (NotFoundError, IntegrityError):
            fsio.write_atomic(self.manifest(manifest.digest), manifest.data, tmp_dir=self.tmp)

    def manifest_ids(self) -> list[Sha256]:
        found = []
        for name in fsread.list_names(self.manifests):
            with contextlib.suppress(FormatError):
                found.append(Sha256.parse(name.removesuffix(".json")))
        return found
