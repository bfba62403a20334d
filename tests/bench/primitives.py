"""What this machine can do: the rates of what an operation is made of, measured on the data at hand.

CPU rates are bytes of plain data per second of *CPU time* of one thread, so that a busy neighbour
does not slow them; beside each the rate of two threads by the clock.  1 MiB at a time, as chunks.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import TypeVar

import pytest
import zstandard
from blake3 import blake3
from pyfastcdc import FastCDC

from tests.bench.process import back_memory
from yarnstore.core.encodings import (
    decode_delta_planes,
    decode_planes,
    encode_delta_planes,
    encode_planes,
)
from yarnstore.core.encodings import delta as delta_module
from yarnstore.core.encodings import planes as planes_module
from yarnstore.core.limits import CHUNK_AVG_BYTES, CHUNK_MAX_BYTES, CHUNK_MIN_BYTES, MIB

SAMPLE_BYTES = 64 * MIB
_FASTCDC_BYTES = 8 * MIB  # what the chunker looks at in one go
_WRITE_LIMIT_BYTES = 1024 * MIB
_SYNC_EVERY_BYTES = 32 * MIB
_LEAST_S = 0.25  # CPU time that each rate is measured over


@dataclass(frozen=True)
class Rate:
    """Bytes per second: of one thread's CPU time, and of two threads by the clock."""

    one: float
    two: float | None


Rates = dict[str, Rate]
T = TypeVar("T")


