"""Files with deflate streams, and versions of them whose numbers moved a little."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib

import numpy as np


def floats(count: int, seed: int = 1) -> np.ndarray:
    """Gaussian weights as float32."""
    return np.random.default_rng(seed).normal(0, 0.05, count).astype("<f4")


def moved(values: np.ndarray, seed: int = 2) -> np.ndarray:
    """What a fine-tune does: most numbers move by a step or few."""
    steps = np.rint(np.random.default_rng(seed).normal(0, 1, values.size)).astype("<i4")
    return (values.view("<i4") + steps).view("<f4")


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def zipped(members: dict[str, bytes], level: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def gzipped(data: bytes, level: int) -> bytes:
    return gzip.compress(data, level, mtime=0)


def shuffled(data: bytes, width: int) -> bytes:
    """HDF5's filter: the first bytes of all elements, then the second ones, and so on."""
    return b"".join(data[n::width] for n in range(width))


def hdf5(data: bytes, *, level: int = 4, chunk_bytes: int = 64 * 1024, width: int = 1) -> bytes:
    """The signature of HDF5, and compressed chunks between other bytes, as in a real file."""
    parts = [b"\x89HDF\r\n\x1a\n", b"superblock" * 40]
    for n, at in enumerate(range(0, len(data), chunk_bytes)):
        parts.append(zlib.compress(shuffled(data[at : at + chunk_bytes], width), level))
        if n % 7 == 3:
            parts.append(b"TREE" + n.to_bytes(4, "little") * 60)
    return b"".join(parts)
