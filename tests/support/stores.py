"""Registries and stores of small made models, quick to make and to copy, and what must hold of them.

site = make_site(tmp_path)                       # a registry with phi-3-mini 1.0.0, 1.1.0, 1.2.0
with site.store() as store: store.checkout("phi-3-mini@1.0.0")
assert_whole(site.home, site)                    # fsck is clean, every file has its bytes
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from yarnstore import Store
from yarnstore.core.digest import ChunkId
from yarnstore.core.index import id_bytes
from yarnstore.errors import YarnstoreError
from yarnstore.store import held
from yarnstore.store.drafts import DRAFT
from yarnstore.store.layout import StoreLayout, file_name
from yarnstore.store.packs import iter_entries

MODEL = "phi-3-mini"
VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
_SHARED_BYTES = 400_000
_OWN_BYTES = 300_000


def make_version(folder: Path, version: str, *, model: str = MODEL) -> Path:
    """A version of two weight files and a configuration; its first weights are in all versions."""
    folder.mkdir(parents=True)
    own = random.Random(f"{model} {version}")
    shared = random.Random(model).randbytes(_SHARED_BYTES)
    (folder / "model.bin").write_bytes(shared + own.randbytes(_OWN_BYTES))
    (folder / "adapter").mkdir()
    (folder / "adapter" / "delta.bin").write_bytes(own.randbytes(90_000))
    (folder / "config.json").write_text(f'{{"model": "{model}", "version": "{version}"}}\n')
    return folder


@dataclass(frozen=True)
class Site:
    """A registry, the sources it was published from, and a store that knows it as `made`."""

    root: Path
    registry: Path
    home: Path
    models: tuple[str, ...] = (MODEL,)
    versions: tuple[str, ...] = VERSIONS

    def source(self, version: str, model: str = MODEL) -> Path:
        return self.root / "sources" / model / version

    def store(self, *, lock_timeout_s: float = 20.0) -> Store:
        store = Store.open(self.home)
        store.settings = msgspec.structs.replace(store.settings, lock_timeout_s=lock_timeout_s)
        return store

    def contents(self, version: str, model: str = MODEL) -> dict[str, str]:
        """SHA-256 of every file of a version, by path, as it was published."""
        return tree_hashes(self.source(version, model))

    def copy(self, root: Path, *, registry: bool = False) -> Site:
        """The store, and with `registry` the registry, at another place; links stay links."""
        root.mkdir(parents=True, exist_ok=True)
        copy_tree(self.home, root / "home")
        if registry:
            copy_tree(self.registry, root / "registry")
        return replace(self, home=root / "home", registry=root / "registry" if registry else self.registry)


def make_site(
    root: Path, *, models: Sequence[str] = (MODEL,), versions: Sequence[str] = VERSIONS, url: str = ""
) -> Site:
    """Publish the made versions, and a store that knows the registry (by `url`, else by its path)."""
    site = Site(root, root / "registry", root / "home", tuple(models), tuple(versions))
    for model in models:
        for version in versions:
            source = make_version(site.source(version, model), version, model=model)
            Store.publish(source, f"{model}@{version}", registry=site.registry)
    with Store.open(site.home) as store:
        store.add_registry("made", url or site.registry)
    return site


def install_packed(store: Store, *versions: str) -> None:
    """Install versions from packs that stay: `gc` finds on the disk twice what their files have."""
    for version in versions:
        store.fetch(f"{MODEL}@{version}")
        store.checkout(f"{MODEL}@{version}", wait=False)


def copy_tree(source: Path, target: Path) -> None:
    """`cp -a`: keeps hardlinks, symlinks, modes and times."""
    if os.name == "posix":
        subprocess.run(["cp", "-a", source, target], check=True)
        return
    copied: dict[int, str] = {}  # by inode

    def copy(old: str, new: str) -> None:
        first = copied.setdefault(os.stat(old).st_ino, new)
        shutil.copy2(old, new) if first == new else os.link(first, new)

    shutil.copytree(source, target, copy_function=copy)


def tree_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, or of the one file, by relative path."""
    if folder.is_file():
        return {folder.name: hashlib.sha256(folder.read_bytes()).hexdigest()}
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def ystore(
    home: Path, *arguments: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    return subprocess.run(
        command(home, *arguments),
        env={**os.environ, **quiet_env(), **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def command(home: Path, *arguments: str | Path) -> list[str]:
    """The words that run `ystore` at a home, without an installed script."""
    words = list(map(str, arguments))
    return [sys.executable, "-m", "yarnstore", words[0], "--home", str(home), *words[1:]]


def quiet_env() -> dict[str, str]:
    """So that a traced run makes no system calls of its own beside ours."""
    root = str(Path(__file__).resolve().parents[2])
    return {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": root, "PYTHONHASHSEED": "0"}


def refs_of(home: Path) -> dict[str, str]:
    """Every ref of a store and what it names."""
    root = home / "refs"
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_relative_to(root / "partial")
    }


def problems(home: Path) -> list[tuple[str, str, str]]:
    """What fsck finds: (kind, where, what)."""
    with Store.open(home) as store:
        return [(item.kind, item.where, item.what) for item in store.fsck().problems]


def assert_whole(home: Path, site: Site) -> None:
    """fsck is clean, and every version that a ref names exports as it was published."""
    assert problems(home) == []
    for model, version in versions_in(home):
        if model in site.models and version in site.versions:
            assert_serves(home, site, version, model)


def assert_serves(home: Path, site: Site, version: str, model: str = MODEL) -> None:
    """What `path` leads to has the published bytes."""
    with Store.open(home) as store:
        assert tree_hashes(Path(store.path(f"{model}@{version}"))) == site.contents(version, model)


def versions_in(home: Path) -> Iterator[tuple[str, str]]:
    """(model, version) of every version ref."""
    for ref in (home / "refs" / "versions").glob("*/*/*"):
        yield ref.parts[-3].replace("~", "/"), ref.name


def chunks_of(*folders: Path) -> set[bytes]:
    """Every chunk that stands whole in the packs, finished or not, of some folders."""
    found: set[bytes] = set()
    for folder in folders:
        for path in folder.glob("*.pack"):
            try:
                for _, entry in iter_entries(path):
                    found.add(entry.chunk_id)
            except YarnstoreError:
                pass  # torn, as a killed writer leaves it
    return found


def chunks_in_files(home: Path) -> set[bytes]:
    """Every chunk that stands whole in all its places of a file, or of one that is being written."""
    layout, found = StoreLayout(home), set[bytes]()
    for manifest in layout.readable_manifests({}):
        for file in manifest.files:
            ids, lengths = file.chunk_list()
            places = (held.find(layout, file_name(file)).path, layout.tmp / f"{file_name(file)}{DRAFT}")
            for path in map(Path, places):
                data, at, wrong = path.read_bytes() if path.exists() else b"", 0, set[bytes]()
                here = set[bytes]()
                for n, length in enumerate(lengths.tolist()):
                    chunk_id = id_bytes(ids, n)
                    right = ChunkId.of(data[at : at + length]).raw == chunk_id
                    (here if right else wrong).add(chunk_id)
                    at += length
                found |= here - wrong
    return found


def memory_folder() -> Path:
    """A new folder, in memory where the system has such a place: stores are many, and synced often."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="ystore-", dir=memory if os.access(memory, os.W_OK) else None))


def remove_tree(path: Path) -> None:
    """Remove a store, or a part of it; its files and the folders of its views are read-only."""
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o755)
    shutil.rmtree(path, ignore_errors=True)


def flip(path: Path, offset: int, mask: int = 1) -> None:
    """Change a bit of a file in place, whatever its mode; links see it too.

    A negative offset counts from the end.
    """
    mode = path.stat().st_mode
    path.chmod(0o644)
    whence = os.SEEK_END if offset < 0 else os.SEEK_SET
    with path.open("r+b") as file:
        file.seek(offset, whence)
        byte = file.read(1)[0]
        file.seek(offset, whence)
        file.write(bytes([byte ^ mask]))
    path.chmod(mode & 0o777)
