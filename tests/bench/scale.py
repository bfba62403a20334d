"""Planning a fetch and marking for gc at a million chunks: SCALE make COUNT FOLDER, SCALE plan|mark FOLDER.

Ids are random, packs are of 256 chunks as 64 MiB of 256 KiB are; pack files are holes of the right
size, since neither operation reads them.  `make` makes the folder, in a process of its own, so that the
memory of the others is theirs.  Prints the elapsed and the processor seconds of each part as JSON.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from tests.bench.process import run
from yarnstore.backends.local import LocalBackend
from yarnstore.backends.sources.mirrors import Mirror
from yarnstore.backends.sources.sourceset import SourceSet
from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.index import PackIndex, encode_index
from yarnstore.core.limits import KIB
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.ops.fetching.plan import plan_download
from yarnstore.ops.fetching.ways import PackOffer
from yarnstore.ops.querying.keeping import GcPolicy
from yarnstore.ops.session.session import Session
from yarnstore.ops.upkeep.gc_plan import plan_gc
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.layout import StoreLayout
from yarnstore.store.places import manifest_chunks
from yarnstore.store.refs import VersionName

CHUNKS = 1_000_000
TARGET_S = 2.0
_CHUNK_BYTES = 256 * KIB
_STORED_BYTES = 200 * KIB
_PACK_CHUNKS = 256

R = TypeVar("R")


class Took(NamedTuple):
    """Elapsed seconds, and those of the processor in all threads."""

    seconds: float
    cpu_s: float


def measure(which: str, work: Path, count: int = CHUNKS) -> tuple[dict[str, Took], int]:
    """What each part took, and the peak memory in bytes.  Raises: BenchError."""
    with tempfile.TemporaryDirectory(dir=work, prefix="scale-") as folder:
        command, repo = (sys.executable, "-m", "tests.bench.scale"), Path(__file__).parents[2]
        run(*command, "make", str(count), folder, work=work, cwd=repo)
        ran = run(*command, which, folder, work=work, cwd=repo)
        return {name: Took(*took) for name, took in ran.json().items()}, ran.peak_bytes


def _manifest(version: str, ids: bytes) -> Manifest:
    count = len(ids) // 32
    lengths = np.full(count, _CHUNK_BYTES, "<u4").tobytes()
    chunks = base64.b64encode(ids + lengths).decode()
    digest = Sha256(os.urandom(32))
    file = ManifestFile("model.safetensors", count * _CHUNK_BYTES, digest, chunks)
    return Manifest.make("large", version, "default", [file])


def _indexes(ids: bytes) -> Iterator[PackIndex]:
    """Indexes of packs that hold the chunks in order."""
    every = np.frombuffer(ids, "S32")
    for at in range(0, len(every), _PACK_CHUNKS):
        mine = every[at : at + _PACK_CHUNKS]
        order = np.argsort(mine)
        count = len(mine)
        yield PackIndex(
            pack=PackId(os.urandom(32)),
            pack_bytes=16 + count * _STORED_BYTES,
            ids=mine[order],
            offsets=(16 + np.arange(count, dtype=np.int64) * _STORED_BYTES)[order],
            stored=np.full(count, _STORED_BYTES, np.int64),
            plain=np.full(count, _CHUNK_BYTES, np.int64),
            encodings=np.ones(count, np.uint8),
            bases=np.zeros(count, "S32"),
        )


class _Clock:
    def __init__(self) -> None:
        self.parts: dict[str, Took] = {}

    def time(self, name: str, work: Callable[[], R]) -> R:
        started, cpu_started = time.perf_counter(), time.process_time()
        result = work()
        self.parts[name] = Took(time.perf_counter() - started, time.process_time() - cpu_started)
        return result


def make(count: int, folder: Path) -> None:
    """A store with two versions that have half of `count` chunks each, with all its packs and indexes."""
    layout = StoreLayout(folder / "home")
    layout.ensure()
    layout.pack_folder.packs.mkdir(parents=True, exist_ok=True)
    refs = Session.without_registries(layout).refs
    ids = os.urandom(32 * count)
    for index in _indexes(ids):
        layout.pack_folder.index(index.pack).write_bytes(encode_index(index))
        with open(layout.pack_folder.pack(index.pack), "wb") as file:
            file.truncate(index.pack_bytes)
    half = len(ids) // 64 * 32
    for version, part in (("1.0.0", ids[:half]), ("1.1.0", ids[half:])):
        manifest = _manifest(version, part)
        layout.write_manifest(manifest)
        refs.set_version(VersionName("large", "default", version), manifest.digest)
    (folder / "manifest").write_bytes(_manifest("2.0.0", ids).data)


def plan(folder: Path) -> dict[str, Took]:
    """A fetch of a version of all chunks into an empty store, from the manifest's bytes to the ranges."""
    made, layout = StoreLayout(folder / "home"), StoreLayout(folder / "empty")
    layout.ensure()
    files = LocalBackend(made.root)
    backend = SourceSet([Mirror(files.url, lambda: files)])
    offer = PackOffer(tuple(made.pack_folder.pack_ids()))
    clock = _Clock()
    manifest = clock.time("parse the manifest", lambda: Manifest.parse((folder / "manifest").read_bytes()))
    wanted, _ = clock.time("its distinct chunks", lambda: manifest_chunks([manifest]))
    with ChunkStore(layout) as chunks:
        missing = clock.time("which are missing", lambda: chunks.missing(wanted))
        clock.time("find them in the packs", lambda: plan_download(backend, offer, chunks, missing, 4))
    return clock.parts


def mark(folder: Path) -> dict[str, Took]:
    """gc of a store of which half of the chunks are of a version that is kept."""
    session = Session.without_registries(StoreLayout(folder / "home"))
    clock = _Clock()
    found = clock.time("mark, and plan what goes", lambda: plan_gc(session, GcPolicy(keep=1)))
    assert len(found.versions) == 1, "gc should let go of one version"
    return clock.parts


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        print(json.dumps({"plan": plan, "mark": mark}[sys.argv[1]](Path(sys.argv[2]))))
