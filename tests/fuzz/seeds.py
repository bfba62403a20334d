"""What the fuzzer begins with: a sound input for each parser, so that it gets past the first check."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.support import samples
from yarnstore.core.codec import make_delta_entry, make_entry
from yarnstore.core.deflate import deflate
from yarnstore.core.deflated import ChunkStreams, Packed, PairedStreams
from yarnstore.core.deflated_encoder import encode_deflated
from yarnstore.core.digest import ChunkId, PackId, Sha256
from yarnstore.core.encodings import encode_delta_planes, encode_delta_zstd, encode_planes
from yarnstore.core.encodings.mapped import encode_mapped, find_mapping
from yarnstore.core.index import PackIndex, encode_index
from yarnstore.core.manifest import Manifest, ManifestFile, pack_chunk_list
from yarnstore.core.pack import PACK_HEADER, PACK_HEADER_BYTES, Entry, encode_entry
from yarnstore.core.reflog import Installed, Move, format_move
from yarnstore.core.transposed import TensorPart, encode_part

# The chunk that the decoders' deltas are against, and one that was made of it.
BASE = bytes(range(256)) * 4
CHUNK = (np.frombuffer(BASE, "<u2") + np.arange(512, dtype="<u2") % 3).astype("<u2").tobytes()

# Two streams that a deflated delta is of.
_PLAIN_BASE = np.random.default_rng(1).normal(size=400).astype("<f4")
_PLAIN = _PLAIN_BASE.view("<u4") + np.arange(400, dtype="<u4") % 3
DEFLATED_BASE, DEFLATED = (deflate(each.tobytes(), 6) for each in (_PLAIN_BASE, _PLAIN))

_REF = b"sha256:" + b"0" * 64 + b"\n"
_REGISTRY = b"""{"registry_version": "1.0.0", "models": {"m": {"model_id": "m", "current_version": "1.0.0",
"versions": {"1.0.0": {"version": "1.0.0", "checksum": "sha256:%s", "download_url": "https://a.b/c",
"size_bytes": 3, "compatibility": [">=1.0.0"], "variants": {}}}, "aliases": {"stable": "1.0.0"}}}}""" % (
    b"0" * 64
)


def seeds() -> Iterator[tuple[str, bytes]]:
    """(the name of a target in `parsers`, an input for it)."""
    for make in (
        samples.safetensors_sample,
        samples.gguf_sample,
        samples.onnx_sample,
        samples.torch_sample,
        samples.torch_pickle_sample,
        samples.npz_sample,
    ):
        yield "layout", make()
    yield "layout", samples.npy_bytes(np.zeros((3, 5), "<f4"))
    yield "layout", samples.onnx_file(samples.onnx_tensor("w", 1, [4], samples.onnx_external("weights.bin")))
    entries = list(_entries())
    packed = [b"".join(map(bytes, encode_entry(entry))) for entry in entries]
    for data in packed:
        yield "entry", data
    yield "stream", PACK_HEADER + b"".join(packed)
    offsets = np.cumsum([PACK_HEADER_BYTES, *map(len, packed)]).tolist()
    rows = list(zip(offsets, entries, strict=False))
    yield "index", encode_index(PackIndex.build(PackId(bytes(32)), offsets[-1], rows))
    yield "manifest", _manifest().data
    yield "ref", _REF
    yield (
        "reflog",
        format_move(
            Move(1_700_000_000_000, "checkout", None, Installed(Sha256.of(CHUNK), "default", "1.0.0"))
        ),
    )
    yield "registry", _REGISTRY
    yield "model", _REGISTRY[_REGISTRY.index(b'{"model_id"') : -2]
    yield "zstd", bytes(make_entry(ChunkId.of(b"text " * 200).raw, b"text " * 200).payload)
    for width in (2, 4, 8):
        yield "planes", encode_planes(CHUNK, width) or b""
    for element in ("bf16", "f32", "i8", "q4_0", "q6_k"):
        yield "delta-planes", encode_delta_planes(CHUNK, BASE, element) or b""
    for element, other in (("bf16", "bf16"), ("bf16", "f16"), ("i8", "i8"), ("q4_0", "q4_0")):
        yield "delta-mapped", encode_mapped(CHUNK, BASE, element, find_mapping(CHUNK, element, other)) or b""
    # A mask, and a packed stream: 512 steps of 2 bits.
    stream = b"\x01" + struct.pack("<3I", 4 << 24 | 512, 128, 0) + bytes(128)
    inner = b"\x01\x04\0\0" + struct.pack("<3I", 3 << 30 | len(stream), 512, 0) + stream + bytes(512)
    yield "delta-mapped", b"\x01\0\0\0\0\2" + inner
    yield "delta-mapped", b"\x01\0\0\0\1\0" + struct.pack("<2I", 68, 64) + bytes(64) + inner
    ours, theirs = (ChunkStreams((Packed(0, len(each), 1600),)) for each in (DEFLATED, DEFLATED_BASE))
    yield "delta-deflated", encode_deflated(DEFLATED, DEFLATED_BASE, PairedStreams(ours, theirs, (0,))) or b""
    yield "transposed", encode_part(TensorPart(Sha256.of(CHUNK), 0, 8, 512, 512, 2, 1024))
    yield "delta-zstd", encode_delta_zstd(CHUNK, BASE) or b""


def write_seeds(folder: Path, targets: list[str]) -> None:
    """Each seed as a file, behind the byte that says whose it is."""
    for n, (target, data) in enumerate(seeds()):
        (folder / f"{n:03}-{target}").write_bytes(bytes([targets.index(target)]) + data)


def _entries() -> Iterator[Entry]:
    yield make_entry(ChunkId.of(CHUNK).raw, CHUNK)
    yield make_entry(ChunkId.of(b"text " * 200).raw, b"text " * 200)
    delta = make_delta_entry(ChunkId.of(CHUNK).raw, CHUNK, ChunkId.of(BASE).raw, BASE)
    if delta is not None:
        yield delta


def _manifest() -> Manifest:
    chunks = pack_chunk_list([(ChunkId.of(CHUNK).raw, len(CHUNK))])
    return Manifest.make(
        "m", "1.0.0", "default", [ManifestFile("a.bin", len(CHUNK), Sha256.of(CHUNK), chunks)]
    )