def read_sample(path: Path) -> list[bytes]:
    """1 MiB pieces from the middle of a file, past its header and its odd first tensors."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, (size - SAMPLE_BYTES) // 2))
        data = file.read(SAMPLE_BYTES)
    return [data[at : at + MIB] for at in range(0, len(data) - MIB + 1, MIB)]


def measure_cpu(sample: list[bytes], newer: list[bytes], path: Path) -> Rates:
    """The rates of everything but the disk; `path` is the file that the sample comes from, and `newer`
    are the same pieces of the next version, bf16 both."""
    pairs = list(zip(newer, sample, strict=True))
    planes = [encode_planes(piece, 2) or b"" for piece in sample]
    deltas = [(encode_delta_planes(new, old, "bf16") or b"", old) for new, old in pairs]
    packed = (
        _inner(planes_module, "pack_streams", lambda: [encode_planes(piece, 2) for piece in sample]),
        _inner(delta_module, "pack_streams", lambda: [encode_delta_planes(*pair, "bf16") for pair in pairs]),
    )
    unpacked = (
        _inner(planes_module, "unpack_streams", lambda: [decode_planes(each, MIB) for each in planes]),
        _inner(delta_module, "unpack_streams", lambda: [decode_delta_planes(*each, MIB) for each in deltas]),
    )
    frames = [zstandard.ZstdCompressor(level=3).compress(piece) for piece in sample]
    windows = [b"".join(sample[at : at + 8]) for at in range(0, len(sample), _FASTCDC_BYTES // MIB)]
    compressors = threading.local()

    def encode(piece: bytes) -> None:
        if not hasattr(compressors, "zstd"):
            compressors.zstd = zstandard.ZstdCompressor(level=3)
        compressors.zstd.compress(piece)

    def decode(frame: bytes) -> None:
        if not hasattr(compressors, "unzstd"):
            compressors.unzstd = zstandard.ZstdDecompressor()
        compressors.unzstd.decompress(frame)

    def cut(window: bytes) -> None:
        cutter = FastCDC(avg_size=CHUNK_AVG_BYTES, min_size=CHUNK_MIN_BYTES, max_size=CHUNK_MAX_BYTES)
        for _ in cutter.cut_buf(window):
            pass

    plain = sum(map(len, sample))
    fd = os.open(path, os.O_RDONLY)
    try:
        offsets = range(0, os.fstat(fd).st_size - MIB, MIB)[: len(sample)]

        def read(offset: int) -> None:
            os.pread(fd, MIB, offset)

        return {
            "read": _rate(read, list(offsets), len(offsets) * MIB),
            "fastcdc": _rate(cut, windows, plain),
            "sha256": _rate(lambda piece: hashlib.sha256(piece).digest(), sample, plain),
            "blake3": _rate(lambda piece: blake3(piece).digest(), sample, plain),
            "planes encode": _rate(lambda piece: encode_planes(piece, 2), sample, plain),
            "planes decode": _rate(lambda payload: decode_planes(payload, MIB), planes, plain),
            "delta encode": _rate(lambda pair: encode_delta_planes(*pair, "bf16"), pairs, plain),
            "delta decode": _rate(lambda pair: decode_delta_planes(*pair, MIB), deltas, plain),
            "planes pack": _rate(lambda made: made(), packed[0], plain),
            "planes unpack": _rate(lambda made: made(), unpacked[0], plain),
            "delta pack": _rate(lambda made: made(), packed[1], plain),
            "delta unpack": _rate(lambda made: made(), unpacked[1], plain),
            "zstd encode": _rate(encode, sample, plain),
            "zstd decode": _rate(decode, frames, plain),
            "write": Rate(_write_rate(path.parent, sample), None),
            **_loopback_rates(path),
        }
    finally:
        os.close(fd)


def _inner(module: ModuleType, name: str, work: Callable[[], object]) -> list[Callable[[], object]]:
    """The calls of a function of `module` that some work makes, to be made again on their own: the entropy
    coding of the streams that a transform made."""
    calls: list[Callable[[], object]] = []
    real = getattr(module, name)

    def noting(*args: object, **more: object) -> object:
        calls.append(partial(real, *args, **more))
        return real(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, noting)
        work()
    return calls


def _rate(work: Callable[[T], object], items: list[T], plain_bytes: int) -> Rate:
    def once() -> None:
        for item in items:
            work(item)

    once()  # warms caches, makes each thread's objects
    rounds = 0
    started = time.thread_time()
    while (spent := time.thread_time() - started) < _LEAST_S:
        once()
        rounds += 1
    threads = [threading.Thread(target=lambda: [once() for _ in range(rounds)]) for _ in range(2)]
    clock = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Rate(rounds * plain_bytes / spent, 2 * rounds * plain_bytes / (time.perf_counter() - clock))


def _write_rate(work: Path, sample: list[bytes]) -> float:
    """Bytes per second of CPU time of writing a new file, into memory that the machine has: the best of
    three, since none can be sure to meet such memory."""

    def once() -> float:
        back_memory()
        with tempfile.NamedTemporaryFile(dir=work, buffering=0) as file:
            started = time.thread_time()
            for _ in range(8):
                for piece in sample:
                    os.write(file.fileno(), piece)
            return 8 * sum(map(len, sample)) / (time.thread_time() - started)

    return max(once() for _ in range(3))


def _loopback_rates(path: Path) -> Rates:
    """Bytes per second of CPU time of both ends of a loopback connection, and of its receiver alone, sent by
    sendfile as nginx does: the server runs on the same cores as the client."""
    with socket.create_server(("127.0.0.1", 0)) as listener, open(path, "rb") as file:

        def send() -> None:
            connection, _ = listener.accept()
            with connection:
                for _ in range(4):
                    file.seek(0)
                    connection.sendfile(file, 0, SAMPLE_BYTES)

        sender = threading.Thread(target=send)
        sender.start()
        buffer = bytearray(64 * 1024)
        received = 0
        with socket.create_connection(listener.getsockname()) as client:
            started = time.process_time()
            started_here = time.thread_time()
            while got := client.recv_into(buffer):
                received += got
            here_s = time.thread_time() - started_here
        sender.join()
        both_s = time.process_time() - started
        return {"loopback": Rate(received / both_s, None), "receive": Rate(received / here_s, None)}


def synced_write_rate(work: Path, size_bytes: int, piece: bytes) -> float:
    """Bytes per second of writing a new file and having it on the disk, the store's way: 1 MiB at a
    time, with the disk at work meanwhile.  `size_bytes` as an operation writes, since a disk takes
    the first of many bytes faster."""
    count = max(1, min(size_bytes, _WRITE_LIMIT_BYTES) // len(piece))
    os.sync()
    back_memory()
    with tempfile.NamedTemporaryFile(dir=work, buffering=0) as file:
        fd = file.fileno()
        syncer: threading.Thread | None = None
        started = time.perf_counter()
        for n in range(count):
            os.write(fd, piece)
            if (n + 1) * len(piece) % _SYNC_EVERY_BYTES == 0:
                if syncer is not None:
                    syncer.join()
                syncer = threading.Thread(target=os.fdatasync, args=(fd,))
                syncer.start()
        if syncer is not None:
            syncer.join()
        os.fsync(fd)
        return count * len(piece) / (time.perf_counter() - started)


def middle_rate(rates: list[float]) -> str:
    """A spread in GB/s, for a person: the median, the least and the most."""
    return f"{median(rates) / 1e9:.2f} ({min(rates) / 1e9:.2f} to {max(rates) / 1e9:.2f})"
