"""Planning a fetch and marking for gc at a million chunks: SCALE plan|mark COUNT FOLDER.

Ids are random, packs are of 256 chunks as 64 MiB of 256 KiB are; pack files are holes of the right
size, since neither operation reads them.  Prints the seconds of each part as JSON.
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
from typing import TypeVar

import numpy as np

from tests.bench.process import run
from yarnstore.backends.memory import MemoryBackend
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


def measure(which: str, work: Path, count: int = CHUNKS) -> tuple[dict[str, float], int]:
    """The seconds of each part, and the peak memory in bytes.  Raises: BenchError."""
    with tempfile.TemporaryDirectory(dir=work, prefix="scale-") as folder:
        repo = Path(__file__).parents[2]
        ran = run(sys.executable, "-m", "tests.bench.scale", which, str(count), folder, work=work, cwd=repo)
        return ran.json(), ran.peak_bytes


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
        self.seconds: dict[str, float] = {}

    def time(self, name: str, work: Callable[[], R]) -> R:
        started = time.perf_counter()
        result = work()
        self.seconds[name] = time.perf_counter() - started
        return result


def plan(count: int, folder: Path) -> dict[str, float]:
    """A fetch of `count` new chunks into an empty store, from the manifest's bytes to the ranges."""
    ids = os.urandom(32 * count)
    data = _manifest("1.0.0", ids).data
    indexes = list(_indexes(ids))
    files = MemoryBackend({f"packs/{index.pack.hex}.idx": encode_index(index) for index in indexes})
    backend = SourceSet([Mirror(files.url, lambda: files)])
    packs = [index.pack for index in indexes]
    layout = StoreLayout(folder / "home")
    layout.ensure()
    clock = _Clock()
    manifest = clock.time("parse the manifest", lambda: Manifest.parse(data))
    wanted, _ = clock.time("its distinct chunks", lambda: manifest_chunks([manifest]))
    offer = PackOffer(tuple(packs))
    with ChunkStore(layout) as chunks:
        missing = clock.time("which are missing", lambda: chunks.missing(wanted))
        clock.time("find them in the packs", lambda: plan_download(backend, offer, chunks, missing, 4))
    return clock.seconds


def mark(count: int, folder: Path) -> dict[str, float]:
    """gc of a store of `count` chunks, half of them of a version that is kept, with all its indexes
    read from files."""
    layout = StoreLayout(folder / "home")
    layout.ensure()
    layout.pack_folder.packs.mkdir(parents=True, exist_ok=True)
    session = Session.without_registries(layout)
    ids = os.urandom(32 * count)
    for index in _indexes(ids):
        layout.pack_folder.index(index.pack).write_bytes(encode_index(index))
        with open(layout.pack_folder.pack(index.pack), "wb") as file:
            file.truncate(index.pack_bytes)
    half = len(ids) // 64 * 32
    for version, part in (("1.0.0", ids[:half]), ("1.1.0", ids[half:])):
        manifest = _manifest(version, part)
        layout.write_manifest(manifest)
        session.refs.set_version(VersionName("large", "default", version), manifest.digest)
    clock = _Clock()
    found = clock.time("mark, and plan what goes", lambda: plan_gc(session, GcPolicy(keep=1)))
    assert len(found.versions) == 1, "gc should let go of one version"
    return clock.seconds


if __name__ == "__main__":
    print(json.dumps({"plan": plan, "mark": mark}[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))))
