"""Small stores, made through the store's own code."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from yarnstore.core.codec import make_entry
from yarnstore.core.digest import ChunkId, PackId, Sha256
from yarnstore.core.manifest import Manifest, ManifestFile, pack_chunk_list
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.files import materialise, missing_files
from yarnstore.store.layout import PackFolder, StoreLayout
from yarnstore.store.packs import PackWriter


def noise(seed: int, size: int = 5000) -> bytes:
    """Bytes that nothing compresses."""
    return random.Random(seed).randbytes(size)


def write_packs(folder: PackFolder, chunks: list[bytes]) -> list[PackId]:
    """Put chunks into one pack, published with its index."""
    with PackWriter(folder) as writer:
        for data in chunks:
            writer.add(make_entry(ChunkId.of(data).raw, data))
    return writer.packs


def manifest_of(files: dict[str, list[bytes]], model: str = "m", version: str = "1.0.0") -> Manifest:
    """The manifest of files given as their chunks."""
    return Manifest.make(
        model,
        version,
        "default",
        [
            ManifestFile(
                path,
                sum(map(len, chunks)),
                Sha256.of(b"".join(chunks)),
                pack_chunk_list([(ChunkId.of(data).raw, len(data)) for data in chunks]),
            )
            for path, chunks in files.items()
        ],
    )


def fill(layout: StoreLayout, files: dict[str, list[bytes]], version: str = "1.0.0") -> Manifest:
    """Put a version's chunks and manifest into a store, and make its files."""
    layout.ensure()
    write_packs(layout.pack_folder, [data for chunks in files.values() for data in chunks])
    manifest = manifest_of(files, version=version)
    layout.write_manifest(manifest)
    with ChunkStore(layout) as chunks:
        for file in missing_files(layout, manifest):
            materialise(layout, chunks, file, lambda _: None)
    return manifest


@contextmanager
def other_process(script: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has printed `ready` and waits for its input to end."""
    code = f"import sys\nfrom pathlib import Path\n{script}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()
